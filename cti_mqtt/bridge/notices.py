"""The events of a cycler as a whole: a lasting fault is told when it begins, then as a number now and then."""

import logging
from dataclasses import dataclass

from cti_mqtt.bridge.bus import Bus, Happening
from cti_mqtt.bridge.clock import Clock, stamp

log = logging.getLogger(__name__)

WINDOW_S = 600.0
MAX_KEYS = 50  # causes told apart; more than so many in a window count by their type only


@dataclass(slots=True)
class _Told:
    """One cause in its window: how often it was told, and what came since without being told."""

    since_s: float
    times: int = 0
    held: int = 0
    last: Happening | None = None


class Notices:
    """Publishes events, the same one only so often in ten minutes; the rest is counted and told when they are over.

    Args:
        cycler: its id.
        bus: where they are published.
        clock: stamps, and the ten minutes.
    """

    def __init__(self, cycler: str, bus: Bus, clock: Clock) -> None:
        self._cycler = cycler
        self._bus = bus
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def say(
        self,
        kind: str,
        message: str,
        before: object = None,
        after: object = None,
        *,
        cause: str = "",
        at_most: int = 1,
        level: int = logging.WARNING,
    ) -> None:
        """Publish and log an event, unless its cause was told `at_most` times in the last ten minutes.

        Args:
            kind: the event's type.
            message: what happened.
            before: what was, where something changed.
            after: what is.
            cause: what makes two events of a type the same.
            at_most: how often in ten minutes.
            level: how loud the log says it.
        """
        happening = Happening(stamp(self._clock.now()), kind, message, self._cycler, before=before, after=after)
        told = self._window(f"{kind}: {cause}" if cause else kind, kind)
        if told.times >= at_most:
            told.held += 1
            told.last = happening
            log.debug("%s: %s", self._cycler, message)
            return
        told.times += 1
        self._publish(happening, level)

    def catch_up(self) -> None:
        """Tell how often what was not told came, where ten minutes are over; to be called now and then."""
        now = self._clock.monotonic()
        for key, told in list(self._told.items()):
            if now - told.since_s < WINDOW_S:
                continue
            del self._told[key]
            if told.last is not None:
                last = told.last
                message = f"{last.message} ({told.held} more times in the last {(now - told.since_s) / 60:.0f} min)"
                self._told[key] = _Told(now, times=told.times)
                self._publish(
                    Happening(last.ts, last.type, message, self._cycler, before=last.before, after=last.after),
                    logging.WARNING,
                )

    def _window(self, key: str, kind: str) -> _Told:
        if key not in self._told and len(self._told) >= MAX_KEYS:
            key = kind
        return self._told.setdefault(key, _Told(self._clock.monotonic()))

    def _publish(self, happening: Happening, level: int) -> None:
        text = happening.message
        log.log(level, "%s", text if text.startswith(self._cycler) else f"{self._cycler}: {text}")
        self._bus.publish(happening)
