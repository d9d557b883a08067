"""Every message against bytes written by hand from the document, and against everything that fits its fields."""

import dataclasses
import itertools
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.commands import BY_CLASS, BY_CODE, BY_REQUEST_CLASS, COMMANDS, UNKNOWN_COMMAND
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.channels import (
    AuxOption,
    ChannelRecord,
    ChannelsInfoFeedback,
    ChannelsInfoRequest,
)
from cti_mqtt.cti.messages.extended import (
    ExtendedResume,
    ExtendedStart,
    GetResumeDataFeedback,
    GetStartDataFeedback,
    ResumeData,
    ResumeExtendedRequest,
    ResumeState,
    StartData,
    StartExtendedRequest,
)
from cti_mqtt.cti.messages.files import (
    BrowseFeedback,
    BrowseRequest,
    DeleteRequest,
    DownloadRequest,
    Entry,
    NewFolderRequest,
    NewOrDeleteRequest,
    UploadRequest,
)
from cti_mqtt.cti.messages.service import SendMessageRequest
from cti_mqtt.cti.messages.session import LoginFeedback, LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest, StopRequest
from cti_mqtt.cti.messages.variables import SetMetaVariableRequest
from cti_mqtt.cti.results import AssignResult, BrowseResult, ConnectResult, StartDataCode, StartResult
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.errors import InvalidRequestError, ProtocolError
from tests.cti import golden
from tests.cti.golden import GOLDEN, Golden, by_name, char, u32, wchar
from tests.cti.strategies import MESSAGES, QUICK

IN_RECORDS: dict[type[Any], Callable[..., Any]] = {  # what a record travels in
    StartData: GetStartDataFeedback,
    ResumeData: GetResumeDataFeedback,
    ExtendedStart: StartExtendedRequest,
    ExtendedResume: ResumeExtendedRequest,
    Entry: partial(BrowseFeedback, BrowseResult.DIRECTORY),
}


def layout_of(message: Any) -> Any:
    return BY_CLASS[type(message)][1].layout


def arguments(message: Any) -> bytes:
    return pack_message(message)[20:-2]


def changed(message: Any, /, **fields: Any) -> Any:
    if isinstance(message, ChannelRecord):
        return ChannelsInfoFeedback((message._replace(**fields),))
    changed = dataclasses.replace(message, **fields)
    return IN_RECORDS[type(message)]((changed,)) if type(message) in IN_RECORDS else changed


# --- by hand ---


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_message_becomes_these_bytes(case: Golden) -> None:
    assert pack_message(case.message) == case.frame


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_these_bytes_become_the_message(case: Golden) -> None:
    message_type = BY_CODE[case.direction][case.code]
    message = message_type.layout.unpack(case.arguments)
    assert type(message) is message_type.cls
    assert message == case.message


def test_every_message_has_bytes_by_hand() -> None:
    assert {type(case.message) for case in GOLDEN} == set(BY_CLASS) == set(MESSAGES)


def test_every_field_differs_from_its_neighbours() -> None:
    """Else two fields of the same type could be swapped unseen."""
    for message in (golden.LOGIN_FEEDBACK, golden.RECORD):
        values = [str(getattr(message, name)) for name in type(message).__annotations__]
        assert all(first != second for first, second in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("LoginRequest", 86),
        ("LoginFeedback", 8678),
        ("LoginFeedback-picture", 8678 + 6),
        ("ChannelsInfoRequest", 62),
        ("ChannelsInfoFeedback", 1779),
        ("AssignRequest", 671),
        ("AssignFeedback", 128),
        ("StartRequest", 172),
        ("StartRequest-none", 170),
        ("StartRequest-three", 176),
        ("StartFeedback", 128),
        ("StopRequest", 128),
        ("StopFeedback", 128),
        ("SetMetaVariableRequest", 74),
        ("SetMetaVariableFeedback", 128),
        ("ConnectRequest", 58),
        ("ConnectFeedback", 62),
        ("UnknownCommandFeedback", 158),
        *((f"{name}Request", 128) for name in ("Resume", "GetSerial")),
        *((f"{name}Feedback", 128) for name in ("Resume", "Continue", "Jump", "UpdateMetaVariables", "GetSerial")),
        ("JumpRequest", 131),
        ("ContinueRequest", 22 + 4 + 2 * 2),
        ("UpdateMetaVariablesRequest", 22 + 20 + 2 * 8),
        ("UpdateMetaVariablesRequest-v45", 22 + 24 + 2 * 8),
        ("StartCalibrationRequest", 124),
        ("SendMessageRequest", 2070),
        ("BrowseRequest", 2070),
        ("DownloadRequest", 2078),
        ("UploadRequest", 22 + 2048 + 40 + 33),
        ("UploadFeedback", 42),
        ("NewOrDeleteRequest", 2074),
    ],
)
def test_frame_sizes(name: str, size: int) -> None:
    case = by_name(name)
    frame = pack_message(case.message)
    assert len(frame) == size
    assert int.from_bytes(frame[8:12], "little") == (size - 12 if case.direction is Direction.REQUEST else size)


def test_sixteen_records_are_as_long_as_the_captured_ones() -> None:
    assert len(pack_message(ChannelsInfoFeedback((golden.RECORD,) * 16))) == 28_074


def test_only_these_are_of_fixed_size() -> None:
    variable = {cls.__name__ for cls, (_, message_type) in BY_CLASS.items() if message_type.layout.fixed_size is None}
    assert variable == {
        *("LoginFeedback", "ChannelsInfoFeedback", "StartRequest", "ContinueRequest", "UpdateMetaVariablesRequest"),
        *("GetStartDataRequest", "GetStartDataFeedback", "GetResumeDataRequest", "GetResumeDataFeedback"),
        *("StartExtendedRequest", "ResumeExtendedRequest", "BrowseFeedback", "DownloadFeedback", "UploadRequest"),
    }


# --- whatever fits ---


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@QUICK
@given(data=st.data())
def test_message_comes_back(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[cls])
    packed = layout_of(message).pack(message)
    assert layout_of(message).unpack(packed) == message
    assert BY_CLASS[cls][1].believes(22 + len(packed))


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@QUICK
@given(data=st.data())
def test_truncated_and_foreign_bytes_are_protocol_errors_at_worst(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[cls])
    packed = bytearray(layout_of(message).pack(message))
    for index in data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=4)):
        packed[index] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packed)))
    for damaged in (bytes(packed), bytes(packed[:cut]), bytes(packed) + b"\0"):
        try:
            read = layout_of(message).unpack(damaged)
        except ProtocolError:
            continue
        assert type(read) is cls


# --- the table of commands ---


def test_table_of_commands_is_whole() -> None:
    assert {command.request.cls for command in COMMANDS} == set(BY_REQUEST_CLASS)
    for command in COMMANDS:
        assert BY_CODE[Direction.REQUEST][command.request.code] is command.request
        assert BY_CODE[Direction.FEEDBACK][command.feedback.code] is command.feedback
        name = command.request.cls.__name__.replace("Extended", "")  # those two are answered like the plain ones
        assert command.feedback.cls.__name__ == name.replace("Request", "Feedback")
        assert command.feedback.code.name == f"{command.request.code.name.replace('_EXTENDED', '')}_FEEDBACK"
    assert BY_CODE[Direction.FEEDBACK][0xBB111111] is UNKNOWN_COMMAND
    assert len(BY_CODE[Direction.FEEDBACK]) == len(COMMANDS) - 2 + 1
    assert len(BY_CODE[Direction.REQUEST]) == len(COMMANDS) == 24


def test_what_moves_something_is_a_control_command() -> None:
    control = {command.request.cls.__name__ for command in COMMANDS if command.control}
    assert control == {
        *("AssignRequest", "StartRequest", "StopRequest", "SetMetaVariableRequest", "UpdateMetaVariablesRequest"),
        *("ResumeRequest", "ContinueRequest", "JumpRequest", "StartExtendedRequest", "ResumeExtendedRequest"),
        "StartCalibrationRequest",
    }


# --- text ---

LOGIN = LoginRequest("user", "password")
PATHS = (
    *(BrowseRequest("a"), DownloadRequest("a", 1.0), UploadRequest("a", 0, 1, 0, 1.0, bytes(16), b"")),
    *(NewFolderRequest("a"), DeleteRequest("a"), NewOrDeleteRequest(0, "a")),
)
START_DATA = StartData(0, StartDataCode.OK, 0, 0, "a", (0.0,) * 16, (), ())
RESUME_DATA = ResumeData(0, StartDataCode.OK, 0, "a", "a", "a", "a", "a", ResumeState(), ())
EXTENDED_START, EXTENDED_RESUME = ExtendedStart(0, "a", "a"), ExtendedResume(0, "a", "a")
ENTRY = Entry(1, "a", 0, "a")
TEXT_FIELDS = [
    *[(LOGIN, "user", "utf-8", 32), (LOGIN, "password", "utf-8", 32)],
    *[(golden.LOGIN_FEEDBACK, "serial", "utf-8", 15), (golden.LOGIN_FEEDBACK, "note", "utf-8", 255)],
    *[
        (golden.LOGIN_FEEDBACK, name, "utf-16", 1023)
        for name in ("nickname", "location", "emergency_contact", "comments")
    ],
    *[(golden.LOGIN_FEEDBACK, "email", "utf-16", 63), (golden.LOGIN_FEEDBACK, "phone", "utf-16", 15)],
    *[
        (AssignRequest(0, False, "a"), "schedule", "utf-16", 199),
        (AssignRequest(0, False, "a"), "barcode", "utf-16", 71),
    ],
    (StartRequest("a", (0,)), "test_name", "utf-16", 71),
    *[(golden.RECORD, name, "utf-16", 199) for name in ("schedule", "can_config", "smb_config")],
    *[(golden.RECORD, name, "utf-16", 71) for name in ("test_name", "barcode")],
    *[(golden.RECORD, "exit_condition", "utf-8", 99), (golden.RECORD, "step_and_cycle", "utf-8", 63)],
    (SendMessageRequest("a"), "message", "utf-16", 1023),
    *[(message, "path", "utf-16", 1023) for message in PATHS],
    *[(START_DATA, name, "utf-16", limit) for name, limit in (("schedule", 199),)],
    *[(RESUME_DATA, name, "utf-16", limit) for name, limit in (("test_name", 71), ("schedule", 199))],
    *[(RESUME_DATA, name, "utf-16", 63) for name in ("creator", "comment", "start_time")],
    *[(EXTENDED_START, name, "utf-16", limit) for name, limit in (("test_name", 71), ("schedule", 199))],
    *[(EXTENDED_START, name, "utf-16", 63) for name in ("creator", "comment")],
    *[(EXTENDED_RESUME, name, "utf-16", limit) for name, limit in (("test_name", 71), ("schedule", 199))],
    *[(ENTRY, name, "utf-16", limit) for name, limit in (("name", 63), ("modified", 31))],
]


@pytest.mark.parametrize(
    ("message", "field", "encoding", "limit"),
    [pytest.param(*row, id=f"{type(row[0]).__name__}.{row[1]}") for row in TEXT_FIELDS],
)
def test_text_limits(message: Any, field: str, encoding: str, limit: int) -> None:
    units_of_emoji = 4 if encoding == "utf-8" else 2
    fitting = ["x" * limit, "😀" * (limit // units_of_emoji)]
    for text in fitting:
        whole = changed(message, **{field: text})
        assert layout_of(whole).unpack(arguments(whole)) == whole
    for text, reason in (
        ("x" * (limit + 1), f"text is too long: {limit + 1} units, at most {limit} fit"),
        ("😀" * (limit // units_of_emoji + 1), f"at most {limit} fit"),
        ("a\0", "text must not contain a NUL character"),
        ("\ud800", "text is not valid Unicode"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            pack_message(changed(message, **{field: text}))
        assert f"{field}: " in str(caught.value)
        assert reason in str(caught.value)


def test_table_of_texts_is_whole() -> None:
    listed = {(type(message), field) for message, field, _, _ in TEXT_FIELDS}
    types = [*BY_CLASS, ChannelRecord, *IN_RECORDS]
    texts = {
        (cls, name)
        for cls in types
        for name, hint in cls.__annotations__.items()
        if getattr(hint, "__origin__", None) is str and name != "ip"
    }
    assert listed == texts


def test_stale_bytes_behind_a_nul() -> None:
    record = bytearray(golden.RECORD_FIXED + golden.NO_COUNTS)
    record[7:407] = "short\0of a longer name".encode("utf-16-le").ljust(400, b"s")
    record[551:651] = b"exit\0\xff\xfe stale".ljust(100, b"x")
    (read,) = layout_of(ChannelsInfoFeedback(())).unpack(u32(1) + record).records
    assert (read.schedule, read.exit_condition) == ("short", "exit")
    assert (read.test_name, read.step_and_cycle) == (golden.RECORD.test_name, golden.RECORD.step_and_cycle)


# --- numbers ---


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (ChannelsInfoRequest(channel=0x8000), "channel"),
        (ChannelsInfoRequest(channel=-0x8001), "channel"),
        (AssignRequest(0x8000_0000, False, "a"), "channel"),
        (AssignRequest(0, False, "a", 1e39), "capacity"),
        (AssignRequest(0, False, "a", meta_variables=(1.0,) * 15), "meta_variables"),
        (AssignRequest(0, False, "a", meta_variables=(1.0,) * 15 + (-1e39,)), "meta_variables"),
        (StartRequest("a", (0x1_0000,)), "channels"),
        (StartRequest("a", (0, -1)), "channels"),
        (StopRequest(-1), "channel"),
        (StopRequest(0x1_0000_0000), "channel"),
        (SetMetaVariableRequest(0, 1, 52, 1, 3.5e38), "value"),
        (SetMetaVariableRequest(-1, 1, 52, 1, 0.0), "channel"),
        (SetMetaVariableRequest(0, 1, 0x8000_0000, 1, 0.0), "meta_code"),
        (changed(golden.RECORD, status=ChannelStatus(40_000)), "status"),
        (changed(golden.RECORD, voltage=1e300), "voltage"),
        (changed(golden.RECORD, master_channel=65_536), "master_channel"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_number_without_a_place_names_its_field(message: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"(^|: ){field}: "):
        pack_message(message)


@pytest.mark.parametrize(
    "ip",
    ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.-1", "a.b.c.d", "1.2.3.", "1..2.3", " 1.2.3.4", "+1.2.3.4", "::1"],
)
def test_wrong_ip_text(ip: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^ip: .* is not an IPv4 address"):
        pack_message(changed(golden.LOGIN_FEEDBACK, ip=ip))


@pytest.mark.parametrize(("index", "code"), [(1, 52), (4, 55), (5, 105), (16, 116)])
def test_meta_variable_by_its_index(index: int, code: int) -> None:
    assert SetMetaVariableRequest.of(3, index, 0.5) == SetMetaVariableRequest(3, 1, code, 1, 0.5)


@pytest.mark.parametrize("index", [0, 17])
def test_no_such_meta_variable(index: int) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        SetMetaVariableRequest.of(3, index, 0.5)


@pytest.mark.parametrize("bits", [0, 0x100, 0x700, 0x1, 0xFFFF_FFFF, 0x8000_0200])
def test_options_nobody_knows_ask_for_nothing(bits: int) -> None:
    request = layout_of(ChannelsInfoRequest()).unpack(golden.i16(0) + golden.i16(1) + u32(bits) + bytes(32))
    assert request.aux_options == bits & 0x700
    assert isinstance(request.aux_options, AuxOption)


def test_options_of_any_peer_leave_no_trace() -> None:
    layout = layout_of(ChannelsInfoRequest())
    before = len(AuxOption._value2member_map_)
    for bits in range(1, 256):
        layout.unpack(golden.i16(0) + golden.i16(1) + u32(bits | 0x700) + bytes(32))
    assert len(AuxOption._value2member_map_) == before


@pytest.mark.parametrize(
    ("name", "offset", "size", "field", "expected"),
    [
        ("ChannelsInfoFeedback", 8, 2, "status", ChannelStatus(0x7777)),
        ("AssignFeedback", 4, 1, "result", AssignResult(0x77)),
        ("StartFeedback", 4, 1, "result", StartResult(0x77)),
        ("ConnectFeedback", 4, 4, "result", ConnectResult(0x77777777)),
    ],
)
def test_unknown_codes_pass_both_ways(name: str, offset: int, size: int, field: str, expected: Any) -> None:
    case = by_name(name)
    data = bytearray(case.arguments)
    data[offset : offset + size] = b"\x77" * size
    message = layout_of(case.message).unpack(bytes(data))
    (value,) = [getattr(part, field) for part in getattr(message, "records", [message])]
    assert type(value) is type(expected)
    assert value == expected
    assert not value.known
    assert arguments(message) == bytes(data)


# --- the password ---


@pytest.mark.parametrize("text", ["secret", "it's", "\ud800secret", "\0secret", "secret" * 9])
def test_password_is_never_shown(text: str) -> None:
    request = LoginRequest("admin", text)
    assert repr(request) == str(request) == "LoginRequest(user='admin', password=***)"
    assert text not in f"{[request]} {request!s:>10}"


@pytest.mark.parametrize("text", ["secret\ud800", "secret\0", "secret" * 9], ids=["surrogate", "NUL", "too long"])
def test_refused_password_is_never_shown(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^password: ") as caught:
        pack_message(LoginRequest("admin", text))
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in "".join(traceback.format_exception_only(error))
        assert not any("secret" in str(value) for value in (*error.args, *vars(error).values()))
        assert not isinstance(error, UnicodeError)
        error = error.__cause__


# --- the picture ---


def test_picture_must_be_as_long_as_announced() -> None:
    layout = layout_of(golden.LOGIN_FEEDBACK)
    for picture in (u32(3) + b"ab", u32(1) + b"ab", u32(0xFFFF_FFFF) + b"ab", b"", b"\0"):
        with pytest.raises(ProtocolError):
            layout.unpack(golden.LOGIN_FEEDBACK_FIXED + picture)


def test_texts_of_the_golden_frames_differ_in_encoding() -> None:
    """A `char` read as a `wchar` would still be text: the helpers must not agree on that."""
    assert char("ab", 4) == b"ab\0\0"
    assert wchar("ab", 4) == b"a\0b\0\0\0\0\0"
    assert isinstance(by_name("LoginFeedback").message, LoginFeedback)
