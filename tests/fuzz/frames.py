"""Frames that are wrong: noise under a header, sound frames with something changed, junk whose lengths are right."""

import random
from itertools import pairwise

from cti_mqtt.cti.frame import Direction
from tests.cti.golden import FEEDBACK, REQUEST, TOKEN, Golden, frame, misplaced, of_direction, u32, wire_checksum

KIB, MIB = 1024, 1024 * 1024
CODES = {direction: [golden.code for golden in of_direction(direction)] for direction in Direction}
BYTES = (0x00, 0x01, 0x11, 0x7F, 0x80, 0xD8, 0xDD, 0xFF)
HEADER_SIZE = 20


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
    """Anything."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(random_frame(rng, direction) if rng.random() < 0.3 else rng.choice(cases).frame)
    for _ in range(rng.randint(1, 2)):
        if len(data) > 30:
            rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def damaged_inside(rng: random.Random, direction: Direction, cases: tuple[Golden, ...]) -> bytes:
    """Junk whose length is right: a frame with another code or other content, or bytes without a token."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(200)).replace(TOKEN, b"")
    data = bytearray(random_frame(rng, direction) if rng.random() < 0.3 else rng.choice(cases).frame)
    if rng.random() < 0.3:
        change_code(rng, data)
    for _ in range(rng.randint(0, 8)):
        data[rng.randrange(HEADER_SIZE, len(data))] = rng.choice((*BYTES, rng.randrange(256)))
    if rng.random() < 0.3:
        data[-2:] = wire_checksum(bytes(data[:-2]))
    return bytes(data)


def segments(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes in up to 31 pieces."""
    cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 30)))})
    return [data[start:end] for start, end in pairwise(cuts)]
