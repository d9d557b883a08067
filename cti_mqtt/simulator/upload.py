"""A file that comes in chunks, until all of them are there."""

from collections.abc import Iterator
from hashlib import md5
from tempfile import SpooledTemporaryFile

from cti_mqtt.cti.messages.files import CHUNK_BYTES, UploadRequest

_IN_MEMORY_BYTES = 4 * 1024 * 1024
MAX_PACKAGES = 1 << 16


class Upload:
    """Chunks of one file under one time stamp, in any order, counted from 0 or from 1.

    They wait in an unnamed temporary file: whatever happens, nothing half-finished is left.

    Args:
        first: the first chunk that came; it is not taken yet.

    Attributes:
        size: how many bytes came, those that were replaced included.
    """

    def __init__(self, first: UploadRequest) -> None:
        self.size = 0
        self._stamp = (first.time, first.packages)
        self._spool = SpooledTemporaryFile[bytes](_IN_MEMORY_BYTES)
        self._chunks: dict[int, tuple[int, int]] = {}  # index -> offset and size in the spool

    def accepts(self, chunk: UploadRequest) -> bool:
        """Whether a chunk belongs to it: the same time stamp, the same number of chunks."""
        return (chunk.time, chunk.packages) == self._stamp

    @property
    def count(self) -> int:
        """How many chunks are there."""
        return len(self._chunks)

    @property
    def complete(self) -> bool:
        """Whether all chunks are there."""
        packages = self._stamp[1]
        indices = self._chunks.keys()
        return len(indices) == packages and max(indices) - min(indices) == packages - 1 and min(indices) in {0, 1}

    def add(self, chunk: UploadRequest) -> None:
        """Take a chunk; one that came before is replaced."""
        offset = self._spool.seek(0, 2)
        self._spool.write(chunk.data)
        self._chunks[chunk.index] = (offset, len(chunk.data))
        self.size = offset + len(chunk.data)

    def pieces(self) -> Iterator[bytes]:
        """The file."""
        for _, (offset, size) in sorted(self._chunks.items()):
            self._spool.seek(offset)
            yield self._spool.read(size)

    def close(self) -> None:
        """Forget everything."""
        self._spool.close()


def sound(chunk: UploadRequest) -> bool:
    """Whether a chunk's numbers fit each other."""
    return (
        0 < chunk.packages <= MAX_PACKAGES
        and chunk.index <= chunk.packages
        and len(chunk.data) == chunk.length <= CHUNK_BYTES
    )


def digest(data: bytes) -> bytes:
    """The MD5 that travels with a chunk."""
    return md5(data, usedforsecurity=False).digest()
