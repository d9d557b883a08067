"""SQL of the journal, inside the writer's transaction."""

import sqlite3
import zlib
from collections.abc import Collection, Container, Iterable, Sequence
from contextlib import closing
from itertools import islice, takewhile

from cti_mqtt.bridge.database import touch
from cti_mqtt.bridge.journal.records import KeptPoll, Lost, Portion, Span, Tally

PORTION = 500  # rows deleted in one go: a bounded time in which nothing else is written
ROOM_PORTION = 100  # delivered polls that go when the disk is full
LOOKED_AT = 5000  # rows that are passed over in one go, to find those that are asked for
LEVEL = 1  # of zlib: JSON shrinks to a fifth by it, and the others take several times as long

WHY_FULL = "the journal is full (journal.max_bytes)"
WHY_OLD = "older than journal.max_age_s"
WHY_UNREADABLE = "what stands in the journal cannot be read"
WHY_REMOVED = "the journal was removed or replaced while they waited in it"
WHY_DAMAGED = "the journal cannot be read any more: it is damaged, or no journal stands in its place"

_POLL = "number, cycler, boot, seq, ts, body"


class Addition:
    """A poll on its way into the journal; compressed once, in the thread.

    Attributes:
        is_new: whether it was not there already; known once it is written.
    """

    def __init__(self, cycler: str, boot: str, seq: int, ts: str, fragments: Sequence[bytes]) -> None:
        self.is_new = False
        self._key = cycler, boot, seq
        self._ts = ts
        self._fragments = tuple(fragments)
        self._body = b""

    def write(self, connection: sqlite3.Connection, at: float) -> int:
        """Its number; that which it has where it is there already. `at`: when that is, by the journal's time.

        Raises:
            ValueError: a fragment could not be told from its neighbours.
        """
        self._body = self._body or self._compressed()
        done = connection.execute(
            "INSERT INTO poll(cycler, boot, seq, ts, body) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT(cycler, boot, seq) DO NOTHING",
            (*self._key, self._ts, self._body),
        )
        self.is_new = done.rowcount == 1
        if not self.is_new:
            found = "SELECT number FROM poll WHERE cycler = ? AND boot = ? AND seq = ?"
            return int(connection.execute(found, self._key).fetchone()[0])
        number, size = done.lastrowid, len(self._body)
        assert number is not None  # noqa: S101  # a row was inserted
        connection.execute("INSERT INTO undelivered VALUES (?, ?, ?)", (number, size, at))
        connection.execute("UPDATE tally SET waiting = waiting + 1, waiting_bytes = waiting_bytes + ?", (size,))
        return number

    def _compressed(self) -> bytes:
        whole = b"\n".join(self._fragments)
        if whole.count(b"\n") != max(len(self._fragments) - 1, 0) or not all(self._fragments):
            raise ValueError("a fragment is empty or has a line feed in it")
        return zlib.compress(whole, LEVEL)


def tally(connection: sqlite3.Connection) -> Tally:
    """How much there is."""
    return Tally(*connection.execute("SELECT waiting, waiting_bytes, delivered_bytes FROM tally").fetchone())


def mark(connection: sqlite3.Connection, numbers: Iterable[int], at: float) -> None:
    """These are delivered; those that are not waiting are passed over."""
    for number in numbers:
        row = connection.execute("SELECT size FROM undelivered WHERE number = ?", (number,)).fetchone()
        if row is None:
            continue
        connection.execute("DELETE FROM undelivered WHERE number = ?", (number,))
        connection.execute("INSERT INTO delivered(number, size, at) VALUES (?, ?, ?)", (number, row[0], at))
        connection.execute(
            "UPDATE tally SET waiting = waiting - 1, waiting_bytes = waiting_bytes - ?1, "
            "delivered_bytes = delivered_bytes + ?1",
            row,
        )


# --- giving up ---


def trim(connection: sqlite3.Connection, max_bytes: int, lost: list[Lost]) -> int:
    """Delete what is beyond the bound, at most a portion or two: delivered ones first; how many went."""
    now = tally(connection)
    excess = now.waiting_bytes + now.delivered_bytes - max_bytes
    if excess <= 0:
        return 0
    rows = connection.execute("SELECT place, number, size FROM delivered ORDER BY place")
    delivered = _worth(rows, excess)
    went = _drop_delivered(connection, delivered)
    if went < PORTION:
        rows = connection.execute("SELECT number, size FROM undelivered ORDER BY number")
        waiting = _worth(rows, excess - sum(row[2] for row in delivered))
        went += give_up(connection, [row[0] for row in waiting], WHY_FULL, lost)
    return went


def _worth(rows: Iterable[tuple[int, ...]], excess: int) -> list[tuple[int, ...]]:
    """As many of the first of these, at most a portion, as make up for it; their size comes last."""
    found: list[tuple[int, ...]] = []
    for row in islice(rows, PORTION):
        if excess <= 0:
            break
        found.append(row)
        excess -= row[-1]
    return found


def expire_undelivered(connection: sqlite3.Connection, before: float, lost: list[Lost]) -> int:
    """Give up what is from before that time, at most a portion; how many went."""
    rows = connection.execute("SELECT number, at FROM undelivered ORDER BY number")
    old = islice(takewhile(lambda row: row[1] < before, rows), PORTION)
    return give_up(connection, [row[0] for row in old], WHY_OLD, lost)


def expire_delivered(connection: sqlite3.Connection, before: float) -> int:
    """Delete what was delivered before that time, at most a portion; how many went."""
    rows = connection.execute("SELECT place, number, size, at FROM delivered ORDER BY place")
    old = islice(takewhile(lambda row: row[3] < before, rows), PORTION)
    return _drop_delivered(connection, [row[:3] for row in old])


def give_up(connection: sqlite3.Connection, numbers: Iterable[int], why: str, lost: list[Lost]) -> int:
    """Delete what is not delivered; what that was is appended to `lost`; how many went."""
    went = 0
    for number in numbers:
        row = connection.execute("SELECT size FROM undelivered WHERE number = ?", (number,)).fetchone()
        if row is None:
            continue
        named = connection.execute("SELECT cycler, boot, seq FROM poll WHERE number = ?", (number,)).fetchone()
        connection.execute("DELETE FROM undelivered WHERE number = ?", (number,))
        connection.execute("DELETE FROM poll WHERE number = ?", (number,))
        connection.execute("UPDATE tally SET waiting = waiting - 1, waiting_bytes = waiting_bytes - ?", row)
        if named is not None:
            cycler, boot, seq = named
            lost.append(Lost(number, cycler, boot, seq, why))
        went += 1
    return went


def _drop_delivered(connection: sqlite3.Connection, rows: Collection[tuple[int, ...]]) -> int:
    connection.executemany("DELETE FROM delivered WHERE place = ?", [(row[0],) for row in rows])
    connection.executemany("DELETE FROM poll WHERE number = ?", [(row[1],) for row in rows])
    freed = sum(row[2] for row in rows)
    if rows:
        connection.execute("UPDATE tally SET delivered_bytes = delivered_bytes - ?", (freed,))
    return len(rows)


def make_room(connection: sqlite3.Connection) -> int:
    """Delete delivered polls, the oldest first; how many went."""
    rows = connection.execute("SELECT place, number, size FROM delivered ORDER BY place LIMIT ?", (ROOM_PORTION,))
    return _drop_delivered(connection, rows.fetchall())


def probe(connection: sqlite3.Connection, size: int) -> None:
    """Find out whether a body of this size could be written."""
    touch(connection)
    connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (size,))
    connection.execute("DELETE FROM filler")


# --- reading ---


def undelivered(
    connection: sqlite3.Connection, after: int, limit: int, without: Container[int], unreadable: list[int]
) -> Portion:
    """What waits, oldest first; the numbers of those that cannot be read are appended to `unreadable`."""
    found: list[KeptPoll] = []
    last = None
    narrow = "SELECT number FROM undelivered WHERE number > ? ORDER BY number LIMIT ?"  # no body is touched
    with closing(connection.execute(narrow, (after, LOOKED_AT))) as numbers:
        for (number,) in numbers:
            last = number
            if number in without:
                continue
            row = connection.execute(f"SELECT {_POLL} FROM poll WHERE number = ?", (number,)).fetchone()  # noqa: S608  # constants
            poll = None if row is None else _kept(row)
            if poll is None:
                unreadable.append(number)
            else:
                found.append(poll)
            if len(found) >= limit:
                break
    return Portion(tuple(found), last)


def span(connection: sqlite3.Connection, cycler: str, boot: str, from_seq: int, to_seq: int, limit: int) -> Portion:
    """What is kept of a run, by seq; without what cannot be read."""
    rows = connection.execute(
        f"SELECT {_POLL} FROM poll WHERE cycler = ? AND boot = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",  # noqa: S608  # as above
        (cycler, boot, from_seq, to_seq, limit),
    )
    found, last = [], None
    for row in rows:
        last = row[3]
        poll = _kept(row)
        if poll is not None:
            found.append(poll)
    return Portion(tuple(found), last)


def kept(connection: sqlite3.Connection, cycler: str) -> tuple[Span, ...]:
    """What is kept of a cycler, the oldest run first."""
    rows = connection.execute(
        "SELECT boot, min(seq), max(seq), count(*) FROM poll WHERE cycler = ? GROUP BY boot ORDER BY min(number)",
        (cycler,),
    )
    return tuple(Span(cycler, *row) for row in rows)


def newest(connection: sqlite3.Connection) -> float | None:
    """The newest stamp; None: there is none."""
    stamps = (
        connection.execute(query).fetchone()
        for query in (
            "SELECT at FROM undelivered ORDER BY number DESC LIMIT 1",
            "SELECT at FROM delivered ORDER BY place DESC LIMIT 1",
        )
    )
    return max((row[0] for row in stamps if row is not None), default=None)


def _kept(row: tuple[int, str, str, int, str, bytes]) -> KeptPoll | None:
    """None: it cannot be read."""
    number, cycler, boot, seq, ts, body = row
    try:
        whole = zlib.decompress(body)
    except (zlib.error, TypeError):
        return None
    return KeptPoll(number, cycler, boot, seq, ts, tuple(whole.split(b"\n")) if whole else ())
