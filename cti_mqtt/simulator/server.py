"""The simulated cycler on TCP: readings and control on one port, files on the other."""

import asyncio
import time
from functools import partial
from types import TracebackType
from typing import Self

from cti_mqtt.simulator.clock import Clock
from cti_mqtt.simulator.connection import Connection, Injector
from cti_mqtt.simulator.cycler import SimulatedCycler
from cti_mqtt.simulator.faults import NO_FAULTS, Faults
from cti_mqtt.simulator.recorder import Recorder

LOOPBACK = "127.0.0.1"


class SimulatedServer:
    """Serves a simulated cycler while its `async with` block lasts.

    The file port takes login and connect only; everything else is answered with "unknown command".

    Args:
        cycler: whom it serves.
        host: where to listen.
        port: for readings and control; 0: a free one.
        file_port: for files; 0: a free one.
        faults: what is wrong with it.
        recorder: told of each request; by default one that keeps the last entries in memory.
        monotonic: real seconds, for forced results that last a while.

    Attributes:
        cycler: as given.
        host: as given.
        port: the port it listens on, `file_port` the other; both stay the same over `unplug` and `replug`.
        recorder: as given.

    Raises:
        OSError: a port is taken.
    """

    def __init__(
        self,
        cycler: SimulatedCycler,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        file_port: int = 0,
        faults: Faults = NO_FAULTS,
        recorder: Recorder | None = None,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.cycler = cycler
        self.host = host
        self.port = port
        self.file_port = file_port
        self.recorder = recorder or Recorder()
        self._monotonic = monotonic
        self._injector = Injector(faults, monotonic)
        self._tasks = asyncio.TaskGroup()
        self._listeners: list[asyncio.Server] = []
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    @property
    def faults(self) -> Faults:
        """What is wrong with it; setting it counts everything anew, requests and frames and forced results."""
        return self._injector.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._injector = Injector(faults, self._monotonic)
        for connection in self._connections:
            connection.use(self._injector)

    @property
    def connection_count(self) -> int:
        """How many clients are connected, to both ports together."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._tasks.__aenter__()
        await self.replug()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every connection, stop listening."""
        try:
            await self.unplug()
        finally:
            await self._tasks.__aexit__(kind, error, trace)

    def disconnect_all(self) -> None:
        """Cut every connection; new ones are taken."""
        for connection in self._connections:
            connection.abort()

    async def unplug(self) -> None:
        """Stop listening and cut every connection; the cycler goes on cycling."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        self.disconnect_all()
        if self._connections:
            await asyncio.wait(self._connections.values())
        for listener in listeners:
            await listener.wait_closed()

    async def replug(self) -> None:
        """Listen again, on the same ports.

        Raises:
            OSError: a port is taken.
        """
        if self._listeners:
            return
        try:
            self.port = await self._listen(self.port, files=False)
            self.file_port = await self._listen(self.file_port, files=True)
        except OSError:
            await self.unplug()
            raise

    async def _listen(self, port: int, *, files: bool) -> int:
        """Listen on a port; which one it is."""
        listener = await asyncio.start_server(partial(self._connected, files), self.host, port)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def _connected(self, files: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: FBT001 - bound by partial
        if not self._listeners:  # unplugged while it was being accepted
            writer.transport.abort()
            return
        session = self.cycler.open_session(files=files)
        connection = Connection(
            reader, writer, session=session, cycler=self.cycler, injector=self._injector, recorder=self.recorder
        )
        task = self._tasks.create_task(connection.serve(), name=f"connection {session.number}")
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection))
