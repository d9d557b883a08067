"""The pieces of the way one by one: waiting in memory, sending in parts, marking, what is refused again and again."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bus import Poll
from cti_mqtt.bridge.clock import SystemClock
from cti_mqtt.bridge.delivery import backfill as backfill_module
from cti_mqtt.bridge.delivery import sending as sending_module
from cti_mqtt.bridge.delivery import troubles as troubles_module
from cti_mqtt.bridge.delivery.backfill import Backfill
from cti_mqtt.bridge.delivery.delivery import Delivery
from cti_mqtt.bridge.delivery.late import LateSender
from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.pace import Pace
from cti_mqtt.bridge.delivery.parcels import Parcel, SentPoll, WaitingRoom
from cti_mqtt.bridge.delivery.sending import LEAST_ROOM, NOT_SENT, Sender
from cti_mqtt.bridge.delivery.troubles import MOST_FAILURES
from cti_mqtt.bridge.journal import Journal
from cti_mqtt.bridge.mqtt import LOST, SUSPECT, TOO_LARGE, Settled
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.topics import Topics
from cti_mqtt.config import Journal as Bounds

TS = "2026-01-02T03:04:05.678Z"
READING = b'{"channel":1,"voltage_v":3.7}'


def parcel(seq: int, *fragments: bytes, ts: str = TS) -> Parcel:
    return Parcel("arbin1", "b0", seq, ts, fragments or (READING,))


class TestWaitingRoom:
    def test_oldest_first_whatever_the_order_of_arrival(self) -> None:
        room = WaitingRoom(lambda _: None)
        for seq in (3, 1, 2):
            room.add(parcel(seq))
        assert [each.seq for each in iter(room.take, None) if each] == [1, 2, 3]

    def test_a_bound_in_bytes(self) -> None:
        lost: list[int] = []
        room = WaitingRoom(lambda each: lost.append(each.seq), max_bytes=3 * len(READING))
        for seq in range(1, 6):
            room.add(parcel(seq))
        assert (lost, len(room)) == ([1, 2], 3)
        assert [each.seq for each in iter(room.take, None) if each] == [3, 4, 5]
        room.add(parcel(6))
        assert (lost, len(room)) == ([1, 2], 1)


class Broker:
    """Takes messages, and acknowledges when the test says so."""

    def __init__(self, room: int = 1000) -> None:
        self.connected = True
        self.room = room
        self.messages: list[Message] = []
        self.open: deque[Settled] = deque()
        self.judge: Callable[[Message], str | None] | None = None

    def offer(self, message: Message, settled: Settled) -> bool:
        if not self.connected or len(self.open) >= self.room:
            return False
        self.messages.append(message)
        if self.judge is not None:
            asyncio.get_running_loop().call_soon(settled, self.judge(message))
        else:
            self.open.append(settled)
        return True

    def lose(self) -> None:
        """The connection ends."""
        self.connected = False
        why = SUSPECT
        while self.open:
            self.open.popleft()(why)
            why = LOST


class Told:
    """What is said in sentences."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, poll: SentPoll, text: str) -> None:
        self.texts.append(text)


def sender(
    broker: Broker, max_bytes: int | None = None, tell: Told | None = None, now_s: Callable[[], float] = time.monotonic
) -> Sender:
    return Sender(Topics("cti"), broker.offer, max_bytes, lambda: None, now_s, tell or Told())


BIG = [b'{"a":"' + b"x" * 600 + b'"}'] * 8


class TestSender:
    def test_settled_once_when_the_last_part_is(self) -> None:
        broker, told = Broker(), list[str | None]()
        sender(broker, 1024).send(parcel(7, *BIG[:3]), told.append)
        assert [message.topic for message in broker.messages] == ["cti/arbin1/readings"] * 3
        broker.open.popleft()(None)
        broker.open.popleft()("Quota exceeded")
        assert told == []
        broker.open.popleft()(None)
        assert told == ["Quota exceeded"]

    def test_nothing_handed_over(self) -> None:
        broker, told = Broker(room=0), list[str | None]()
        sender(broker).send(parcel(7), told.append)
        assert told == [NOT_SENT]

    def test_handed_over_in_part(self) -> None:
        broker, told = Broker(room=1), list[str | None]()
        sender(broker, 1024).send(parcel(7, *BIG[:2]), told.append)
        assert told == []
        broker.open.popleft()(None)
        assert told == [NOT_SENT]

    def test_smaller_parts_after_a_refusal(self) -> None:
        it, poll = sender(Broker()), parcel(7, *BIG)
        assert len(it.messages(poll, historical=False)) == 1
        for _ in range(4):
            it.learn(poll, TOO_LARGE)
        parts = it.messages(poll, historical=False)
        assert len(parts) == 8
        assert all(len(message.payload) < LEAST_ROOM for message in parts)

    def test_smaller_parts_after_connections_lost_over_them(self) -> None:
        tell = Told()
        it, poll = sender(Broker(), tell=tell), parcel(7, *BIG)
        it.learn(poll, SUSPECT)
        it.learn(poll, None)
        it.learn(poll, SUSPECT)
        it.learn(poll, LOST)
        it.learn(poll, NOT_SENT)
        assert len(it.messages(poll, historical=True)) == 1, "one lost connection says nothing"
        it.connected()
        it.learn(poll, LOST)
        assert len(it.messages(poll, historical=True)) == 3
        assert len(tell.texts) == 1
        assert "publish.max_bytes" in tell.texts[0]
        it.learn(poll, None)
        assert len(it.messages(poll, historical=True)) == 3, "what it learned it keeps"

    def test_a_pause_where_nothing_helps(self) -> None:
        now, tell, broker = [1000.0], Told(), Broker()
        it, poll = sender(broker, tell=tell, now_s=lambda: now[0]), parcel(7, *BIG)
        for _ in range(6):
            it.connected()
            it.learn(poll, SUSPECT)
        told = list[str | None]()
        it.send(poll, told.append)
        assert (told, broker.messages) == ([NOT_SENT], [])
        assert "none are sent for 60 s" in tell.texts[-1]
        now[0] += 61
        it.send(poll, told.append)
        assert len(broker.messages) == 8


@pytest.fixture
async def journal(tmp_path: Path) -> Any:
    it = Journal(tmp_path, Bounds(), "b0", SystemClock(), lambda _: None)
    await it.open()
    yield it
    await it.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # looked at from outside
            await asyncio.sleep(0.01)


async def told(marks: Marks) -> None:
    """Until the journal knows what has arrived."""
    if telling := marks.tell():
        await telling


async def test_one_that_neither_disk_nor_broker_takes_waits_once() -> None:
    broker, waiting = Broker(room=0), WaitingRoom(lambda _: None)
    journal = Journal(Path("nowhere"), Bounds(), "b0", SystemClock(), lambda _: None)  # never opened
    behind: list[None] = []
    it = Delivery(
        sender(broker),
        journal,
        Marks(journal),
        waiting,
        "b0",
        lambda _: 10.0,
        lambda _, __: None,
        lambda: behind.append(None),
    )
    it.connected()
    it.take(Poll("arbin1", TS, 1, ()), [READING])
    await until(lambda: behind)
    assert (len(waiting), len(behind)) == (1, 1)


async def test_what_the_disk_took_after_all(journal: Journal) -> None:
    """Its commit came too late to be believed; the broker has the poll, so it is not sent again, nor called lost."""
    broker, waiting, marks = Broker(), WaitingRoom(lambda _: None), Marks(journal)
    it = Delivery(sender(broker), journal, marks, waiting, "b0", lambda _: 10.0, lambda _, __: None, lambda: None)
    number = await journal.add("arbin1", 1, TS, [READING])
    one = parcel(1)
    one.written = one.settled = True
    it._written_late(one, number)
    await told(marks)
    assert journal.waiting == 0
    number = await journal.add("arbin1", 2, TS, [READING])
    two = parcel(2)
    two.written, two.settled, two.failure = True, True, LOST
    waiting.add(two)
    it._written_late(two, number)
    assert len(waiting) == 0
    assert journal.waiting == 1


def _has(broker: Broker, sent: int) -> bool:
    return len(broker.messages) == sent


class TestPace:
    async def test_few_messages_at_a_time(self) -> None:
        """A poll in many parts leaves room for live readings and results."""
        broker, settled = Broker(), list[str | None]()
        late = LateSender(sender(broker, 1024), Pace(1000, most=2), lambda: broker.connected)
        running = asyncio.create_task(late.send(parcel(1, *BIG), settled.append))
        for sent in range(2, 8):
            await until(partial(_has, broker, sent))
            await asyncio.sleep(0.02)
            assert len(broker.messages) == sent
            broker.open.popleft()(None)
        await running
        while broker.open:
            broker.open.popleft()(None)
        assert settled == [None]

    @pytest.mark.parametrize("how", ["cancelled", "lost"])
    async def test_every_slot_comes_back(self, how: str) -> None:
        broker, settled, pace = Broker(), list[str | None](), Pace(1000, most=2)
        late = LateSender(sender(broker, 1024), pace, lambda: broker.connected)
        running = asyncio.create_task(late.send(parcel(1, *BIG), settled.append))
        await until(lambda: len(broker.messages) == 2)
        if how == "cancelled":
            running.cancel()
            await asyncio.wait([running])
        broker.lose()
        await asyncio.wait([running])
        assert settled in ([LOST], [SUSPECT], [NOT_SENT])
        for _ in range(2):
            await asyncio.wait_for(pace.room(), 1)


class TestBackfill:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backfill_module, "AGAIN_S", 0.02)
        monkeypatch.setattr(sending_module, "PAUSE_S", 0.05)

    def make(self, broker: Broker, journal: Journal | None) -> tuple[Backfill, WaitingRoom, Marks, list[str]]:
        refused: list[str] = []
        send = sender(broker)

        def note(poll: SentPoll, failure: str | None) -> None:
            send.learn(poll, failure)
            if failure not in {None, LOST, SUSPECT, NOT_SENT}:
                refused.append(str(failure))

        marks, waiting = Marks(journal), WaitingRoom(lambda _: None)
        late = LateSender(send, Pace(1000), lambda: broker.connected)
        return Backfill(late, journal, marks, waiting, lambda: broker.connected, note), waiting, marks, refused

    async def test_one_that_is_refused_lets_the_others_pass(self, journal: Journal) -> None:
        numbers = [await journal.add("arbin1", seq, TS, [READING]) for seq in range(1, 6)]
        broker = Broker()
        broker.judge = lambda message: "Quota exceeded" if b'"seq":2,' in message.payload else None
        it, _, marks, refused = self.make(broker, journal)
        running = asyncio.create_task(it.run())
        await until(lambda: refused.count("Quota exceeded") >= MOST_FAILURES)
        await told(marks)
        left = await journal.undelivered(0, 10)
        assert [poll.number for poll in left.polls] == [numbers[1]], "it is kept, and tried again later"
        tried = len(refused)
        it.wake()
        await asyncio.sleep(0.1)
        assert len(refused) == tried, "not in a storm"
        running.cancel()

    async def test_one_that_ends_each_connection(self, journal: Journal) -> None:
        for seq in range(1, 4):
            await journal.add("arbin1", seq, TS, [READING])
        broker = Broker()
        it, _, _, _ = self.make(broker, journal)
        running = asyncio.create_task(it.run())
        for _ in range(MOST_FAILURES):
            await until(lambda: broker.open)
            broker.lose()
            await asyncio.sleep(0.03)
            broker.messages.clear()
            broker.connected = True
            it.wake()
        await until(lambda: broker.messages)
        assert b'"seq":2' in broker.messages[0].payload
        running.cancel()

    async def test_too_large_for_the_broker(self, journal: Journal) -> None:
        await journal.add("arbin1", 1, TS, BIG)
        broker = Broker()
        broker.judge = lambda message: TOO_LARGE if len(message.payload) > 1500 else None
        it, _, marks, _ = self.make(broker, journal)
        running = asyncio.create_task(it.run())
        await until(lambda: len([m for m in broker.messages if b'"parts":' in m.payload]) >= 4)
        await told(marks)
        assert journal.waiting == 0
        running.cancel()

    async def test_memory_goes_to_disk_first(self, journal: Journal) -> None:
        broker = Broker()
        broker.judge = lambda message: None
        it, waiting, marks, _ = self.make(broker, journal)
        for seq in (2, 3):
            waiting.add(parcel(seq))
        await journal.add("arbin1", 1, TS, [READING])
        running = asyncio.create_task(it.run())
        await until(lambda: len(broker.messages) == 3)
        assert [m.payload.split(b'"seq":')[1][:1] for m in broker.messages] == [b"1", b"2", b"3"]
        await told(marks)
        assert (await journal.undelivered(0, 10)).polls == ()
        assert [span.polls for span in await journal.kept("arbin1")] == [3]
        running.cancel()

    async def test_what_is_on_its_way_is_not_sent_twice(self, journal: Journal) -> None:
        number = await journal.add("arbin1", 1, TS, [READING])
        await journal.add("arbin1", 2, TS, [READING])
        broker = Broker()
        broker.judge = lambda message: None
        it, _, marks, _ = self.make(broker, journal)
        marks.sending(number)
        running = asyncio.create_task(it.run())
        await until(lambda: broker.messages)
        await asyncio.sleep(0.05)
        assert len(broker.messages) == 1
        running.cancel()

    async def test_deferred_polls_that_left_the_journal_are_forgotten(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else the moment when they were to be tried again would come again and again."""
        monkeypatch.setattr(troubles_module, "DEFERRED_S", 0.2)
        numbers = [await journal.add("arbin1", seq, TS, [READING]) for seq in range(1, 4)]
        broker = Broker()
        broker.judge = lambda message: "Not authorized"
        it, _, _, refused = self.make(broker, journal)
        running = asyncio.create_task(it.run())
        await until(lambda: len(refused) >= 3 * MOST_FAILURES)
        await journal.delivered(numbers)
        await until(lambda: it._troubles.next_s() is None)
        running.cancel()

    async def test_refused_ones_in_memory_are_no_storm(self) -> None:
        broker = Broker()
        broker.judge = lambda message: "Not authorized"
        it, waiting, _, refused = self.make(broker, None)
        for seq in (1, 2):
            waiting.add(parcel(seq))
        running = asyncio.create_task(it.run())
        await until(lambda: len(refused) == 2 * MOST_FAILURES)
        it.wake()
        await asyncio.sleep(0.1)
        assert len(refused) == 2 * MOST_FAILURES
        assert len(waiting) == 2
        running.cancel()

    async def test_damaged_ones_are_not_the_end(self, journal: Journal, tmp_path: Path) -> None:
        for seq in range(1, 31):
            await journal.add("arbin1", seq, TS, [READING])
        with closing(sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)) as other:
            other.execute(
                "UPDATE poll SET body = x'00' WHERE number IN (SELECT number FROM poll ORDER BY number LIMIT 25)"
            )
        broker = Broker()
        broker.judge = lambda message: None
        it, *_ = self.make(broker, journal)
        running = asyncio.create_task(it.run())
        await until(lambda: len(broker.messages) == 5)
        running.cancel()
