"""A relay before the broker that reads along: which readings the bridge sent, and which the broker acknowledged.

So what is missing in the end can be told apart: sent and acknowledged, it is the broker that lost it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from tests.faults.readings.seen import KINDS, AlteredError, Collection, Seen, understand
from tests.support.brokers import HOST

CHUNK_BYTES = 64 * 1024
PUBLISH, PUBACK = 3, 4
REFUSED = 0x80  # reason codes from here on are no acknowledgement


class Packets:
    """Bytes -> MQTT packets: their first byte and their body."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._data += data
        while len(self._data) >= 2:
            size, length = _number(self._data, 1)
            if length is None or len(self._data) < 1 + length + size:
                return
            body = bytes(self._data[1 + length : 1 + length + size])
            first = self._data[0]
            del self._data[: 1 + length + size]
            yield first, body


def _number(data: bytes | bytearray, start: int) -> tuple[int, int | None]:
    """A variable byte integer, and how many bytes it has; None while it is not whole."""
    value = 0
    for index in range(4):
        if start + index >= len(data):
            return 0, None
        value |= (data[start + index] & 0x7F) << (7 * index)
        if data[start + index] < 0x80:
            return value, index + 1
    return value, 4


class Tap:
    """Listens on a free port while its `serving` block lasts.

    Attributes:
        port: where the bridge connects to.
        sent: readings that the bridge published.
        acknowledged: those of them that were acknowledged.
        connections: that the bridge opened and the broker took.
    """

    def __init__(self, base: str, target: Callable[[], int], protocol: object) -> None:
        self.port = 0
        self.sent = Collection()
        self.acknowledged = Collection()
        self.connections = 0
        self._base = base
        self._target = target
        self._five = protocol == 5
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def serving(cls, base: str, target: Callable[[], int], protocol: object) -> AsyncIterator[Self]:
        """A tap before whatever listens on the port that `target` gives."""
        tap = cls(base, target, protocol)
        listener = await asyncio.start_server(tap._accepted, HOST, 0)
        tap.port = listener.sockets[0].getsockname()[1]
        try:
            yield tap
        finally:
            listener.close()
            for task in tap._tasks:
                task.cancel()
            await asyncio.gather(*tap._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(HOST, self._target())
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        waiting: dict[int, Seen] = {}
        pumps = [
            asyncio.create_task(_pump(reader, there_writer, lambda *packet: self._to_broker(waiting, *packet))),
            asyncio.create_task(_pump(there_reader, writer, lambda *packet: self._to_bridge(waiting, *packet))),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (writer, there_writer):
                with suppress(OSError):
                    each.close()

    def _to_broker(self, waiting: dict[int, Seen], first: int, body: bytes) -> None:
        if first >> 4 != PUBLISH or not first & 0b110:
            return
        size = int.from_bytes(body[:2], "big")
        cycler, _, kind = body[2 : 2 + size].decode().removeprefix(f"{self._base}/").partition("/")
        if kind not in KINDS:
            return
        start = size + 4
        if self._five:
            length, room = _number(body, start)
            start += length + (room or 0)
        with suppress(AlteredError):  # what a broken cycler link altered
            message = understand(kind, cycler, body[start:])
            waiting[int.from_bytes(body[size + 2 : size + 4], "big")] = message
            self.sent.add(message)

    def _to_bridge(self, waiting: dict[int, Seen], first: int, body: bytes) -> None:
        if first >> 4 != PUBACK or (len(body) > 2 and body[2] >= REFUSED):
            return
        message = waiting.pop(int.from_bytes(body[:2], "big"), None)
        if message is not None:
            self.acknowledged.add(message)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[int, bytes], None]) -> None:
    """Pass on until the end; what is passed on is looked at first."""
    packets = Packets()
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            for first, body in packets.feed(data):
                look(first, body)
            writer.write(data)
            await writer.drain()
