"""The files of the cycler's PC: a real directory that nobody leaves.

Everything here blocks; callers do it in a thread. Paths come from peers and are checked by `cti.paths`; links are not
followed.
"""

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from cti_mqtt.cti.messages.files import CHUNK_BYTES, BrowseFeedback, Entry, EntryType
from cti_mqtt.cti.paths import DIRECTORIES, SEPARATOR, CtiPath, cti_path, file_path
from cti_mqtt.cti.results import BrowseResult, FileResult
from cti_mqtt.errors import InvalidRequestError

SCHEDULE_DIRECTORY = "Work"  # what is assigned lies here; it and its folders are "schedule directories"
MAX_NAME_UNITS = 63  # UTF-16 units of a name that an entry can show
MAX_ENTRIES = 5000  # of a directory; more would not fit into the largest frame that a client takes
MAX_SIZE = 0x7FFFFFFF  # that an entry can show
_UNFINISHED = ".unfinished-"  # files that are being written; hidden, as everything that begins with a dot


class FileArea:
    """The directories that a client may see, below one real directory.

    Args:
        root: that directory; made if it is not there, with the directories in it.

    Raises:
        OSError: it cannot be made, or one of the directories is a link.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        for directory in DIRECTORIES:
            where = self._root / directory
            where.mkdir(parents=True, exist_ok=True)
            if where.is_symlink():
                raise NotADirectoryError(f"{where} is a link")
            for left in where.rglob(f"{_UNFINISHED}*"):  # by a simulator that was killed
                left.unlink()

    def locate(self, path: CtiPath) -> Path:
        """Where a path really lies.

        Raises:
            InvalidRequestError: over a link.
        """
        where = self._root
        for part in path.parts:
            if part.startswith("."):
                raise InvalidRequestError(f"{path} is hidden")
            where /= part
            if where.is_symlink():
                raise InvalidRequestError(f"{path} leads over a link")
        return where

    # --- schedules ---------------------------------------------------------------------------------------------------

    def schedule_files(self) -> dict[str, bytes]:
        """What the schedules in the schedule directory hold, by name; of large files the beginning."""
        found = {}
        for where in sorted((self._root / SCHEDULE_DIRECTORY).iterdir()):
            entry = _entry(CtiPath((SCHEDULE_DIRECTORY,)), where)
            if entry and entry.type == EntryType.FILE and where.suffix.lower() == ".sdx":
                with where.open("rb") as file:
                    found[where.name] = file.read(CHUNK_BYTES)
        return found

    def put_schedule(self, name: str, content: bytes) -> None:
        """Write a schedule unless there is a file of that name."""
        where = self._root / SCHEDULE_DIRECTORY / name
        if not where.exists():
            where.write_bytes(content)

    # --- what clients ask --------------------------------------------------------------------------------------------

    def browse(self, text: str) -> BrowseFeedback:
        """What a directory holds; the empty path holds the directories."""
        try:
            path = cti_path(text)
            where = self.locate(path)
            entries = [entry for each in where.iterdir() if (entry := _entry(path, each))]
        except (InvalidRequestError, OSError):
            return BrowseFeedback(BrowseResult.INVALID, ())
        entries.sort(key=lambda entry: (entry.type, entry.name.casefold()))
        kind = BrowseResult.SCHEDULE_DIRECTORY if path.directory == SCHEDULE_DIRECTORY else BrowseResult.DIRECTORY
        return BrowseFeedback(kind, tuple(entries[:MAX_ENTRIES]))

    def open(self, text: str) -> tuple[BinaryIO, int]:
        """A file for reading, and its size in bytes; whoever asks closes it.

        Raises:
            OSError: it cannot be read.
            InvalidRequestError: no such path, or no file.
        """
        where = self.locate(cti_path(text))
        if not where.is_file():
            raise InvalidRequestError(f"{text!r} is not a file")
        file = where.open("rb")
        return file, os.fstat(file.fileno()).st_size

    def may_write(self, text: str) -> bool:
        """Whether a file could be written there."""
        try:
            path = file_path(text)
            where = self.locate(path)
            return _fits(path.name) and where.parent.is_dir() and not where.is_dir()
        except (InvalidRequestError, OSError):
            return False

    def write(self, text: str, pieces: Iterable[bytes]) -> None:
        """Write a file whole or not at all.

        Raises:
            OSError: it cannot be written.
            InvalidRequestError: no such path.
        """
        where = self.locate(file_path(text))
        unfinished = where.with_name(_UNFINISHED + secrets.token_hex(8))
        try:
            with unfinished.open("xb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(where)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise

    def new_folder(self, text: str) -> FileResult:
        """Make a folder; the directories themselves are given, beside them none is allowed."""
        try:
            path = cti_path(text)
            where = self.locate(path)
        except (InvalidRequestError, OSError):
            return FileResult.NO_FOLDERS_ALLOWED_HERE
        if not path.inside:
            return FileResult.NO_FOLDERS_ALLOWED_HERE
        if not _fits(path.name):
            return FileResult.CREATE_FAILED
        try:
            where.mkdir()
        except OSError:
            return FileResult.CREATE_FAILED
        return FileResult.CREATED

    def delete(self, text: str) -> FileResult:
        """Delete a file, or a folder with nothing in it; the directories themselves stay."""
        try:
            path = cti_path(text)
            where = self.locate(path)
            if not where.exists():
                return FileResult.DOES_NOT_EXIST
            if not path.inside:
                return FileResult.DELETE_FAILED
            if where.is_dir():
                where.rmdir()
            elif not path.extension_allowed:
                return FileResult.EXTENSION_NOT_ALLOWED
            else:
                where.unlink()
        except InvalidRequestError:
            return FileResult.DOES_NOT_EXIST
        except OSError:
            return FileResult.DELETE_FAILED
        return FileResult.DELETED


def _fits(name: str) -> bool:
    try:
        return len(name.encode("utf-16-le")) <= 2 * MAX_NAME_UNITS
    except UnicodeEncodeError:  # a name that is no text, as Linux allows
        return False


def _entry(directory: CtiPath, where: Path) -> Entry | None:
    """What a directory shows of something in it; None for what clients do not see."""
    if where.name.startswith(".") or where.is_symlink() or not _fits(where.name):
        return None
    try:
        cti_path(SEPARATOR.join((*directory.parts, where.name)))
        status = where.stat()
    except (InvalidRequestError, OSError):  # no name on Windows; or gone meanwhile
        return None
    modified = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S")
    if stat.S_ISDIR(status.st_mode):
        return Entry(EntryType.DIRECTORY, where.name, 0, modified)
    if stat.S_ISREG(status.st_mode):
        return Entry(EntryType.FILE, where.name, min(status.st_size, MAX_SIZE), modified)
    return None
