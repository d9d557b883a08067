"""The tables, and what makes a database one of ours."""

import sqlite3

from cti_mqtt.errors import StorageError

FILE_NAME = "cti-mqtt.sqlite3"  # in the data directory
SCHEMA_VERSION = 1  # PRAGMA user_version

_STATEMENTS = (
    # Channel -1: the cycler itself.
    """CREATE TABLE command(
        number INTEGER PRIMARY KEY, cycler TEXT NOT NULL, channel INTEGER NOT NULL, verb TEXT NOT NULL,
        id TEXT NOT NULL, digest TEXT NOT NULL, received_at TEXT NOT NULL, user TEXT, channels TEXT NOT NULL,
        request TEXT NOT NULL, keep INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0,
        UNIQUE(cycler, channel, verb, id))""",
    "CREATE INDEX command_unfinished ON command(number) WHERE NOT finished",
    "CREATE INDEX command_finished ON command(received_at) WHERE finished",
    """CREATE TABLE result(
        number INTEGER PRIMARY KEY, command INTEGER NOT NULL, channel INTEGER, body TEXT NOT NULL)""",
    "CREATE INDEX result_command ON result(command)",
    """CREATE TABLE lease(
        cycler TEXT NOT NULL, channel INTEGER NOT NULL, lease_id TEXT NOT NULL, holder TEXT,
        granted_at TEXT NOT NULL, expires_at TEXT NOT NULL, ttl_s REAL NOT NULL, on_expiry TEXT NOT NULL,
        state TEXT NOT NULL, PRIMARY KEY(cycler, channel)) WITHOUT ROWID""",
    """CREATE TABLE alarm(
        cycler TEXT NOT NULL, channel INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY(cycler, channel, name)) WITHOUT ROWID""",
    "CREATE TABLE audit(seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL, hash TEXT NOT NULL)",
    """CREATE TRIGGER audit_never_deletes BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
    """CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
    """CREATE TRIGGER audit_never_replaces BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
    # Written to find out whether writing works again.
    "CREATE TABLE probe(number INTEGER PRIMARY KEY, count INTEGER NOT NULL)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


def version_of(connection: sqlite3.Connection) -> int:
    """The schema's version; 0: the database is empty.

    Raises:
        StorageError: it is newer than this program, or somebody else's.
        sqlite3.Error: it cannot be read.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StorageError(f"has schema {version}; this version of cti-mqtt knows none above {SCHEMA_VERSION}")
    if version <= 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StorageError("is not a database of cti-mqtt")
    return max(version, 0)


def prepare(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database; in any other, find out whether it can be written.

    Raises:
        StorageError: as for `version_of`; nothing was changed.
        sqlite3.Error: it cannot be read or written.
    """
    connection.execute("BEGIN IMMEDIATE")
    if not version_of(connection):
        for statement in _STATEMENTS:
            connection.execute(statement)
    connection.execute("COMMIT")


def touch(connection: sqlite3.Connection) -> None:
    """Write something that means nothing."""
    connection.execute("INSERT INTO probe VALUES (1, 1) ON CONFLICT(number) DO UPDATE SET count = count + 1")
