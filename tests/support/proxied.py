"""What a proxy does to the bytes of one connection; `proxy` is what tests use."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024
BACKLOG_BYTES = 64 * 1024  # beyond it nothing is taken from the sender, who feels it
HELD_BYTES = 64 * 1024 * 1024  # the same while the point is that the sender notices nothing
FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Pass:
    """Pass everything on."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Take everything, pass nothing on, not even the end: the connection looks alive to both sides."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Pass everything on so many seconds after it came."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Truncate:
    """Pass on the first `size` bytes of the next chunk, then cut; once, unless `lasting`, then it is Pass again.

    Attributes:
        reset: end with RST instead of FIN.
    """

    size: int
    reset: bool = False
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Flip one bit in this share of the bytes (0 to 1), chosen by the proxy's seed."""

    rate: float


@dataclass(frozen=True, slots=True)
class Throttle:
    """Pass on so many bytes a second, and let the sender feel it."""

    bytes_per_s: float


Behaviour = Pass | Stall | Delay | Truncate | Corrupt | Throttle


@dataclass(slots=True)
class Direction:
    """How bytes of one direction are treated, in all connections."""

    behaviour: Behaviour
    count: Callable[[int], None]


class _ResetError(Exception):
    """The connection is to end with RST."""


class _EndedError(Exception):
    """The connection is to end with FIN."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What came, and when (loop time, s); no bytes: the end."""

    data: bytes
    at: float
    reset: bool = False


class Pipe:
    """One direction of one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
        corrupt: Callable[[bytes, float], bytes],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._writer = writer
        self._direction = direction
        self._corrupt = corrupt
        self._held: deque[_Chunk] = deque()
        self._free_at = 0.0  # when a throttle lets more through
        self.news = asyncio.Event()  # something came, or the behaviour changed

    async def take(self) -> None:
        """Read until the end, as far as there is room."""
        while True:
            await self._until(self._has_room)
            try:
                chunk = _Chunk(await self._reader.read(CHUNK_BYTES), self._loop.time())
            except OSError:
                chunk = _Chunk(b"", self._loop.time(), reset=True)
            self._held.append(chunk)
            self.news.set()
            if not chunk.data:
                return

    async def pass_on(self) -> None:
        """Write, as the behaviour says, until the end."""
        while True:
            await self._until(lambda: bool(self._held) and self._wait_s() is not None)
            wait_s = self._wait_s()
            if wait_s is None or wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self.news.wait()
                self.news.clear()
            elif not await self._write(self._held.popleft()):
                return

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()

    def _has_room(self) -> bool:
        holds = isinstance(self._direction.behaviour, Stall | Delay)
        return sum(len(chunk.data) for chunk in self._held) < (HELD_BYTES if holds else BACKLOG_BYTES)

    def _wait_s(self) -> float | None:
        """How long the oldest chunk is still held; None: until the behaviour changes."""
        match self._direction.behaviour:
            case Stall():
                return None
            case Delay(seconds):
                return self._held[0].at + seconds - self._loop.time()
            case Throttle():
                return self._free_at - self._loop.time()
            case _:
                return 0.0

    async def _write(self, chunk: _Chunk) -> bool:
        """Pass a chunk on; whether more may follow."""
        if chunk.reset:
            raise _ResetError
        if not chunk.data:
            with suppress(OSError):
                self._writer.write_eof()
            return False
        data = chunk.data
        match self._direction.behaviour:
            case Truncate(size) as truncate:
                await self._send(data[:size])
                if not truncate.lasting:
                    self._direction.behaviour = Pass()
                raise _ResetError if truncate.reset else _EndedError
            case Corrupt(rate):
                data = self._corrupt(data, rate)
            case Throttle(bytes_per_s):
                size = max(1, min(len(data), int(bytes_per_s / 20)))
                if data[size:]:
                    self._held.appendleft(_Chunk(data[size:], chunk.at))
                data = data[:size]
                self._free_at = self._loop.time() + size / bytes_per_s
        await self._send(data)
        self.news.set()  # there is room
        return True

    async def _send(self, data: bytes) -> None:
        self._direction.count(len(data))
        self._writer.write(data)
        try:
            await self._writer.drain()
        except OSError:
            raise _ResetError from None


class Connection:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, pipes: tuple[Pipe, Pipe], writers: tuple[asyncio.StreamWriter, ...]) -> None:
        self.pipes = pipes
        self._writers = writers

    async def run(self) -> None:
        """Until both directions have ended, or one breaks."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for pipe in self.pipes:
                    tasks.create_task(pipe.take())
                    tasks.create_task(pipe.pass_on())
        except* _ResetError:
            self.end(reset=True)
        except* _EndedError:
            self.end(reset=False)
        finally:
            self.end(reset=False)

    def end(self, *, reset: bool) -> None:
        """End both sides now."""
        for writer in self._writers:
            end(writer, reset=reset)

    async def closed(self) -> None:
        """Until what was written is out; who does not read it, does not get it."""
        for writer in self._writers:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await writer.wait_closed()
            writer.transport.abort()


def end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """End a connection, with RST where wanted."""
    if reset and not writer.is_closing():
        peer: socket.socket = writer.get_extra_info("socket")
        with suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
