"""A file port that says exactly what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cti_mqtt.client.files import FileClient
from cti_mqtt.client.session import Credentials, Endpoint
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.session import LoginRequest
from cti_mqtt.cti.stream import ChecksumPolicy, Received, Stream, pack_message
from cti_mqtt.simulator import ADMIN, ManualClock, SimulatedCycler

HOST = "127.0.0.1"
LOGIN = LoginRequest(ADMIN.name, ADMIN.password)


@dataclass(frozen=True)
class Cut:
    """Half of a message, then the end of the connection."""

    message: Any


@dataclass(frozen=True)
class Pause:
    """Nothing for a while."""

    seconds: float


Script = Callable[[Any], list[Any]]


def damaged(message: Any) -> bytes:
    """A message whose checksum is wrong."""
    frame = bytearray(pack_message(message))
    frame[-1] ^= 0x55
    return bytes(frame)


@dataclass
class FilePort:
    """Answers a login properly and everything else as scripted.

    Attributes:
        script: request -> messages, bytes, pauses or a Cut.
        asked: the requests, login left out.
        received: all bytes of the present connection.
    """

    script: Script
    asked: list[Any] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    port: int = 0
    conversations: set[asyncio.Task[Any]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.conversations.add(task)
        with suppress(ConnectionError):
            await self._converse(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cycler = SimulatedCycler(1, clock=ManualClock())
        session = cycler.open_session()
        stream = Stream(Direction.REQUEST, ChecksumPolicy.STRICT)
        self.received.clear()
        while data := await reader.read(1 << 16):
            self.received += data
            for event in stream.feed(data):
                assert isinstance(event, Received)
                if isinstance(event.message, LoginRequest):
                    answers = cycler.handle(event.message, session)
                else:
                    self.asked.append(event.message)
                    answers = self.script(event.message)
                for answer in answers:
                    if not await self._say(answer, writer):
                        return

    async def _say(self, answer: Any, writer: asyncio.StreamWriter) -> bool:
        """Whether the conversation goes on."""
        if isinstance(answer, Pause):
            await asyncio.sleep(answer.seconds)
        elif isinstance(answer, Cut):
            frame = pack_message(answer.message)
            writer.write(frame[: len(frame) // 2])
            return False
        else:
            writer.write(answer if isinstance(answer, bytes) else pack_message(answer))
            await writer.drain()
        return True

    def endpoint(self, policy: ChecksumPolicy = ChecksumPolicy.WARN, timeout_s: float = 0.4) -> Endpoint:
        return Endpoint("arbin1", HOST, self.port, timeout_s, policy)


def names(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {path.name for path in folder.iterdir()}


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[FilePort]:
    """A file port that listens."""
    it = FilePort(script)
    server = await asyncio.start_server(it.serve, HOST, 0)
    it.port = server.sockets[0].getsockname()[1]
    async with server:
        yield it
    await asyncio.gather(*it.conversations)


@asynccontextmanager
async def client_of(
    script: Script, policy: ChecksumPolicy = ChecksumPolicy.WARN, timeout_s: float = 0.4
) -> AsyncIterator[tuple[FileClient, FilePort]]:
    """A client logged in to a scripted file port."""
    async with (
        scripted(script) as port,
        FileClient.connect(port.endpoint(policy, timeout_s), Credentials(ADMIN.name, ADMIN.password)) as client,
    ):
        yield client, port
