"""What the tests of the simulator share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.channels import AuxOption, ChannelsInfoRequest
from cti_mqtt.cti.messages.session import LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest
from cti_mqtt.cti.stream import Event, Received, Skipped, Stream, pack_message
from cti_mqtt.simulator import ADMIN, Faults, ManualClock, Session, SimulatedCycler, SimulatedServer

LOGIN = LoginRequest(ADMIN.name, ADMIN.password)


class Client:
    """A client as plain as can be: sends messages or bytes, reads events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.skipped: list[Skipped] = []
        self.received_bytes = b""
        self._stream = Stream(Direction.FEEDBACK)
        self._events: list[Event] = []

    def send(self, *messages: Any) -> None:
        """All of them in one write."""
        self.writer.write(b"".join(m if isinstance(m, bytes) else pack_message(m) for m in messages))

    async def events(self, count: int) -> list[Received]:
        """The next feedbacks, with what their checksums say."""
        while len(self._events) < count:
            data = await self.reader.read(1 << 16)
            if not data:
                raise EOFError(f"{len(self._events)} of {count} feedbacks came")
            self.received_bytes += data
            for event in self._stream.feed(data):
                if isinstance(event, Skipped):
                    self.skipped.append(event)
                else:
                    self._events.append(event)
        taken, self._events = self._events[:count], self._events[count:]
        assert all(isinstance(event, Received) for event in taken)
        return [event for event in taken if isinstance(event, Received)]

    async def ask(self, *messages: Any, count: int = 1) -> list[Any]:
        """Send, and read so many feedbacks."""
        self.send(*messages)
        return [event.message for event in await self.events(count)]

    async def silent(self) -> bool:
        """Whether nothing came before the answer to a request that is always answered."""
        marker = bytes.fromhex("DDDDDDDDDDDDDD11 0A000000 44332211 00000000")
        marker += (sum(marker) & 0xFFFF).to_bytes(2, "little")
        (answer,) = await self.ask(marker)
        return getattr(answer, "command", None) == 0x11223344

    async def ended(self) -> bytes:
        """What comes until the server ends the connection."""
        data = b""
        with suppress(ConnectionError):
            while piece := await self.reader.read(1 << 16):
                data += piece
        return data


Connect = Callable[..., Awaitable[Client]]
Serve = Callable[..., Awaitable[SimulatedServer]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cycler(clock: ManualClock) -> SimulatedCycler:
    return SimulatedCycler(4, clock=clock)


@pytest.fixture
def session(cycler: SimulatedCycler) -> Session:
    session = cycler.open_session()
    cycler.handle(LOGIN, session)
    return session


@pytest.fixture
async def serve(cycler: SimulatedCycler) -> AsyncIterator[Serve]:
    """Start a server, e.g. `server = await serve(answer=AnswerStyle.ONE)`."""
    async with AsyncExitStack() as stack:

        async def start(other: SimulatedCycler | None = None, **faults: Any) -> SimulatedServer:
            return await stack.enter_async_context(SimulatedServer(other or cycler, faults=Faults(**faults)))

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect to a server; logged in unless told otherwise."""
    clients: list[Client] = []

    async def open_client(server: SimulatedServer, *, files: bool = False, login: bool = True) -> Client:
        port = server.file_port if files else server.port
        client = Client(*await asyncio.open_connection(server.host, port))
        clients.append(client)
        if login:
            await client.ask(LOGIN)
        return client

    yield open_client
    for client in clients:
        client.writer.close()
        with suppress(ConnectionError):
            await client.writer.wait_closed()


async def start_test(client: Client, schedule: str = "CCCV.sdx", channel: int = 0) -> None:
    """Assign and start."""
    await client.ask(AssignRequest(channel, False, schedule))
    await client.ask(StartRequest("T1", (channel,)))


READ_ONE = ChannelsInfoRequest(0)
READ_ALL = ChannelsInfoRequest()
PLAIN = ChannelsInfoRequest(0, aux_options=AuxOption.NONE)  # a record without anything variable


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the server does."""
    while not condition():  # noqa: ASYNC110 - a test looks from outside
        await asyncio.sleep(0.001)
