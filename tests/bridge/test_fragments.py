"""Readings as JSON say what a plain description of them says."""

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.bridge.bus import Quality, Reading
from cti_mqtt.bridge.fragments import NUMBERS as NAMES
from cti_mqtt.bridge.fragments import Fragments
from cti_mqtt.bridge.payloads import parse_step_and_cycle
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


def described(reading: Reading) -> dict[str, Any]:
    """A reading as the contract has it, put together slowly."""
    record = reading.record
    place = dict(
        zip(("cycle", "step", "step_label", "step_type"), parse_step_and_cycle(record.step_and_cycle), strict=True)
    )
    return {
        "channel": reading.channel,
        "quality": reading.quality.value,
        "status": record.status.text,
        "status_code": int(record.status),
        **{name: getattr(record, name) for name in ("test_name", "schedule", "barcode", "can_config", "smb_config")},
        **place,
        **{name: getattr(record, name) for name in ("step_and_cycle", "exit_condition", "comm_failure")},
        "master_channel": record.master_channel + 1,
        **{shown: number(getattr(record, name)) for name, shown in NAMES.items()},
        "aux": {
            kind: [{"value": number(value), "dt": number(dt)} for value, dt in inputs]
            for kind, inputs in record.extras.aux.items()
        },
        "bms": [
            {"index": entry.index, "value": number(entry.value), "unit": entry.unit} for entry in record.extras.bms
        ],
        "smb": [{"index": entry.index, "value": plain(entry.value), "unit": entry.unit} for entry in record.extras.smb],
    }


def number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plain(value: float | str) -> float | str | None:
    return value if isinstance(value, str) else number(value)


def same(texts: Sequence[bytes], readings: Sequence[Reading]) -> bool:
    """Whether the texts are these readings, the 32-bit floats in them brought back to what they were."""
    bodies = [json.loads(text) for text in texts]
    for body in bodies:
        for name in [NAMES[field] for field in F32_FIELDS]:
            body[name] = None if body[name] is None else f32(body[name])
        for each in [each for inputs in body["aux"].values() for each in inputs]:
            each.update({name: None if value is None else f32(value) for name, value in each.items()})
    expected = [described(reading) for reading in readings]
    return repr(bodies) == repr(expected)  # the text: 0.0 is not -0.0 here, and fields have an order


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
        assert same(fragments(cycler, [reading]), [reading])


@given(st.lists(READINGS, max_size=5))
def test_all_readings_of_a_poll(readings: Sequence[Reading]) -> None:
    assert same(Fragments()("a", readings), readings)


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
            assert same(fragments("a", [reading]), [reading])


def test_quality_channel_and_cycler_are_told_apart() -> None:
    fragments = Fragments()
    for _ in range(2):
        for quality in Quality:
            for channel in (1, 2):
                for cycler in ("a", "b"):
                    reading = Reading(channel, RECORD._replace(test_name=cycler), quality, "", 1)
                    assert same(fragments(cycler, [reading]), [reading])


def test_cyclers_that_are_gone_are_forgotten() -> None:
    fragments = Fragments()
    for cycler in ("a", "b"):
        fragments(cycler, [READING])
    fragments.keep_only({"b"})
    assert [cycler for cycler, _ in fragments._steady] == ["b"]
