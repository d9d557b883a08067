"""What stands in the file, without its bodies."""

import sqlite3
from collections.abc import Container
from dataclasses import dataclass

from cti_mqtt.bridge.journal.ranges import Range, Ranges

PORTION = 5000  # rows that are looked at in one go: a few milliseconds

Key = tuple[str, str, int]
START: Key = ("", "", -(2**63))


@dataclass(frozen=True, slots=True)
class Survey:
    """A part of the file.

    Attributes:
        there: what is in it at all.
        waiting: what of that is not delivered.
        last: how far it goes; None: to the end.
    """

    there: tuple[Range, ...]
    waiting: tuple[Range, ...]
    last: Key | None


def survey(connection: sqlite3.Connection, after: Key, without: Container[int]) -> Survey:
    """The next part; the numbers `without` are taken for delivered."""
    rows = connection.execute(
        "SELECT cycler, boot, seq, number, EXISTS(SELECT 1 FROM undelivered WHERE number = poll.number) FROM poll "
        "WHERE (cycler, boot, seq) > (?, ?, ?) ORDER BY cycler, boot, seq LIMIT ?",
        (*after, PORTION),
    ).fetchall()
    there, waiting = Ranges(), Ranges()
    for cycler, boot, seq, number, waits in rows:
        there.add(cycler, boot, seq, seq)
        if waits and number not in without:
            waiting.add(cycler, boot, seq, seq)
    last = rows[-1][:3] if len(rows) == PORTION else None
    return Survey(tuple(there), tuple(waiting), last)
