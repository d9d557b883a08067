"""The frame around every message: token, length, command code, arguments, checksum.

::

    offset  size  field
    0       8     token            DD DD DD DD DD DD DD 11
    8       4     length           request: whole frame - 12; feedback: whole frame
    12      4     command code
    16      4     extended code    always 0
    20      n     arguments
    20+n    2     checksum         sum of every preceding byte modulo 65536

Source: captured frames and ArbinCTI Protocol v1.1; older documents differ on token and feedback length.
"""

import struct
import zlib
from collections.abc import Iterator
from enum import Enum
from itertools import accumulate, starmap

TOKEN = bytes.fromhex("DDDDDDDDDDDDDD11")
HEADER = struct.Struct("<8sIII")
_LENGTH = struct.Struct("<I")
_CHECKSUM = struct.Struct("<H")
CHECKSUM_SIZE = _CHECKSUM.size
OVERHEAD = HEADER.size + CHECKSUM_SIZE
LENGTH_END = 12  # where a request starts counting

_BLOCK = struct.Struct("256s")  # the low word of adler32 is 1 + the sum of the bytes, exact below 65521 > 256 * 255 + 1


class Direction(Enum):
    """Who sends a frame; the value is how many bytes of it the length field leaves out."""

    REQUEST = LENGTH_END
    FEEDBACK = 0


def checksum(data: bytes | bytearray | memoryview) -> int:
    """The sum of all bytes modulo 65536."""
    view = memoryview(data)
    blocks, rest = divmod(len(view), _BLOCK.size)
    return (sum(_adlers(view[: len(view) - rest])) + zlib.adler32(view[len(view) - rest :]) - blocks - 1) & 0xFFFF


def _adlers(whole_blocks: memoryview) -> Iterator[int]:
    """A number for each block whose low word is the sum of its bytes and 1 more."""
    return starmap(zlib.adler32, _BLOCK.iter_unpack(whole_blocks))


class RunningSums:
    """Checksums over any stretch of a growing buffer, each byte summed about twice at the most.

    A peer can announce large frames that overlap, one every few bytes; summing each anew would take hours. So a stretch
    is summed by itself only where nobody asked for one of its bytes before, and else from the sums of all blocks.

    Args:
        buffer: where bytes are appended; only `discard` may take some away.
    """

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._asked = 0  # where the bytes begin that nobody has asked for yet
        self._before = [0]  # the sum of what `_adlers` says of all blocks ahead of each, as far as anybody asked

    def between(self, start: int, end: int) -> int:
        """The checksum over the bytes from `start` to `end`, which must be there."""
        asked, self._asked = self._asked, max(self._asked, end)
        if start >= asked:
            return checksum(memoryview(self._buffer)[start:end])
        with memoryview(self._buffer) as view:
            self._sum_blocks(view, end)
            return (self._up_to(view, end) - self._up_to(view, start)) & 0xFFFF

    def _sum_blocks(self, view: memoryview, end: int) -> None:
        before = self._before
        summed, wanted = (len(before) - 1) * _BLOCK.size, end - end % _BLOCK.size
        if wanted > summed:
            before += accumulate(_adlers(view[summed:wanted]), initial=before.pop())

    def _up_to(self, view: memoryview, position: int) -> int:
        block, rest = divmod(position, _BLOCK.size)
        return self._before[block] - block + checksum(view[position - rest : position])

    def discard(self, size: int) -> int:
        """Take whole blocks from the front of the buffer, at most `size` bytes; how many bytes went."""
        blocks = size // _BLOCK.size
        if blocks:
            del self._buffer[: blocks * _BLOCK.size]
            self._before = self._before[blocks:] or [0]
            self._asked = max(self._asked - blocks * _BLOCK.size, 0)
        return blocks * _BLOCK.size


def pack_frame(direction: Direction, code: int, arguments: bytes) -> bytes:
    """A whole frame around packed arguments."""
    size = OVERHEAD + len(arguments)
    body = HEADER.pack(TOKEN, size - direction.value, code, 0) + arguments
    return body + _CHECKSUM.pack(checksum(body))


def stored_checksum(frame: bytes | bytearray | memoryview) -> int:
    """The checksum that a whole frame carries in its last two bytes."""
    (value,) = _CHECKSUM.unpack_from(frame, len(frame) - CHECKSUM_SIZE)
    return int(value)
