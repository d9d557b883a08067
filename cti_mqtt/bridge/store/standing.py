"""What stands until it is taken back: leases, alarms, retained topics; SQL inside the writer's transaction."""

import sqlite3
from collections.abc import Collection
from dataclasses import astuple

from cti_mqtt.bridge.store.records import AlarmRow, LeaseRow

_LEASE = "cycler, channel, lease_id, holder, granted_at, expires_at, ttl_s, on_expiry, state"
_PUT_LEASE = f"INSERT OR REPLACE INTO lease({_LEASE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # constants


def put_lease(connection: sqlite3.Connection, lease: LeaseRow) -> None:
    """The one lease of its channel from now on."""
    connection.execute(_PUT_LEASE, astuple(lease))


def drop_lease(connection: sqlite3.Connection, cycler: str, channel: int, lease_id: str) -> None:
    """Take back a lease, if it still is this one."""
    connection.execute(
        "DELETE FROM lease WHERE cycler = ? AND channel = ? AND lease_id = ?", (cycler, channel, lease_id)
    )


def leases(connection: sqlite3.Connection) -> tuple[LeaseRow, ...]:
    """All of them, by cycler and channel."""
    rows = connection.execute(f"SELECT {_LEASE} FROM lease ORDER BY cycler, channel")  # noqa: S608  # constants
    return tuple(LeaseRow(*row) for row in rows)


def put_alarm(connection: sqlite3.Connection, alarm: AlarmRow) -> None:
    """Raise an alarm, or change what it says."""
    connection.execute("INSERT OR REPLACE INTO alarm(cycler, channel, name, body) VALUES (?, ?, ?, ?)", astuple(alarm))


def drop_alarm(connection: sqlite3.Connection, cycler: str, channel: int, name: str) -> None:
    """Take back an alarm."""
    connection.execute("DELETE FROM alarm WHERE cycler = ? AND channel = ? AND name = ?", (cycler, channel, name))


def alarms(connection: sqlite3.Connection) -> tuple[AlarmRow, ...]:
    """All of them, by cycler, channel and name."""
    rows = connection.execute("SELECT cycler, channel, name, body FROM alarm ORDER BY cycler, channel, name")
    return tuple(AlarmRow(*row) for row in rows)


def note_retained(connection: sqlite3.Connection, add: Collection[str], remove: Collection[str]) -> None:
    """Retained topics that come and go; one among both is there."""
    connection.executemany("DELETE FROM retained WHERE topic = ?", [(topic,) for topic in remove])
    connection.executemany("INSERT OR IGNORE INTO retained(topic) VALUES (?)", [(topic,) for topic in add])


def retained_topics(connection: sqlite3.Connection) -> tuple[str, ...]:
    """All of them, by name."""
    return tuple(row[0] for row in connection.execute("SELECT topic FROM retained ORDER BY topic"))
