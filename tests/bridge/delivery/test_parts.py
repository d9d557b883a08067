"""The pieces of the way one by one: waiting in memory, sending in parts, marking, what is refused again and again."""

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bus import Poll
from cti_mqtt.bridge.clock import SystemClock
from cti_mqtt.bridge.delivery import backfill as backfill_module
from cti_mqtt.bridge.delivery.backfill import MOST_FAILURES, Backfill
from cti_mqtt.bridge.delivery.delivery import Delivery
from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.pace import Pace
from cti_mqtt.bridge.delivery.parcels import Parcel, SentPoll, WaitingRoom
from cti_mqtt.bridge.delivery.sending import LEAST_ROOM, Sender
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


def sender(broker: Broker, max_bytes: int | None = None) -> Sender:
    return Sender(Topics("cti"), broker.offer, max_bytes, lambda: None)


class TestSender:
    def test_settled_once_when_the_last_part_is(self) -> None:
        broker, told = Broker(), list[str | None]()
        assert sender(broker, 1024).send(parcel(7, *[b'{"a":"' + b"x" * 700 + b'"}'] * 3), told.append, historical=True)
        assert [message.topic for message in broker.messages] == ["cti/arbin1/backfill"] * 3
        broker.open.popleft()(None)
        broker.open.popleft()("Quota exceeded")
        assert told == []
        broker.open.popleft()(None)
        assert told == ["Quota exceeded"]

    def test_nothing_handed_over(self) -> None:
        broker, told = Broker(room=0), list[str | None]()
        assert not sender(broker).send(parcel(7), told.append, historical=False)
        assert told == []

    def test_handed_over_in_part(self) -> None:
        broker, told = Broker(room=1), list[str | None]()
        assert sender(broker, 1024).send(parcel(7, *[b"x" * 700] * 2), told.append, historical=False)
        assert told == []
        broker.open.popleft()(None)
        assert len(told) == 1
        assert told[0]

    def test_smaller_parts_after_a_refusal(self) -> None:
        broker = Broker()
        it, poll = sender(broker), parcel(7, *[b"x" * 600] * 8)
        it.send(poll, lambda _: None, historical=False)
        assert len(broker.messages) == 1
        for _ in range(4):
            it.shrink(poll)
        broker.messages.clear()
        it.send(poll, lambda _: None, historical=False)
        assert len(broker.messages) == 8
        assert all(len(message.payload) < LEAST_ROOM for message in broker.messages)


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
    it = Delivery(sender(broker), journal, Marks(journal), waiting, "b0", lambda _: 10.0, lambda: behind.append(None))
    it.connected()
    it.take(Poll("arbin1", TS, 1, ()), [READING])
    await until(lambda: behind)
    assert (len(waiting), len(behind)) == (1, 1)


class TestBackfill:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backfill_module, "AGAIN_S", 0.02)

    def make(self, broker: Broker, journal: Journal | None) -> tuple[Backfill, WaitingRoom, Marks, list[str]]:
        refused: list[str] = []

        def note(poll: SentPoll, failure: str) -> None:
            refused.append(failure)

        marks, waiting = Marks(journal), WaitingRoom(lambda _: None)
        it = Backfill(sender(broker), journal, marks, waiting, Pace(1000), lambda: broker.connected, note)
        return it, waiting, marks, refused

    async def test_one_that_is_refused_lets_the_others_pass(self, journal: Journal) -> None:
        numbers = [await journal.add("arbin1", seq, TS, [READING]) for seq in range(1, 6)]
        broker = Broker()
        broker.judge = lambda message: "Quota exceeded" if b'"seq":2,' in message.payload else None
        it, _, marks, refused = self.make(broker, journal)
        running = asyncio.create_task(it.run())
        await until(lambda: refused.count("Quota exceeded") >= MOST_FAILURES)
        await told(marks)
        left = await journal.undelivered(0, 10)
        assert [poll.number for poll in left] == [numbers[1]], "it is kept, and tried again later"
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
        await journal.add("arbin1", 1, TS, [b'{"a":"' + b"x" * 600 + b'"}'] * 8)
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
        assert await journal.undelivered(0, 10) == ()
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
