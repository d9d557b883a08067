"""The bridge as a real process on a simulated cycler in this one, with a data directory that outlives the process."""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cti_mqtt.simulator import NO_FAULTS, Faults, Recorder, SimulatedClock, SimulatedCycler, SimulatedServer, User
from tests.support.brokers import HOST, Mosquitto
from tests.support.processes import Program, program
from tests.support.rig import PASSWORD

CYCLER = "arbin1"
CHANNELS = 16
READS = frozenset({"login", "connect", "channels_info", "get_serial", "get_start_data", "get_resume_data"})
# Mosquitto drops what a client has not read by then; here nothing may be lost but by the bridge.
BROKER_LIMITS = "max_queued_messages 100000"

Entry = dict[str, Any]


class FaultError(AssertionError):
    """The bridge did what it must never do."""


@dataclass
class World:
    """A cycler, a place for the bridge's data, and its configuration; several share a broker.

    Attributes:
        base: the bridge's base topic.
        asked: what the cycler was asked, but for looks and logins.
        on_asked: called with each of those, before the answer goes out.
    """

    base: str
    broker_port: int
    protocol: object
    folder: Path
    server: SimulatedServer
    asked: list[Entry] = field(default_factory=list)
    on_asked: Callable[[Entry], None] = lambda _: None

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def config_file(self) -> Path:
        return self.folder / "bridge.yaml"

    def note(self, entry: Entry) -> None:
        """The cycler was asked something."""
        if entry["command"] not in READS:
            self.asked.append(entry)
            self.on_asked(entry)

    def configure(self, **publish: bool) -> None:
        """Write the configuration file; JSON is YAML. The folder is made."""
        self.folder.mkdir()
        settings = {
            "data_dir": str(self.data_dir),
            "health_interval_s": 0.2,
            "mqtt": {
                "host": HOST,
                "port": self.broker_port,
                "base_topic": self.base,
                "protocol": self.protocol,
                "client_id": f"bridge-{self.base}",
            },
            "cyclers": {
                CYCLER: {
                    "host": HOST,
                    "port": self.server.port,
                    "file_port": self.server.file_port,
                    "poll_interval_s": 0.1,
                    "control": {"enabled": True, "verbs": "all", "channels": "all"},
                }
            },
            "publish": publish,
        }
        self.config_file.write_text(json.dumps(settings))

    @asynccontextmanager
    async def bridge(self) -> AsyncIterator[Program]:
        """A bridge process, killed at the end if it is still there."""
        environment = {"ARBIN_CTI_USERNAME": "admin", "ARBIN_CTI_PASSWORD": PASSWORD}
        async with program("run", "-c", str(self.config_file), environment=environment) as it:
            yield it

    def stored_bytes(self) -> int:
        """How much the bridge keeps on disk."""
        return sum(path.stat().st_size for path in self.data_dir.rglob("*") if path.is_file())


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[int]:
    """A Mosquitto; its port."""
    mosquitto = Mosquitto(folder, BROKER_LIMITS)
    await mosquitto.start()
    try:
        yield mosquitto.port
    finally:
        await mosquitto.stop()


@asynccontextmanager
async def world(
    base: str, broker_port: int, protocol: object, folder: Path, faults: Faults = NO_FAULTS, **publish: bool
) -> AsyncIterator[World]:
    """A world of its own below a base topic; no bridge runs yet."""
    cycler = SimulatedCycler(CHANNELS, clock=SimulatedClock(), users=[User("admin", PASSWORD, super_user=True)])
    it: World | None = None

    def note(entry: Entry) -> None:
        if it is not None:
            it.note(entry)

    async with SimulatedServer(cycler, faults=faults, recorder=Recorder(keep=1, on_entry=note)) as server:
        it = World(base, broker_port, protocol, folder, server)
        it.configure(**publish)
        yield it


@contextmanager
def plainly() -> Iterator[None]:
    """What went wrong, without the groups that task groups put around it.

    Raises:
        FaultError: the bridge did what it must never do; all that was found.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        found = [str(each) for each in _leaves(group) if isinstance(each, FaultError)]
        if not found:
            raise
        raise FaultError("\n\n".join(found)) from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def resident_bytes(it: Program) -> int | None:
    """How much memory a process has just now; None where the system does not say it this way."""
    status = Path(f"/proc/{it.process.pid}/statm")
    if not status.exists():
        return None
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def log_of(it: Program, lines: int = 40) -> str:
    """The end of what a process printed."""
    return "".join(it.lines[-lines:])


def check_log(it: Program) -> None:
    """No bug showed in what the bridge printed.

    Raises:
        FaultError: one did.
    """
    for sign in ("Traceback", "unexpected error", "internal_error"):
        for number, line in enumerate(it.lines):
            if sign in line:
                raise FaultError(
                    f"the bridge's log says {sign!r}:\n{''.join(it.lines[max(0, number - 2) : number + 40])}"
                )
