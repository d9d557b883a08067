"""Commands and their results: SQL inside the writer's transaction."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from cti_mqtt.bridge.store.records import CommandKey, KnownCommand, Newest, ReceivedCommand, StoredResult

FORGET_CHUNK = 1000  # commands a call: a bounded time in which nothing else is written

_THE_CYCLER = -1  # in the place of a channel: NULL would not be unique
_KEY = "cycler = ? AND channel = ? AND verb = ? AND id = ?"
_NEWEST_NUMBER = "SELECT number FROM command WHERE finished ORDER BY number DESC LIMIT 1"
_COLUMNS = "number, cycler, channel, verb, id, digest, received_at, user, channels, request, keep, finished"


def receive(connection: sqlite3.Connection, command: ReceivedCommand) -> KnownCommand | None:
    """Record a command; None: it is new. Else what is known under its key, and nothing is recorded."""
    request = command.request.encode("utf-8", "replace").decode()  # it may be anything
    done = connection.execute(
        "INSERT INTO command(cycler, channel, verb, id, digest, received_at, user, channels, request, keep) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(cycler, channel, verb, id) DO NOTHING",
        (*_key(command.key), command.digest, command.received_at, command.user, json.dumps(command.channels), request,
         command.keep),
    )  # fmt: skip
    return None if done.rowcount == 1 else find(connection, command.key)


def find(connection: sqlite3.Connection, key: CommandKey) -> KnownCommand | None:
    """What is known of a command."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM command WHERE {_KEY}", _key(key)).fetchone()  # noqa: S608  # constants
    return None if row is None else _known(connection, row)


def unfinished(connection: sqlite3.Connection) -> tuple[KnownCommand, ...]:
    """Commands without an end, oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM command WHERE NOT finished ORDER BY number")  # noqa: S608  # as above
    return tuple(_known(connection, row) for row in rows.fetchall())


def answer(connection: sqlite3.Connection, key: CommandKey, results: Sequence[StoredResult], *, finished: bool) -> None:
    """Store results of a command and perhaps its end; nothing where the command is not known."""
    row = connection.execute(f"SELECT number, keep FROM command WHERE {_KEY}", _key(key)).fetchone()  # noqa: S608  # as above
    if row is None:
        return
    number, keep = row
    if finished and not keep:
        _forget(connection, [number])
        return
    connection.executemany(
        "INSERT INTO result(command, channel, body) VALUES (?, ?, ?)",
        [(number, result.channel, result.body) for result in results],
    )
    if finished:
        connection.execute("UPDATE command SET finished = 1 WHERE number = ?", (number,))


def settle(
    connection: sqlite3.Connection,
    key: CommandKey,
    received_at: str,
    results: Sequence[StoredResult],
    *,
    replace: bool,
) -> None:
    """Finish a command with these results and no others; nothing where another one took its key.

    Args:
        connection: inside a transaction.
        key: of the command.
        received_at: its own; under the same key a repeat came at another time.
        results: all of them.
        replace: also where it is finished.
    """
    row = connection.execute(
        f"SELECT number, finished FROM command WHERE {_KEY} AND received_at = ?",  # noqa: S608  # as above
        (*_key(key), received_at),
    ).fetchone()
    if row is None or (row[1] and not replace):
        return
    connection.execute("DELETE FROM result WHERE command = ?", (row[0],))
    answer(connection, key, results, finished=True)


def newest(connection: sqlite3.Connection) -> Newest:
    """The youngest of the finished commands."""
    number = connection.execute(f"SELECT ({_NEWEST_NUMBER})").fetchone()[0]
    received_at = connection.execute("SELECT max(received_at) FROM command WHERE finished").fetchone()[0]
    return Newest(number or 0, received_at)


def forget(connection: sqlite3.Connection, up_to: int, received_before: str | None) -> int:
    """Forget finished commands, at most a chunk of them, but never the newest: its number must not be given again.

    Args:
        connection: inside a transaction.
        up_to: no command with a higher number.
        received_before: only those that were received before this; None: all.

    Returns:
        how many went.
    """
    arguments: tuple[str | int, ...]
    if received_before is None:
        which, arguments, order = "number <= ?", (up_to,), "number"
    else:
        which, arguments, order = "received_at < ? AND number <= ?", (received_before, up_to), "received_at"
    rows = connection.execute(
        f"SELECT number FROM command WHERE finished AND {which} "  # noqa: S608  # constants
        f"AND number < ({_NEWEST_NUMBER}) ORDER BY {order} LIMIT ?",
        (*arguments, FORGET_CHUNK),
    )
    numbers = [row[0] for row in rows]
    _forget(connection, numbers)
    return len(numbers)


def _forget(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    which = [(number,) for number in numbers]
    connection.executemany("DELETE FROM result WHERE command = ?", which)
    connection.executemany("DELETE FROM command WHERE number = ?", which)


def _key(key: CommandKey) -> tuple[str, int, str, str]:
    return key.cycler, _THE_CYCLER if key.channel is None else key.channel, key.verb, key.id


def _known(connection: sqlite3.Connection, row: Sequence[Any]) -> KnownCommand:
    number, cycler, channel, verb, id_, digest, received_at, user, channels, request, keep, finished = row
    key = CommandKey(cycler, None if channel == _THE_CYCLER else channel, verb, id_)
    command = ReceivedCommand(key, digest, received_at, user, _channels(channels), request, bool(keep))
    results = connection.execute("SELECT channel, body FROM result WHERE command = ? ORDER BY number", (number,))
    return KnownCommand(command, tuple(StoredResult(*each) for each in results), bool(finished))


def _channels(text: str) -> tuple[int, ...]:
    """None where a row was damaged: what else it says must not be lost for that."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return ()
    return tuple(each for each in found if isinstance(each, int)) if isinstance(found, list) else ()
