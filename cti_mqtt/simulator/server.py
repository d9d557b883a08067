"""The simulated cycler on TCP: readings and control on one port, files on the other."""

import asyncio
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from cti_mqtt.simulator.clock import Clock
from cti_mqtt.simulator.connection import Connection
from cti_mqtt.simulator.cycler import SimulatedCycler
from cti_mqtt.simulator.desk import Desk
from cti_mqtt.simulator.faults import NO_FAULTS, Faults
from cti_mqtt.simulator.filearea import FileArea
from cti_mqtt.simulator.files import Files
from cti_mqtt.simulator.injector import Injector
from cti_mqtt.simulator.recorder import Recorder

LOOPBACK = "127.0.0.1"


class SimulatedServer:
    """Serves a simulated cycler while its `async with` block lasts.

    The file port takes login, connect and what concerns files; everything else is answered with "unknown command", and
    so are file requests on the other port.

    Args:
        cycler: whom it serves.
        host: where to listen.
        port: for readings and control; 0: a free one.
        file_port: for files; 0: a free one.
        faults: what is wrong with it.
        recorder: told of each request; by default one that keeps the last entries in memory.
        monotonic: real seconds, for forced results that last a while.
        files: the directory with the files that clients see; made, and filled with the schedules, where that is
            missing. None: a temporary one, removed at the end.

    Attributes:
        cycler: as given.
        host: as given.
        port: the port it listens on, `file_port` the other; both stay the same over `unplug` and `replug`.
        recorder: as given.
        files: as given, or where the temporary one is once the server runs.

    Raises:
        OSError: a port is taken, or the directory cannot be used.
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
        files: Path | None = None,
    ) -> None:
        self.cycler = cycler
        self.host = host
        self.port = port
        self.file_port = file_port
        self.recorder = recorder or Recorder()
        self.files = files
        self._given_files = files
        self._temporary: TemporaryDirectory[str] | None = None
        self._files: Files | None = None
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
        self._open_files()
        try:
            await self._tasks.__aenter__()
            await self.replug()
        except BaseException:
            self._close_files()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every connection, stop listening."""
        try:
            await self.unplug()
        finally:
            try:
                await self._tasks.__aexit__(kind, error, trace)
            finally:
                self._close_files()

    def _open_files(self) -> None:
        if self._given_files is None:
            self._temporary = TemporaryDirectory(prefix="cti-mqtt-files-", ignore_cleanup_errors=True)
            self.files = Path(self._temporary.name)
        assert self.files is not None  # noqa: S101 - for the type checker
        self._files = Files(FileArea(self.files), self.cycler)

    def _close_files(self) -> None:
        self._files = None
        if self._temporary:
            self._temporary.cleanup()
            self._temporary = None

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
            reader,
            writer,
            session=session,
            cycler=self.cycler,
            injector=self._injector,
            recorder=self.recorder,
            desk=Desk(self._files, session) if files and self._files else None,
        )
        task = self._tasks.create_task(connection.serve(), name=f"connection {session.number}")
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection))
