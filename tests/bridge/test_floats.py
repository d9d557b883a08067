"""32-bit floats in the fewest digits."""

import contextlib
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.bridge.floats import f32_texts, f64_texts, shortest_float


def f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def from_bits(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def digits(text: str) -> int:
    """How many digits a number has, without zeros that only say where the point is."""
    return len(text.lstrip("-").partition("e")[0].replace(".", "").strip("0"))


def check(value: float) -> None:
    """The text is this number, and no text with fewer digits is."""
    (text,) = f32_texts([value])
    assert f32(float(text)) == value
    fewer = digits(text) - 1
    if fewer > 0:
        with contextlib.suppress(OverflowError):  # rounded up beyond the largest
            assert f32(float(f"{value:.{fewer}g}")) != value
    assert shortest_float(value) == float(text)


@given(st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 0x7F7FFFFF).map(from_bits)))
def test_any(value: float) -> None:
    check(value)


@pytest.mark.parametrize("exponent", range(255))
def test_at_every_power_of_two(exponent: int) -> None:
    for mantissa in (0, 1, 2, 3, 0x400000, 0x7FFFFE, 0x7FFFFF):
        check(from_bits(exponent << 23 | mantissa))


@pytest.mark.parametrize("exponent", range(-13, 10))
def test_around_every_power_of_ten(exponent: int) -> None:
    (bits,) = struct.unpack("<I", struct.pack("<f", 10.0**exponent))
    for value in map(from_bits, range(bits - 100, bits + 100)):
        check(value)
        check(-value)


@pytest.mark.parametrize("text", ["3.7012", "0.1", "16777216.0", "3.4028235e+38", "-2.5", "25.1", "0.0", "-0.0"])
def test_as_people_write_them(text: str) -> None:
    assert f32_texts([f32(float(text))]) == [text]
    assert repr(shortest_float(f32(float(text)))) == text


def test_what_is_no_number() -> None:
    odd = [math.nan, math.inf, -math.inf]
    assert f32_texts(odd) == f64_texts(odd) == ["null"] * 3
    assert [str(shortest_float(value)) for value in odd] == ["nan", "inf", "-inf"]


def test_none_and_many() -> None:
    assert f32_texts([]) == f64_texts([]) == []
    assert f32_texts([0.5, 1.0, 1e20]) == ["0.5", "1.0", "1e+20"]
    assert f64_texts([0.1, 1.0, 61.5]) == ["0.1", "1.0", "61.5"]
