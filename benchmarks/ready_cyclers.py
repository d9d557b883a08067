"""Cyclers whose answers are ready, as a process of its own: they must not be the brake.

Each listens on a port of its own, lets everybody in, and answers requests for readings: "all" in one frame, one channel
in a frame of its own. Frames are made when it starts; so many that by the time they repeat nobody remembers the values.
With `--stamped`, the test time of each reading is when it was answered (Unix time, s), so that its age can be told at
the other end.
"""

import argparse
import asyncio
import itertools
import struct
import time
from functools import partial
from pathlib import Path

from counts import Count, Counts
from records import COUNT, RECORD, TEST_TIME_AT, framed, noisy_polls

from cti_mqtt.cli.loops import run_until_signalled
from cti_mqtt.cti.codes import CommandCode, UserType
from cti_mqtt.cti.frame import CHECKSUM_SIZE, HEADER, LENGTH_END
from cti_mqtt.cti.messages.channels import ALL_CHANNELS
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.results import LoginResult
from cti_mqtt.cti.stream import pack_message

HOST = "127.0.0.1"
READY_RECORDS = 16384  # at eight values each more than the bridge, or anybody, would keep
BEHIND_HEADER = struct.Struct("<h")
TIME = struct.Struct("<d")
CHECKSUM = struct.Struct("<H")


class Answers:
    """Ready frames, the same for all cyclers.

    Args:
        channels: of each cycler.
        stamped: whether each answer carries its time.
    """

    def __init__(self, channels: int, *, stamped: bool) -> None:
        self.channels = channels
        self.login = pack_message(_login(channels))
        self._stamped = stamped
        polls = noisy_polls(channels, max(2, READY_RECORDS // channels))
        self._all = [framed(records) for records in polls]
        self._each = [
            framed(records[offset : offset + RECORD.size])
            for records in polls
            for offset in range(0, len(records), RECORD.size)
        ]
        self._bodies = [_without_time(frame) for frame in self._all] if stamped else []

    def of_all(self, poll: int) -> bytes:
        """The answer to "all channels"."""
        if not self._stamped:
            return self._all[poll % len(self._all)]
        frame, total = self._bodies[poll % len(self._bodies)]
        now = TIME.pack(time.time())
        copy = bytearray(frame)
        for offset in range(HEADER.size + COUNT.size + TEST_TIME_AT, len(frame), RECORD.size):
            copy[offset : offset + TIME.size] = now
        CHECKSUM.pack_into(copy, len(copy) - CHECKSUM_SIZE, (total + self.channels * sum(now)) & 0xFFFF)
        return bytes(copy)

    def of_one(self, channel: int, poll: int) -> bytes:
        """The answer to a request for one channel (0-based)."""
        return self._each[(poll * self.channels + channel) % len(self._each)]


def _login(channels: int) -> LoginFeedback:
    return LoginFeedback(
        result=LoginResult.SUCCESS,
        ip=HOST,
        serial="READY-1",
        note="",
        nickname="",
        location="",
        emergency_contact="",
        comments="",
        email="",
        phone="",
        itac=0,
        version=1,
        allow_control=True,
        channel_count=channels,
        user_type=UserType.SUPER_USER,
    )


def _without_time(frame: bytes) -> tuple[bytes, int]:
    """A frame with all test times zero, and the sum of its other bytes."""
    body = bytearray(frame)
    for offset in range(HEADER.size + COUNT.size + TEST_TIME_AT, len(frame), RECORD.size):
        body[offset : offset + TIME.size] = bytes(TIME.size)
    return bytes(body), sum(body[:-CHECKSUM_SIZE])


class Tally:
    """Counts the requests of one cycler.

    Args:
        counts: where to.
        cycler: its entry.
    """

    def __init__(self, counts: Counts, cycler: int) -> None:
        self._counts = counts
        self._cycler = cycler
        self._readings = self.polls = 0

    def polled(self, readings: int) -> None:
        """A request was answered."""
        self.polls += 1
        self._readings += readings
        self._counts.write(self._cycler, Count(self._readings, self.polls, time.monotonic_ns()))


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: Answers, tally: Tally) -> None:
        self._answers = answers
        self._tally = tally
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # for the types
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER.size:
            _, length, code, _ = HEADER.unpack_from(buffer)
            if len(buffer) < length + LENGTH_END:
                return
            self._answer(code, bytes(buffer[: length + LENGTH_END]))
            del buffer[: length + LENGTH_END]

    def _answer(self, code: int, request: bytes) -> None:
        assert self._transport is not None  # noqa: S101  # something came, so it is there
        if code == CommandCode.LOGIN:
            self._transport.write(self._answers.login)
        elif code == CommandCode.CHANNELS_INFO:
            (channel,) = BEHIND_HEADER.unpack_from(request, HEADER.size)
            polls = self._tally.polls
            if channel == ALL_CHANNELS:
                self._transport.write(self._answers.of_all(polls))
                self._tally.polled(self._answers.channels)
            else:
                self._transport.write(self._answers.of_one(channel, polls // self._answers.channels))
                self._tally.polled(1)


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Until it is told to stop."""
    loop = asyncio.get_running_loop()
    answers = Answers(options.channels, stamped=options.stamped)
    counts = Counts(options.counts, options.cyclers)
    tallies = [Tally(counts, cycler) for cycler in range(options.cyclers)]
    servers = [await loop.create_server(partial(Answering, answers, tally), HOST, 0) for tally in tallies]
    ports = itertools.chain.from_iterable(server.sockets for server in servers)
    print("ports:", *(each.getsockname()[1] for each in ports), flush=True)
    await stop.wait()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description="Cyclers whose answers are ready.")
    parser.add_argument("counts", type=Path, help="where to count; see counts.py")
    parser.add_argument("--cyclers", type=int, default=1)
    parser.add_argument("--channels", type=int, default=16, help="of each cycler")
    parser.add_argument("--stamped", action="store_true", help="the test time of a reading is when it was answered")
    options = parser.parse_args()
    run_until_signalled(lambda stop: serve(options, stop))


if __name__ == "__main__":
    main()
