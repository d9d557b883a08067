"""The frame: length rule, checksum, and checksums over stretches of a buffer."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.cti.frame import Direction, RunningSums, checksum, pack_frame, stored_checksum
from tests.cti import golden
from tests.cti.strategies import QUICK

SIZES = [0, 1, 2, 255, 256, 257, 511, 512, 513, 4096, 70_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [0x00, 0x01, 0xDD, 0xFF], ids=hex)
def test_checksum_is_the_sum_of_the_bytes(size: int, fill: int) -> None:
    data = bytes([fill]) * size
    assert checksum(data) == sum(data) % 65536


@QUICK
@given(st.binary(max_size=2000))
def test_checksum_of_any_bytes(data: bytes) -> None:
    assert checksum(data) == checksum(bytearray(data)) == checksum(memoryview(data)) == sum(data) % 65536


@pytest.mark.parametrize(("direction", "length"), [(Direction.REQUEST, 13), (Direction.FEEDBACK, 25)], ids=str)
def test_length_rule(direction: Direction, length: int) -> None:
    expected = bytes.fromhex("DDDDDDDDDDDDDD11") + bytes([length, 0, 0, 0]) + bytes.fromhex("010021BB00000000") + b"abc"
    frame = pack_frame(direction, 0xBB210001, b"abc")
    assert frame == expected + (sum(expected) % 65536).to_bytes(2, "little")
    assert frame == golden.frame(direction, 0xBB210001, b"abc")
    assert stored_checksum(frame) == sum(expected) % 65536


def test_running_sums_over_any_stretch() -> None:
    rng = random.Random(1)
    buffer = bytearray()
    sums = RunningSums(buffer)
    for _ in range(300):
        buffer += rng.randbytes(rng.choice([0, 1, 100, 256, 1000]))
        for _ in range(3):
            start = rng.randint(0, len(buffer))
            end = rng.randint(start, len(buffer))
            assert sums.between(start, end) == sum(buffer[start:end]) % 65536
        size = rng.choice([0, 10, len(buffer) // 2, len(buffer)])
        before = bytes(buffer)
        gone = sums.discard(size)
        assert size - 256 < gone <= size
        assert buffer == before[gone:]


def test_running_sums_of_bytes_that_nobody_asked_for() -> None:
    buffer = bytearray(b"\x01" * 2000)
    sums = RunningSums(buffer)
    assert sums.discard(1999) == 1792
    buffer += b"\x02" * 1000
    assert sums.between(0, len(buffer)) == 208 + 2000
