"""What a soak measured -> whether it is good: slopes, and polls that should have been and were not."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MIB = 1024 * 1024
GROWTH_MIB_PER_H = 2.0  # of memory, at the most, by the slope after the warm-up
GROWTH_MIB = 4.0  # besides, at the most: what allocators keep, and the noise of a short run
GROWTH_FDS = 2.0  # at the most, by the slope over the time that was measured
LATE_BEATS = 1.5  # an answer that comes later than so many intervals after the last has missed a beat
MISSED_SHARE = 0.0005  # of the beats that no fault explains, at the most: a busy machine may stumble


@dataclass(frozen=True, slots=True)
class Sample:
    """The bridge's memory and open files at a time (seconds since the beginning)."""

    at_s: float
    rss_bytes: int
    fds: int


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity over time: first, last, and the slope of the line through all of it that is nearest, per hour."""

    start: float
    end: float
    slope_per_h: float
    hours: float

    @property
    def growth(self) -> float:
        """Over the time measured, by the slope."""
        return self.slope_per_h * self.hours


def line(times_s: Sequence[float], values: Sequence[float]) -> Line:
    """Least squares.

    Raises:
        ValueError: fewer than two different times.
    """
    count = len(times_s)
    if count < 2 or times_s[0] == times_s[-1]:
        raise ValueError("a slope needs two samples at the least")
    middle_s, mean = sum(times_s) / count, sum(values) / count
    spread = sum((at - middle_s) ** 2 for at in times_s)
    slope = sum((at - middle_s) * (value - mean) for at, value in zip(times_s, values, strict=True)) / spread
    return Line(values[0], values[-1], slope * 3600, (times_s[-1] - times_s[0]) / 3600)


@dataclass(frozen=True, slots=True)
class Beats:
    """Polls of one cycler, or of all together.

    Attributes:
        answered: by the cyclers.
        missed: beats without a poll that no fault explains; `explained` those that one does.
        unseen: polls that were answered and not seen, and no fault explains; `cut` those that one does.
    """

    answered: int = 0
    missed: int = 0
    explained: int = 0
    unseen: int = 0
    cut: int = 0

    def __add__(self, other: "Beats") -> "Beats":
        return Beats(
            self.answered + other.answered,
            self.missed + other.missed,
            self.explained + other.explained,
            self.unseen + other.unseen,
            self.cut + other.cut,
        )


def beats(times: Sequence[float], seen: set[int], interval_s: float, troubled: Sequence[tuple[float, float]]) -> Beats:
    """Judge one cycler's polls.

    Args:
        times: when each was answered (seconds since 1970); the first has number 1.
        seen: the numbers that the subscriber heard.
        interval_s: how often the bridge should poll.
        troubled: times (from, to) in which this cycler was away, or was being connected to again.
    """
    missed = explained = 0
    for before, after in pairwise(times):
        if after - before > LATE_BEATS * interval_s:
            count = round((after - before) / interval_s) - 1
            if any(begin <= after and before <= end for begin, end in troubled):
                explained += count
            else:
                missed += max(1, count)
    unseen = [number for number in range(1, len(times) + 1) if number not in seen]
    cut = [number for number in unseen if any(begin <= times[number - 1] <= end for begin, end in troubled)]
    return Beats(len(times), missed, explained, len(unseen) - len(cut), len(cut))


def problems(memory: Line, fds: Line, polls: Beats) -> list[str]:
    """What exceeds its bound; empty when all is well. Memory in bytes."""
    found = []
    growth_mib, most_mib = memory.growth / MIB, GROWTH_MIB + GROWTH_MIB_PER_H * memory.hours
    if growth_mib > most_mib:
        found.append(f"memory grew by {growth_mib:.1f} MiB in {memory.hours:.2f} h; {most_mib:.1f} MiB are allowed")
    if fds.growth > GROWTH_FDS:
        found.append(f"open files grew by {fds.growth:.1f}; {GROWTH_FDS:.0f} are allowed")
    most = MISSED_SHARE * polls.answered
    if polls.missed > most:
        found.append(f"{polls.missed} beats were missed that no fault explains; {most:.1f} are allowed")
    if polls.unseen:
        found.append(f"{polls.unseen} polls were answered and never seen")
    return found
