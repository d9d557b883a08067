"""A TCP proxy on loopback whose behaviour a test switches while it runs, each direction by itself.

    async with Proxy("127.0.0.1", server_port, seed=0) as proxy:
        client.connect(proxy.port)
        proxy.to_client = Stall()         # half open: nothing comes back, nothing ends
        proxy.to_client = Pass()          # what was held comes now, late
        proxy.to_server = Truncate(10)    # half a message, then the end; once
        proxy.cut()                       # all connections, at once, with RST
        await proxy.refuse()              # nobody listens
        await proxy.accept()              # again, on the same port

A change counts for live connections at once, and for what is still held. A proxy loses no bytes and swaps none, since
TCP does not: what it holds back is passed on later, unless the connection is cut first.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.proxied import (
    CHUNK_BYTES,
    Behaviour,
    Connection,
    Corrupt,
    Delay,
    Direction,
    Pass,
    Pipe,
    Stall,
    Throttle,
    Truncate,
    end,
)

__all__ = ["HOST", "Behaviour", "Corrupt", "Counts", "Delay", "Pass", "Proxy", "Stall", "Throttle", "Truncate"]

HOST = "127.0.0.1"


@dataclass(slots=True)
class Counts:
    """What a proxy has done so far.

    Attributes:
        connections: accepted, ever.
        to_server: bytes passed on; `to_client` likewise.
        flipped: bits.
    """

    connections: int = 0
    to_server: int = 0
    to_client: int = 0
    flipped: int = 0


class Proxy:
    """Listens on a free port of loopback while its `async with` block lasts, and passes on to a server.

    A server that is not there looks like one that resets the connection: the proxy itself has accepted it.

    Args:
        target_host: where the server is; looked at for each connection, like the port.
        seed: which bits are flipped.

    Attributes:
        port: where it listens; stays the same over `refuse` and `accept`.
        counts: what passed.
    """

    def __init__(self, target_host: str, target_port: int, *, seed: int = 0) -> None:
        self.target_host = target_host
        self.target_port = target_port
        self.port = 0
        self.counts = Counts()
        self._random = random.Random(seed)
        self._to_server = Direction(Pass(), self._count_to_server)
        self._to_client = Direction(Pass(), self._count_to_client)
        self._listener: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._live: set[Connection] = set()

    # --- what a test switches ---

    @property
    def to_server(self) -> Behaviour:
        """How bytes towards the server are treated."""
        return self._to_server.behaviour

    @to_server.setter
    def to_server(self, behaviour: Behaviour) -> None:
        self._to_server.behaviour = behaviour
        self._tell()

    @property
    def to_client(self) -> Behaviour:
        """How bytes towards the client are treated."""
        return self._to_client.behaviour

    @to_client.setter
    def to_client(self, behaviour: Behaviour) -> None:
        self._to_client.behaviour = behaviour
        self._tell()

    def both(self, behaviour: Behaviour) -> None:
        """Treat both directions so."""
        self.to_server = self.to_client = behaviour

    @property
    def live(self) -> int:
        """How many connections there are."""
        return len(self._live)

    def cut(self, *, reset: bool = True) -> None:
        """End every connection now, with RST or FIN; what is held is lost, new ones are taken."""
        for connection in list(self._live):
            connection.end(reset=reset)
        for task in list(self._tasks):
            task.cancel()

    async def refuse(self) -> None:
        """Nobody listens any more, and nobody else can take the port; live connections stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._reserved = _reserve(self.port)

    async def accept(self) -> None:
        """Listen again."""
        if self._listener is None:
            reserved, self._reserved = self._reserved or _reserve(self.port), None
            self.port = reserved.getsockname()[1]
            self._listener = await asyncio.start_server(self._accepted, sock=reserved, limit=CHUNK_BYTES)

    # --- its life ---

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._reserved is not None:
            self._reserved.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="proxied connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        try:
            async with self._connected(reader, writer) as connection:
                await connection.run()
        except OSError:
            end(writer, reset=True)  # nobody there

    @asynccontextmanager
    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[Connection]:
        """The other half of a connection."""
        there = await asyncio.open_connection(self.target_host, self.target_port, limit=CHUNK_BYTES)
        pipes = (
            Pipe(reader, there[1], self._to_server, self._corrupt),
            Pipe(there[0], writer, self._to_client, self._corrupt),
        )
        connection = Connection(pipes, (writer, there[1]))
        self._live.add(connection)
        try:
            yield connection
        finally:
            self._live.discard(connection)
            await connection.closed()

    # --- details ---

    def _tell(self) -> None:
        for connection in self._live:
            for pipe in connection.pipes:
                pipe.news.set()

    def _count_to_server(self, size: int) -> None:
        self.counts.to_server += size

    def _count_to_client(self, size: int) -> None:
        self.counts.to_client += size

    def _corrupt(self, data: bytes, rate: float) -> bytes:
        damaged = bytearray(data)
        for index in range(len(damaged)):
            if self._random.random() < rate:
                damaged[index] ^= 1 << self._random.randrange(8)
                self.counts.flipped += 1
        return bytes(damaged)


def _reserve(port: int) -> socket.socket:
    """A bound socket that nobody listens on: connecting is refused."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((HOST, port))
    return reserved
