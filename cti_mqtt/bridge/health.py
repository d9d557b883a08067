"""One verdict on health: polls fresh, broker connected, queue under its bound, room on the disk."""

import asyncio
from asyncio import Future
from collections.abc import Callable, Mapping
from typing import Any

from cti_mqtt.bridge.bus import Bus, Health
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.mqtt import MqttLink
from cti_mqtt.bridge.readings import STALE_INTERVALS
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.store.space import Space

LOOK_S = 1.0  # how soon a change of the verdict is told
SPACE_S = 10.0  # how often the disk is asked how much room it has
MAX_QUEUE = 10_000  # messages that wait for the broker


class HealthWatch:
    """Looks at the bridge and says what it sees.

    Args:
        stations: the cyclers, by id.
        link: the broker.
        store: what has to be on record before anything is sent.
        bus: where the verdict is published.
        clock: stamps.
        boot: this run of the bridge.
        started_at: when it began.
        interval_s: how often.
        more_reasons: what else is not as it should be.
    """

    def __init__(
        self,
        stations: Mapping[str, Station],
        link: MqttLink,
        store: Store,
        bus: Bus,
        clock: Clock,
        *,
        boot: str,
        started_at: str,
        interval_s: float,
        more_reasons: Callable[[], list[str]] = list,
    ) -> None:
        self._stations = stations
        self._link = link
        self._store = store
        self._bus = bus
        self._clock = clock
        self._boot = boot
        self._started_at = started_at
        self._interval_s = interval_s
        self._more_reasons = more_reasons
        self._told: list[str] = []
        self._short_of_space = ""

    async def run(self) -> None:
        """Publish the verdict each interval, and when it changes, until cancelled."""
        loop = asyncio.get_running_loop()
        due = space_due = loop.time()
        while True:
            if loop.time() >= space_due:
                self._store.space().add_done_callback(self._look_at_space)
                space_due = loop.time() + SPACE_S
            if loop.time() >= due or self._reasons() != self._told:
                self.publish()
                due = loop.time() + self._interval_s
            await asyncio.sleep(min(LOOK_S, self._interval_s))

    def publish(self) -> None:
        """Publish the verdict now."""
        reasons = self._told = self._reasons()
        self._bus.publish(
            Health(
                {
                    "ts": stamp(self._clock.now()),
                    "boot": self._boot,
                    "started_at": self._started_at,
                    "healthy": not reasons,
                    "reasons": reasons,
                    "queue": self._link.queue,
                    "dropped": self._link.dropped,
                    "cyclers": {name: _figures(station) for name, station in self._stations.items()},
                }
            )
        )

    def _look_at_space(self, asked: "Future[Space | None]") -> None:
        """While the disk does not answer, what it said last holds."""
        if not asked.cancelled() and asked.exception() is None:
            space = asked.result()
            self._short_of_space = space.objection if space else ""

    def _reasons(self) -> list[str]:
        """What is not as it should be; empty when all is well."""
        reasons = [] if self._link.connected else [f"broker: {self._link.failure or 'not connected yet'}"]
        if self._link.queue > MAX_QUEUE:
            reasons.append(f"{self._link.queue} messages wait for the broker")
        if self._store.problem:
            reasons.append(f"storage: {self._store.problem}; commands other than stop are refused")
        if self._short_of_space:
            reasons.append(f"storage: {self._short_of_space}; when it is full, commands other than stop are refused")
        reasons += self._more_reasons()
        for name, station in self._stations.items():
            age_s = station.last_poll_age_s
            if not station.online:
                reasons.append(f"{name}: not connected")
            elif age_s is None or age_s > STALE_INTERVALS * station.settings.poll_interval_s:
                reasons.append(f"{name}: no poll for too long" if age_s is not None else f"{name}: no poll yet")
        return reasons


def _figures(station: Station) -> dict[str, Any]:
    counters = station.counters
    age_s, duration_ms = station.last_poll_age_s, counters.poll_duration_ms
    return {
        "connected": station.online,
        "last_poll_age_s": None if age_s is None else round(age_s, 3),
        "poll_duration_ms": None if duration_ms is None else round(duration_ms, 3),
        "polls": station.book.polls,
        "errors": counters.errors,
        "reconnects": counters.reconnects,
    }
