"""The tables of the store."""

from cti_mqtt.bridge.database import PROBE, Schema

FILE_NAME = "cti-mqtt.sqlite3"  # in the data directory

_FIRST = (
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
    PROBE,
)
_RETAINED_TOPICS = ("CREATE TABLE retained(topic TEXT PRIMARY KEY) WITHOUT ROWID",)

SCHEMA = Schema("store", (_FIRST, _RETAINED_TOPICS))
