"""What a broker may refuse, and what it does to us: named in log, event and health, and never a storm."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cti_mqtt.bridge.mqtt import LOST, SUSPECT, TOO_LARGE, Subscription
from cti_mqtt.bridge.mqtt import session as session_module
from cti_mqtt.bridge.mqtt.complaints import MOST_KEPT, Complaints
from cti_mqtt.bridge.mqtt.reasons import Refusal
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.client import Backoff
from cti_mqtt.config import Mqtt
from tests.support.scripted import PUBLISH, SUBSCRIBE, Linked, ScriptedBroker, packet, publish, text, until

DISCONNECT, PUBACK = 0xE0, 0x40
REFERENCE, REMARK = b"\x1c", b"\x1f"
MOVED = REFERENCE + text(b"other.example:8883")


def connack(reason: int, properties: bytes = b"") -> bytes:
    return packet(0x20, bytes([0, reason, len(properties)]) + properties)


def disconnect(reason: int, properties: bytes = b"") -> bytes:
    return packet(DISCONNECT, bytes([reason, len(properties)]) + properties)


class Strict(ScriptedBroker):
    """Speaks MQTT 5, and refuses what a test wants it to.

    Attributes:
        connack: how it answers the next connections.
        suback: the reason in the answer to a subscription.
        farewell: what it says after the answer to the first subscription.
        verdict: the reason in the answer to a message with QoS 1, by topic; None: no answer.
        published: topics of what came with QoS 1.
    """

    def __init__(self, protocol: object = 5) -> None:
        super().__init__(protocol)
        self.connack = connack(0)
        self.suback = 1
        self.farewell = b""
        self.verdict: Callable[[str], int | None] = lambda _topic: 0
        self.published: list[str] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._read_packet(reader)
            self.connections += 1
            writer.write(self.connack)
            while True:
                await self.reading.wait()
                first, body = await self._read_packet(reader)
                if first & 0xF0 == SUBSCRIBE:
                    writer.write(packet(0x90, body[:2] + b"\0" + bytes([self.suback])) + self.farewell)
                if first & 0xF6 == PUBLISH | 2:
                    self._judge(body, writer)
        writer.close()

    def _judge(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", body[:2])
        topic, mid = body[2 : 2 + length].decode(), body[2 + length : 4 + length]
        self.published.append(topic)
        reason = self.verdict(topic)
        if reason is not None:
            writer.write(packet(PUBACK, mid + (bytes([reason, 0]) if reason else b"")))

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


HEARS = [Subscription("c/x")]


@asynccontextmanager
async def strict() -> AsyncIterator[Strict]:
    async with Strict.running(5) as broker:
        assert isinstance(broker, Strict)
        yield broker


@asynccontextmanager
async def linked(broker: Strict, *, connected: bool = True, **options: Any) -> AsyncIterator[tuple[Linked, Any]]:
    """A link, and what it tells: type and message."""
    told: list[tuple[str, str]] = []
    options = {"subscriptions": HEARS, "patient_wait_s": (0.3, 0.5), **options}
    options["on_fault"] = lambda kind, message: told.append((kind, message))
    if connected:
        async with Linked.running(broker.port, 5, **options) as it:
            yield it, told
        return
    it = Linked(Mqtt(port=broker.port), **options)
    task = asyncio.create_task(it.link.run())
    try:
        yield it, told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


REASONS = [
    (0x86, b"", "broker_refused", "Bad user name or password (0x86); check mqtt.username and its password"),
    (0x87, b"", "broker_refused", "Not authorized (0x87); see what the broker's access rules allow this user"),
    (0x88, b"", "broker_lost", "Server unavailable (0x88)"),
    (0x89, b"", "broker_busy", "Server busy (0x89)"),
    (
        0x8A,
        REMARK + text(b"too often"),
        "broker_refused",
        "Banned (0x8A); it says 'too often'; ask who runs the broker",
    ),
    (0x95, b"", "broker_refused", "Packet too large (0x95); set publish.max_bytes"),
    (0x97, b"", "broker_busy", "Quota exceeded (0x97); poll more seldom"),
    (0x9F, b"", "broker_busy", "Connection rate exceeded (0x9F)"),
    (
        0x9C,
        MOVED,
        "broker_moved",
        "Use another server (0x9C); it names 'other.example:8883', where this bridge does not",
    ),
    (0x9D, MOVED, "broker_moved", "Server moved (0x9D); it names 'other.example:8883'"),
    (0x9D, b"", "broker_moved", "Server moved (0x9D); it does not say where to; set mqtt.host"),
]
FAREWELLS = [
    *(row for row in REASONS if row[0] not in {0x86, 0x88, 0x8A}),
    (0x8B, b"", "broker_lost", "Server shutting down (0x8B)"),
    (0x96, b"", "broker_busy", "Message rate too high (0x96); poll more seldom"),
    (0x98, b"", "broker_refused", "Administrative action (0x98); ask who runs the broker"),
]


@pytest.mark.parametrize(("reason", "properties", "kind", "says"), REASONS)
async def test_why_it_does_not_accept_us_is_named(
    reason: int, properties: bytes, kind: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with strict() as broker:
        broker.connack = connack(reason, properties)
        async with linked(broker, connected=False) as (it, told):
            await until(lambda: told and broker.connections >= 2)
            assert [each[0] for each in told] == [kind]  # the same failure is told once
            assert says in told[0][1]
            assert says in it.link.failure
            assert caplog.text.count(says) == 1
            assert bool(it.link.faults) == (kind == "broker_moved")
            broker.connack = connack(0)
            await asyncio.wait_for(it.link.wait_connected(), 10)
            assert it.link.failure == ""


@pytest.mark.parametrize(("reason", "properties", "kind", "says"), FAREWELLS)
async def test_why_it_sends_us_away_is_named(reason: int, properties: bytes, kind: str, says: str) -> None:
    async with strict() as broker, linked(broker) as (it, told):
        for number in range(1, 4):
            await until(lambda least=number: broker.connections >= least and it.link.connected)  # type: ignore[misc]
            broker.send(disconnect(reason, properties))
            await until(lambda: not it.link.connected)
        await until(lambda: it.link.connected)
        assert [each[0] for each in told] == [kind]  # thrice within a minute
        assert says in told[0][1]
        assert len(it.losses) == 3


@pytest.mark.parametrize("reason", [0x89, 0x8A, 0x97, 0x98, 0x9C, 0x9D, 0x9F])
async def test_then_it_waits_longer(reason: int) -> None:
    async with strict() as broker:
        broker.connack = connack(reason)
        async with linked(broker, connected=False, patient_wait_s=(30.0, 60.0)) as (it, _):
            await until(lambda: it.losses)
            await asyncio.sleep(0.5)  # the back-off of these tests is 0.2 s at most
            assert broker.connections == 1


async def test_of_two_servers_it_knows_the_configured_one_only() -> None:
    """A redirect is not followed: the password would go there."""
    async with strict() as broker, strict() as other:
        reference = REFERENCE + text(f"127.0.0.1:{other.port}".encode())
        broker.connack = connack(0x9C, reference)
        async with linked(broker, connected=False):
            await until(lambda: broker.connections >= 2)
        assert other.connections == 0


async def test_a_broker_that_accepts_and_sends_away_is_not_stormed() -> None:
    async with strict() as broker:
        broker.farewell = disconnect(0x87)
        async with linked(broker, connected=False, backoff=Backoff(0.1, 60.0)) as (it, told):
            await until(lambda: it.losses)
            await asyncio.sleep(2)
            assert broker.connections <= 5  # 0.1, 0.2, 0.4, 0.8 s at the least
            assert [each[0] for each in told] == ["broker_refused"]


async def test_reasons_that_nobody_listed_are_reasons_all_the_same() -> None:
    async with strict() as broker, linked(broker) as (it, told):
        broker.verdict = {"large": 0x95, "new": 0xF0}.get
        for topic in ("large", "new"):
            it.link.publish(Message(topic, b"x"))
        await until(lambda: len(told) == 2)
        assert "refused a message on large: Packet too large (0x95)" in told[0][1]
        assert "refused a message on new: Unknown reason (0xF0)" in told[1][1]
        broker.send(disconnect(0xF1))
        await until(lambda: it.losses)
        assert it.losses[0].endswith("Unknown reason (0xF1)")


async def test_a_refused_subscription_is_named() -> None:
    async with strict() as broker:
        broker.suback = 0x97
        async with linked(broker, connected=False) as (it, told):
            await until(lambda: told)
            assert told[0][0] == "broker_busy"
            assert "refused a subscription: Quota exceeded (0x97)" in told[0][1]
            assert "Quota exceeded" in it.link.failure


async def test_what_the_broker_says_in_its_own_words_is_bounded() -> None:
    said = Refusal(0x9C, "Use another server", "x" * 60_000, "\n" * 60_000).text
    assert len(said) < 1000
    assert "\n" not in said


# --- messages ---


async def test_a_refused_message_is_dropped_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async with strict() as broker, linked(broker) as (it, told):
        broker.verdict = lambda topic: 0x97 if topic == "r" else 0x87 if topic == "s" else 0
        for _ in range(50):
            it.link.publish(Message("r", b"x"))
        it.link.publish(Message("s", b"x", retain=True))
        it.link.publish(Message("t", b"x"))
        await until(lambda: it.link.dropped == 51 and len(broker.published) == 52)
        await until(lambda: it.link.queue == 0)
        assert [kind for kind, _ in told] == ["publish_refused"] * 2
        assert told[0][1].startswith("the broker refused a message on r: Quota exceeded (0x97)")
        assert told[1][1].startswith("the broker refused a message on s: Not authorized (0x87)")
        assert caplog.text.count("refused a message") == 2
        assert len(it.link.faults) == 2
        assert it.losses == []


async def test_whoever_offers_a_message_is_told() -> None:
    async with strict() as broker, linked(broker) as (it, told):
        settled: list[str | None] = []
        broker.verdict = {"good": 0, "bad": 0x97}.get

        def stumble(_problem: str | None) -> None:
            raise RuntimeError("a bug")

        assert it.link.offer(Message("bad", b"x"), settled.append)
        assert it.link.offer(Message("good", b"x"), stumble)
        assert it.link.offer(Message("good", b"x"), settled.append)
        await until(lambda: len(settled) == 2)
        assert settled == ["Quota exceeded", None]
        for _ in range(3):
            assert it.link.offer(Message("never", b"x"), settled.append)
        await until(lambda: broker.published.count("never") == 3)
        broker.send(disconnect(0x95))
        await until(lambda: len(settled) == 5)
        assert settled[2:] == [SUSPECT, LOST, LOST]
        assert not it.link.offer(Message("good", b"x"), settled.append)
        assert [kind for kind, _ in told] == ["broker_refused"]  # what was offered is the caller's to name


async def test_a_message_that_is_larger_than_the_broker_takes_is_not_sent() -> None:
    async with strict() as broker:
        broker.connack = connack(0, b"\x27" + struct.pack("!I", 1000))
        async with linked(broker) as (it, told):
            settled: list[str | None] = []
            for _ in range(20):
                it.link.publish(Message("t", b"x" * 1000))
            assert it.link.offer(Message("t", b"x" * 1000), settled.append)
            it.link.publish(Message("t", b"x"))
            await until(lambda: broker.published == ["t"])
            assert (it.link.dropped, settled) == (20, [TOO_LARGE])
            assert [kind for kind, _ in told] == ["message_too_large"]
            assert "1000 bytes on t are more than the broker takes" in told[0][1]


async def test_no_more_are_in_flight_than_the_broker_takes() -> None:
    async with strict() as broker:
        broker.connack = connack(0, b"\x21" + struct.pack("!H", 3))
        broker.verdict = lambda _topic: None
        async with linked(broker) as (it, _):
            for _ in range(10):
                it.link.publish(Message("t", b"x"))
            await until(lambda: len(broker.published) == 3)
            await asyncio.sleep(0.3)
            assert len(broker.published) == 3


async def test_what_comes_before_we_can_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_EARLY", 5)
    async with ScriptedBroker.running(5) as broker:
        broker.before_suback = b"".join(publish(b"%d" % number, protocol=5) for number in range(20))
        told: list[str] = []
        async with Linked.running(
            broker.port, 5, subscriptions=HEARS, on_fault=lambda kind, _text: told.append(kind)
        ) as it:
            await until(lambda: len(it.heard) == 5)
            assert [each.payload for each in it.heard] == [b"0", b"1", b"2", b"3", b"4"]
            assert told == ["commands_dropped"]


async def test_in_a_choked_connection_there_is_room_for_what_somebody_waits_for() -> None:
    async with strict() as broker, linked(broker) as (it, _):
        broker.reading.clear()
        broker.verdict = lambda _topic: None
        for _ in range(session_module.MAX_IN_PAHO + 10):
            it.link.publish(Message("t", b"x"))
        assert it.link.queue == session_module.MAX_IN_PAHO + 10
        assert not it.link.offer(Message("t", b"x"), lambda _problem: None)
        online = Message("bridge/availability", b"online", retain=True, keep=False, urgent=True)
        taken = [it.link.publish(online) for _ in range(session_module.MOST_IN_PAHO)]
        assert 0 < sum(taken) <= session_module.MAX_IN_PAHO
        assert not taken[-1]


async def test_states_that_wait_keep_no_readings_from_going_out_live() -> None:
    """As many as there are channels may wait for the socket, a poll of them all is one message."""
    async with strict() as broker, linked(broker) as (it, _):
        broker.reading.clear()
        state = Message("t", b"x" * 1000, qos=0)
        while it.link.publish(state):
            pass
        settled: list[str | None] = []
        assert it.link.offer(Message("readings", b"x"), settled.append)
        assert not it.link.publish(state)
        broker.reading.set()
        await until(lambda: settled == [None])


async def test_readings_that_wait_to_be_acknowledged_hold_up_no_states() -> None:
    async with strict() as broker, linked(broker) as (it, _):
        broker.verdict = lambda _topic: None  # it does not acknowledge
        assert it.link.offer(Message("readings", b"x"), lambda _problem: None)
        for _ in range(10):
            for _ in range(session_module.MAX_IN_PAHO // 4):
                assert it.link.publish(Message("t", b"x", qos=0))
            await until(lambda: it.link.queue == 1)


def test_a_complaint_is_told_once_a_minute_with_how_often_it_was() -> None:
    now, told = [0.0], []
    complaints = Complaints(lambda kind, message: told.append((kind, message)), lambda: now[0])
    for _ in range(10):
        complaints.say("kind", "a", "text", stands_s=30)
    complaints.say("kind", "b", "other")
    assert told == [("kind", "text"), ("kind", "other")]
    assert complaints.standing == ["text"]
    now[0] = 40.0
    assert complaints.standing == []
    now[0] = 61.0
    complaints.say("kind", "a", "text")
    assert told[2:] == [("kind", "text (and 9 more like this since it was last told)")]
    for number in range(1000):
        complaints.say("kind", str(number), "text")
    assert len(complaints._known) == MOST_KEPT
