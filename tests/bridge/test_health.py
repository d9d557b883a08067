"""The verdict on health: what is a reason, what is told, and that it grows old."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bus import Bus, Health, Item
from cti_mqtt.bridge.clock import Clock, SystemClock
from cti_mqtt.bridge.health import MAX_QUEUE, CyclerHealth, HealthVerdict, HealthWatch, JournalFigures
from cti_mqtt.bridge.mqtt import MqttLink
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.store import Store
from cti_mqtt.config import Mqtt
from tests.bridge.bench import until
from tests.support.brokers import MOSQUITTO_5, Mosquitto, free_port, needs_mosquitto
from tests.support.rig import rig

FRESH = CyclerHealth(True, 0.4, 21.0, 991, 0, 0)
WELL = HealthVerdict("2026-01-02T03:04:05.678Z", "ab", "2026-01-02T03:04:00.000Z", (), 0, 0, {"arbin1": FRESH}, True)


@dataclass
class Figures:
    """A journal that says what a test wants."""

    problem: str = ""
    waiting: int = 0
    dropped: int = 0
    filled: float = 0.0


class SteppedClock:
    """Stands still until it is put on."""

    seconds = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.seconds


class Watched:
    """A watch on nothing but a link that never connects, and what it published."""

    def __init__(self, journal: JournalFigures | None = None, clock: Clock | None = None) -> None:
        self.bodies: list[Any] = []
        self.more: list[str] = []
        bus = Bus()
        bus.subscribe(self._keep)
        self.link = MqttLink(Mqtt(port=free_port()), lambda _: None)
        self.store = Store(None)
        self.watch = HealthWatch(
            {}, self.link, self.store, bus, clock or SystemClock(), boot="ab", started_at="then", interval_s=3600,
            more_reasons=lambda: self.more, journal=journal,
        )  # fmt: skip

    def _keep(self, item: Item) -> None:
        if isinstance(item, Health):
            self.bodies.append(item.body)

    def reasons(self) -> list[str]:
        self.watch.publish()
        reasons: list[str] = self.bodies[-1]["reasons"]
        return reasons[1:]  # the first is about the broker


def test_the_payload_is_the_contract() -> None:
    assert WELL.body == {
        "ts": "2026-01-02T03:04:05.678Z", "boot": "ab", "started_at": "2026-01-02T03:04:00.000Z",
        "healthy": True, "reasons": [], "queue": 0, "dropped": 0,
        "cyclers": {"arbin1": {"connected": True, "last_poll_age_s": 0.4, "poll_duration_ms": 21.0, "polls": 991,
                               "errors": 0, "reconnects": 0}},
    }  # fmt: skip
    assert list(WELL.body) == ["ts", "boot", "started_at", "healthy", "reasons", "queue", "dropped", "cyclers"]


def test_an_old_verdict_is_no_good_one() -> None:
    assert WELL.after(4.9).healthy
    old = WELL.after(7.2)
    assert (old.healthy, old.old, old.reasons) == (False, True, ("the last verdict is 7 s old: the bridge hangs",))


NO_DISK = "journal: disk full; readings wait in memory only"
FULL = "journal: {} % full with readings that the broker has not got; beyond 100 % the oldest are dropped"


@pytest.mark.parametrize(
    ("figures", "reasons"),
    [
        (Figures(waiting=5000, filled=0.79), []),
        (Figures("disk full"), [NO_DISK]),
        (Figures(filled=0.83), [FULL.format(83)]),
        (Figures("disk full", filled=1.0), [NO_DISK, FULL.format(100)]),
    ],
)
def test_the_journal(figures: Figures, reasons: list[str]) -> None:
    assert Watched(figures).reasons() == reasons


def test_what_waits_and_what_was_dropped_is_counted_in_memory_and_on_disk() -> None:
    it = Watched(Figures(waiting=20, dropped=3))
    it.link.publish(Message("a", b"1", retain=True))
    it.link.publish(Message("b", b"1", qos=0))  # nobody is there to take it
    it.reasons()
    assert (it.bodies[-1]["queue"], it.bodies[-1]["dropped"]) == (21, 4)


def test_without_a_journal_nothing_is_said_of_one() -> None:
    assert Watched().watch.current().journal is None


def test_the_bound_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_QUEUE == 10_000
    monkeypatch.setattr("cti_mqtt.bridge.health.MAX_QUEUE", 2)
    it = Watched()
    for number in range(3):
        assert it.reasons() == []
        it.link.publish(Message(str(number), b"1", retain=True))
    assert it.reasons() == ["more than 2 messages wait for the broker"]


def test_the_broker_is_a_reason_before_anything_was_tried() -> None:
    verdict = Watched().watch.current()
    assert verdict.reasons == ("broker: not connected yet",)
    assert not verdict.broker_connected


def test_age_on_the_clock_that_never_jumps() -> None:
    clock = SteppedClock()
    watch = Watched(clock=clock).watch
    clock.seconds = 3.0
    assert (watch.current().age_s, watch.current().old) == (3.0, False)
    clock.seconds = 60.0
    assert watch.current().reasons[0] == "the last verdict is 60 s old: the bridge hangs"
    watch.publish()
    assert watch.current().age_s == 0


async def test_a_change_is_told_at_once_and_a_bug_makes_it_old(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.health.LOOK_S", 0.01)
    it = Watched()
    await it.store.open()
    task = asyncio.create_task(it.watch.run())
    await until(lambda: len(it.bodies) == 1)
    it.more = ["the roof leaks"]
    await until(lambda: len(it.bodies) == 2)
    assert "the roof leaks" in it.bodies[-1]["reasons"]
    with caplog.at_level(logging.ERROR):
        it.more = None  # type: ignore[assignment]  # a bug
        before = it.watch.current().age_s
        await until(lambda: it.watch.current().age_s > before + 0.1)
    assert "there is no new verdict" in caplog.text
    it.more = []
    await until(lambda: len(it.bodies) == 3)
    task.cancel()
    await it.store.close()


@needs_mosquitto
async def test_the_same_verdict_as_published(tmp_path: Path) -> None:
    """A broker that goes and comes: the object that everybody asks says what the topic says."""
    broker = Mosquitto(tmp_path)
    await broker.start()
    try:
        async with rig(broker.port, MOSQUITTO_5.protocol) as it:
            heard = await it.observer.wait("bridge/health", lambda heard: heard.json["healthy"])
            verdict = it.bridge._health.current()
            assert verdict.healthy
            assert heard.json["boot"] == verdict.boot
            assert list(heard.json) == list(verdict.body)
            assert verdict.cyclers["arbin1"].connected
            await broker.stop()
            await until(lambda: not it.bridge._health.current().healthy)
            assert it.bridge._health.current().reasons[0].startswith("broker: ")
            await broker.start()
            await until(lambda: it.bridge._health.current().healthy, 40)
    finally:
        await broker.stop()
