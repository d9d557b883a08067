"""The database file: opened, looked after, and left alone when it is not what it should be."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cti_mqtt.bridge.database.reading import connect_to_read
from cti_mqtt.bridge.database.schema import Schema
from cti_mqtt.errors import StorageError

BUSY_S = 0.5  # how long somebody else's write is waited for; shorter than the patience of those who wait for us
REOPEN_S = 1.0  # not more often than this
CHECK_UP_TO_BYTES = 64 * 2**20  # a larger file is not read through at opening: that would take seconds
CHECKPOINT_CHANGES = 1000  # rows written, after which the log is carried over into the file
LOG_LIMIT_BYTES = 16 * 2**20

# After these the connection is given up and opened anew; after the others the next transaction may work.
_GIVE_UP = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)  # fmt: skip
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REQUESTS_OWN = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

Work = Callable[[sqlite3.Connection], Any]
"""What is done inside a transaction; it may be done anew after a rollback."""

_log = logging.getLogger(__name__)


class DatabaseFile:
    """One connection; used from one thread only.

    A file that is damaged or of a newer schema is never written, replaced or moved: everything fails until a person
    has put another in its place.

    Args:
        path: of the file; None: in memory.
        schema: its tables.
        on_doubt: called whenever what was read from the database before may no longer be so.
        make_room: deletes what is not needed, when the disk is full; None: there is no such thing.
    """

    def __init__(
        self, path: Path | None, schema: Schema, on_doubt: Callable[[], None], make_room: Work | None = None
    ) -> None:
        self.name = f"the {schema.name} in memory" if path is None else str(path)
        self._path = path
        self._schema = schema
        self._on_doubt = on_doubt
        self._make_room = make_room
        self._connection: sqlite3.Connection | None = None
        self._durable = False
        self._checkpointed = 0
        self._stuck = False
        self._parts: tuple[object, ...] = ()
        self._condemned: object = None
        self._failure = ""
        self._failed_at = -REOPEN_S

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that may work."""
        return self._connection is not None

    @property
    def is_condemned(self) -> bool:
        """Whether it is left alone until a person has put another in its place; from any thread."""
        return self._condemned is not None

    @property
    def changes(self) -> int:
        """How many rows this connection has written."""
        return 0 if self._connection is None else self._connection.total_changes

    def run(self, works: Sequence[Work], *, durable: bool) -> list[Any]:
        """Do all of this in one transaction; durable: it outlives a power cut, else only the process.

        Raises:
            StorageError: nothing of it was done; with `is_open` false it was nobody's fault among the works.
        """
        try:
            return self._transaction(works, durable=durable)
        except StorageError as error:
            if self._make_room is None or _code(error.__cause__) != sqlite3.SQLITE_FULL:
                raise
            with contextlib.suppress(sqlite3.Error):  # there is not even room for that
                self._carry_over()
            with contextlib.suppress(StorageError):
                self._transaction([self._make_room], durable=False)
        return self._transaction(works, durable=durable)

    def read(self, work: Work) -> Any:  # what the work returns
        """Do this, which writes nothing; also where nothing can be written.

        Raises:
            StorageError: it cannot be read either.
        """
        try:
            connection = self._ready()
        except StorageError:
            if self._path is None or self._condemned is not None:
                raise
            return self._read_aside(work, self._path)
        try:
            connection.execute("BEGIN")
            result = work(connection)
            connection.execute("COMMIT")
        except Exception as error:
            self._roll_back(connection)
            raise self._failed(error) from error
        return result

    def _read_aside(self, work: Work, path: Path) -> Any:  # as above
        try:
            with contextlib.closing(connect_to_read(path)) as connection:
                connection.text_factory = _text
                if self._schema.version_of(connection) == self._schema.version:
                    return work(connection)
        except Exception as error:
            raise StorageError(self._failure) from error
        raise StorageError(self._failure)

    def _transaction(self, works: Sequence[Work], *, durable: bool) -> list[Any]:
        connection = self._ready()
        try:
            self._set_durable(connection, durable)
            connection.execute("BEGIN IMMEDIATE")
            results = [work(connection) for work in works]
            connection.execute("COMMIT")
        except Exception as error:
            self._roll_back(connection)
            raise self._failed(error) from error
        return results

    def tidy(self) -> None:
        """Carry the log over into the file if that is due; for moments in which nobody waits."""
        if self._connection is None or self._connection.total_changes - self._checkpointed < CHECKPOINT_CHANGES:
            return
        self._checkpointed = self._connection.total_changes
        try:
            self._carry_over()
            self._stuck = False
        except sqlite3.Error as error:  # the log still holds everything
            if not self._stuck:
                _log.warning("%s: the log is not carried over into the file: %s", self.name, error)
            self._stuck = True

    def _carry_over(self) -> None:
        if self._connection is not None:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Give up the connection; the next work opens it anew."""
        self._on_doubt()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # --- opening ---

    def _ready(self) -> sqlite3.Connection:
        if self._connection is not None and self._path is not None and self._parts != _parts(self._path):
            self.close()
            self._note("was removed or replaced while it was in use")
            raise StorageError(self._failure)
        if self._connection is None:
            if time.monotonic() - self._failed_at < REOPEN_S:
                raise StorageError(self._failure)
            self._open()
        assert self._connection is not None  # noqa: S101  # _open raises otherwise
        return self._connection

    def _open(self) -> None:
        if self._condemned is not None and self._condemned == _look(self._path):
            self._failed_at = time.monotonic()
            raise StorageError(self._failure)
        self._condemned = None
        with contextlib.ExitStack() as undo:
            try:
                connection = sqlite3.connect(self._path or ":memory:", timeout=BUSY_S, isolation_level=None)
                undo.callback(connection.close)
                self._set_up(connection)
            except (sqlite3.Error, OSError) as error:
                undo.close()
                raise self._failed(error) from error
            except StorageError as error:
                undo.close()
                raise self._condemn(str(error)) from error
            undo.pop_all()
        self._connection, self._durable, self._checkpointed = connection, False, 0
        self._parts = _parts(self._path)

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = _text
        version = self._schema.version_of(connection)  # before anything is written
        if self._path is not None and version and self._path.stat().st_size <= CHECK_UP_TO_BYTES:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise StorageError(f"is damaged: {' '.join(str(found).split())}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if self._path is not None and mode != "wal":
            raise OSError(f"this file system does not allow a write-ahead log ({mode})")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages; normally `tidy` comes first
        before = self._schema.prepare(connection)
        if self._path is None or before == self._schema.version:
            return
        if before:
            _log.info("%s: brought from schema %d to %d", self.name, before, self._schema.version)
        else:
            _log.info("%s: a new, empty %s was made", self.name, self._schema.name)

    # --- trouble ---

    def _set_durable(self, connection: sqlite3.Connection, durable: bool) -> None:  # noqa: FBT001  # one setter
        if durable != self._durable:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._on_doubt()
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()

    def _failed(self, error: Exception) -> StorageError:
        """What an error means for the connection, and what those who wait are told."""
        if isinstance(error, StorageError):
            return error
        if not isinstance(error, (sqlite3.Error, OSError)) or isinstance(error, _REQUESTS_OWN):
            return RequestError(f"{self.name}: cannot be stored: {_said(error)}")
        code = _code(error)
        if code in _DAMAGED:
            self.close()
            return self._condemn(f"is damaged: {_said(error)}")
        if code in _GIVE_UP or isinstance(error, OSError):
            self.close()
        self._note(_said(error))
        return StorageError(self._failure)

    def _note(self, problem: str) -> None:
        self._failure = f"{self.name}: {problem}"
        self._failed_at = time.monotonic()

    def _condemn(self, problem: str) -> StorageError:
        """Leave the file alone until it is another one."""
        self._note(f"{problem}; it is left as it is and nothing is stored until a person puts another in its place")
        self._condemned = _look(self._path)
        return StorageError(self._failure)


class RequestError(StorageError):
    """The fault lies in what was to be stored, not in the database."""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")  # a damaged text is no reason to fail


def _code(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF  # without its extension


def _said(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error) or type(error).__name__


def _parts(path: Path | None) -> tuple[object, ...]:
    """Which files the database is made of: somebody who moves one of them must not be written to in the dark."""
    return () if path is None else tuple(_identities(path))


def _identities(path: Path) -> Iterator[object]:
    for suffix in ("", "-wal", "-shm"):
        try:
            found = os.stat(f"{path}{suffix}")  # noqa: PTH116  # three times a transaction: no detour
        except OSError:
            yield None
        else:
            yield found.st_dev, found.st_ino


def _look(path: Path | None) -> object:
    """What a file looks like from outside; another value: somebody did something about it."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
