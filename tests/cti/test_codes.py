"""Every number of the protocol document, typed from its tables."""

import copy
import json
import pickle

import pytest

from cti_mqtt.cti.codes import (
    META_VARIABLE_COUNT,
    ChannelStatus,
    Code,
    CommandCode,
    Selection,
    StatusClass,
    UserType,
    meta_code,
    meta_index,
    server_version,
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
    UploadResult,
)

STATUSES = {
    0: "Idle",
    1: "Transition",
    2: "Charge",
    3: "Discharge",
    4: "Rest",
    5: "Wait",
    6: "External Charge",
    7: "Calibration",
    8: "Unsafe",
    9: "Pulse",
    10: "Internal Resistance",
    11: "AC Impedance",
    12: "ACI Cell",
    13: "Test Settings",
    14: "Error",
    15: "Finished",
    16: "Volt Meter",
    17: "Waiting for ACS",
    18: "Pause",
    19: "Empty",
    20: "Idle from MCU",
    21: "Start",
    22: "Running",
    23: "Step Transfer",
    24: "Resume",
    25: "Go Pause",
    26: "Go Stop",
    27: "Go Next Step",
    28: "Online Update",
    29: "DAQ Memory Unsafe",
    30: "ACR",
    31: "Suspended",
}

ASSIGN_RESULTS = {
    0x10: "channel does not exist",
    0x11: "monitor window in use",
    0x12: "schedule name empty",
    0x13: "schedule not found",
    0x14: "running",
    0x15: "downloading another schedule",
    0x16: "batch file open",
    0x17: "assign failed",
    0x18: "save failed",
}

START_RESULTS = {
    0x10: "invalid channel",
    0x11: "monitor window in use",
    0x12: "running or unsafe",
    0x13: "not connected to DAQ",
    0x14: "schedule incompatible",
    0x15: "no schedule assigned",
    0x16: "schedule version",
    0x17: "power protected",
    0x18: "results file too large",
    0x19: "step number",
    0x1A: "no CAN configuration",
    0x1B: "auxiliary count",
    0x1C: "built-in auxiliary count",
    0x1D: "power clamp",
    0x1E: "check Aux Test Setting",
    0x1F: "no channels selected",
    0x20: "BT6000 group running",
    0x21: "downloading schedule",
    0x22: "test-name query failed",
    0x23: "test name empty",
    0x24: "invalid step",
    0x25: "invalid parallel channel",
    0x26: "safety pre-check failed",
    0x27: "schedule name differs",
    0x28: "battery simulation not parallel",
    0x29: "waiting for CSV",
    0x2A: "suspended",
    0x2B: "test name too long",
}

STOP_RESULTS = {
    0x10: "channel does not exist",
    0x11: "monitor window in use",
    0x12: "not running",
    0x13: "not connected",
}

RESUME_RESULTS = {
    **{number: text for number, text in START_RESULTS.items() if number < 0x23},
    0x23: "no test name, or not the last schedule",
    0x24: "load resume",
    0x25: "too many results",
    0x26: "safety pre-check failed",
    0x27: "battery simulation not parallel",
}

CONTINUE_RESULTS = {
    0x10: "invalid channel",
    0x11: "monitor window in use",
    0x12: "running",
    0x13: "not connected to DAQ",
    0x14: "calibrating",
    0x15: "not paused",
    0x16: "unsafe",
}

JUMP_RESULTS = {
    0x10: "invalid channel",
    0x11: "monitor window in use",
    0x12: "not running",
    0x13: "not connected to DAQ",
    0x14: "invalid schedule",
    0x15: "no schedule assigned",
    0x16: "schedule version",
    0x17: "power protected",
    0x18: "results file too large",
    0x19: "more than 200 steps",
    0x1A: "no CAN configuration",
    0x1B: "auxiliary map",
    0x1C: "built-in auxiliary count",
    0x1D: "power clamp",
    0x1E: "AI",
    0x1F: "group channel",
    0x20: "BT6000 group running",
    0x21: "downloading schedule",
    0x22: "test-name query",
    0x23: "test name",
    0x24: "invalid step limit",
    0x25: "invalid parallel",
    0x26: "safety check",
    0x27: "schedule name differs",
    0x28: "battery simulation",
}

UPDATE_META_VARIABLES_RESULTS = {
    0x10: "set failed",
    0x11: "meta code does not exist",
    0x12: "not running",
    0x13: "too frequent",
    0x14: "updated within 200 ms",
}

FILE_RESULTS = {
    1: "created",
    2: "deleted",
    3: "create failed",
    4: "no folders allowed here",
    5: "delete failed",
    6: "extension not allowed",
    7: "in use",
    8: "does not exist",
}

SET_META_VARIABLE_RESULTS = {
    0x10: "set failed",
    0x11: "meta code does not exist",
    0x12: "not running",
    0x13: "no such code on MITS 7",
}

TABLES: dict[type[Code], dict[int, str]] = {
    ChannelStatus: STATUSES,
    AssignResult: {0: "ok", **ASSIGN_RESULTS},
    StartResult: {0: "ok", **START_RESULTS},
    StopResult: {0: "ok", **STOP_RESULTS},
    SetMetaVariableResult: {0: "ok", **SET_META_VARIABLE_RESULTS},
    ResumeResult: {0: "ok", **RESUME_RESULTS},
    ContinueResult: {0: "ok", **CONTINUE_RESULTS},
    JumpResult: {0: "ok", **JUMP_RESULTS},
    UpdateMetaVariablesResult: {0: "ok", **UPDATE_META_VARIABLES_RESULTS},
    StartDataCode: {0: "ok", 34: "test-name query failed", 35: "empty test name", 36: "no resume table"},
    CalibrationResult: {0: "failed", 1: "started", 2: "failed"},
    SendMessageResult: {0: "not shown", 1: "shown"},
    BrowseResult: {1: "directory", 2: "schedule directory", 3: "invalid", 4: "invalid"},
    DownloadResult: {1: "ok", 2: "failed", 3: "MD5", 4: "too large"},
    UploadResult: {1: "ok", 2: "failed", 3: "MD5", 4: "file in use"},
    FileResult: FILE_RESULTS,
    LoginResult: {1: "success", 2: "failed", 3: "already logged in"},
    ConnectResult: {0: "accepted", 1: "refused: full"},
    UserType: {0: "user", 1: "super user"},
    Selection: {1: "all", 2: "running", 3: "unsafe"},
}

COMMAND_CODES = {
    "LOGIN": (0xEEAB0001, 0xEEBA0001),
    "CONNECT": (0xEEAB0002, 0xEEBA0002),
    "CHANNELS_INFO": (0xEEAB0003, 0xEEBA0003),
    "ASSIGN": (0xBB210001, 0xBB120001),
    "START": (0xBB320004, 0xBB230004),
    "STOP": (0xBB310001, 0xBB130001),
    "SET_META_VARIABLE": (0xBB150001, 0xBB510001),
    "RESUME": (0xBB310002, 0xBB130002),
    "CONTINUE": (0xBB320006, 0xBB230006),
    "JUMP": (0xBB320005, 0xBB230005),
    "UPDATE_META_VARIABLES": (0xBB150002, 0xBB510002),
    "GET_SERIAL": (0xBB340001, 0xBB430001),
    "GET_START_DATA": (0xCD130001, 0xCD310001),
    "GET_RESUME_DATA": (0xCD130003, 0xCD310003),
    "START_CALIBRATION": (0xCD140001, 0xCD410001),
    "SEND_MESSAGE": (0xCD140002, 0xCD410002),
    "BROWSE": (0xCC130001, 0xCC310001),
    "DOWNLOAD": (0xCC130002, 0xCC310002),
    "UPLOAD": (0xCC130003, 0xCC310003),
    "NEW_OR_DELETE": (0xCC130004, 0xCC310004),
    "NEW_FOLDER": (0xCC130005, 0xCC310005),
    "DELETE": (0xCC130006, 0xCC310006),
}


@pytest.mark.parametrize(
    ("cls", "number", "text"),
    [
        pytest.param(cls, number, text, id=f"{cls.__name__}-{number:#04x}")
        for cls, table in TABLES.items()
        for number, text in table.items()
    ],
)
def test_number_has_its_text(cls: type[Code], number: int, text: str) -> None:
    code = cls(number)
    assert code == number
    assert code.text == text
    assert code.known


@pytest.mark.parametrize("cls", TABLES, ids=lambda cls: cls.__name__)
def test_nothing_is_listed_that_the_document_lacks(cls: type[Code]) -> None:
    assert {int(member) for member in cls} == set(TABLES[cls])


ANSWERED_LIKE_ANOTHER = {"START_EXTENDED": 0xCD130002, "RESUME_EXTENDED": 0xCD130004}


@pytest.mark.parametrize("name", ANSWERED_LIKE_ANOTHER)
def test_command_codes_without_a_feedback_of_their_own(name: str) -> None:
    assert CommandCode[name] == ANSWERED_LIKE_ANOTHER[name]
    assert f"{name}_FEEDBACK" not in CommandCode.__members__


@pytest.mark.parametrize("name", COMMAND_CODES)
def test_command_codes(name: str) -> None:
    request, feedback = COMMAND_CODES[name]
    assert CommandCode[name] == request
    assert CommandCode[f"{name}_FEEDBACK"] == feedback


def test_no_other_command_codes() -> None:
    listed = {code for pair in COMMAND_CODES.values() for code in pair} | {0xBB111111, *ANSWERED_LIKE_ANOTHER.values()}
    assert {int(member) for member in CommandCode} == listed


CLASSES = {
    StatusClass.IDLE: {0, 15, 19, 20},
    StatusClass.PAUSED: {18, 25, 31},
    StatusClass.FAULT: {8, 14, 29},
    StatusClass.OTHER: {13, 16},
    StatusClass.RUNNING: {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 17, 21, 22, 23, 24, 26, 27, 28, 30},
}


@pytest.mark.parametrize("meaning", CLASSES, ids=lambda meaning: meaning.name)
def test_meaning_of_status(meaning: StatusClass) -> None:
    assert {number for number in range(32) if ChannelStatus(number).meaning is meaning} == CLASSES[meaning]


@pytest.mark.parametrize("number", [-32768, -1, 32, 99, 32767])
def test_unknown_status_counts_as_running(number: int) -> None:
    assert ChannelStatus(number).meaning is StatusClass.RUNNING


@pytest.mark.parametrize(("number", "usable"), [(0, False), (1, True), (2, False), (3, True), (4, False)], ids=str)
def test_usable_logins(number: int, usable: bool) -> None:
    assert LoginResult(number).usable is usable


# --- unknown numbers ---

CODE_CLASSES: list[type[Code]] = [*TABLES, CommandCode]
UNKNOWN = [
    pytest.param(cls, number, id=f"{cls.__name__}-{number}") for cls in CODE_CLASSES for number in (99, 0xFFFF_FFFF)
]


@pytest.mark.parametrize(("cls", "number"), UNKNOWN)
def test_unknown_number_survives(cls: type[Code], number: int) -> None:
    code = cls(number)
    assert code == number
    assert code.text == f"Unknown {number}"
    assert code.name == f"UNKNOWN_{number}"
    assert code.reason == f"unknown_{number}"
    assert not code.known
    assert str(code) == f"{code}" == str(number)
    assert repr(code) == f"<{cls.__name__}.UNKNOWN_{number}: {number}>"
    assert json.dumps(code) == str(number)


@pytest.mark.parametrize(("cls", "number"), UNKNOWN)
def test_unknown_number_is_a_value(cls: type[Code], number: int) -> None:
    code, twin = cls(number), cls(number)
    assert code == twin
    assert hash(code) == hash(twin) == hash(number)
    assert {code: "found"}[twin] == "found"
    assert code != cls(98)
    assert len({code, twin, cls(98)}) == 2


@pytest.mark.parametrize("code", [ChannelStatus.CHARGE, ChannelStatus(99), StartResult(200), CommandCode(1)], ids=repr)
def test_code_can_be_copied(code: Code) -> None:
    copies = [
        copy.copy(code),
        copy.deepcopy(code),
        *(pickle.loads(pickle.dumps(code, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
    ]
    for twin in copies:
        assert type(twin) is type(code)
        assert (twin, twin.name, twin.text, twin.known) == (code, code.name, code.text, code.known)


def test_unknown_numbers_leave_no_trace() -> None:
    before = list(ChannelStatus), dict(ChannelStatus.__members__), len(ChannelStatus._value2member_map_)
    for number in range(1000, 1100):
        ChannelStatus(number)
    assert (list(ChannelStatus), dict(ChannelStatus.__members__), len(ChannelStatus._value2member_map_)) == before


@pytest.mark.parametrize("value", ["charge", 2.5, None], ids=repr)
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a valid ChannelStatus"):
        ChannelStatus(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (StopResult.NOT_RUNNING, "not_running"),
        (StartResult.NOT_CONNECTED_TO_DAQ, "not_connected_to_daq"),
        (ChannelStatus.IDLE, "idle"),
    ],
    ids=repr,
)
def test_reason_is_for_programs(code: Code, reason: str) -> None:
    assert code.reason == reason


# --- meta variables and versions ---

META_CODES = {
    1: 52,
    2: 53,
    3: 54,
    4: 55,
    5: 105,
    6: 106,
    7: 107,
    8: 108,
    9: 109,
    10: 110,
    11: 111,
    12: 112,
    13: 113,
    14: 114,
    15: 115,
    16: 116,
}


@pytest.mark.parametrize(("index", "code"), META_CODES.items())
def test_meta_codes(index: int, code: int) -> None:
    assert meta_code(index) == code
    assert meta_index(code) == index


@pytest.mark.parametrize("index", [-1, 0, META_VARIABLE_COUNT + 1])
def test_no_such_meta_variable(index: int) -> None:
    with pytest.raises(ValueError, match=f"MV_UD{index} does not exist"):
        meta_code(index)


@pytest.mark.parametrize("code", [0, 51, 56, 104, 117, -1])
def test_other_codes_are_no_user_variables(code: int) -> None:
    assert meta_index(code) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "MITS Pro 7"),
        (1, "MITS Pro 8"),
        (2, "MITS Pro 8"),
        (0x01000000, "MITS X 0"),
        (0x01000005, "MITS X 5"),
        (0x010000FF, "MITS X 255"),
        (3, "Unknown 3"),
        (0x01000100, "Unknown 16777472"),
        (0xFFFFFFFF, "Unknown 4294967295"),
    ],
)
def test_server_versions(number: int, text: str) -> None:
    assert server_version(number) == text
