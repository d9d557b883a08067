"""Real brokers on free ports of loopback."""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from cti_mqtt.cli.embedded_broker import embedded_broker

HOST = "127.0.0.1"
SEARCH_PATH = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/usr/local/sbin"
MOSQUITTO = shutil.which("mosquitto", path=SEARCH_PATH)

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@dataclass(frozen=True)
class BrokerKind:
    """A broker and the protocol to speak with it."""

    name: Literal["amqtt", "mosquitto"]
    protocol: Literal[5, "3.1.1"]

    def __str__(self) -> str:
        return f"{self.name}-{self.protocol}"


AMQTT = BrokerKind("amqtt", "3.1.1")
MOSQUITTO_5 = BrokerKind("mosquitto", 5)
MOSQUITTO_311 = BrokerKind("mosquitto", "3.1.1")
ALL_KINDS = [
    pytest.param(AMQTT, id=str(AMQTT)),
    pytest.param(MOSQUITTO_5, id=str(MOSQUITTO_5), marks=needs_mosquitto),
    pytest.param(MOSQUITTO_311, id=str(MOSQUITTO_311), marks=needs_mosquitto),
]


PORTS = range(10_000, 32_000)  # below those that systems hand out: nobody is given one of them by chance


def free_port() -> int:
    """A port that nobody uses just now, nor will unless told to: it can be closed and opened again."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]  # not `random`, which Hypothesis seeds alike in each worker
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


async def wait_listening(port: int, timeout_s: float = 10.0) -> None:
    """Until somebody listens."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


class Mosquitto:
    """A Mosquitto process that can be stopped and started on the same port."""

    def __init__(self, folder: Path, extra: str = "", listener: str = "", *, anonymous: bool = True) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        user = "user root\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        allow = f"allow_anonymous {'true' if anonymous else 'false'}"
        self._config.write_text(f"{user}{extra}\nlistener {self.port} {HOST}\n{allow}\n{listener}\n")

    async def start(self) -> None:
        """Start, and wait until it listens."""
        assert MOSQUITTO is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-v", "-c", str(self._config)], stdout=log, stderr=subprocess.STDOUT
            )
        await wait_listening(self.port)
        assert self._process.poll() is None, "somebody else listens there"

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 10)
            self._process = None


@asynccontextmanager
async def broker_of_kind(kind: BrokerKind, folder: Path, **options: Any) -> AsyncIterator[int]:
    """A running broker; its port."""
    if kind.name == "amqtt":
        port = free_port()
        async with embedded_broker(HOST, port):
            yield port
        return
    mosquitto = Mosquitto(folder, **options)
    await mosquitto.start()
    try:
        yield mosquitto.port
    finally:
        await mosquitto.stop()
