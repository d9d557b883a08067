"""Where the simulated cycler's time comes from: a callable that gives seconds, passed in."""

import time
from collections.abc import Callable
from math import inf

Clock = Callable[[], float]


class SimulatedClock:
    """Seconds since it was made, `speed` times as fast as its source.

    Args:
        speed: simulated seconds per second of the source; positive.
        source: what it follows, in seconds.
    """

    def __init__(self, speed: float = 1.0, source: Clock = time.monotonic) -> None:
        if not 0 < speed < inf:
            raise ValueError(f"speed must be positive, not {speed}")
        self._speed = speed
        self._source = source
        self._start = source()

    def __call__(self) -> float:
        """Simulated seconds."""
        return (self._source() - self._start) * self._speed


class ManualClock:
    """Seconds that pass only when told to."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def __call__(self) -> float:
        """Seconds told so far."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass; it never goes back."""
        if seconds < 0:
            raise ValueError(f"time does not go back ({seconds} s)")
        self._now_s += seconds
