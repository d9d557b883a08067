"""What the tests of the client share: the simulator, and a server that says exactly what a test tells it to."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

import pytest

from cti_mqtt.client import Credentials, Cycler, Endpoint
from cti_mqtt.client.connection import Connection, open_connection
from cti_mqtt.cti.codes import ChannelStatus, UserType
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.channels import ChannelRecord, ChannelsInfoFeedback
from cti_mqtt.cti.messages.session import LoginFeedback, LoginRequest
from cti_mqtt.cti.results import LoginResult
from cti_mqtt.cti.stream import ChecksumPolicy, Received, Stream, pack_message
from cti_mqtt.simulator import ADMIN, Faults, ManualClock, SimulatedCycler, SimulatedServer

HOST = "127.0.0.1"
NAME = "cycler-1"
CREDENTIALS = Credentials(ADMIN.name, ADMIN.password)
SHORT_S = 0.15  # a time-out that a test waits for; where none is expected it stays at ten seconds


# --- messages and bytes ---


def login_feedback(result: int = 1, channel_count: int = 4) -> LoginFeedback:
    rights: Any = (0, 1, True, channel_count, UserType.USER)
    return LoginFeedback(LoginResult(result), HOST, "1", "", "", "", "", "", "", "", *rights)


def reading(channel: int, voltage: float = 3.5) -> ChannelRecord:
    """Of a wire channel."""
    return ChannelRecord(
        channel, ChannelStatus.IDLE, False, "", "", "", "", "", "", "", 0, 0.0, 0.0, voltage, *(0.0,) * 11
    )


def readings(*channels: int) -> ChannelsInfoFeedback:
    """One frame, of wire channels."""
    return ChannelsInfoFeedback(tuple(map(reading, channels)))


def damaged(message: Any) -> bytes:
    """With a wrong checksum."""
    frame = pack_message(message)
    return frame[:-2] + (int.from_bytes(frame[-2:], "little") ^ 0x5555).to_bytes(2, "little")


def misplaced(message: Any) -> bytes:
    """With the checksum behind the frame."""
    frame = pack_message(message)
    return frame[:-2] + bytes(2) + frame[-2:]


# --- waiting ---


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that the other end does."""
    while not condition():  # noqa: ASYNC110 - a test looks from outside
        await asyncio.sleep(0.001)


async def turns() -> None:
    """Let everything that is ready happen, on both ends."""
    for _ in range(10):
        await asyncio.sleep(0)


class Spawn(Protocol):
    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]: ...


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Ask in the background; what still runs when the test ends is cancelled."""
    tasks: list[asyncio.Task[Any]] = []

    def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        tasks.append(asyncio.create_task(coroutine))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="session")
def _frozen() -> Iterator[None]:
    """Looking for garbage need not look at what was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
async def no_loose_ends(_frozen: None) -> AsyncIterator[None]:
    """Nothing fails where nobody looks: in a callback, or in a future that nobody asks."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    yield
    gc.collect()
    await turns()
    assert contexts == []


# --- the simulator ---


class Serve(Protocol):
    async def __call__(self, channels: int = 4, *, extras: int = 0, **faults: Any) -> SimulatedServer: ...


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a simulated cycler, e.g. `server = await serve(16, answer=AnswerStyle.ONE)`."""
    async with AsyncExitStack() as stack:

        async def start(channels: int = 4, *, extras: int = 0, **faults: Any) -> SimulatedServer:
            cycler = SimulatedCycler(channels, clock=ManualClock(), bms_count=extras, smb_count=extras)
            return await stack.enter_async_context(SimulatedServer(cycler, faults=Faults(**faults)))

        yield start


def connect(
    server: "SimulatedServer | Script", credentials: Credentials = CREDENTIALS, **endpoint: Any
) -> AbstractAsyncContextManager[Cycler]:
    """`Cycler.connect` to a server of these tests."""
    return Cycler.connect(Endpoint(NAME, HOST, server.port, **endpoint), credentials)


# --- a server by hand ---


class Peer:
    """The other end of one connection.

    Attributes:
        writer: to the client.
        client: the client's transport, once it is stalled.
    """

    client: asyncio.Transport

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._stream = Stream(Direction.REQUEST, ChecksumPolicy.STRICT)
        self._requests: list[Any] = []

    async def receive(self, count: int = 1) -> list[Any]:
        """The next requests."""
        while len(self._requests) < count:
            data = await self._reader.read(1 << 16)
            assert data, f"{len(self._requests)} of {count} requests came"
            self._take(data)
        taken, self._requests = self._requests[:count], self._requests[count:]
        return taken

    def _take(self, data: bytes) -> None:
        events = self._stream.feed(data)
        assert all(isinstance(event, Received) for event in events)
        self._requests += [event.message for event in events if isinstance(event, Received)]

    async def waiting(self) -> list[Any]:
        """The requests that are here already."""
        await turns()
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                self._take(await self._reader.read(1 << 16))
        return self._requests

    def send(self, *messages: Any) -> None:
        """Messages, or bytes as they are, in one write."""
        self.writer.write(b"".join(each if isinstance(each, bytes) else pack_message(each) for each in messages))

    async def accept_login(self, channel_count: int = 4) -> LoginRequest:
        (request,) = await self.receive()
        assert isinstance(request, LoginRequest)
        self.send(login_feedback(channel_count=channel_count))
        return request

    def stall(self, cycler: Cycler) -> None:
        """Read nothing more; the client's socket takes few bytes then."""
        assert cycler._connection._transport
        self.client = cycler._connection._transport
        self.client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        """Read again."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def ended(self) -> bool:
        """Wait until the client ends the connection."""
        with suppress(ConnectionError):
            while await self._reader.read(1 << 16):
                pass
        return True


class Script:
    """A server whose connections are `Peer`s."""

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[Peer] = []
        self._arrived: asyncio.Queue[Peer] = asyncio.Queue()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(Peer(reader, writer))
        self._arrived.put_nowait(self.peers[-1])

    async def accept(self) -> Peer:
        """The next connection."""
        return await self._arrived.get()

    @asynccontextmanager
    async def session(self, channel_count: int = 4, **endpoint: Any) -> AsyncIterator[tuple[Cycler, Peer]]:
        """A client, logged in, and its peer."""

        async def welcome() -> Peer:
            peer = await self.accept()
            await peer.accept_login(channel_count)
            return peer

        welcoming = asyncio.create_task(welcome())
        async with connect(self, **endpoint) as cycler:
            yield cycler, await welcoming

    @asynccontextmanager
    async def line(self, **options: Any) -> AsyncIterator[tuple[Connection, Peer]]:
        """A connection without a login, and its peer."""
        connection = await open_connection(HOST, self.port, name=NAME, **options)
        try:
            yield connection, await self.accept()
        finally:
            connection.close(RuntimeError("the test is over"))  # type: ignore[arg-type]


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    """A server by hand; it takes in few bytes that nobody reads."""
    listener = socket.create_server((HOST, 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    script = Script()
    server = await asyncio.start_server(script.connected, sock=listener)
    script.port = listener.getsockname()[1]
    async with server:
        yield script
        for peer in script.peers:
            peer.writer.transport.abort()
