"""`cti-mqtt health`, against messages and against a real broker."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.clock import stamp
from cti_mqtt.cli.health import Heard, reasons_against
from tests.support.brokers import HOST, MOSQUITTO_5, broker_of_kind, free_port, needs_mosquitto
from tests.support.observer import Observer
from tests.support.processes import program
from tests.support.programs import running_demo
from tests.support.rig import PASSWORD, simulated

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def verdict(age_s: float = 0.0, *, healthy: bool = True, now: datetime = NOW, **more: Any) -> bytes:
    body = {"ts": stamp(now - timedelta(seconds=age_s)), "healthy": healthy, "reasons": [], **more}
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("availability", "health", "expected"),
    [
        (b"online", verdict(), []),
        (b"online", verdict(30), []),
        (b"online", verdict(-30), []),
        (None, None, ["the broker knows no bridge under this base topic"]),
        (None, verdict(), ["the broker knows no bridge under this base topic"]),
        (b"offline", verdict(), ["the bridge is offline"]),
        (b"", verdict(), ["the bridge is offline"]),
        (b"online", None, ["there is no readable health message"]),
        (b"online", b"{", ["there is no readable health message"]),
        (b"online", b"[]", ["there is no readable health message"]),
        (b"online", b'{"ts": 5}', ["there is no readable health message"]),
        (b"online", b'{"ts": "2026-01-02T03:04:05", "healthy": true, "reasons": []}', [
            "there is no readable health message"
        ]),
        (b"online", verdict(31), ["the last verdict is 31 s old, more than 30 s"]),
        (b"online", verdict(-31), ["the last verdict is 31 s in the future; the clocks differ"]),
        (b"online", verdict(healthy=False, reasons=["arbin1: not connected"]), ["arbin1: not connected"]),
        (b"online", verdict(healthy=False), ["the bridge says so"]),
        (b"online", verdict(31, healthy=False, reasons=["a"]), ["a", "the last verdict is 31 s old, more than 30 s"]),
    ],
)  # fmt: skip
def test_reasons(availability: bytes | None, health: bytes | None, expected: list[str]) -> None:
    assert reasons_against(Heard(availability, health), NOW, max_age_s=30) == expected


# --- the program itself ---


@pytest.fixture
def port() -> Iterator[int]:
    """A broker in a process of its own; what happens below `cti` there is none of ours."""
    with running_demo(channels=1) as demo:
        yield demo.mqtt_port


def write_config(folder: Path, port: int) -> Path:
    path = folder / "config.yaml"
    path.write_text(
        f"health_interval_s: 20\nmqtt: {{host: {HOST}, port: {port}, protocol: 3.1.1, base_topic: lab}}\n"
        "cyclers: {arbin1: {host: 192.0.2.1, username: u, password: p}}\n"
    )
    return path


async def run_health(config: Path, *options: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cti_mqtt", "health", "-c", str(config), *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_healthy_and_not(port: int, tmp_path: Path) -> None:
    config = write_config(tmp_path, port)
    async with Observer.connect(port, "3.1.1", "lab") as observer:
        observer.say("bridge/availability", b"online", retain=True)
        observer.say("bridge/health", verdict(50, now=datetime.now(UTC)), retain=True)
        await observer.until(lambda: len(observer.heard) >= 2)
        assert await run_health(config) == (0, "healthy\n", "")

        observer.say("bridge/health", verdict(100, now=datetime.now(UTC)), retain=True)
        await observer.until(lambda: len(observer.heard) >= 3)
        status, out, err = await run_health(config)
        assert (status, out) == (1, "")
        assert err.startswith("not healthy: the last verdict is 1")

        observer.say("bridge/availability", b"offline", retain=True)
        await observer.until(lambda: len(observer.heard) >= 4)
        assert await run_health(config) == (1, "", "not healthy: the bridge is offline\n")


@needs_mosquitto
async def test_a_real_bridge(tmp_path: Path) -> None:
    """As in the container: the program asks with the configuration that the bridge runs with."""
    config = tmp_path / "config.yaml"
    async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, AsyncExitStack() as cyclers:
        server = await cyclers.enter_async_context(simulated(2))
        config.write_text(
            f"health_interval_s: 1\nmqtt: {{host: {HOST}, port: {port}, client_id: bridge}}\n"
            f"cyclers: {{arbin1: {{host: {HOST}, port: {server.port}, username: admin, password: {PASSWORD}}}}}\n"
        )
        async with program("run", "-c", str(config)) as bridge, Observer.connect(port, 5) as observer:
            await observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
            await observer.wait("bridge/health", lambda heard: heard.json["healthy"])
            assert await run_health(config) == (0, "healthy\n", "")
            await cyclers.aclose()
            await observer.wait_last("bridge/health", lambda heard: "arbin1: not connected" in heard.json["reasons"])
            assert await run_health(config) == (1, "", "not healthy: arbin1: not connected\n")
            assert await bridge.end() == 0
            assert await run_health(config) == (1, "", "not healthy: the bridge is offline\n")


async def test_no_bridge(port: int, tmp_path: Path) -> None:
    status, _, err = await run_health(write_config(tmp_path, port), "--timeout", "2")
    assert (status, err) == (1, "not healthy: the broker knows no bridge under this base topic\n")


async def test_no_broker(tmp_path: Path) -> None:
    port = free_port()
    status, out, err = await run_health(write_config(tmp_path, port))
    assert (status, out) == (1, "")
    assert err.startswith(f"not healthy: cannot connect to the broker at {HOST}:{port}")
    assert err.count("\n") == 1


async def test_wrong_configuration(tmp_path: Path) -> None:
    status, _, err = await run_health(tmp_path / "none.yaml")
    assert status == 2
    assert "cannot be read" in err
