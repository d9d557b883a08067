"""Connections that only read: beside whoever writes, on a copy, or where nothing may be written."""

import sqlite3
from pathlib import Path
from urllib.parse import quote


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a database without writing to it; to be closed by the caller.

    Raises:
        sqlite3.Error, OSError: it cannot be read.
    """
    try:
        return _opened(path, "mode=ro")
    except sqlite3.OperationalError:
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        # A directory that cannot be written, as on a medium with a copy: nobody else can change the file there.
        return _opened(path, "mode=ro&immutable=1")


def _opened(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # only now it is really opened
    except BaseException:
        connection.close()
        raise
    return connection
