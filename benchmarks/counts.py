"""What the simulated cyclers count, in a file that the measuring process looks into while they run.

Counting over a socket would give them more work; a few bytes of shared memory cost nothing.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self


class Count(NamedTuple):
    """Of one cycler: readings that went out, requests that were answered, and when the last one was (monotonic, ns)."""

    readings: int
    polls: int
    last_ns: int


_FIELDS = len(Count._fields)
_BYTES = 8  # of a field; one that lies so is written at once, so that nobody reads half of it


class Counts:
    """One entry a cycler; one process writes, another reads.

    Args:
        path: the file.
        cyclers: how many entries there are.
    """

    def __init__(self, path: Path, cyclers: int) -> None:
        with path.open("r+b") as file:
            self._memory = memoryview(mmap.mmap(file.fileno(), cyclers * _FIELDS * _BYTES)).cast("Q")

    @classmethod
    def create(cls, path: Path, cyclers: int) -> Self:
        """A new file, all zero."""
        path.write_bytes(bytes(cyclers * _FIELDS * _BYTES))
        return cls(path, cyclers)

    def write(self, cycler: int, count: Count) -> None:
        """Set an entry."""
        for index, value in enumerate(count, cycler * _FIELDS):
            self._memory[index] = value

    def read(self) -> list[Count]:
        """All entries, of one moment."""
        while (values := list(self._memory)) != list(self._memory):
            pass
        return [Count(*values[start : start + _FIELDS]) for start in range(0, len(values), _FIELDS)]

    def readings(self) -> int:
        """Of all cyclers."""
        return sum(each.readings for each in self.read())


def missed(before: Sequence[Count], after: Sequence[Count], now_ns: int, interval_ns: int = 10**9) -> int:
    """Beats between two looks for which no request came, however late within its interval each one was.

    Args:
        before: the first look.
        after: the second.
        now_ns: when that was (monotonic).
        interval_ns: between beats.
    """
    pairs = list(zip(before, after, strict=True))
    between = sum(max(0, round((b.last_ns - a.last_ns) / interval_ns) - (b.polls - a.polls)) for a, b in pairs)
    overdue = sum(max(0, round((now_ns - each.last_ns) / interval_ns) - 1) for each in after)
    return between + overdue
