"""What remembers a peer's records reads what reads them anew."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages import channels
from cti_mqtt.cti.messages.channels import (
    RECORD,
    RECORD_WITHOUT_UNITS,
    STEADY,
    ChannelRecord,
    ChannelsInfoFeedback,
    ChannelsInfoFeedbackLayout,
    RememberingRecord,
)
from cti_mqtt.cti.stream import Received, Stream, pack_message
from cti_mqtt.errors import ProtocolError
from tests.cti import golden
from tests.cti.strategies import CHANNEL_RECORDS, F32, QUICK, TEXT

RECORDS = st.one_of(
    st.builds(golden.RECORD._replace, channel=st.integers(0, 2), test_name=st.sampled_from("ab"), voltage=F32),
    CHANNEL_RECORDS,
)
CHANGES: dict[str, Any] = {
    "status": ChannelStatus.UNSAFE,
    "comm_failure": False,
    "schedule": "Other.sdx",
    "test_name": "other",
    "exit_condition": "other",
    "step_and_cycle": "[9] 9: other, other",
    "barcode": "other",
    "can_config": "other",
    "smb_config": "other",
    "master_channel": 99,
}


@QUICK
@given(st.lists(RECORDS, min_size=1, max_size=8))
def test_any_records_in_any_order(records: Sequence[ChannelRecord]) -> None:
    with_units, without_units = RememberingRecord(units=True), RememberingRecord(units=False)
    for record in [*records, *reversed(records)]:
        packed = b"ahead" + RECORD.pack(record)
        assert with_units.unpack_from(packed, 5) == (record, len(packed))
        packed = RECORD_WITHOUT_UNITS.pack(record)
        assert repr(without_units.unpack_from(packed, 0)) == repr(RECORD_WITHOUT_UNITS.unpack_from(packed, 0))  # NaN


@pytest.mark.parametrize("field", ChannelRecord._fields[1:STEADY])
def test_a_change_of_each_steady_field_is_seen(field: str) -> None:
    layout = RememberingRecord(units=True)
    changed = golden.RECORD._replace(**{field: CHANGES[field]})
    assert changed != golden.RECORD
    for record in (golden.RECORD, golden.RECORD, changed, changed, golden.RECORD):
        assert layout.unpack(RECORD.pack(record)) == record


@QUICK
@given(TEXT, st.binary(min_size=1, max_size=12), st.integers(6, channels._STEADY_SIZE - 3))
def test_any_damage_to_steady_bytes_is_seen(name: str, damage: bytes, at: int) -> None:
    layout = RememberingRecord(units=True)
    sound = RECORD.pack(golden.RECORD._replace(test_name=name))
    damaged = (sound[:at] + damage + sound[at + len(damage) :])[: len(sound)]
    for packed in (sound, damaged, sound):
        assert layout.unpack(packed) == RECORD.unpack(packed)


def test_a_known_record_that_ends_too_early() -> None:
    layout = RememberingRecord(units=True)
    packed = RECORD.pack(golden.RECORD)
    for _ in range(2):
        assert layout.unpack(packed) == golden.RECORD
        for size in (0, 3, channels._STEADY_SIZE, channels._STEADY_SIZE + 71, len(packed) - 1):
            with pytest.raises(ProtocolError):
                layout.unpack(packed[:size])


def test_ever_new_channels_are_not_all_remembered() -> None:
    layout = RememberingRecord(units=True)
    for number in range(3 * channels.MOST_REMEMBERED):
        record = golden.RECORD._replace(channel=number)
        assert layout.unpack(RECORD.pack(record)) == record
        assert len(layout._steady) <= channels.MOST_REMEMBERED


def test_each_stream_remembers_by_itself() -> None:
    ours, theirs = named("ours"), named("theirs")
    streams = {"ours": Stream(Direction.FEEDBACK), "theirs": Stream(Direction.FEEDBACK)}
    for _ in range(3):
        for name, message in (("ours", ours), ("theirs", theirs)):
            (event,) = streams[name].feed(pack_message(message))
            assert isinstance(event, Received)
            assert event.message == message


def named(name: str) -> ChannelsInfoFeedback:
    return ChannelsInfoFeedback((golden.RECORD._replace(test_name=name),) * 2)


def test_what_all_share_remembers_nothing() -> None:
    shared = ChannelsInfoFeedbackLayout()
    assert shared.for_one_peer() is not shared
    assert shared.for_one_peer() is not shared.for_one_peer()
    assert RECORD.for_one_peer() is RECORD
