"""The audit: entries in a row, each chained to the one before by a hash.

An entry is canonical JSON; its hash is SHA-256 over the hash before it and its own text. So whoever changes, removes
or reorders entries must compute every later hash anew, and whoever noted an earlier head of the chain sees even that.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

FIRST_HASH = "0" * 64  # stands before the first entry

COLUMNS = (
    "ts", "who", "what", "cycler", "channel", "id", "outcome", "code", "reason", "before", "after", "message",
    "received_at", "request",
)  # fmt: skip
"""What entries say, in the order in which people read it; the last two are left out of the parts of a command."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the audit; bytes of the entry that are not UTF-8 stand in it as surrogates."""

    seq: int
    entry: str
    hash: str


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain is broken: the first row that is not what it should be, or is not there."""

    seq: int
    message: str


def canonical(entry: Mapping[str, object]) -> str:
    """An entry as text: sorted keys, no spaces; what JSON does not know becomes null or text."""
    body = dict(entry)
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str).decode()
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits, from outside
        return json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)


def chained(previous: str, entry: str) -> str:
    """The hash of an entry after a hash."""
    return hashlib.sha256((previous + entry).encode("utf-8", "surrogateescape")).hexdigest()


class Chain:
    """Appends to the audit; lives in the writer thread.

    The head is kept in memory, so that an entry that somebody takes away under a running bridge breaks the chain.
    """

    def __init__(self) -> None:
        self._head: str | None = None

    def forget(self) -> None:
        """The database is another, or was rolled back: read the head anew."""
        self._head = None

    def append(self, connection: sqlite3.Connection, entries: Sequence[str]) -> None:
        """Append canonical entries, inside the caller's transaction.

        Raises:
            sqlite3.Error: the head is to be forgotten then.
        """
        head = self._head or head_of(connection)
        for entry in entries:
            head = chained(head, entry)
            connection.execute("INSERT INTO audit(entry, hash) VALUES (?, ?)", (entry, head))
        self._head = head


def head_of(connection: sqlite3.Connection) -> str:
    """The hash of the last entry."""
    row = connection.execute("SELECT hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return str(row[0]) if row else FIRST_HASH


def verify(rows: Iterable[AuditRow], last_seq: int | None = None) -> Break | None:
    """The first place where a chain is broken; None where it is whole.

    Args:
        rows: all of them, in the order in which they stand.
        last_seq: the number that the database gave out last, where it is known; it shows a tail that was removed.
    """
    head, seq = FIRST_HASH, 0
    for row in rows:
        seq += 1
        if row.seq != seq:
            return Break(seq, f"expected here, but {row.seq} follows: rows were removed, added or reordered")
        head = chained(head, row.entry)
        if row.hash != head:
            return Break(seq, "the entry, its hash or the hash before it was changed")
    if last_seq is not None and last_seq != seq:
        return Break(seq + 1, f"the chain ends before it, but {last_seq} entries were written: its tail was removed")
    return None
