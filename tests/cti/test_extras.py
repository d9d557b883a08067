"""Auxiliaries, BMS and SMB values of a channel record: with units and without."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.cti.layout import CountedRecords, Layout
from cti_mqtt.cti.messages.channels import (
    AUX_KINDS,
    NO_EXTRAS,
    RECORD_WITHOUT_UNITS,
    AuxReading,
    BmsReading,
    ChannelRecord,
    ChannelsInfoFeedback,
    Extras,
    ExtrasCodec,
    SmbReading,
)
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.errors import InvalidRequestError, ProtocolError
from tests.cti import golden
from tests.cti.golden import f32, f64, u16, u32
from tests.cti.strategies import CHANNEL_RECORDS, EXTRAS, QUICK
from tests.cti.test_messages import changed, layout_of

WITH_UNITS, WITHOUT_UNITS = ExtrasCodec(units=True), ExtrasCodec(units=False)


def feedback_of(*extras: bytes) -> bytes:
    return u32(len(extras)) + b"".join(golden.RECORD_FIXED + extra for extra in extras)


def read_extras(*extras: bytes) -> list[Extras]:
    feedback = layout_of(ChannelsInfoFeedback(())).unpack(feedback_of(*extras))
    assert all(record._replace(extras=NO_EXTRAS) == golden.RECORD for record in feedback.records)
    return [record.extras for record in feedback.records]


def counts(bms: int = 0, smb: int = 0, **aux: int) -> bytes:
    return b"".join(u16(aux.get(kind, 0)) for kind in golden.AUX) + u16(bms) + u16(smb)


@pytest.mark.parametrize("kind", AUX_KINDS)
def test_each_kind_of_auxiliary(kind: str) -> None:
    extras = Extras({kind: (AuxReading(1.5, -0.5), AuxReading(2.5, 0.25))})
    packed = counts(**{kind: 2}) + f32(1.5, -0.5, 2.5, 0.25)
    assert WITH_UNITS.pack(extras) == WITHOUT_UNITS.pack(extras) == packed
    assert read_extras(packed) == [extras]


def test_everything_at_once_with_units() -> None:
    assert WITH_UNITS.pack(golden.EXTRAS) == golden.EXTRAS_BYTES
    assert read_extras(golden.EXTRAS_BYTES, golden.EXTRAS_BYTES) == [golden.EXTRAS, golden.EXTRAS]


def test_everything_at_once_without_units() -> None:
    assert WITHOUT_UNITS.pack(golden.EXTRAS_WITHOUT_UNITS) == golden.EXTRAS_BYTES_WITHOUT_UNITS
    assert read_extras(golden.EXTRAS_BYTES_WITHOUT_UNITS, golden.NO_COUNTS) == [golden.EXTRAS_WITHOUT_UNITS, NO_EXTRAS]


def test_without_units_a_number_is_unknown() -> None:
    packed = counts(smb=1) + u32(4) + u32(0)
    ((reading,),) = [extras.smb for extras in read_extras(packed)]
    assert (reading.index, reading.unit) == (4, "")
    assert isinstance(reading.value, float)
    assert math.isnan(reading.value)
    assert WITHOUT_UNITS.pack(Extras(smb=(SmbReading(4, 1.5, "V"),))) == packed


def test_undecodable_units_are_replaced() -> None:
    packed = counts(bms=1, smb=1) + u32(1) + f64(2.0) + b"\xb0C\0" + u32(3) + u32(1) + b"\xff\0" + b"\xfe\0"
    assert read_extras(packed) == [Extras({}, (BmsReading(1, 2.0, "\ufffdC"),), (SmbReading(3, "\ufffd", "\ufffd"),))]


MALFORMED = {
    "counts cut": golden.NO_COUNTS[:-1],
    "counts missing": b"",
    "aux cut": counts(voltage=1) + f32(1.0),
    "aux cut by a byte": counts(voltage=1, density=1) + bytes(15),
    "aux announced by the thousand": counts(ph=65535) + bytes(8),
    "bms cut in its number": counts(bms=1) + u32(1) + bytes(7),
    "bms without anything": counts(bms=1),
    "bms by the thousand": counts(bms=65535) + u32(1) + f64(1.0) + b"V\0",
    "smb cut in its head": counts(smb=1) + u32(1),
    "smb cut in its number": counts(smb=1) + u32(1) + u32(0) + bytes(7),
    "smb text without NUL": counts(smb=1) + u32(1) + u32(1) + b"text",
    "smb unit without NUL": counts(smb=1) + u32(1) + u32(0) + f64(1.0) + b"mV",
    "smb of unknown type": counts(smb=1) + u32(1) + u32(2) + f64(1.0) + b"mV\0",
    "smb by the thousand": counts(smb=65535) + u32(1) + u32(0) + f64(1.0) + b"mV\0",
    "a byte too many": golden.NO_COUNTS + b"\0",
    "a byte behind extras": golden.EXTRAS_BYTES + b"\0",
}


@pytest.mark.parametrize("extras", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_extras_are_protocol_errors(extras: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_extras(extras)
    with pytest.raises(ProtocolError):
        read_extras(golden.NO_COUNTS, extras)


def test_both_forms_in_one_frame_are_refused() -> None:
    """One server writes one form."""
    with pytest.raises(ProtocolError):
        read_extras(golden.EXTRAS_BYTES, golden.EXTRAS_BYTES_WITHOUT_UNITS)


@pytest.mark.parametrize("records", [2, 0xFFFF_FFFF], ids=["one", "4 billion"])
def test_more_records_announced_than_present(records: int) -> None:
    with pytest.raises(ProtocolError):
        layout_of(ChannelsInfoFeedback(())).unpack(u32(records) + golden.RECORD_FIXED + golden.NO_COUNTS)


@QUICK
@given(EXTRAS, st.data())
def test_cut_extras_are_protocol_errors(extras: Extras, data: st.DataObject) -> None:
    packed = WITH_UNITS.pack(extras)
    size = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(ProtocolError):
        WITH_UNITS.unpack_from(packed[:size], 0)


@QUICK
@given(st.lists(CHANNEL_RECORDS, max_size=2))
def test_records_without_units_come_back(records: list[ChannelRecord]) -> None:
    stripped = [
        record._replace(
            extras=Extras(
                record.extras.aux,
                tuple(BmsReading(bms.index, bms.value, "") for bms in record.extras.bms),
                tuple(SmbReading(smb.index, "", "") for smb in record.extras.smb),
            )
        )
        for record in records
    ]
    codec = CountedRecords(RECORD_WITHOUT_UNITS)
    packed = codec.pack(tuple(stripped))
    assert codec.unpack_from(packed, 0) == (tuple(stripped), len(packed))
    try:
        Layout(ChannelsInfoFeedback).unpack(packed)
    except ProtocolError:
        assert layout_of(ChannelsInfoFeedback(())).unpack(packed).records == tuple(stripped)
    # Else the bytes happen to come out exactly with units as well: by the document that is the form to believe.


@pytest.mark.parametrize(
    ("extras", "reason"),
    [
        (Extras({"voltage": (AuxReading(1e39, 0.0),)}), "too large"),
        (Extras({"voltage": (AuxReading(0.0, 0.0),) * 65_536}), "format requires"),
        (Extras({"Voltage": (AuxReading(0.0, 0.0),)}), "no such auxiliaries: Voltage"),
        (Extras(bms=(BmsReading(-1, 0.0, "V"),)), "argument out of range|format requires"),
        (Extras(bms=(BmsReading(1, 0.0, "V\0"),)), "NUL"),
        (Extras(bms=(BmsReading(1, 0.0, "\ud800"),)), "not valid Unicode"),
        (Extras(smb=(SmbReading(1, "\0", "V"),)), "NUL"),
        (Extras(smb=(SmbReading(1 << 32, 0.0, "V"),)), "argument out of range|format requires"),
        (Extras(smb=(SmbReading(1, 10**400, "V"),)), "too large|not a float"),
    ],
    ids=["float32", "too many", "kind", "index", "NUL", "surrogate", "SMB text", "SMB index", "SMB number"],
)
def test_extras_without_a_place(extras: Extras, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"extras: .*({reason})"):
        pack_message(changed(golden.RECORD, extras=extras))
