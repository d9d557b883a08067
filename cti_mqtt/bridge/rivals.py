"""One bridge commands on a base topic, the one that has run longest; pure, without clock and broker.

A bridge that starts listens first. Whoever hears a live health message of an elder bridge stands down, at any time, and
commands again when no elder has been heard for long enough. Both sides of a pair compare the same two texts, so they
agree on who is the elder however their clocks stand. Times are monotonic seconds of whoever asks.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

import orjson

MISSED = 3  # health messages of an elder that may be missing before it counts as gone
MOST_MISSED = 10  # the same, for an elder that was seen to speak more seldom
MOST_ELDERS = 16  # that are remembered; nobody can fill the memory with invented ones
MAX_BOOT = 64  # characters; a real one has 16


class Role(Enum):
    """What a bridge does about commands."""

    LISTENING = "listening"
    COMMANDING = "commanding"
    STANDING_DOWN = "standing down"


@dataclass(frozen=True, slots=True, order=True)
class BridgeRun:
    """One run of a bridge. The smaller is the elder: started earlier, or at the same time with the smaller boot."""

    started_at: datetime
    boot: str


def parse_health(payload: bytes) -> BridgeRun | None:
    """Whose health message this is; None if it is none."""
    try:
        body = orjson.loads(payload)
        boot, started_at = body["boot"], datetime.fromisoformat(body["started_at"])
        if not isinstance(boot, str) or not 0 < len(boot) <= MAX_BOOT or started_at.utcoffset() is None:
            return None
        return BridgeRun(started_at.astimezone(UTC), boot)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


@dataclass(slots=True)
class _Elder:
    heard_at: float
    patience_s: float
    living: bool = True


class Rivals:
    """Decides whether this bridge commands.

    Args:
        own: this run.
        interval_s: how often a bridge says how it is.
        extra_s: how much later such a message may come.
        listen: whether to listen before the first command; else it commands from the start.

    Attributes:
        role: what to do; look at it after each `hear` and `look`.
    """

    def __init__(self, own: BridgeRun, *, interval_s: float, extra_s: float, listen: bool = True) -> None:
        self.role = Role.LISTENING if listen else Role.COMMANDING
        self._own = own
        self._listen_s = interval_s + extra_s
        self._extra_s = extra_s
        self._patience_s = MISSED * interval_s + extra_s
        self._most_patience_s = MOST_MISSED * interval_s + extra_s
        self._listen_until: float | None = None
        self._elders: dict[BridgeRun, _Elder] = {}

    @property
    def elder(self) -> BridgeRun | None:
        """The eldest that lives, None while there is none."""
        return min((life for life, elder in self._elders.items() if elder.living), default=None)

    def connected(self, now: float) -> None:
        """The broker is there: from now on silence means something."""
        self._listen_until = now + self._listen_s
        for elder in self._elders.values():
            elder.heard_at = now

    def disconnected(self) -> None:
        """The broker is gone: nothing can be heard, so nobody is taken for gone."""
        self._listen_until = None

    def hear(self, other: BridgeRun, now: float) -> None:
        """A live health message came."""
        if other >= self._own:
            return  # our own, or a younger one, which will stand down
        if elder := self._elders.get(other):
            gap_s = now - elder.heard_at
            elder.patience_s = max(elder.patience_s, min(gap_s + self._extra_s, self._most_patience_s))
            elder.heard_at, elder.living = now, True
        else:
            if len(self._elders) >= MOST_ELDERS:
                del self._elders[min(self._elders, key=lambda life: self._elders[life].heard_at)]
            self._elders[other] = _Elder(now, self._patience_s)
        self.role = Role.STANDING_DOWN

    def look(self, now: float) -> None:
        """Time has passed."""
        if self._listen_until is None:
            return
        for elder in self._elders.values():
            elder.living = elder.living and now < elder.heard_at + elder.patience_s
        if (self.role is Role.LISTENING and now >= self._listen_until) or (
            self.role is Role.STANDING_DOWN and self.elder is None
        ):
            self.role = Role.COMMANDING

    def due(self) -> float | None:
        """When to `look` next; None while only a message can change anything."""
        if self._listen_until is None or self.role is Role.COMMANDING:
            return None
        if self.role is Role.LISTENING:
            return self._listen_until
        return min(elder.heard_at + elder.patience_s for elder in self._elders.values() if elder.living)
