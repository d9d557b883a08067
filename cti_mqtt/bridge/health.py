"""One verdict on health: polls fresh, broker connected, queue under its bound, room on the disk.

It is made here and nowhere else. `bridge/health`, and with it `cti-mqtt health`, the HTTP port and systemd all tell it.
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from cti_mqtt.bridge.bus import Bus, Health
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.mqtt import MqttLink
from cti_mqtt.bridge.readings import STALE_INTERVALS
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.store.space import Space

log = logging.getLogger(__name__)

LOOK_S = 1.0  # how soon a change of the verdict is told
OLD_S = 5.0  # a verdict that nobody has made anew for so long: the bridge hangs
SPACE_S = 10.0  # how often the disk is asked how much room it has
MAX_QUEUE = 10_000  # messages that wait for the broker in memory
NEARLY_FULL = 0.8  # of the journal: time to see why the broker gets nothing


class JournalFigures(Protocol):
    """What the journal says of itself."""

    @property
    def problem(self) -> str:
        """Why nothing can be written just now; '' if it can."""

    @property
    def waiting(self) -> int:
        """Polls that the broker has not got."""

    @property
    def dropped(self) -> int:
        """Polls that were given up, being too old or too many."""

    @property
    def filled(self) -> float:
        """Of the room that it may take, how much is taken by polls that wait: 0 to 1."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """The journal when the verdict was made; the same four figures."""

    problem: str
    waiting: int
    dropped: int
    filled: float

    @classmethod
    def of(cls, journal: JournalFigures) -> "JournalState":
        """As it is now."""
        return cls(journal.problem, journal.waiting, journal.dropped, journal.filled)

    @property
    def reasons(self) -> list[str]:
        """What is not as it should be."""
        reasons = []
        if self.problem:
            reasons.append(f"journal: {self.problem}; readings wait in memory only")
        if self.filled >= NEARLY_FULL:
            reasons.append(
                f"journal: {self.filled * 100:.0f} % full with readings that the broker has not got; "
                "beyond 100 % the oldest are dropped"
            )
        return reasons


@dataclass(frozen=True, slots=True)
class CyclerHealth:
    """One cycler when the verdict was made; the fields of the payload, in order."""

    connected: bool
    last_poll_age_s: float | None
    poll_duration_ms: float | None
    polls: int
    errors: int
    reconnects: int


@dataclass(frozen=True, slots=True)
class HealthVerdict:
    """What the bridge says of itself.

    Attributes:
        ts: when it was made, UTC.
        reasons: what is not as it should be; none: it is healthy.
        queue: what waits for the broker: messages in memory, and polls in the journal.
        dropped: what was given up, counted in the same way.
        journal: None where there is none.
        age_s: how long ago it was made.
    """

    ts: str
    boot: str
    started_at: str
    reasons: tuple[str, ...]
    queue: int
    dropped: int
    cyclers: Mapping[str, CyclerHealth] = field(hash=False)
    broker_connected: bool
    journal: JournalState | None = None
    age_s: float = 0.0

    @property
    def healthy(self) -> bool:
        """Whether all is as it should be."""
        return not self.reasons

    @property
    def old(self) -> bool:
        """Whether it should have been made anew since; then it proves nothing, and the bridge seems to hang."""
        return self.age_s > OLD_S

    @property
    def body(self) -> dict[str, Any]:
        """The payload of `bridge/health`."""
        return {
            "ts": self.ts,
            "boot": self.boot,
            "started_at": self.started_at,
            "healthy": self.healthy,
            "reasons": list(self.reasons),
            "queue": self.queue,
            "dropped": self.dropped,
            "cyclers": {name: asdict(cycler) for name, cycler in self.cyclers.items()},
        }

    def after(self, age_s: float) -> "HealthVerdict":
        """The same so much later; where it is old by then, that is a reason."""
        later = replace(self, age_s=age_s)
        if not later.old:
            return later
        return replace(later, reasons=(f"the last verdict is {age_s:.0f} s old: the bridge hangs", *self.reasons))


class HealthWatch:
    """Looks at the bridge and says what it sees.

    Args:
        stations: the cyclers, by id.
        link: the broker.
        store: what has to be on record before anything is sent.
        bus: where the verdict is published.
        clock: stamps and the verdict's age.
        boot: this run of the bridge.
        started_at: when it began.
        interval_s: how often to publish.
        more_reasons: what else is not as it should be.
        journal: what it says of itself; None where there is none.
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
        journal: JournalFigures | None = None,
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
        self._journal = journal
        self._told: tuple[str, ...] = ()
        self._short_of_space = ""
        self._publish_due = self._space_due = float("-inf")
        self._last = self._judge(), clock.monotonic()

    def current(self) -> HealthVerdict:
        """The last verdict with its age. It may be asked from any thread, and answers also while the bridge hangs."""
        verdict, made_at = self._last
        return verdict.after(self._clock.monotonic() - made_at)

    async def run(self) -> None:
        """Make the verdict each second; publish it each interval, and when it changes; until cancelled.

        Where a bug stands against that the bridge goes on, and the verdict becomes old.
        """
        while True:
            try:
                self._look(asyncio.get_running_loop().time())
            except Exception:  # a bug in the verdict must not end what the verdict is about
                log.exception("health: there is no new verdict")
            await asyncio.sleep(min(LOOK_S, self._interval_s))

    def publish(self) -> None:
        """Make the verdict and publish it now."""
        self._publish(self._make())

    def _look(self, now: float) -> None:
        if now >= self._space_due:
            self._store.space().add_done_callback(self._look_at_space)
            self._space_due = now + SPACE_S
        verdict = self._make()
        if now >= self._publish_due or verdict.reasons != self._told:
            self._publish(verdict)
            self._publish_due = now + self._interval_s

    def _make(self) -> HealthVerdict:
        verdict = self._judge()
        self._last = verdict, self._clock.monotonic()
        return verdict

    def _publish(self, verdict: HealthVerdict) -> None:
        self._told = verdict.reasons
        self._bus.publish(Health(verdict.body))

    def _judge(self) -> HealthVerdict:
        journal = JournalState.of(self._journal) if self._journal else None
        cyclers = {name: _figures(station) for name, station in self._stations.items()}
        return HealthVerdict(
            ts=stamp(self._clock.now()),
            boot=self._boot,
            started_at=self._started_at,
            reasons=tuple(self._reasons(journal, cyclers)),
            queue=self._link.queue + (journal.waiting if journal else 0),
            dropped=self._link.dropped + (journal.dropped if journal else 0),
            cyclers=cyclers,
            broker_connected=self._link.connected,
            journal=journal,
        )

    def _look_at_space(self, asked: "Future[Space | None]") -> None:
        """While the disk does not answer, what it said last holds."""
        if not asked.cancelled() and asked.exception() is None:
            space = asked.result()
            self._short_of_space = space.objection if space else ""

    def _reasons(self, journal: JournalState | None, cyclers: Mapping[str, CyclerHealth]) -> list[str]:
        """What is not as it should be; empty when all is well."""
        reasons = [] if self._link.connected else [f"broker: {self._link.failure or 'not connected yet'}"]
        if self._link.queue > MAX_QUEUE:
            reasons.append(f"more than {MAX_QUEUE} messages wait for the broker")
        if self._store.problem:
            reasons.append(f"storage: {self._store.problem}; commands other than stop are refused")
        if self._short_of_space:
            reasons.append(f"storage: {self._short_of_space}; when it is full, commands other than stop are refused")
        reasons += journal.reasons if journal else ()
        reasons += self._more_reasons()
        for name, cycler in cyclers.items():
            age_s = cycler.last_poll_age_s
            if not cycler.connected:
                reasons.append(f"{name}: not connected")
            elif age_s is None:
                reasons.append(f"{name}: no poll yet")
            elif age_s > STALE_INTERVALS * self._stations[name].settings.poll_interval_s:
                reasons.append(f"{name}: no poll for too long")
        return reasons


def _figures(station: Station) -> CyclerHealth:
    counters = station.counters
    age_s, duration_ms = station.last_poll_age_s, counters.poll_duration_ms
    return CyclerHealth(
        connected=station.online,
        last_poll_age_s=None if age_s is None else round(age_s, 3),
        poll_duration_ms=None if duration_ms is None else round(duration_ms, 3),
        polls=station.book.polls,
        errors=counters.errors,
        reconnects=counters.reconnects,
    )
