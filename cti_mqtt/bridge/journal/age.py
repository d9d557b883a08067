"""What is too old, whatever the time of day says in between."""

from collections import deque
from dataclasses import dataclass

MARKS = 500  # about as many as are kept; rows live longer than they should by up to this part of their time


@dataclass(frozen=True, slots=True)
class Bound:
    """Which rows are too old, the oldest first.

    Attributes:
        up_to: all up to this place.
        earlier_up_to: and up to this place those whose stamp is `before` that time, seconds since 1970.
    """

    up_to: int
    earlier_up_to: int
    before: float

    def covers(self, place: int, at: float) -> bool:
        """Whether this row is too old."""
        return place <= self.up_to or (place <= self.earlier_up_to and at < self.before)


class Age:
    """How old rows are that stand in the order in which they came.

    Those of this run by a clock that never jumps. Those of earlier runs by their stamps, held against the time of day
    and against the newest stamp that this run found plus the time that it has lasted: a clock that was wrong must not
    make them older than they are. So the time in which no bridge ran does not count.

    Args:
        place: the last one when this run began.
        stamp: the newest when this run began, seconds since 1970.
        now_s: when that was, monotonic.
        limit_s: older is too old.
    """

    def __init__(self, place: int, stamp: float, now_s: float, limit_s: float) -> None:
        self._stamp = stamp
        self._limit_s = limit_s
        self._begin(place, now_s)

    def _begin(self, place: int, now_s: float) -> None:
        self._first, self._first_s = place, now_s
        self._marks: deque[tuple[float, int]] = deque([(now_s, place)])
        self._passed = 0

    def note(self, place: int, now_s: float) -> None:
        """This is the last place now; a smaller one than before: it is another file."""
        last_s, last = self._marks[-1] if self._marks else (self._first_s, self._passed)
        if place < last:
            self._begin(place, now_s)
        elif place > last and now_s - last_s >= self._limit_s / MARKS:
            self._marks.append((now_s, place))

    def bound(self, now: float, now_s: float) -> Bound:
        """What is too old at this time of day (seconds since 1970) and at this monotonic time."""
        while self._marks and now_s - self._marks[0][0] > self._limit_s:
            self._passed = self._marks.popleft()[1]
        known = min(now, self._stamp + now_s - self._first_s)
        return Bound(self._passed, self._first, known - self._limit_s)
