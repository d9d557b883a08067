"""The fast way to JSON says byte for byte what the plain one says."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.bridge import payloads
from cti_mqtt.bridge.bus import Quality, Reading
from cti_mqtt.bridge.fragments import Fragments
from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.channels import AuxReading, ChannelRecord, Extras
from tests.bridge.test_payloads import READING, RECORD
from tests.cti.strategies import CHANNEL_RECORDS

ODD_NUMBERS = [
    *(0.0, -0.0, 1.0, -1.0, 10.0, 1e6, 9999999.0, 1e7, 16777216.0, 1e-12, 1e-5, 1e16, 123456789.0),
    *(math.nan, math.inf, -math.inf),
    *(3.4028234663852886e38, -3.4028234663852886e38, 1.1754943508222875e-38, 1e-45, 1.401298464324817e-45, 1e-40),
]


def f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def from_bits(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def by_definition(value: float) -> float:
    """The fewest digits, 7 to 9, that come back as the same 32-bit float."""
    for digits in (7, 8, 9):
        candidate = float(f"{value:.{digits}g}")
        try:
            if f32(candidate) == value:
                return candidate
        except OverflowError:
            continue
    return value


ANY_F32 = st.one_of(
    st.integers(0, 2**32 - 1).map(from_bits),
    st.floats(width=32),
    st.sampled_from(ODD_NUMBERS).map(f32),
    st.decimals(-20, 20, places=4, allow_nan=False).map(float).map(f32),
)
ANY_F64 = st.one_of(st.floats(), st.sampled_from(ODD_NUMBERS))
F32_FIELDS = ChannelRecord._fields[ChannelRecord._fields.index("voltage") : ChannelRecord._fields.index("extras")]
ODD_TEXTS = ['say "hi"', "back\\slash", "new\nline", "100 %s %d %%", "µΩ 電池 🔋", "\x01\x7f", "[1] 2: CC, C-Rate"]

NUMBERS = st.fixed_dictionaries({"test_time": ANY_F64, "step_time": ANY_F64, **dict.fromkeys(F32_FIELDS, ANY_F32)})
TEXTS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(ODD_TEXTS) for name in ("schedule", "test_name", "barcode", "step_and_cycle")}
)
AUX = st.dictionaries(
    st.sampled_from(["voltage", "temperature", "ph"]),
    st.lists(st.builds(AuxReading, ANY_F32, ANY_F32), min_size=1, max_size=3).map(tuple),
)


@st.composite
def odd_records(draw: st.DrawFn) -> ChannelRecord:
    changes: dict[str, Any] = {**draw(NUMBERS), **draw(TEXTS)}
    record = RECORD._replace(**changes)
    return record._replace(extras=record.extras._replace(aux=draw(AUX)) if draw(st.booleans()) else Extras(draw(AUX)))


READINGS = st.builds(
    Reading,
    st.integers(1, 3),
    odd_records() | CHANNEL_RECORDS,
    st.sampled_from(Quality),
    st.just(READING.ts),
    st.just(1),
)


@given(st.lists(st.tuples(st.sampled_from("ab"), READINGS), min_size=1, max_size=6))
def test_any_readings_of_any_channels(taken: Sequence[tuple[str, Reading]]) -> None:
    fragments = Fragments()
    for cycler, reading in [*taken, *taken]:
        assert fragments(cycler, reading) == payloads.fragment(reading)


@pytest.mark.parametrize("field", ChannelRecord._fields)
def test_a_change_of_each_field_is_seen(field: str) -> None:
    values: dict[type[Any], Sequence[Any]] = {
        str: ODD_TEXTS,
        float: [f32(number) for number in ODD_NUMBERS],
        bool: [True, False],
        int: [0, 5, 65535],
        ChannelStatus: [ChannelStatus.UNSAFE, ChannelStatus(99), ChannelStatus(98)],
        Extras: [Extras(), Extras({"ph": (AuxReading(7.0, 0.0),) * 2}), Extras({}, RECORD.extras.bms)],
    }
    fragments = Fragments()
    for value in values[type(getattr(RECORD, field))]:
        for record in (RECORD, RECORD._replace(**{field: value})):
            reading = READING._replace(record=record)
            assert fragments("a", reading) == payloads.fragment(reading)


def test_quality_channel_and_cycler_are_told_apart() -> None:
    fragments = Fragments()
    for _ in range(2):
        for quality in Quality:
            for channel in (1, 2):
                for cycler in ("a", "b"):
                    reading = Reading(channel, RECORD._replace(test_name=cycler), quality, "", 1)
                    assert fragments(cycler, reading) == payloads.fragment(reading)


def test_cyclers_that_are_gone_are_forgotten() -> None:
    fragments = Fragments()
    for cycler in ("a", "b"):
        fragments(cycler, READING)
    fragments.keep_only({"b"})
    assert [cycler for cycler, _ in fragments._steady] == ["b"]


@given(ANY_F32)
def test_fewest_digits(value: float) -> None:
    assert repr(payloads.shortest_float(value)) == repr(by_definition(value))


@pytest.mark.parametrize("exponent", range(256))
def test_fewest_digits_at_every_power_of_two(exponent: int) -> None:
    for mantissa in (0, 1, 2, 3, 0x400000, 0x7FFFFE, 0x7FFFFF):
        value = from_bits(exponent << 23 | mantissa)
        assert repr(payloads.shortest_float(value)) == repr(by_definition(value))


@pytest.mark.parametrize("exponent", range(-13, 10))
def test_fewest_digits_around_every_power_of_ten(exponent: int) -> None:
    (bits,) = struct.unpack("<I", struct.pack("<f", 10.0**exponent))
    for value in map(from_bits, range(bits - 300, bits + 300)):
        assert repr(payloads.shortest_float(value)) == repr(by_definition(value))
        assert repr(payloads.shortest_float(-value)) == repr(by_definition(-value))


def test_digits_next_to_a_tie() -> None:
    for quarters in range(1, 4096):  # k + 1/4, 1/2, 3/4: every one of these is a float that ends in 5
        for places in (0, 4, 8, 12):
            value = f32((quarters * 256 + 1) / 4 / 2**places)
            assert repr(payloads.shortest_float(value)) == repr(by_definition(value))


def test_zero_keeps_its_sign() -> None:
    for _ in range(2):
        assert [math.copysign(1, zero) for zero in payloads.shortest_floats((0.0, -0.0, 0.0))] == [1, -1, 1]
