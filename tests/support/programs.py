"""Programs as a user runs them: real processes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from paho.mqtt import subscribe

from tests.support.brokers import HOST, free_port

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("MQTT_", "ARBIN_CTI_"))},
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}
READY_LINE = "Ctrl-C ends everything."

Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Demo:
    """A running `cti-mqtt demo`."""

    mqtt_port: int
    cti_port: int
    process: Process


def start(*command: str | Path, environment: Mapping[str, str] | None = None) -> Process:
    """A program, with its output as text."""
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **(environment or {})},
    )


def run(
    *command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program to its end; nothing is raised for its exit status."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def read_until(process: Process, text: str) -> list[str]:
    """The lines of standard output up to the one that holds a text; the test's own time limit bounds the wait."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    assert process.stderr is not None
    pytest.fail(f"ended before it said {text!r}: {lines} {process.stderr.read()}")


def interrupt(process: Process, number: int) -> tuple[int, str]:
    """Send a signal and wait for the end; the exit status and standard error."""
    process.send_signal(number)
    _, err = process.communicate()
    return process.returncode, err


def end(process: Process) -> None:
    """Whatever state it is in; in order if it can, so that it leaves nothing behind."""
    if process.poll() is None:
        process.terminate()
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@contextmanager
def running_demo(channels: int = 4) -> Iterator[Demo]:
    """A demo on free ports, whose bridge is connected to both sides."""
    port = free_port()
    command = ("-m", "cti_mqtt", "demo", "--mqtt-port", str(port), "--cti-port", "0", "--channels", str(channels))
    process = start(sys.executable, *command)
    try:
        welcome = "\n".join(read_until(process, READY_LINE))
        address = re.search(r"simulated cycler on [\d.]+:(\d+)", welcome)
        assert address
        # Until the first message: then the bridge polls the cycler and is subscribed to commands.
        subscribe.simple("cti/arbin1/readings", hostname=HOST, port=port)  # type: ignore[no-untyped-call]
        yield Demo(port, int(address[1]), process)
    finally:
        end(process)
