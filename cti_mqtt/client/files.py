"""Files on the cycler's PC, over a connection of their own to the file port."""

import asyncio
import hashlib
import io
import math
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cti_mqtt.client.connection import Connection
from cti_mqtt.client.exchange import SingleExchange
from cti_mqtt.client.file_exchanges import (
    DownloadExchange,
    Progress,
    ProvenExchange,
    Spool,
    UploadAnswer,
    UploadExchange,
    md5_of,
    no_progress,
)
from cti_mqtt.client.session import Session
from cti_mqtt.cti.messages.files import (
    CHUNK_BYTES,
    BrowseFeedback,
    BrowseRequest,
    DeleteRequest,
    DownloadRequest,
    Entry,
    EntryType,
    NewFolderRequest,
    NewOrDelete,
    NewOrDeleteRequest,
    UploadRequest,
)
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.paths import EXTENSIONS, SEPARATOR, CtiPath, cti_path, file_path
from cti_mqtt.cti.results import BrowseResult, FileResult, UploadResult
from cti_mqtt.errors import ChecksumError, FileRefusedError, FileTransferError, InvalidRequestError

LARGEST_FILE_BYTES = 1024 * 1024 * 1024
_ATTEMPTS = 2  # a file, or a chunk of one, is sent again once
_DIRECTORIES = frozenset({BrowseResult.DIRECTORY, BrowseResult.SCHEDULE_DIRECTORY})


@dataclass(frozen=True, slots=True)
class Listing:
    """What a directory holds.

    Attributes:
        kind: DIRECTORY or SCHEDULE_DIRECTORY.
        entries: in the cycler's order.
    """

    kind: BrowseResult
    entries: tuple[Entry, ...]


class FileClient(Session):
    """The files of a cycler that one is logged in to, on its file port; made by `connect`.

    Every operation raises InvalidRequestError for a path that leaves the directories a client may see (nothing was sent
    then), FileRefusedError where the cycler says no, and NotSentError, OutcomeUnknownError and UnsupportedCommandError
    as everywhere. A connection that ends in the middle is a ConnectionLostError.

    Progress is told as (done, total) in bytes, with the first chunk on; it begins anew when a file comes once more. The
    total of a download is an estimate, at most a chunk too high, until the last chunk has come.

    Args:
        name: how logs and errors call the cycler.
        connection: logged in.
        info: what the cycler said of itself.
        clock: gives each file its time stamp, in s; need not move on between two files.
    """

    def __init__(
        self, name: str, connection: Connection, info: LoginFeedback, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(name, connection, info)
        self._clock = clock
        self._last_stamp = 0.0

    # --- directories ---

    async def browse(self, path: str = "") -> Listing:
        """What a directory holds; the empty path holds the directories that a client may see.

        Raises:
            FileRefusedError: it is no directory.

        Source: v1.1, "Browse directory".
        """
        where = cti_path(path)
        feedback: BrowseFeedback = await self._connection.ask(SingleExchange(BrowseRequest(str(where))))
        if feedback.result not in _DIRECTORIES:
            raise self._refusal(where, f"no such directory ({feedback.result.text})", feedback.result)
        return Listing(feedback.result, feedback.entries)

    async def make_folder(self, path: str) -> None:
        """Make a folder.

        Raises:
            FileRefusedError: there is none now that was not there before.
            ChecksumError: the answer came damaged; look whether it is there.

        Source: v1.1, "New folder".
        """
        where = _inside(path)
        await self._change(where, NewFolderRequest(str(where)), FileResult.CREATED)

    async def delete(self, path: str) -> None:
        """Delete a file with one of the extensions that are allowed, or a folder.

        Raises:
            FileRefusedError: it is still there, or never was.
            ChecksumError: the answer came damaged; look whether it is gone.

        Source: v1.1, "Delete file or folder".
        """
        where = await self._deletable(path)
        await self._change(where, DeleteRequest(str(where)), FileResult.DELETED)

    async def new_or_delete(self, path: str, action: NewOrDelete) -> None:
        """Make a folder or delete something in the deprecated way, for cyclers that know no other.

        Raises:
            FileRefusedError, ChecksumError: as `make_folder` and `delete`.

        Source: v1.1, "New or delete".
        """
        if action is NewOrDelete.NEW:
            where, expected = _inside(path), FileResult.CREATED
        else:
            where, expected = await self._deletable(path), FileResult.DELETED
        await self._change(where, NewOrDeleteRequest(action, str(where)), expected)

    async def _deletable(self, text: str) -> CtiPath:
        """A path that may be deleted; a folder can be called like a file of any kind, so the cycler is asked."""
        path = _inside(text)
        if path.extension_allowed or "." not in path.name:
            return path
        parent = await self.browse(SEPARATOR.join(path.parts[:-1]))
        folders = {entry.name.casefold() for entry in parent.entries if entry.type == EntryType.DIRECTORY}
        if path.name.casefold() not in folders:
            raise InvalidRequestError(f"{text!r}: only files with {', '.join(EXTENSIONS)} may be deleted")
        return path

    async def _change(self, path: CtiPath, request: Any, expected: FileResult) -> None:
        feedback = await self._connection.ask(ProvenExchange(request))
        if feedback.result != expected:
            raise self._refusal(path, f"the cycler says: {feedback.result.text}", feedback.result)

    def _refusal(self, path: CtiPath, why: str, code: int) -> FileRefusedError:
        return FileRefusedError(f"{self._name}: {str(path) or 'the root'}: {why}", code)

    # --- download ---

    async def download(
        self,
        path: str,
        destination: Path,
        progress: Progress = no_progress,
        *,
        overwrite: bool = True,
        max_bytes: int = LARGEST_FILE_BYTES,
    ) -> int:
        """Bring a file here, whole or not at all; its size in bytes.

        Each chunk's MD5 is checked. If one is wrong or missing, the whole file is asked for once more. What has come
        waits in a file without a name, in the destination's folder, which ends with the process.

        Args:
            path: of the file on the cycler's PC.
            destination: its path here.
            progress: told of each chunk.
            overwrite: whether it may replace a file.
            max_bytes: the largest file that is taken.

        Raises:
            FileExistsError: there is a file already, and it may not be replaced; other OSErrors: cannot be written.
            FileTransferError: not whole the second time either, or larger than is taken.

        Source: v1.1, "Download file".
        """
        where = _inside(path)
        _check_destination(destination, overwrite=overwrite)
        with Spool(destination.parent) as spool:
            await self._fetch(where, spool, progress, max_bytes)
            await asyncio.to_thread(_move_into_place, spool, destination, overwrite=overwrite)
            return spool.size

    async def download_bytes(
        self, path: str, progress: Progress = no_progress, *, max_bytes: int = LARGEST_FILE_BYTES
    ) -> bytes:
        """A file's content; as `download`.

        Raises:
            FileTransferError: not whole the second time either, or larger than is taken.
        """
        where = _inside(path)
        with Spool() as spool:
            await self._fetch(where, spool, progress, max_bytes)
            return await asyncio.to_thread(spool.content)

    async def _fetch(self, path: CtiPath, spool: Spool, progress: Progress, max_bytes: int) -> None:
        """Into the spool; two attempts that agree prove each other where checksums prove nothing."""
        earlier: tuple[bytes, ...] | None = None
        problem = ""
        for _ in range(_ATTEMPTS):
            spool.clear()
            request = DownloadRequest(str(path), self._next_stamp())
            exchange = DownloadExchange(f"{self._name}: {path}", request, spool, progress, max_bytes)
            attempt = await self._connection.ask(exchange)
            problem = attempt.problem
            if not problem:
                if attempt.proven or attempt.md5s == earlier:
                    return
                earlier = attempt.md5s
                problem = "the chunks came with wrong checksums, and with other contents the second time"
        raise FileTransferError(f"{self._name}: {path}: {problem} (asked {_ATTEMPTS} times)")

    def _next_stamp(self) -> float:
        """Seconds since the epoch, never the same twice."""
        self._last_stamp = max(self._clock(), math.nextafter(self._last_stamp, math.inf))
        return self._last_stamp

    # --- upload ---

    async def upload(
        self, source: Path, path: str, progress: Progress = no_progress, *, max_bytes: int = LARGEST_FILE_BYTES
    ) -> int:
        """Send a file; its size in bytes. A file of that name is replaced.

        One chunk at a time, each answered; one that arrives damaged is sent once more.

        Args:
            source: the file here.
            path: its path on the cycler's PC, with one of the extensions that are allowed.
            progress: told of each chunk.
            max_bytes: the largest file that is sent.

        Raises:
            FileRefusedError: the cycler does not take it, or it is in use there.
            FileTransferError: a chunk arrived damaged twice, or the file changed while it was read.
            InvalidRequestError: it is too large.
            OSError: it cannot be read.

        Source: v1.1, "Upload file".
        """
        where = file_path(path)
        with await asyncio.to_thread(source.open, "rb") as file:
            return await self._send(file, os.fstat(file.fileno()).st_size, where, progress, max_bytes)

    async def upload_bytes(
        self, content: bytes, path: str, progress: Progress = no_progress, *, max_bytes: int = LARGEST_FILE_BYTES
    ) -> int:
        """Send a file's content; as `upload`.

        Raises:
            FileRefusedError, FileTransferError, InvalidRequestError: as `upload`.
        """
        return await self._send(io.BytesIO(content), len(content), file_path(path), progress, max_bytes)

    async def _send(self, file: BinaryIO, size: int, path: CtiPath, progress: Progress, max_bytes: int) -> int:
        if size > max_bytes:
            raise InvalidRequestError(f"{path}: {size} bytes are too many; at most {max_bytes} are sent")
        packages = max(math.ceil(size / CHUNK_BYTES), 1)
        stamp = self._next_stamp()
        whole = hashlib.md5(usedforsecurity=False)
        proven = True
        done = 0
        for index in range(packages):
            data = await asyncio.to_thread(file.read, CHUNK_BYTES)
            if len(data) != min(CHUNK_BYTES, size - done):
                raise FileTransferError(f"{path}: the file changed while it was read")
            request = UploadRequest(str(path), len(data), packages, index, stamp, md5_of(data), data)
            answer = await self._send_chunk(path, request)
            proven &= answer.proven
            whole.update(data)
            done += len(data)
            progress(done, size)
        if not proven:
            await self._prove(path, size, whole.digest())
        return size

    async def _send_chunk(self, path: CtiPath, request: UploadRequest) -> UploadAnswer:
        for _ in range(_ATTEMPTS):
            answer = await self._connection.ask(UploadExchange(request))
            if answer.result == UploadResult.OK:
                return answer
            if answer.result != UploadResult.MD5:
                raise self._refusal(path, f"the cycler says: {answer.result.text}", answer.result)
        where = f"chunk {request.index + 1} of {request.packages}"
        raise FileTransferError(f"{self._name}: {path}: {where} arrived with a wrong MD5 (sent {_ATTEMPTS} times)")

    async def _prove(self, path: CtiPath, size: int, digest: bytes) -> None:
        """Answers with wrong checksums prove nothing: read the file back.

        Raises:
            ChecksumError: it is another one.
        """
        with Spool() as spool:
            await self._fetch(path, spool, no_progress, max(size, LARGEST_FILE_BYTES))
            if await asyncio.to_thread(spool.digest) != digest:
                raise ChecksumError(
                    f"{self._name}: {path}: the answers came with wrong checksums, and another file is there now"
                )


# --- paths here and there ---


def _inside(text: str) -> CtiPath:
    """A path below one of the directories that a client may see.

    Raises:
        InvalidRequestError: it leaves them, or is one of them.
    """
    path = cti_path(text)
    if not path.inside:
        raise InvalidRequestError(f"{text!r} is a directory that is always there; name something in it")
    return path


def _check_destination(destination: Path, *, overwrite: bool) -> None:
    """Before anything is sent: could a file be put there?

    Raises:
        OSError: it could not.
    """
    if destination.is_dir():
        raise IsADirectoryError(f"{destination} is a directory")
    if not destination.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {destination.parent}")
    if destination.exists() and not overwrite:
        raise FileExistsError(f"{destination} is there already")


def _move_into_place(spool: Spool, destination: Path, *, overwrite: bool) -> None:
    """Write the file beside its destination, then move it there in one step."""
    unfinished = destination.with_name(f".cti-mqtt-{secrets.token_hex(8)}.part")
    try:
        with unfinished.open("xb") as file:
            spool.copy_to(file)
            file.flush()
            os.fsync(file.fileno())
        _check_destination(destination, overwrite=overwrite)
        unfinished.replace(destination)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
