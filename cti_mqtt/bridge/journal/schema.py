"""The tables of the journal."""

from cti_mqtt.bridge.database import PROBE, Schema

FILE_NAME = "journal.sqlite3"  # in the data directory

_FIRST = (
    # size: of the body, which is compressed.
    """CREATE TABLE poll(
        number INTEGER PRIMARY KEY AUTOINCREMENT, cycler TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL,
        ts TEXT NOT NULL, body BLOB NOT NULL, UNIQUE(cycler, boot, seq))""",
    # A file that is put in the place of another must not give the numbers of that again: somebody may hold them still.
    "INSERT INTO sqlite_sequence(name, seq) VALUES ('poll', CAST(strftime('%s', 'now') AS INTEGER) * 1000)",
    # Every poll is in one of these two; they are narrow, so that to move it does not touch the body.
    # at: by the journal's time, see age.py.
    "CREATE TABLE undelivered(number INTEGER PRIMARY KEY, size INTEGER NOT NULL, at REAL NOT NULL)",
    """CREATE TABLE delivered(
        place INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL, size INTEGER NOT NULL, at REAL NOT NULL)""",
    # One row: sums over those two, so that nobody has to count.
    "CREATE TABLE tally(waiting INTEGER NOT NULL, waiting_bytes INTEGER NOT NULL, delivered_bytes INTEGER NOT NULL)",
    "INSERT INTO tally VALUES (0, 0, 0)",
    # Written and deleted to find out whether there is room.
    "CREATE TABLE filler(body BLOB NOT NULL)",
    PROBE,
)

SCHEMA = Schema("journal", (_FIRST,), application_id=0x6374696A)
