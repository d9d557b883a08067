"""A broker of which a test decides what it reads and says; and what is tried on it."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cti_mqtt.bridge.mqtt.driver import Driver
from cti_mqtt.bridge.mqtt.link import MqttLink
from cti_mqtt.bridge.mqtt.reading import ReadingClient
from cti_mqtt.bridge.mqtt.session import Incoming
from cti_mqtt.config import Mqtt
from tests.support.brokers import HOST
from tests.support.rig import quick_backoff

CONNACK: dict[object, bytes] = {5: b"\x20\x03\x00\x00\x00", "3.1.1": b"\x20\x02\x00\x00"}
SUBSCRIBE, PUBLISH, DISCONNECT = 0x80, 0x30, 0xE0


def packet(first: int, body: bytes) -> bytes:
    """An MQTT packet: first byte, length, the rest."""
    length, rest = b"", len(body)
    while True:
        rest, low = divmod(rest, 128)
        length += bytes([low | (128 if rest else 0)])
        if not rest:
            return bytes([first]) + length + body


def text(content: bytes) -> bytes:
    return struct.pack("!H", len(content)) + content


def publish(payload: bytes, topic: bytes = b"c/x", protocol: object = "3.1.1", properties: bytes = b"") -> bytes:
    """A PUBLISH with QoS 0."""
    return packet(PUBLISH, text(topic) + (bytes([len(properties)]) + properties if protocol == 5 else b"") + payload)


class ScriptedBroker:
    """Accepts everybody, confirms subscriptions, and reads and says what a test tells it to.

    Attributes:
        reading: cleared, it reads no more.
        greeting: what it sends behind CONNACK.
        before_suback: what it sends before it confirms a subscription; None: it never confirms.
        packets: first byte and body of what came, all connections together.
    """

    def __init__(self, protocol: object) -> None:
        self.port = 0
        self.connections = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.greeting = b""
        self.before_suback: bytes | None = b""
        self.packets: list[tuple[int, bytes]] = []
        self.writer: asyncio.StreamWriter | None = None
        self._protocol = protocol
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, protocol: object, tls: ssl.SSLContext | None = None) -> AsyncIterator["ScriptedBroker"]:
        broker = cls(protocol)
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # so that a client soon notices
        listening.bind((HOST, 0))
        server = await asyncio.start_server(broker._serve, sock=listening, ssl=tls, limit=8192)
        broker.port = listening.getsockname()[1]
        try:
            yield broker
        finally:
            broker.reading.set()
            for writer in broker._writers:
                writer.transport.abort()
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._read_packet(reader)  # CONNECT
            self.connections += 1
            writer.write(CONNACK[self._protocol] + self.greeting)
            while True:
                await self.reading.wait()
                first, body = await self._read_packet(reader)
                self.packets.append((first, body))
                if first & 0xF0 == SUBSCRIBE and self.before_suback is not None:
                    none = b"\x00" if self._protocol == 5 else b""
                    writer.write(self.before_suback + packet(0x90, body[:2] + none + b"\x01"))
        writer.close()

    @staticmethod
    async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        first, length, shift = (await reader.readexactly(1))[0], 0, 0
        while True:
            byte = (await reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, await reader.readexactly(length)


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # a test looks from outside
            await asyncio.sleep(0.01)


class Driven:
    """A client with its driver, and nothing above."""

    def __init__(self) -> None:
        self.client = ReadingClient(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311, reconnect_on_failure=False
        )
        self.stumbles: list[str] = []
        self.heard: list[bytes] = []
        self.client.on_message = lambda _client, _data, message: self.heard.append(bytes(message.payload))
        self.driver = Driver(self.client, self.stumbles.append)

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int, *, tls: Path | None = None, start: bool = True) -> AsyncIterator["Driven"]:
        it = cls()
        if tls:
            it.client.tls_set(str(tls))
        await asyncio.to_thread(it.client.connect, HOST, port, 60)
        if start:
            it.driver.start()
            await until(it.client.is_connected)
        try:
            yield it
        finally:
            sock: Any = it.client.socket()
            if sock is not None:
                sock.shutdown(socket.SHUT_RDWR)
            await asyncio.wait_for(it.driver.closed.wait(), 5)


class Linked:
    """A link, and what it says."""

    def __init__(self, settings: Mqtt, **options: Any) -> None:
        self.states: list[tuple[bool, str]] = []
        self.heard: list[Incoming] = []
        self.taken: list[str] = []
        self.broken = 0
        options = {"backoff": quick_backoff(), **options}
        self.link = MqttLink(
            settings, self._hear, on_state=self._on_state, on_taken=self.taken.append, **options
        )  # fmt: skip

    def _on_state(self, connected: bool, reason: str) -> None:
        self.states.append((connected, reason))

    def _hear(self, incoming: Incoming) -> None:
        self.heard.append(incoming)
        if incoming.payload == b"bug":
            raise RuntimeError("ours")

    @property
    def losses(self) -> list[str]:
        return [reason for connected, reason in self.states if not connected]

    @classmethod
    @asynccontextmanager
    async def running(cls, port: int, protocol: object, mqtt: Any = None, **options: Any) -> AsyncIterator["Linked"]:
        it = cls(Mqtt.model_validate({"port": port, "protocol": protocol, **(mqtt or {})}), **options)
        task = asyncio.create_task(it.link.run())
        try:
            await asyncio.wait_for(it.link.wait_connected(), 10)
            yield it
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
