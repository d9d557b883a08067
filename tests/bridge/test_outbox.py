"""What waits for the broker: kinds, order, bounds."""

import time
from typing import Any

import pytest

from cti_mqtt.bridge.outbox import LARGE, MOST_LOSSES, Message, Outbox


class Line:
    """A connection that can be closed, opened, and choked."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.sent: list[str] = []
        self.outbox = Outbox(lambda _message: self.room > 0, self.take, max_backlog_bytes=30)

    def take(self, message: Message) -> bool:
        self.room -= 1
        self.sent.append(f"{message.topic}={message.payload.decode()}")
        return True


def _sent(sent: list[Any], what: Any) -> bool:
    sent.append(what)
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


def test_a_retained_message_that_costs_every_connection_is_given_up_if_it_is_large() -> None:
    why: list[str] = []
    sent: list[Message] = []
    outbox = Outbox(
        lambda _message: True,
        lambda message: _sent(sent, message),
        on_drop=lambda _n, text: why.append(text),
    )
    outbox.put(retained("large", "x" * (LARGE + 1)))
    outbox.put(retained("small", "x"))
    for _ in range(3 * MOST_LOSSES):
        outbox.take_back(sent)
        sent.clear()
        outbox.begin_anew()
        outbox.drain()
    assert [message.topic for message in sent] == ["small"]
    assert outbox.dropped == 1
    assert why == [f"{MOST_LOSSES} connections were lost over it; it was for large"]


def test_what_is_kept_of_retained_topics_is_bounded() -> None:
    sent: list[str] = []
    why: list[str] = []
    outbox = Outbox(
        lambda _message: True,
        lambda message: _sent(sent, message.topic),
        max_retained_bytes=10,
        on_drop=lambda _n, text: why.append(text),
    )
    for topic in "abc":
        outbox.put(retained(topic, "1234"))
    assert sent == ["a", "b", "c"]  # published all the same
    outbox.put(retained("a", "123456789"))  # no room: and the old one must not come back after it
    outbox.begin_anew()
    outbox.drain()
    assert sent[4:] == ["b"]
    outbox._is_open = lambda _message: False
    outbox.put(retained("d", "12345678"))
    assert (outbox.dropped, why) == (1, ["too many retained topics to keep another; it was d"])


def test_many_small_messages_are_bounded_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.outbox.MAX_BACKLOG", 3)
    line = Line()
    for number in range(5):
        line.outbox.put(reading(str(number)))
    assert (len(line.outbox), line.outbox.dropped) == (3, 2)


def test_what_is_forgotten_does_not_come_back() -> None:
    line = Line()
    line.outbox.put(retained("a", "1"))
    assert line.outbox.waits("a")
    line.outbox.forget("a")
    assert not line.outbox.waits("a")
    line.room = 9
    line.outbox.begin_anew()
    line.outbox.drain()
    assert line.sent == []


def test_it_hands_over_so_many_at_a_time() -> None:
    line = Line(9)
    for topic in "abc":
        line.outbox.put(retained(topic, "1"))
    line.outbox.begin_anew()
    assert line.outbox.drain(2)
    assert len(line.outbox) == 1
    assert not line.outbox.drain(2)
    assert len(line.outbox) == 0


def test_a_line_that_refuses_leaves_everything_waiting() -> None:
    outbox = Outbox(lambda _message: True, lambda _message: False)
    outbox.put(retained("t", "a"))
    outbox.put(reading("0"))
    outbox.drain()
    assert len(outbox) == 2


def _drain_s(topics: int) -> float:
    """Processor time for each topic, the best of three."""
    outbox = Outbox(lambda _message: True, lambda _message: True)
    for number in range(topics):
        outbox.put(retained(str(number), "1"))
    taken_s = []
    for _ in range(3):
        outbox.begin_anew()
        began_s = time.process_time()
        while outbox.drain():
            pass
        taken_s.append(time.process_time() - began_s)
    return min(taken_s) / topics


def test_draining_costs_no_more_for_each_where_many_wait() -> None:
    """After a reconnection that is every topic of every channel."""
    assert _drain_s(100_000) < 10 * _drain_s(1000)
