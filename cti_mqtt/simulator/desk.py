"""The file requests of one connection, carried out in threads so that nobody else waits for a disk."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, BinaryIO, NamedTuple

from cti_mqtt.cti.messages.files import (
    CHUNK_BYTES,
    BrowseFeedback,
    BrowseRequest,
    DeleteFeedback,
    DeleteRequest,
    DownloadFeedback,
    DownloadRequest,
    NewFolderFeedback,
    NewFolderRequest,
    NewOrDelete,
    NewOrDeleteFeedback,
    NewOrDeleteRequest,
    UploadFeedback,
    UploadRequest,
)
from cti_mqtt.cti.paths import cti_path
from cti_mqtt.cti.results import BrowseResult, DownloadResult, FileResult, UploadResult
from cti_mqtt.errors import InvalidRequestError
from cti_mqtt.simulator.filearea import FileArea
from cti_mqtt.simulator.files import Files
from cti_mqtt.simulator.injector import Injector
from cti_mqtt.simulator.upload import Upload, digest, sound
from cti_mqtt.simulator.users import Session

REQUESTS = (BrowseRequest, DownloadRequest, UploadRequest, NewFolderRequest, DeleteRequest, NewOrDeleteRequest)
_NO_MD5 = bytes(16)
_MAX_UPLOADS = 8  # that one connection may have begun


class Answer(NamedTuple):
    """One feedback to a file request.

    Attributes:
        feedback: what it says.
        cut: whether the connection ends in its middle.
    """

    feedback: Any
    cut: bool = False


class Desk:
    """Answers the file requests of one connection.

    Args:
        files: the file area, and who uses what in it.
        session: what the cycler knows of the client.
    """

    def __init__(self, files: Files, session: Session) -> None:
        self._files = files
        self._area: FileArea = files.area
        self._session = session
        self._uploads: dict[str, Upload] = {}
        self._handlers: dict[type[Any], Callable[[Any], Any]] = {
            BrowseRequest: self._browse,
            NewFolderRequest: self._new_folder,
            DeleteRequest: self._delete,
            NewOrDeleteRequest: self._new_or_delete,
        }

    def close(self) -> None:
        """Forget what was not finished."""
        for upload in self._uploads.values():
            upload.close()
        self._uploads.clear()

    async def answers(self, request: Any, injector: Injector) -> AsyncGenerator[Answer, None]:
        """The feedbacks to a file request, one after the other; none before login."""
        if self._session.user is None:
            return
        if isinstance(request, DownloadRequest):
            async with aclosing(self._download(request, injector)) as answers:
                async for answer in answers:
                    yield answer
        elif isinstance(request, UploadRequest):
            yield await self._upload(request, injector)
        else:
            yield Answer(await self._handlers[type(request)](request))

    @property
    def _may_change(self) -> bool:
        return self._session.user is not None and self._session.user.may_control

    # --- directories -------------------------------------------------------------------------------------------------

    async def _browse(self, request: BrowseRequest) -> BrowseFeedback:
        return await asyncio.to_thread(self._area.browse, request.path)

    async def _new_folder(self, request: NewFolderRequest) -> NewFolderFeedback:
        return NewFolderFeedback(await self._make(request.path))

    async def _delete(self, request: DeleteRequest) -> DeleteFeedback:
        return DeleteFeedback(await self._remove(request.path))

    async def _new_or_delete(self, request: NewOrDeleteRequest) -> NewOrDeleteFeedback:
        if request.type == NewOrDelete.NEW:
            return NewOrDeleteFeedback(await self._make(request.path))
        if request.type == NewOrDelete.DELETE:
            return NewOrDeleteFeedback(await self._remove(request.path))
        return NewOrDeleteFeedback(FileResult.CREATE_FAILED)

    async def _make(self, path: str) -> FileResult:
        if not self._may_change:
            return FileResult.CREATE_FAILED
        return await asyncio.to_thread(self._area.new_folder, path)

    async def _remove(self, path: str) -> FileResult:
        if not self._may_change:
            return FileResult.DELETE_FAILED
        if self._files.in_use(path):
            return FileResult.IN_USE
        result = await asyncio.to_thread(self._area.delete, path)
        if result is FileResult.DELETED:
            self._files.removed(path)
        return result

    # --- download ----------------------------------------------------------------------------------------------------

    async def _download(self, request: DownloadRequest, injector: Injector) -> AsyncGenerator[Answer, None]:
        faults = injector.faults
        try:
            file, size = await asyncio.to_thread(self._area.open, request.path)
        except (InvalidRequestError, OSError):
            yield Answer(_no_chunk(request, DownloadResult.FAILED))
            return
        with file:  # one for all chunks: an upload meanwhile does not mix with it
            if size > faults.largest_file_bytes:
                yield Answer(_no_chunk(request, DownloadResult.TOO_LARGE))
                return
            packages = max(-(-size // CHUNK_BYTES), 1)  # an empty file is one empty chunk
            for number in range(1, packages + 1):
                data, md5 = await asyncio.to_thread(_chunk, file)
                if injector.strikes("bad_md5", faults.bad_md5, number):
                    md5 = bytes(byte ^ 0xFF for byte in md5)
                index = number - 1 + faults.first_index
                feedback = DownloadFeedback(DownloadResult.OK, request.time, packages, index, md5, data)
                yield Answer(feedback, injector.strikes("cut_chunk", faults.cut_chunk, number))

    # --- upload ------------------------------------------------------------------------------------------------------

    async def _upload(self, chunk: UploadRequest, injector: Injector) -> Answer:
        faults = injector.faults
        number = self._count_of(chunk) + 1
        if injector.strikes("cut_chunk", faults.cut_chunk, number):
            return Answer(_answer_to(chunk, UploadResult.FAILED), cut=True)
        return Answer(_answer_to(chunk, await self._take(chunk, number, injector)))

    async def _take(self, chunk: UploadRequest, number: int, injector: Injector) -> UploadResult:
        if not (self._may_change and sound(chunk) and await asyncio.to_thread(self._area.may_write, chunk.path)):
            return UploadResult.FAILED
        if self._files.in_use(chunk.path):
            return UploadResult.FILE_IN_USE
        md5 = await asyncio.to_thread(digest, chunk.data)
        if md5 != chunk.md5 or injector.strikes("bad_md5", injector.faults.bad_md5, number):
            return UploadResult.MD5
        upload = self._upload_of(chunk)
        await asyncio.to_thread(upload.add, chunk)
        if upload.size > injector.faults.largest_file_bytes:
            self._forget(chunk.path)
            return UploadResult.FAILED
        return await self._finish(chunk.path, upload) if upload.complete else UploadResult.OK

    async def _finish(self, path: str, upload: Upload) -> UploadResult:
        try:
            await asyncio.to_thread(self._area.write, path, upload.pieces())
        except (InvalidRequestError, OSError):
            return UploadResult.FAILED
        finally:
            self._forget(path)
        await self._files.written(path)
        return UploadResult.OK

    def _count_of(self, chunk: UploadRequest) -> int:
        upload = self._uploads.get(_key(chunk.path))
        return upload.count if upload and upload.accepts(chunk) else 0

    def _upload_of(self, chunk: UploadRequest) -> Upload:
        """The upload that a chunk belongs to; another time stamp begins anew."""
        upload = self._uploads.get(_key(chunk.path))
        if upload is None or not upload.accepts(chunk):
            self._forget(chunk.path)
            if len(self._uploads) == _MAX_UPLOADS:
                self._forget(next(iter(self._uploads)))
            upload = self._uploads[_key(chunk.path)] = Upload(chunk)
        return upload

    def _forget(self, path: str) -> None:
        upload = self._uploads.pop(_key(path), None)
        if upload:
            upload.close()


def _chunk(file: BinaryIO) -> tuple[bytes, bytes]:
    """The next chunk and its MD5."""
    data = file.read(CHUNK_BYTES)
    return data, digest(data)


def refusal(request: Any, code: int) -> Any:
    """The feedback to a file request that says so, without doing anything."""
    match request:
        case BrowseRequest():
            return BrowseFeedback(BrowseResult(code), ())
        case DownloadRequest():
            return _no_chunk(request, DownloadResult(code))
        case UploadRequest():
            return _answer_to(request, UploadResult(code))
        case NewFolderRequest():
            return NewFolderFeedback(FileResult(code))
        case DeleteRequest():
            return DeleteFeedback(FileResult(code))
        case _:
            return NewOrDeleteFeedback(FileResult(code))


def _no_chunk(request: DownloadRequest, result: DownloadResult) -> DownloadFeedback:
    return DownloadFeedback(result, request.time, 0, 0, _NO_MD5, b"")


def _answer_to(chunk: UploadRequest, result: UploadResult) -> UploadFeedback:
    return UploadFeedback.of(chunk.time, chunk.packages, chunk.index, result)


def _key(path: str) -> str:
    """One key for all ways to write a path."""
    try:
        return str(cti_path(path))
    except InvalidRequestError:
        return path
