"""What goes wrong again and again: told at first, then once in a while with how often it was."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

TELL_EVERY_S = 60.0
MOST_KEPT = 64  # different ones that are remembered; nobody can fill the memory with invented ones


@dataclass(slots=True)
class _Complaint:
    kind: str
    text: str
    told_at: float
    last_at: float
    stands_s: float
    untold: int = 0


class Complaints:
    """Bounds what is logged and told of faults that last.

    Args:
        tell: called with the type of an event and its message.
        now: monotonic seconds.
        every_s: how often the same complaint is told.
    """

    def __init__(
        self,
        tell: Callable[[str, str], None],
        now: Callable[[], float] = time.monotonic,
        every_s: float = TELL_EVERY_S,
    ) -> None:
        self._tell = tell
        self._now = now
        self._every_s = every_s
        self._known: dict[str, _Complaint] = {}

    def say(self, kind: str, about: str, text: str, *, count: int = 1, stands_s: float = 0.0) -> None:
        """Log and tell, unless the same was told a moment ago.

        Args:
            kind: the type of the event.
            about: with the kind, what makes it the same complaint.
            text: for people.
            count: of how many such faults.
            stands_s: for how long after the last one it is part of the verdict on health.
        """
        now, key = self._now(), f"{kind} {about}"
        known = self._known.get(key)
        if known and now - known.told_at < self._every_s:
            known.untold += count
            known.last_at, known.text = now, text
            return
        self._known.pop(key, None)
        if len(self._known) >= MOST_KEPT:
            del self._known[next(iter(self._known))]  # the one that was told longest ago
        self._known[key] = _Complaint(kind, text, now, now, stands_s)
        if known and known.untold:
            text = f"{text} (and {known.untold} more like this since it was last told)"
        log.warning("MQTT: %s", text)
        self._tell(kind, text)

    @property
    def standing(self) -> list[str]:
        """What is not over for long enough, for the verdict on health."""
        now = self._now()
        return [each.text for each in self._known.values() if now - each.last_at < each.stands_s]
