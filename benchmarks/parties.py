"""The processes around a measurement: a broker, simulated cyclers, the bridge, an echo, and whom it is compared with.

Each is a process of its own, as in a lab; each ends with its `with` block.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from counts import Counts

HOST = "127.0.0.1"
USER = PASSWORD = "admin"  # noqa: S105  # the simulator's default
CYCLER = "bench"
BASE = "cti"
START_S = 20.0
END_S = 10.0
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])  # where Debian has it


def states(cycler: str = CYCLER) -> str:
    """The topics of readings. Each side has its own: what one left in the broker must not count for the next."""
    return f"{BASE}/{cycler}/channel/+/state"


class PartyError(Exception):
    """Somebody that is needed for the measurement is not there."""


def find(program: str) -> str:
    """The path of a program that comes with Mosquitto.

    Raises:
        PartyError: it is not installed.
    """
    found = shutil.which(program, path=SEARCH_PATH)
    if found is None:
        raise PartyError(
            f"{program} was not found: all but decoding is measured on a real broker. On Debian and Ubuntu: "
            "sudo apt-get install mosquitto mosquitto-clients"
        )
    return found


@contextmanager
def broker(program: str, folder: Path, *, nodelay: bool = True) -> Iterator[int]:
    """Mosquitto; its port. It drops nothing, however much waits for a subscriber.

    With `nodelay` it sends every packet at once, else as it does by default.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    settings = folder / "mosquitto.conf"
    user = "user root\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
    sending = f"set_tcp_nodelay {str(nodelay).lower()}\nmax_queued_messages 0\n"
    settings.write_text(f"{user}{sending}listener {port} {HOST}\nallow_anonymous true\n", encoding="utf-8")
    log = folder / "mosquitto.log"
    with _process([program, "-c", str(settings)], log) as process:
        _wait_listening(process, log, port)
        yield port


@contextmanager
def simulator(channels: int, folder: Path) -> Iterator[int]:
    """A simulated cycler; its port for readings and control."""
    command = _module("simulate", "--port", "0", "--file-port", "0", "--channels", str(channels))
    log = folder / "simulator.log"
    with _process([*command, "--files", str(folder / "files")], log) as process:
        line = _wait_line(process, log, "simulated cycler: ")
        yield int(line.split()[2].rpartition(":")[2])


@contextmanager
def ready_cyclers(
    folder: Path, channels: int, *, cyclers: int = 1, stamped: bool = False
) -> Iterator[tuple[list[int], Counts]]:
    """Cyclers whose answers are ready: their ports, and what they count. For `stamped` see `ready_cyclers.py`."""
    counts = Counts.create(folder / "counts", cyclers)
    options = _options(cyclers=cyclers, channels=channels)
    command = _script("ready_cyclers", str(folder / "counts"), *options)
    log = folder / "cyclers.log"
    with _process([*command, "--stamped"] if stamped else command, log) as process:
        line = _wait_line(process, log, "ports: ")
        yield [int(port) for port in line.split()[1:]], counts


@contextmanager
def controlling_bridge(folder: Path, mqtt_port: int, cti_port: int) -> Iterator[Path]:
    """The bridge with control on, polling at 1 Hz, with an announced range of values; its data directory."""
    data_dir = folder / "data"
    settings = {
        "data_dir": str(data_dir),
        "health_interval_s": 1.0,  # how long it listens for another bridge before it hears commands
        "mqtt": {"host": HOST, "port": mqtt_port, "base_topic": BASE, "client_id": "cti-mqtt-bench"},
        "cyclers": {
            CYCLER: {
                "host": HOST,
                "port": cti_port,
                "username": USER,
                "poll_interval_s": 1.0,
                "control": {
                    "enabled": True,
                    "verbs": ["start", "assign", "set_mv", "stop"],
                    "channels": "all",
                    "limits": {1: {"min": 0.0, "max": 5.0}},
                },
            }
        },
    }
    with bridge(folder, settings):
        yield data_dir


@contextmanager
def bridge(folder: Path, settings: Mapping[str, Any], *, fast: bool = False) -> Iterator[int]:
    """The bridge; its process id. With `fast` it polls its one cycler as fast as it goes."""
    path = folder / "bridge.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    log = folder / "bridge.log"
    with _process(_script("fast_bridge", str(path)) if fast else _module("run", "-c", str(path)), log) as process:
        try:
            yield process.pid
        except (TimeoutError, PartyError) as error:  # somebody waited for the bridge in vain
            raise PartyError(f"{error}; {_tail(log)}") from error


def watching(mqtt_port: int, cti_ports: Sequence[int], interval_s: float = 1.0, **publish: Any) -> dict[str, Any]:
    """Settings of a bridge that only reads; `publish` goes into that section."""
    return {
        "mqtt": {"host": HOST, "port": mqtt_port, "base_topic": BASE, "client_id": "cti-mqtt-bench"},
        "cyclers": {
            f"{CYCLER}{number or ''}": {"host": HOST, "port": port, "username": USER, "poll_interval_s": interval_s}
            for number, port in enumerate(cti_ports)
        },
        "publish": publish,
    }


@contextmanager
def incumbent(folder: Path, mqtt_port: int, cti_port: int, *, qos: int, interval_s: float = 0.0) -> Iterator[int]:
    """pycti-arbin and paho in a loop; its process id."""
    options = _options(qos=qos, interval=interval_s)
    log = folder / "incumbent.log"
    with _process(_script("pycti_loop", str(cti_port), str(mqtt_port), *options), log) as process:
        try:
            yield process.pid
        except PartyError as error:
            raise PartyError(f"{error}; {_tail(log)}") from error


@contextmanager
def bare_paho(
    folder: Path,
    mqtt_port: int,
    cycler: str,
    *,
    channels: int,
    size: int,
    qos: int,
    interval_s: float = 0.0,
    thread: bool = False,
) -> Iterator[None]:
    """Paho with ready payloads of `size` bytes, published as if they were a cycler's."""
    options = _options(channels=channels, bytes=size, qos=qos, interval=interval_s)
    log = folder / "bare.log"
    command = _script("bare_paho", str(mqtt_port), cycler, *options)
    with _process([*command, "--thread"] if thread else command, log):
        try:
            yield
        except PartyError as error:
            raise PartyError(f"{error}; {_tail(log)}") from error


@contextmanager
def echo(folder: Path, mqtt_port: int, heard: str, said: str, answer_bytes: int) -> Iterator[None]:
    """Somebody who answers each message on one topic on another."""
    command = _script("echo", HOST, str(mqtt_port), heard, said, str(answer_bytes))
    log = folder / "echo.log"
    with _process(command, log) as process:
        _wait_line(process, log, "ready")
        yield


def _module(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cti_mqtt", *arguments]


def _script(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments]


def _options(**values: float) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def _environment() -> Mapping[str, Any]:
    """Nobody else's brokers and passwords."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("MQTT_", "ARBIN_CTI_"))}
    return {**mine, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "ARBIN_CTI_PASSWORD": PASSWORD}


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=_environment())  # noqa: S603
    with terminated(process):
        yield process


@contextmanager
def terminated(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """It ends with the block."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log: Path) -> str:
    return f"{log.name} ends with:\n" + "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def _wait_listening(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise PartyError(f"nobody listens on port {port}; {_tail(log)}")


def _wait_line(process: subprocess.Popen[bytes], log: Path, beginning: str) -> str:
    """The first line of a process's output that begins so."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            if line.startswith(beginning) and line.endswith("\n"):
                return line
        time.sleep(0.02)
    raise PartyError(f"no line {beginning!r} came; {_tail(log)}")
