"""Exchanges about files: a download is many chunks for one request, an upload one answer for each chunk.

As all exchanges, they know neither sockets nor clocks.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Any, BinaryIO, Self

from cti_mqtt.client.exchange import Exchange, SingleExchange
from cti_mqtt.cti.messages.files import DownloadFeedback, DownloadRequest, UploadFeedback, UploadRequest
from cti_mqtt.cti.results import DownloadResult, UploadResult
from cti_mqtt.cti.stream import Checksum
from cti_mqtt.errors import ChecksumError, CtiMqttError, FeedbackTimeoutError, FileRefusedError, FileTransferError

IN_MEMORY_BYTES = 8 * 1024 * 1024  # of a file on its way; what is more waits on disk
_COPY_BYTES = 1024 * 1024
_MAX_PACKAGES = 1 << 16  # 32 GiB; nobody waits for chunk after chunk of nothing

Progress = Callable[[int, int], None]


def no_progress(done_bytes: int, total_bytes: int) -> None:
    """Nobody wants to know."""
    del done_bytes, total_bytes


def md5_of(data: bytes) -> bytes:
    """The digest that travels with a chunk: against damage, not against forgery."""
    return hashlib.md5(data, usedforsecurity=False).digest()


class Spool:
    """Chunks of a file in the order in which they come: a little in memory, more in a file without a name.

    That file is gone with the process, however it ends (on Windows too, where it has a name while it is open).

    Args:
        folder: where that file lies; the system's place for such files unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        where = str(folder) if folder else None
        self._file = SpooledTemporaryFile(IN_MEMORY_BYTES, dir=where)  # noqa: SIM115  # closed by __exit__
        self._pieces: dict[int, tuple[int, int]] = {}
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, index: int, data: bytes) -> None:
        """Keep a chunk.

        Raises:
            OSError: there is no room for it.
        """
        self._file.write(data)
        self._pieces[index] = (self.size, len(data))
        self.size += len(data)

    def clear(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self._pieces.clear()
        self.size = 0

    def copy_to(self, target: BinaryIO) -> None:
        """Write the file as it is meant to be, chunk after chunk.

        Raises:
            OSError: it cannot be written.
        """
        for index in sorted(self._pieces):
            position, left = self._pieces[index]
            self._file.seek(position)
            while left:
                piece = self._file.read(min(left, _COPY_BYTES))
                target.write(piece)
                left -= len(piece)

    def content(self) -> bytes:
        """The whole file."""
        target = io.BytesIO()
        self.copy_to(target)
        return target.getvalue()

    def digest(self) -> bytes:
        """The MD5 of the whole file."""
        whole = hashlib.md5(usedforsecurity=False)
        for index in sorted(self._pieces):
            position, size = self._pieces[index]
            self._file.seek(position)
            whole.update(self._file.read(size))  # a chunk: never more than a frame
        return whole.digest()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a download went.

    Attributes:
        problem: why the file is not whole; empty if it is.
        proven: whether the checksum of each chunk was right.
        md5s: of the chunks, in the order of the file.
    """

    problem: str
    proven: bool
    md5s: tuple[bytes, ...]


class DownloadExchange(Exchange[Attempt]):
    """All chunks of a file, in any order, counted from 0 or from 1.

    A chunk with a wrong MD5, or one that does not come, makes the attempt a failure once no more is coming; an attempt
    that nobody waits for any more, or that is past saving, is heard to its end all the same: the next request's turn
    comes after it.

    Args:
        label: how errors call the file.
        request: its time tells this attempt's chunks from those of an earlier one.
        spool: where the chunks go; not touched any more once the outcome is there.
        progress: told (done, total) in bytes; the total is an estimate until the last chunk has come.
        max_bytes: the largest file that is taken.
    """

    quiet_s = inf  # silence after some chunks ends the attempt, not the session; the time-out says how long
    alone = True

    def __init__(self, label: str, request: DownloadRequest, spool: Spool, progress: Progress, max_bytes: int) -> None:
        super().__init__(request)
        self._label = label
        self._spool = spool
        self._progress = progress
        self._max_bytes = max_bytes
        self._packages: int | None = None
        self._md5s: dict[int, bytes | None] = {}  # None: came damaged
        self._largest = 0
        self._flaw = ""
        self._proven = True

    def offer(self, feedback: DownloadFeedback, checksum: Checksum) -> bool:
        """Takes a chunk of this attempt."""
        if feedback.time != self.request.time:
            return False
        if feedback.result not in {DownloadResult.OK, DownloadResult.MD5}:
            self.fail(FileRefusedError(f"{self._label}: the cycler says: {feedback.result.text}", feedback.result))
            return True
        if feedback.packages > _MAX_PACKAGES:
            self.fail(FileTransferError(f"{self._label}: {feedback.packages} chunks cannot be"))
            return True
        self._proven &= checksum is not Checksum.WRONG
        if self._packages is None:
            self._packages = max(feedback.packages, 1)  # an empty file may have none
        if max(feedback.packages, 1) != self._packages or feedback.index > self._packages:
            self._flaw = "the chunks contradict each other about how many there are"
        try:
            self._take(feedback)
        except Exception as error:  # noqa: BLE001 - a full disk, or a bug in the caller's progress: the caller's to know
            self._give_up(error)
        if len(self._md5s) >= self._packages:
            self._end()
        return True

    def _take(self, chunk: DownloadFeedback) -> None:
        sound = chunk.result is DownloadResult.OK and md5_of(chunk.data) == chunk.md5
        if self._md5s.get(chunk.index) is not None:
            if sound and chunk.md5 != self._md5s[chunk.index]:
                self._flaw = "a chunk came twice, with different contents"
            return
        self._md5s[chunk.index] = chunk.md5 if sound else None
        if not sound or self.outcome.done():
            return
        self._largest = max(self._largest, len(chunk.data))
        least = ((self._packages or 1) - 1) * len(chunk.data)
        if max(least, self._spool.size + len(chunk.data)) > self._max_bytes:
            self._give_up(FileTransferError(f"{self._label}: larger than {self._max_bytes} bytes, the most taken"))
            return
        self._spool.put(chunk.index, chunk.data)
        missing = (self._packages or 1) - len(self._md5s)
        self._progress(self._spool.size, self._spool.size + missing * self._largest)

    def _give_up(self, error: Exception) -> None:
        """Tell the caller, and hear the rest."""
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def _end(self) -> None:
        self.succeed(Attempt(self._problem(), self._proven, tuple(self._md5s[i] or b"" for i in sorted(self._md5s))))

    def _problem(self) -> str:
        packages = self._packages or 0
        came = set(self._md5s)
        if self._flaw:
            return self._flaw
        if came not in (set(range(packages)), set(range(1, packages + 1))):
            return f"{len(came)} of {packages} chunks came"
        damaged = sum(md5 is None for md5 in self._md5s.values())
        return f"{damaged} of {packages} chunks came with a wrong MD5" if damaged else ""

    def run_out(self, error: CtiMqttError) -> None:
        """Silence after some chunks is a failed attempt; anything else is the caller's to know."""
        if self._md5s and isinstance(error, FeedbackTimeoutError):
            self._flaw = self._flaw or f"{len(self._md5s)} of {self._packages} chunks came"
            self._end()
        else:
            self.fail(error)


@dataclass(frozen=True, slots=True)
class UploadAnswer:
    """What the cycler says of a chunk, and whether the answer's checksum was right."""

    result: UploadResult
    proven: bool


class UploadExchange(Exchange[UploadAnswer]):
    """One chunk of a file, answered by the time of its file and its index.

    Args:
        request: the chunk.
    """

    def __init__(self, request: UploadRequest) -> None:
        super().__init__(request)

    def offer(self, feedback: UploadFeedback, checksum: Checksum) -> bool:
        """Settles with the answer to this chunk, in either document's form."""
        answer = feedback.read(self.request.time)
        if answer is None or answer[0] != self.request.index:
            return False
        self.succeed(UploadAnswer(answer[1], checksum is not Checksum.WRONG))
        return True


class ProvenExchange(SingleExchange):
    """One feedback, which must be sound: a new folder, a deletion."""

    def offer(self, feedback: Any, checksum: Checksum) -> bool:
        """Settles with the feedback; a damaged one proves nothing."""
        if checksum is Checksum.WRONG:
            self.fail(ChecksumError("the feedback arrived with a wrong checksum, which proves nothing"))
            return True
        return super().offer(feedback, checksum)
