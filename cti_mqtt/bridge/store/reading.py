"""The audit for those who only read it: beside a running bridge, or on a copy of its file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cti_mqtt.bridge.database.reading import connect_to_read
from cti_mqtt.bridge.store.audit import AuditRow
from cti_mqtt.bridge.store.schema import SCHEMA
from cti_mqtt.errors import StorageError

_ROWS = "SELECT seq, ifnull(CAST(entry AS TEXT), ''), ifnull(CAST(hash AS TEXT), '') FROM audit ORDER BY seq"
_LAST = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'audit'"


class AuditReader:
    """One unchanging view of the audit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, *, backwards: bool = False) -> Iterator[AuditRow]:
        """All rows, by their numbers."""
        for row in self._connection.execute(f"{_ROWS} DESC" if backwards else _ROWS):
            yield AuditRow(*row)

    def last_seq(self) -> int:
        """The number that was given out last, whether or not its row is still there."""
        return int(self._connection.execute(_LAST).fetchone()[0] or 0)


@contextmanager
def read_audit(path: Path) -> Iterator[AuditReader]:
    """Open the audit of a store without writing to it.

    Raises:
        StorageError: there is no such file, it is not a store of this version, or it cannot be read (also later,
            while rows are read).
    """
    if not path.is_file():
        raise StorageError(f"{path}: there is no such file")
    try:
        with closing(_connect(path)) as connection:
            yield AuditReader(connection)
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = connect_to_read(path)
    try:
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        connection.execute("BEGIN")  # one view for all that is read
        if not SCHEMA.version_of(connection):
            raise StorageError("is empty")
    except BaseException:
        connection.close()
        raise
    return connection
