"""systemd: what the program tells it, and the unit file."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cti_mqtt.bridge.monitoring.systemd import LONGEST_STATUS, Notifier, Systemd, status_line, watchdog_s
from tests.bridge.bench import until
from tests.bridge.test_health import WELL
from tests.support.brokers import HOST, MOSQUITTO_5, broker_of_kind, free_port, needs_mosquitto
from tests.support.processes import program
from tests.support.programs import ROOT
from tests.support.rig import PASSWORD, simulated

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd is Linux")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux")

UNIT = ROOT / "examples/systemd/cti-mqtt.service"


@dataclass
class Listener:
    """In systemd's place: keeps each datagram."""

    receiver: socket.socket
    heard: list[str] = field(default_factory=list)

    def take(self) -> list[str]:
        """All that was told so far."""
        while True:
            try:
                self.heard.append(self.receiver.recv(65536).decode())
            except BlockingIOError:
                return self.heard

    def told(self, assignment: str) -> int:
        """How often it was told so far."""
        return sum(each.startswith(assignment) for datagram in self.take() for each in datagram.splitlines())

    @property
    def status(self) -> str:
        return [line[7:] for each in self.take() for line in each.splitlines() if line.startswith("STATUS=")][-1]


@asynccontextmanager
async def listener(address: str | bytes) -> AsyncIterator[Listener]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        receiver.bind(address)
        yield Listener(receiver)


# --- the datagrams ---


async def test_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    async with listener(path) as it:
        assert Notifier({"NOTIFY_SOCKET": path}).tell("READY=1", "STATUS=wühlt")
        assert it.take() == ["READY=1\nSTATUS=wühlt"]


@on_linux
async def test_an_abstract_name() -> None:
    name = f"cti-mqtt-test-{os.getpid()}"
    async with listener(f"\0{name}".encode()) as it:
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}).tell("WATCHDOG=1")
        assert it.take() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environment",
    [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "relative"},
     {"NOTIFY_SOCKET": "@nobody-is-there"}, {"NOTIFY_SOCKET": "/" + 300 * "a"}, {"NOTIFY_SOCKET": "vsock:2:9"}],
)  # fmt: skip
def test_nobody_to_tell_is_no_trouble(environment: Mapping[str, str]) -> None:
    assert Notifier(environment).tell("READY=1") is False


async def test_a_full_socket_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    async with listener(path) as it:
        notifier = Notifier({"NOTIFY_SOCKET": path})
        count = 0
        while notifier.tell("STATUS=" + "a" * 1000):
            count += 1
        assert len(it.take()) == count


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_interval(environment: Mapping[str, str], expected: float | None) -> None:
    assert watchdog_s(environment) == expected


def test_the_status_is_one_line_whatever_a_broker_says() -> None:
    assert status_line(WELL) == "healthy: broker and 1 cycler connected, polls fresh"
    bad = replace(WELL, reasons=("broker: no\nWATCHDOG=1", "arbin1: not connected"))
    assert status_line(bad) == "not healthy: broker: no WATCHDOG=1; arbin1: not connected"
    assert len(status_line(replace(WELL, reasons=("a" * 1000,)))) == LONGEST_STATUS


@dataclass
class Watch:
    """What a test makes of the bridge."""

    verdict: object = WELL
    tried: bool = False


async def test_ready_waits_for_the_broker_and_the_watchdog_for_the_verdict(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    now = Watch()
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "40000"}
    async with listener(path) as it:
        systemd = Systemd(lambda: now.verdict, lambda: now.tried, environment)  # type: ignore[arg-type,return-value]
        task = asyncio.create_task(systemd.run())
        await until(lambda: it.told("WATCHDOG=1") >= 2)
        assert (it.told("READY=1"), it.told("STATUS=healthy")) == (0, 1)
        now.tried = True
        await until(lambda: it.told("READY=1"))

        now.verdict = replace(WELL, reasons=("broker: away",))
        await until(lambda: it.told("STATUS=not healthy: broker: away"))
        signs = it.told("WATCHDOG=1")
        await until(lambda: it.told("WATCHDOG=1") > signs + 3)  # that is no reason to be started again

        now.verdict = WELL.after(60)
        await until(lambda: it.told("STATUS=not healthy: the last verdict is 60 s old"))
        signs = it.told("WATCHDOG=1")
        await asyncio.sleep(0.2)
        assert it.told("WATCHDOG=1") == signs  # but this is

        now.verdict = None  # a bug
        await asyncio.sleep(0.05)
        now.verdict = WELL
        await until(lambda: it.told("WATCHDOG=1") > signs)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert it.take()[-1] == "STOPPING=1\nSTATUS=ending in order"
        assert it.told("READY=1") == 1


# --- the program ---


def write_config(folder: Path, broker_port: int, cti_port: int) -> Path:
    path = folder / "config.yaml"
    path.write_text(
        f"health_interval_s: 1\nmqtt: {{host: {HOST}, port: {broker_port}, client_id: under-systemd}}\n"
        f"cyclers: {{arbin1: {{host: {HOST}, port: {cti_port}, username: admin, password: {PASSWORD}}}}}\n"
    )
    return path


@needs_mosquitto
async def test_the_program_tells_of_its_life(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
    async with (
        listener(path) as it,
        broker_of_kind(MOSQUITTO_5, tmp_path) as broker,
        simulated(2) as server,
        program("run", "-c", str(write_config(tmp_path, broker, server.port)), environment=environment) as bridge,
    ):
        await until(lambda: it.told("READY=1"))
        await until(lambda: it.told("STATUS=healthy: broker and 1 cycler connected, polls fresh"))
        signs = it.told("WATCHDOG=1")
        await until(lambda: it.told("WATCHDOG=1") >= signs + 3)
        assert it.told("STOPPING=1") == 0
        assert await bridge.end() == 0
        assert it.take()[-1].splitlines()[0] == "STOPPING=1"
        assert it.told("READY=1") == 1


async def test_a_broker_that_is_away_does_not_hold_up_the_start_or_the_watchdog(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
    config = write_config(tmp_path, free_port(), free_port())
    async with listener(path) as it, program("run", "-c", str(config), environment=environment) as bridge:
        await until(lambda: it.told("READY=1"))
        await until(lambda: "broker: cannot connect" in it.status)
        signs = it.told("WATCHDOG=1")
        await until(lambda: it.told("WATCHDOG=1") >= signs + 5)
        assert await bridge.end() == 0
        assert it.told("STOPPING=1") == 1


async def test_where_it_hung_is_told_when_the_watchdog_ends_it(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port(), free_port())
    async with program("run", "-c", str(config), environment={"PYTHONFAULTHANDLER": "1"}) as bridge:
        await bridge.wait_for("cannot connect to the broker")
        assert await bridge.end(signal.SIGABRT) == -signal.SIGABRT
        await bridge.wait_for("Fatal Python error: Aborted")


# --- the unit file ---


def unit() -> dict[str, dict[str, list[str]]]:
    """Section, directive, what it was given; a directive may stand more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            section.setdefault(name, []).append(value)
    return sections


def test_the_unit_says_what_the_program_does() -> None:
    service = {name: " ".join(values) for name, values in unit()["Service"].items()}
    assert service["Type"] == "notify"
    assert service["ExecStart"].split()[1:] == ["run", "-c", "/etc/cti-mqtt/config.yaml"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert int(service["WatchdogSec"]) >= 10
    assert service["Environment"] == "PYTHONFAULTHANDLER=1"
    assert service["StateDirectory"] == "cti-mqtt"
    assert service["EnvironmentFile"].startswith("-/etc/cti-mqtt/")
    for hardening in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID"):
        assert service[hardening] == "true"
    assert service["ProtectSystem"] == "strict"
    assert "AF_UNIX" in service["RestrictAddressFamilies"].split()  # else systemd could not be told


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/cti-mqtt/bin/cti-mqtt", sys.executable)  # it looks for the program
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in (found.stdout + found.stderr).splitlines() if UNIT.name in line]
    assert (found.returncode, complaints) == (0, [])


def test_the_document_shows_where_the_unit_is() -> None:
    assert "examples/systemd/cti-mqtt.service" in (ROOT / "docs/deployment.md").read_text()
