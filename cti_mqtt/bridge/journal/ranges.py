"""Many polls in little memory."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import itemgetter

MOST = 1000  # ranges of one run of one cycler

Range = tuple[str, str, int, int]
"""Cycler, boot, and the first and the last seq."""


class Ranges:
    """A set of polls, as ranges of seq.

    Where there are too many, the two with the fewest polls between them become one: it may then hold more than was put
    in, never less.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def __iter__(self) -> Iterator[Range]:
        """In order, run by run."""
        for (cycler, boot), row in self._rows.items():
            for first, last in row:
                yield cycler, boot, first, last

    def add(self, cycler: str, boot: str, first: int, last: int) -> None:
        """Put these in."""
        row = self._rows.setdefault((cycler, boot), [])
        begin = bisect_left(row, first - 1, key=itemgetter(1))
        end = bisect_right(row, last + 1, key=itemgetter(0))
        if begin < end:
            first, last = min(first, row[begin][0]), max(last, row[end - 1][1])
        row[begin:end] = [(first, last)]
        _bound(row)

    def remove(self, cycler: str, boot: str, first: int, last: int) -> None:
        """Take these out, as far as they are in it."""
        row = self._rows.get((cycler, boot), [])
        begin = bisect_left(row, first, key=itemgetter(1))
        end = bisect_right(row, last, key=itemgetter(0))
        if begin >= end:
            return
        left, right = (row[begin][0], first - 1), (last + 1, row[end - 1][1])
        row[begin:end] = [part for part in (left, right) if part[0] <= part[1]]
        _bound(row)
        if not row:
            del self._rows[cycler, boot]


def _bound(row: list[tuple[int, int]]) -> None:
    while len(row) > MOST:
        at = min(range(len(row) - 1), key=lambda place: row[place + 1][0] - row[place][1])
        row[at : at + 2] = [(row[at][0], row[at + 1][1])]
