"""Hypothesis strategies for every message, for the tests of all parts.

Every value drawn here fits its field and comes back from the wire as it was: text without NUL and within the field's
length, numbers that a float32 holds. NaN is left out, since it is not equal to itself.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from cti_mqtt.cti.codes import ChannelStatus, Selection, UserType
from cti_mqtt.cti.messages.channels import (
    AUX_KINDS,
    AuxOption,
    AuxReading,
    BmsReading,
    ChannelRecord,
    ChannelsInfoFeedback,
    ChannelsInfoRequest,
    Extras,
    SmbReading,
)
from cti_mqtt.cti.messages.extended import (
    ExtendedResume,
    ExtendedStart,
    GetResumeDataFeedback,
    GetResumeDataRequest,
    GetStartDataFeedback,
    GetStartDataRequest,
    ResumeData,
    ResumeExtendedRequest,
    ResumeState,
    StartData,
    StartExtendedRequest,
)
from cti_mqtt.cti.messages.files import (
    BrowseFeedback,
    BrowseRequest,
    DeleteFeedback,
    DeleteRequest,
    DownloadFeedback,
    DownloadRequest,
    Entry,
    NewFolderFeedback,
    NewFolderRequest,
    NewOrDeleteFeedback,
    NewOrDeleteRequest,
    UploadFeedback,
    UploadRequest,
)
from cti_mqtt.cti.messages.service import (
    GetSerialFeedback,
    GetSerialRequest,
    SendMessageFeedback,
    SendMessageRequest,
    StartCalibrationFeedback,
    StartCalibrationRequest,
    UnknownCommandFeedback,
)
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginFeedback, LoginRequest
from cti_mqtt.cti.messages.tests import (
    AssignFeedback,
    AssignRequest,
    ContinueFeedback,
    ContinueRequest,
    JumpFeedback,
    JumpRequest,
    ResumeFeedback,
    ResumeRequest,
    StartFeedback,
    StartRequest,
    StopFeedback,
    StopRequest,
)
from cti_mqtt.cti.messages.variables import (
    MetaVariableUpdate,
    SetMetaVariableFeedback,
    SetMetaVariableRequest,
    UpdateHeader,
    UpdateMetaVariablesFeedback,
    UpdateMetaVariablesRequest,
    Updates,
)
from cti_mqtt.cti.results import (
    AssignResult,
    BrowseResult,
    CalibrationResult,
    ConnectResult,
    ContinueResult,
    DownloadResult,
    FileResult,
    JumpResult,
    LoginResult,
    ResumeResult,
    SendMessageResult,
    SetMetaVariableResult,
    StartDataCode,
    StartResult,
    StopResult,
    UpdateMetaVariablesResult,
)

QUICK = settings(max_examples=40, deadline=None, database=None)

U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFF_FFFF)
I16 = st.integers(-0x8000, 0x7FFF)
I32 = st.integers(-0x8000_0000, 0x7FFF_FFFF)
F32 = st.floats(width=32, allow_nan=False)
F64 = st.floats(allow_nan=False)
FLAG = st.booleans()

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def _fitting(encoding: str, size: int) -> Callable[[str], str]:
    return lambda text: text.encode(encoding)[:size].decode(encoding, "ignore")


def char(size: int, *, may_fill: bool = False) -> st.SearchStrategy[str]:
    """Text for a `char[size]`, short or as long as fits."""
    room = size if may_fill else size - 1
    return TEXT.map(_fitting("utf-8", room)) | st.just("x" * room)


def wchar(size: int) -> st.SearchStrategy[str]:
    """Text for a `wchar[size]`, short or as long as fits."""
    room = size - 1
    return TEXT.map(_fitting("utf-16-le", 2 * room)) | st.just("\u03a9" * room)


def ipv4() -> st.SearchStrategy[str]:
    return st.tuples(U8, U8, U8, U8).map(lambda parts: ".".join(map(str, parts)))


AUX_READINGS = st.builds(AuxReading, F32, F32)
EXTRAS = st.builds(
    Extras,
    st.dictionaries(st.sampled_from(AUX_KINDS), st.lists(AUX_READINGS, min_size=1, max_size=3).map(tuple)),
    st.lists(st.builds(BmsReading, U32, F64, TEXT), max_size=3).map(tuple),
    st.lists(st.builds(SmbReading, U32, F64 | TEXT, TEXT), max_size=3).map(tuple),
)

CHANNEL_RECORDS = st.builds(
    ChannelRecord,
    channel=U32,
    status=I16.map(ChannelStatus),
    comm_failure=FLAG,
    schedule=wchar(200),
    test_name=wchar(72),
    exit_condition=char(100),
    step_and_cycle=char(64),
    barcode=wchar(72),
    can_config=wchar(200),
    smb_config=wchar(200),
    master_channel=U16,
    test_time=F64,
    step_time=F64,
    voltage=F32,
    current=F32,
    power=F32,
    charge_capacity=F32,
    discharge_capacity=F32,
    charge_energy=F32,
    discharge_energy=F32,
    internal_resistance=F32,
    dvdt=F32,
    acr=F32,
    aci=F32,
    aci_phase=F32,
    extras=EXTRAS,
)

REQUESTS: dict[type[Any], st.SearchStrategy[Any]] = {
    LoginRequest: st.builds(LoginRequest, char(32, may_fill=True), char(32, may_fill=True)),
    ConnectRequest: st.builds(ConnectRequest, U32),
    ChannelsInfoRequest: st.builds(
        ChannelsInfoRequest, I16, I16.map(Selection), st.integers(0, 7).map(lambda bits: AuxOption(bits << 8))
    ),
    AssignRequest: st.builds(
        AssignRequest, I32, FLAG, wchar(200), F32, wchar(72), st.lists(F32, min_size=16, max_size=16).map(tuple)
    ),
    StartRequest: st.builds(StartRequest, wchar(72), st.lists(U16, max_size=20).map(tuple)),
    StopRequest: st.builds(StopRequest, U32, FLAG),
    SetMetaVariableRequest: st.builds(SetMetaVariableRequest, U32, I32, I32, I32, F32),
}

FEEDBACKS: dict[type[Any], st.SearchStrategy[Any]] = {
    LoginFeedback: st.builds(
        LoginFeedback,
        result=U32.map(LoginResult),
        ip=ipv4(),
        serial=char(16),
        note=char(256),
        nickname=wchar(1024),
        location=wchar(1024),
        emergency_contact=wchar(1024),
        comments=wchar(1024),
        email=wchar(64),
        phone=wchar(16),
        itac=U32,
        version=U32,
        allow_control=FLAG,
        channel_count=U32,
        user_type=U32.map(UserType),
        picture=st.binary(max_size=100),
    ),
    ConnectFeedback: st.builds(ConnectFeedback, U32, U32.map(ConnectResult)),
    ChannelsInfoFeedback: st.builds(ChannelsInfoFeedback, st.lists(CHANNEL_RECORDS, max_size=2).map(tuple)),
    AssignFeedback: st.builds(AssignFeedback, I32, U8.map(AssignResult)),
    StartFeedback: st.builds(StartFeedback, I32, U8.map(StartResult)),
    StopFeedback: st.builds(StopFeedback, I32, U8.map(StopResult)),
    SetMetaVariableFeedback: st.builds(SetMetaVariableFeedback, I32, U8.map(SetMetaVariableResult)),
    UnknownCommandFeedback: st.builds(UnknownCommandFeedback, U32, U32),
}

NUMBERS_16 = st.lists(F32, min_size=16, max_size=16).map(tuple)
STATES = st.builds(
    ResumeState,
    cycle=U32,
    test_time=F64,
    step_time=F64,
    charge_capacity=F64,
    discharge_capacity=F64,
    charge_energy=F64,
    discharge_energy=F64,
    tc_time=st.tuples(F64, F64, F64, F64),
    tc_charge_capacity=st.tuples(F64, F64),
    tc_discharge_capacity=st.tuples(F64, F64),
    tc_charge_energy=st.tuples(F64, F64),
    tc_discharge_energy=st.tuples(F64, F64),
    counter=st.tuples(F32, F32, F32, F32),
    charge_capacity_time=F64,
    discharge_capacity_time=F64,
    meta_variables=NUMBERS_16,
)
MANY_TEXTS = st.lists(TEXT, max_size=4).map(tuple)
CHANNELS = st.lists(U16, max_size=20).map(tuple)


@st.composite
def start_data(draw: st.DrawFn) -> StartData:
    names, steps = draw(MANY_TEXTS), draw(MANY_TEXTS)
    code = draw(U32.map(StartDataCode))
    return StartData(
        draw(U32), code, len(names), len(steps), draw(wchar(200)), draw(NUMBERS_16), tuple(names), tuple(steps)
    )


@st.composite
def resume_data(draw: st.DrawFn) -> ResumeData:
    steps = draw(MANY_TEXTS)
    return ResumeData(
        channel=draw(U32),
        code=draw(U32.map(StartDataCode)),
        step_count=len(steps),
        test_name=draw(wchar(72)),
        schedule=draw(wchar(200)),
        creator=draw(wchar(64)),
        comment=draw(wchar(64)),
        start_time=draw(wchar(64)),
        state=draw(STATES),
        steps=tuple(steps),
    )


STAMPS = F64
PATHS = wchar(1024)
MD5 = st.binary(min_size=16, max_size=16)
CHUNKS = st.binary(max_size=200)

REQUESTS |= {
    ResumeRequest: st.builds(ResumeRequest, I32, FLAG),
    ContinueRequest: st.builds(ContinueRequest, CHANNELS),
    JumpRequest: st.builds(JumpRequest, I32, I32),
    UpdateMetaVariablesRequest: st.builds(
        UpdateMetaVariablesRequest,
        st.builds(
            Updates,
            st.lists(st.builds(MetaVariableUpdate, U16, U16, F32), max_size=160).map(tuple),
            st.sampled_from(UpdateHeader),
        ),
    ),
    GetSerialRequest: st.builds(GetSerialRequest, U32, U8),
    GetStartDataRequest: st.builds(GetStartDataRequest, CHANNELS),
    StartExtendedRequest: st.builds(
        StartExtendedRequest,
        st.lists(
            st.builds(ExtendedStart, U32, wchar(72), wchar(200), wchar(64), wchar(64), U32, STATES), max_size=3
        ).map(tuple),
    ),
    GetResumeDataRequest: st.builds(GetResumeDataRequest, CHANNELS),
    ResumeExtendedRequest: st.builds(
        ResumeExtendedRequest,
        st.lists(st.builds(ExtendedResume, U32, wchar(72), wchar(200), U32, STATES), max_size=3).map(tuple),
    ),
    StartCalibrationRequest: st.builds(StartCalibrationRequest, st.binary(min_size=102, max_size=102)),
    SendMessageRequest: st.builds(SendMessageRequest, wchar(1024)),
    BrowseRequest: st.builds(BrowseRequest, PATHS),
    DownloadRequest: st.builds(DownloadRequest, PATHS, STAMPS),
    UploadRequest: st.builds(UploadRequest, PATHS, st.integers(0, 2**64 - 1), U32, U32, STAMPS, MD5, CHUNKS),
    NewOrDeleteRequest: st.builds(NewOrDeleteRequest, U32, PATHS),
    NewFolderRequest: st.builds(NewFolderRequest, PATHS),
    DeleteRequest: st.builds(DeleteRequest, PATHS),
}

FEEDBACKS |= {
    ResumeFeedback: st.builds(ResumeFeedback, I32, U8.map(ResumeResult)),
    ContinueFeedback: st.builds(ContinueFeedback, I32, U8.map(ContinueResult)),
    JumpFeedback: st.builds(JumpFeedback, I32, U8.map(JumpResult)),
    UpdateMetaVariablesFeedback: st.builds(UpdateMetaVariablesFeedback, I32, U8.map(UpdateMetaVariablesResult)),
    GetSerialFeedback: st.builds(GetSerialFeedback, U32, U8),
    GetStartDataFeedback: st.builds(GetStartDataFeedback, st.lists(start_data(), max_size=3).map(tuple)),
    GetResumeDataFeedback: st.builds(GetResumeDataFeedback, st.lists(resume_data(), max_size=3).map(tuple)),
    StartCalibrationFeedback: st.builds(StartCalibrationFeedback, U32.map(CalibrationResult)),
    SendMessageFeedback: st.builds(SendMessageFeedback, U32.map(SendMessageResult)),
    BrowseFeedback: st.builds(
        BrowseFeedback,
        U32.map(BrowseResult),
        st.lists(st.builds(Entry, U32, wchar(64), I32, wchar(32)), max_size=4).map(tuple),
    ),
    DownloadFeedback: st.builds(DownloadFeedback, U32.map(DownloadResult), STAMPS, U32, U32, MD5, CHUNKS),
    UploadFeedback: st.builds(UploadFeedback, st.binary(min_size=20, max_size=20)),
    NewOrDeleteFeedback: st.builds(NewOrDeleteFeedback, U32.map(FileResult)),
    NewFolderFeedback: st.builds(NewFolderFeedback, U32.map(FileResult)),
    DeleteFeedback: st.builds(DeleteFeedback, U32.map(FileResult)),
}

MESSAGES = REQUESTS | FEEDBACKS


def messages(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Messages of one class."""
    return MESSAGES[cls]


@st.composite
def split(draw: st.DrawFn, data: bytes, most: int = 8) -> list[bytes]:
    """The same bytes in segments, some of them possibly empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=most)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
