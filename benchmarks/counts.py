"""What the simulated cyclers count, in a file that the measuring process looks into while they run.

Counting over a socket would give them more work; a few bytes of shared memory cost nothing.
"""

import mmap
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

_ENTRY = struct.Struct("<QQd")


class Count(NamedTuple):
    """Of one cycler: readings that went out, requests that were answered, and when the last one was (monotonic, s)."""

    readings: int = 0
    polls: int = 0
    last_s: float = 0.0


class Counts:
    """One entry a cycler; one process writes, another reads.

    Args:
        path: the file.
        cyclers: how many entries there are.
    """

    def __init__(self, path: Path, cyclers: int) -> None:
        self._cyclers = cyclers
        with ExitStack() as stack:
            file = stack.enter_context(path.open("r+b"))
            self._memory = mmap.mmap(file.fileno(), cyclers * _ENTRY.size)

    @classmethod
    def create(cls, path: Path, cyclers: int) -> Self:
        """A new file, all zero."""
        path.write_bytes(bytes(cyclers * _ENTRY.size))
        return cls(path, cyclers)

    def write(self, cycler: int, count: Count) -> None:
        """Set an entry."""
        _ENTRY.pack_into(self._memory, cycler * _ENTRY.size, count.readings, count.polls, count.last_s)

    def read(self) -> list[Count]:
        """All entries."""
        return [Count(*entry) for entry in _ENTRY.iter_unpack(self._memory[:])]

    def readings(self) -> int:
        """Of all cyclers."""
        return sum(each.readings for each in self.read())


def missed(before: Sequence[Count], after: Sequence[Count], now_s: float, interval_s: float = 1.0) -> int:
    """Beats between two looks for which no request came, however late within its interval each one was.

    Args:
        before: the first look.
        after: the second.
        now_s: when that was (monotonic).
        interval_s: between beats.
    """
    pairs = list(zip(before, after, strict=True))
    between = sum(max(0, round((b.last_s - a.last_s) / interval_s) - (b.polls - a.polls)) for a, b in pairs)
    overdue = sum(max(0, round((now_s - each.last_s) / interval_s) - 1) for each in after)
    return between + overdue
