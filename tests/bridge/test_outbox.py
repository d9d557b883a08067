"""What waits for the broker: kinds, order, bounds."""

import pytest

from cti_mqtt.bridge.outbox import MOST_LOSSES, Message, Outbox


class Line:
    """A connection that can be closed, opened, and choked."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.sent: list[str] = []
        self.outbox = Outbox(lambda: self.room > 0, self.take, max_backlog_bytes=30)

    def take(self, message: Message) -> bool:
        self.room -= 1
        self.sent.append(f"{message.topic}={message.payload.decode()}")
        return True


def reading(text: str) -> Message:
    return Message("r", text.encode(), qos=1)


def retained(topic: str, text: str, qos: int = 1) -> Message:
    return Message(topic, text.encode(), qos=qos, retain=True)


@pytest.mark.parametrize("qos", [0, 1])
def test_an_open_line_takes_everything(qos: int) -> None:
    line = Line(10)
    assert line.outbox.put(Message("a", b"1", qos=qos))
    assert line.outbox.put(retained("b", "2", qos))
    assert line.sent == ["a=1", "b=2"]
    assert len(line.outbox) == 0


def test_readings_wait_and_keep_their_order() -> None:
    line = Line()
    for number in range(3):
        assert not line.outbox.put(reading(str(number)))
    line.room = 2
    line.outbox.drain()
    assert line.sent == ["r=0", "r=1"]
    line.room = 2
    assert not line.outbox.put(reading("3"))  # 2 waits still: no overtaking
    line.outbox.drain()
    assert line.sent == ["r=0", "r=1", "r=2", "r=3"]


def test_of_a_retained_topic_only_the_latest_goes_out() -> None:
    line = Line()
    for text in "abc":
        line.outbox.put(retained("t", text))
    assert len(line.outbox) == 1
    line.room = 9
    line.outbox.drain()
    assert line.sent == ["t=c"]


def test_retained_messages_do_not_wait_behind_readings() -> None:
    line = Line()
    line.outbox.put(reading("0"))
    line.room = 1
    assert line.outbox.put(retained("t", "a"))
    assert line.sent == ["t=a"]


def test_after_a_new_connection_everything_retained_goes_out_again() -> None:
    line = Line(9)
    line.outbox.put(retained("a", "1"))
    line.outbox.put(retained("b", "2"))
    line.outbox.begin_anew()
    line.outbox.drain()
    assert line.sent == ["a=1", "b=2", "a=1", "b=2"]


def test_what_is_not_worth_keeping_is_dropped_and_counted() -> None:
    line = Line()
    line.outbox.put(Message("q0", b"x", qos=0))
    line.outbox.put(Message("once", b"", qos=1, retain=True, keep=False))
    line.outbox.put(Message("once", b"x", qos=1, keep=False))
    line.room = 9
    line.outbox.drain()
    assert (line.sent, line.outbox.dropped, len(line.outbox)) == ([], 3, 0)


def test_the_backlog_is_bounded_and_loses_the_oldest() -> None:
    line = Line()
    for number in range(5):
        line.outbox.put(reading(f"{number}" * 10))
    line.room = 9
    line.outbox.drain()
    assert line.sent == ["r=2222222222", "r=3333333333", "r=4444444444"]
    assert line.outbox.dropped == 2


def test_what_a_lost_connection_had_not_delivered_comes_first_again() -> None:
    line = Line()
    line.outbox.put(reading("new"))
    line.outbox.take_back([reading("old1"), retained("t", "x"), reading("old2"), Message("q0", b"", qos=0)])
    line.room = 9
    line.outbox.drain()
    assert line.sent == ["r=old1", "r=old2", "r=new"]


def test_a_message_that_costs_every_connection_is_given_up() -> None:
    line = Line()
    line.outbox.put(reading("poison"))
    line.outbox.put(reading("good"))
    for _ in range(MOST_LOSSES):
        taken: list[Message] = []
        line.room = 9
        line.outbox._hand_over = lambda message, taken=taken: bool(taken.append(message) or True)  # type: ignore[misc]
        line.outbox.drain()
        line.room = 0
        line.outbox.take_back(taken)
    line.outbox._hand_over = line.take
    line.room = 9
    line.outbox.drain()
    assert (line.sent, line.outbox.dropped) == (["r=good"], 1)


def test_a_line_that_refuses_leaves_everything_waiting() -> None:
    outbox = Outbox(lambda: True, lambda _message: False)
    outbox.put(retained("t", "a"))
    outbox.put(reading("0"))
    outbox.drain()
    assert len(outbox) == 2
