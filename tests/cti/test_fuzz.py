"""Random and mutated frames for both roles: no exception, a bounded buffer, and a way back.

The randomness is seeded: a failure comes again.
"""

import random
from itertools import pairwise

import pytest

from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.stream import ChecksumPolicy, Received, ReceivedUnknown, Skipped, Stream
from tests.cti.golden import (
    FEEDBACK,
    REQUEST,
    TOKEN,
    Golden,
    by_name,
    frame,
    misplaced,
    of_direction,
    u32,
    wire_checksum,
)

KIB, MIB = 1024, 1024 * 1024
LARGEST = {REQUEST: MIB, FEEDBACK: 16 * MIB}
CODES = {direction: [golden.code for golden in of_direction(direction)] for direction in Direction}
BYTES = (0x00, 0x01, 0x11, 0x7F, 0x80, 0xD8, 0xDD, 0xFF)
ROUNDS = 80  # of 20 frames each, for each of 8 seeds and 2 roles


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.choice((*BYTES, rng.randrange(256)))


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def lose(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, 64)]


def insert(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = rng.choice((TOKEN, TOKEN[: rng.randrange(8)], rng.randbytes(rng.randint(1, 30))))


def change_length(rng: random.Random, data: bytearray) -> None:
    size = rng.choice((len(data), 0, 64 * KIB, rng.randrange(300), rng.randrange(1 << 16), rng.randrange(1 << 32)))
    data[8:12] = u32((size + rng.randint(-13, 13)) % (1 << 32))


def change_code(rng: random.Random, data: bytearray) -> None:
    data[12:16] = u32(rng.choice((rng.choice(CODES[REQUEST]), rng.choice(CODES[FEEDBACK]), rng.randrange(1 << 32))))


def sign(rng: random.Random, data: bytearray) -> None:
    """After other changes: content that is wrong under a checksum that is right."""
    flip(rng, data)
    data[:8] = TOKEN
    data[-2:] = wire_checksum(bytes(data[:-2]))


def misplace(rng: random.Random, data: bytearray) -> None:
    data[:] = misplaced(bytes(data))


def nothing(rng: random.Random, data: bytearray) -> None:
    """Sound frames are among the others."""


MUTATIONS = (flip, cut, lose, insert, change_length, change_code, sign, misplace, nothing)


def random_frame(rng: random.Random, direction: Direction) -> bytes:
    """A frame whose arguments are noise, under any code."""
    code = rng.choice((*CODES[direction], rng.randrange(1 << 32)))
    return frame(direction, code, rng.randbytes(rng.choice((0, 1, 4, 36, 40, 52, 64, 106, rng.randrange(3000)))))


def fuzzed(rng: random.Random, direction: Direction, cases: tuple[Golden, ...]) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(random_frame(rng, direction) if rng.random() < 0.3 else rng.choice(cases).frame)
    for _ in range(rng.randint(1, 2)):
        if len(data) > 30:
            rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def segments(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 30)))})
    return [data[start:end] for start, end in pairwise(cuts)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name)
def test_fuzz(direction: Direction, seed: int) -> None:
    rng = random.Random(f"{direction.name} {seed}")
    cases = of_direction(direction)
    stream = Stream(direction, list(ChecksumPolicy)[seed % 3])
    fed = skipped = taken = 0
    for _ in range(ROUNDS):
        for segment in segments(rng, b"".join(fuzzed(rng, direction, cases) for _ in range(20))):
            events = stream.feed(segment)
            fed += len(segment)
            skipped += sum(event.size for event in events if isinstance(event, Skipped))
            taken += sum(isinstance(event, Received | ReceivedUnknown) for event in events)
            assert stream.pending <= LARGEST[direction] + 2
            assert skipped + stream.pending <= fed
            assert len(stream._buffer) - stream.pending < 256
    assert taken > 0
    assert_finds_back(stream, direction)


def assert_finds_back(stream: Stream, direction: Direction) -> None:
    """One bound of silence after whatever there was, and the next frame is understood."""
    for _ in range(LARGEST[direction] // (64 * KIB)):
        stream.feed(bytes(64 * KIB))
    good = by_name("StopRequest" if direction is REQUEST else "StopFeedback")
    assert good.message in [event.message for event in stream.feed(good.frame) if isinstance(event, Received)]
    assert stream.pending == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name)
def test_noise(direction: Direction, seed: int) -> None:
    """Bytes of which every second one is part of a token or a header."""
    rng = random.Random(f"noise {direction.name} {seed}")
    words = [TOKEN, TOKEN[:3], b"\xdd", b"\0", *map(u32, (0, 22, 128, 60_000, *CODES[direction]))]
    stream = Stream(direction, list(ChecksumPolicy)[seed % 3])
    for _ in range(300):
        stream.feed(b"".join(rng.choice((rng.randbytes(1), rng.choice(words))) for _ in range(100)))
        assert stream.pending <= LARGEST[direction] + 2
    assert_finds_back(stream, direction)
