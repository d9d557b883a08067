"""The messages of variable size of the later commands: both forms, limits, and what is malformed."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.cti.commands import BY_CLASS
from cti_mqtt.cti.messages.channels import ChannelsInfoFeedback
from cti_mqtt.cti.messages.extended import (
    ExtendedStart,
    GetResumeDataFeedback,
    GetStartDataFeedback,
    GetStartDataRequest,
    ResumeExtendedRequest,
    ResumeState,
    StartData,
    StartExtendedRequest,
)
from cti_mqtt.cti.messages.files import (
    CHUNK_BYTES,
    BrowseFeedback,
    DownloadFeedback,
    Entry,
    UploadFeedback,
    UploadRequest,
)
from cti_mqtt.cti.messages.tests import ContinueRequest, JumpRequest, ResumeRequest, StartRequest
from cti_mqtt.cti.messages.variables import (
    MAX_UPDATES,
    MetaVariableUpdate,
    UpdateHeader,
    UpdateMetaVariablesRequest,
    Updates,
)
from cti_mqtt.cti.results import BrowseResult, DownloadResult, StartDataCode, UploadResult
from cti_mqtt.cti.stream import Received, Stream, pack_message
from cti_mqtt.errors import InvalidRequestError, ProtocolError
from tests.cti import golden_rest
from tests.cti.golden import GOLDEN, by_name, f32, f64, frame, u16, u32, wchar
from tests.cti.golden_files import MD5, PATH, STAMP
from tests.cti.strategies import MESSAGES, QUICK


def layout_of(cls: type[Any]) -> Any:
    return BY_CLASS[cls][1].layout


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@QUICK
@given(data=st.data())
def test_every_message_passes_a_stream(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[cls])
    stream = Stream(BY_CLASS[cls][0])
    (event,) = stream.feed(pack_message(message))
    assert isinstance(event, Received)
    assert event.message == message


# --- the advanced update ---

ENTRY = u16(3) + u16(52) + f32(1.5)
ONE = (MetaVariableUpdate(3, 52, 1.5),)


@pytest.mark.parametrize("count", [0, 1, 2, MAX_UPDATES])
@pytest.mark.parametrize("header", UpdateHeader, ids=lambda header: header.name)
def test_header_forms_are_told_apart_by_size(header: UpdateHeader, count: int) -> None:
    noise = bytes(range(1, header.value + 1))  # reserved bytes that are not zero
    read = layout_of(UpdateMetaVariablesRequest).unpack(u16(count) + noise + ENTRY * count)
    assert read == UpdateMetaVariablesRequest(Updates(ONE * count, header))
    assert len(pack_message(read)) == 22 + 2 + header.value + 8 * count


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", u16(0), u16(0) + bytes(17), u16(0) + bytes(19), u16(0) + bytes(23), u16(0) + bytes(30)),
        *(u16(1) + bytes(18), u16(2) + bytes(18) + ENTRY, u16(1) + bytes(18) + ENTRY * 2, u16(0xFFFF) + bytes(26)),
        u16(1) + bytes(18) + ENTRY[:-1],
    ],
    ids=len,
)
def test_updates_that_do_not_come_out(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        layout_of(UpdateMetaVariablesRequest).unpack(data)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (ONE * (MAX_UPDATES + 1), "updates: 161 updates are too many: at most 160 fit"),
        ((MetaVariableUpdate(0x1_0000, 52, 0.0),), "updates: channel: "),
        ((MetaVariableUpdate(0, -1, 0.0),), "updates: meta_code: "),
        ((MetaVariableUpdate(0, 52, 1e39),), "updates: value: "),
    ],
)
def test_updates_without_a_place(entries: tuple[MetaVariableUpdate, ...], reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{reason}"):
        pack_message(UpdateMetaVariablesRequest(Updates(entries)))


def test_update_by_its_index() -> None:
    assert MetaVariableUpdate.of(3, 16, 0.5) == MetaVariableUpdate(3, 116, 0.5)
    with pytest.raises(ValueError, match="does not exist"):
        MetaVariableUpdate.of(3, 17, 0.5)


# --- start and resume data ---

NO_MV = f32(*[0.0] * 16)


def start_data(names: int, steps: int, texts: bytes) -> bytes:
    return u32(1) + u32(0) + u32(0) + u32(names) + u32(steps) + wchar("", 200) + NO_MV + texts


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param(start_data(1, 0, b""), id="a name missing"),
        pytest.param(start_data(0, 1, b""), id="a step missing"),
        pytest.param(start_data(1, 0, u32(3) + b"ab"), id="a name cut"),
        pytest.param(start_data(1, 1, u32(0) + u32(1)), id="a step cut"),
        pytest.param(start_data(0xFFFF_FFFF, 0, bytes(100)), id="names by the billion"),
        pytest.param(start_data(0, 0, u32(0)), id="a text too many"),
        pytest.param(u32(2) + start_data(0, 0, b"")[4:], id="a record missing"),
        pytest.param(start_data(0, 0, b"")[:-1], id="values cut"),
    ],
)
def test_start_data_that_does_not_come_out(texts: bytes) -> None:
    with pytest.raises(ProtocolError):
        layout_of(GetStartDataFeedback).unpack(texts)


def test_texts_that_do_not_decode_are_replaced() -> None:
    (record,) = layout_of(GetStartDataFeedback).unpack(start_data(2, 0, u32(2) + b"\xffb" + u32(1) + b"\xc3")).records
    assert record.test_names == ("\ufffdb", "\ufffd")


@pytest.mark.parametrize(
    ("names", "count", "reason"),
    [
        (("a",), 2, "test_name_count says 2, there are 1"),
        (("\0",), 1, "NUL"),
        (("\ud800",), 1, "not valid Unicode"),
    ],
)
def test_texts_without_a_place(names: tuple[str, ...], count: int, reason: str) -> None:
    record = StartData(0, StartDataCode.OK, count, 0, "", (0.0,) * 16, names, ())
    with pytest.raises(InvalidRequestError, match=rf"records: test_names: .*{reason}"):
        pack_message(GetStartDataFeedback((record,)))


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (GetResumeDataFeedback, "GetResumeDataFeedback"),
        (StartExtendedRequest, "StartExtendedRequest"),
        (ResumeExtendedRequest, "ResumeExtendedRequest"),
        (GetStartDataFeedback, "GetStartDataFeedback"),
        (BrowseFeedback, "BrowseFeedback"),
        (DownloadFeedback, "DownloadFeedback"),
    ],
)
def test_cut_or_with_a_byte_too_many(cls: type[Any], name: str) -> None:
    data = by_name(name).arguments
    for size in {0, 1, 3, 4, 5, len(data) // 2, *range(len(data) - 9, len(data))}:
        with pytest.raises(ProtocolError):
            layout_of(cls).unpack(data[:size])
    with pytest.raises(ProtocolError):
        layout_of(cls).unpack(data + b"\0")


@pytest.mark.parametrize(
    ("state", "field"),
    [
        (ResumeState(cycle=-1), "cycle"),
        (ResumeState(tc_time=(1.0,) * 3), "tc_time"),
        (ResumeState(counter=(1e39,) * 4), "counter"),
        (ResumeState(meta_variables=(0.0,) * 17), "meta_variables"),
    ],
)
def test_state_without_a_place_names_its_field(state: ResumeState, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"records: state: {field}: "):
        pack_message(StartExtendedRequest((ExtendedStart(0, "a", "b", state=state),)))


def test_a_test_that_begins_has_an_empty_state() -> None:
    assert layout_of(StartExtendedRequest).pack(StartExtendedRequest((ExtendedStart(0, "a", "b"),)))[
        -len(golden_rest.NEW_STATE_BYTES) :
    ] == (golden_rest.NEW_STATE_BYTES)


# --- limits ---


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (JumpRequest(0x8000_0000, 0), "step"),
        (JumpRequest(0, -0x8000_0001), "channel"),
        (ResumeRequest(0x8000_0000), "channel"),
        (ContinueRequest((0x1_0000,)), "channels"),
        (GetStartDataRequest((-1,)), "channels"),
        (UploadRequest(PATH, -1, 0, 0, STAMP, MD5, b""), "length"),
        (UploadRequest(PATH, 0, 1 << 32, 0, STAMP, MD5, b""), "packages"),
        (UploadRequest(PATH, 0, 1, 0, STAMP, MD5[1:], b""), "md5"),
        (BrowseFeedback(BrowseResult.DIRECTORY, (Entry(1, "a", 1 << 31, ""),)), "entries: size"),
    ],
)
def test_number_without_a_place_names_its_field(message: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{field}: "):
        pack_message(message)


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        (StartRequest("a", (1,) * 32_683), StartRequest("a", (1,) * 32_684)),
        (
            UploadRequest(PATH, 0, 1, 0, STAMP, MD5, bytes((1 << 20) - 2110)),
            UploadRequest(PATH, 0, 1, 0, STAMP, MD5, bytes((1 << 20) - 2109)),
        ),
        (
            StartExtendedRequest((ExtendedStart(0, "a", "b"),) * 62),
            StartExtendedRequest((ExtendedStart(0, "a", "b"),) * 63),
        ),
    ],
    ids=["start", "upload", "start extended"],
)
def test_what_the_peer_would_not_believe_is_not_sent(largest: Any, too_large: Any) -> None:
    (event,) = Stream(BY_CLASS[type(largest)][0]).feed(pack_message(largest))
    assert isinstance(event, Received)
    assert event.message == largest
    with pytest.raises(InvalidRequestError, match="too large: at most"):
        pack_message(too_large)


def test_a_chunk_and_a_large_directory_are_believed() -> None:
    for message in (
        DownloadFeedback(DownloadResult.OK, STAMP, 1, 0, MD5, bytes(CHUNK_BYTES)),
        BrowseFeedback(BrowseResult.DIRECTORY, (Entry(1, "a", 1, ""),) * 5000),
    ):
        (event,) = Stream(BY_CLASS[type(message)][0]).feed(pack_message(message))
        assert isinstance(event, Received)
        assert event.message == message


@pytest.mark.parametrize("length", [0, 32, 34, 1 << 40, (1 << 64) - 1])
def test_a_chunk_is_as_long_as_it_says(length: int) -> None:
    data = by_name("DownloadFeedback").arguments
    at = len(data) - 33 - 8
    with pytest.raises(ProtocolError, match=f"{length} bytes announced, 33 present"):
        layout_of(DownloadFeedback).unpack(data[:at] + length.to_bytes(8, "little") + data[at + 8 :])


def test_bytes_of_a_file_can_look_like_frames() -> None:
    inner = b"".join(case.frame for case in GOLDEN[:12])
    message = UploadRequest(PATH, len(inner), 1, 0, STAMP, MD5, inner)
    data = pack_message(message)
    stream = Stream(BY_CLASS[UploadRequest][0])
    events = [event for start in range(0, len(data), 1000) for event in stream.feed(data[start : start + 1000])]
    assert [event.message for event in events if isinstance(event, Received)] == [message]


# --- the answer to an upload ---


@pytest.mark.parametrize("result", UploadResult, ids=lambda result: result.name)
@pytest.mark.parametrize("time", [STAMP, 1.0, -2.5e300, 5e-324])
def test_upload_feedback_in_the_order_of_either_document(time: float, result: UploadResult) -> None:
    v11 = UploadFeedback(f64(time) + u32(9) + u32(4) + u32(result))
    v45 = UploadFeedback(u32(result) + f64(time) + u32(9) + u32(4))
    assert UploadFeedback.of(time, 9, 4, result) == v11
    assert v11.result_first == v45
    assert v11.read(time) == v45.read(time) == (4, result)
    assert v11.read(time * 2) is v45.read(time * 2) is None


def test_upload_result_nobody_knows_survives() -> None:
    found = UploadFeedback(u32(99) + f64(STAMP) + u32(9) + u32(4)).read(STAMP)
    assert found is not None
    assert (found[1], found[1].text) == (99, "Unknown 99")


def test_upload_feedback_is_twenty_bytes() -> None:
    with pytest.raises(InvalidRequestError, match="exactly 20 bytes"):
        pack_message(UploadFeedback(bytes(19)))
    assert layout_of(UploadFeedback).fixed_size == struct.calcsize("<dIII")


def test_huge_counts_are_no_allocation() -> None:
    for name in ("GetStartDataFeedback", "GetResumeDataFeedback", "BrowseFeedback"):
        case = by_name(name)
        head = 4 if name == "BrowseFeedback" else 0
        data = case.arguments[:head] + u32(0xFFFF_FFFF) + case.arguments[head + 4 :]
        with pytest.raises(ProtocolError, match="4294967295 records announced"):
            layout_of(type(case.message)).unpack(data)
        stream = Stream(case.direction)
        (skipped,) = stream.feed(frame(case.direction, case.code, data))
        assert not isinstance(skipped, Received)
    assert ChannelsInfoFeedback not in MESSAGES or stream.pending == 0
