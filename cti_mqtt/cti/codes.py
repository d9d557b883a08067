"""Every number in CTI that stands for something: command codes, channel states, results.

Unknown numbers survive: an enum here answers any number, under the name `UNKNOWN_99` and the text "Unknown 99", because
newer servers send newer codes and a poll must not fail for one.

Source: ArbinCTI Protocol v1.1 and Arbin CTI Instructions v4.5, the tables of status and result codes.
"""

from enum import IntEnum
from typing import Self


class Code(IntEnum):
    """A number with a text; numbers that are not listed are kept.

    Attributes:
        text: what a person reads.
    """

    text: str

    def __new__(cls, number: int, _text: str = "") -> Self:
        """A member; without a text its name is read as one."""
        member = int.__new__(cls, number)
        member._value_ = number
        return member

    def __init__(self, _number: int, text: str = "") -> None:
        self.text = text or self._name_.lower().replace("_", " ")

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        member.text = f"Unknown {value}"
        return member

    @property
    def known(self) -> bool:
        """Whether the documents list this number."""
        return self._value_ in type(self)._value2member_map_

    @property
    def reason(self) -> str:
        """The name in snake case, for programs."""
        return self._name_.lower()


class CommandCode(Code):
    """What a frame carries. A feedback has a code of its own."""

    LOGIN = 0xEEAB0001
    LOGIN_FEEDBACK = 0xEEBA0001
    CONNECT = 0xEEAB0002
    CONNECT_FEEDBACK = 0xEEBA0002
    CHANNELS_INFO = 0xEEAB0003
    CHANNELS_INFO_FEEDBACK = 0xEEBA0003
    ASSIGN = 0xBB210001
    ASSIGN_FEEDBACK = 0xBB120001
    START = 0xBB320004
    START_FEEDBACK = 0xBB230004
    STOP = 0xBB310001
    STOP_FEEDBACK = 0xBB130001
    SET_META_VARIABLE = 0xBB150001
    SET_META_VARIABLE_FEEDBACK = 0xBB510001
    UNKNOWN_COMMAND_FEEDBACK = 0xBB111111


class StatusClass(IntEnum):
    """What a channel status means for a command."""

    IDLE = 0
    RUNNING = 1
    PAUSED = 2
    FAULT = 3
    OTHER = 4


class ChannelStatus(Code):
    """The state of a channel, as the cycler shows it."""

    IDLE = 0, "Idle"
    TRANSITION = 1, "Transition"
    CHARGE = 2, "Charge"
    DISCHARGE = 3, "Discharge"
    REST = 4, "Rest"
    WAIT = 5, "Wait"
    EXTERNAL_CHARGE = 6, "External Charge"
    CALIBRATION = 7, "Calibration"
    UNSAFE = 8, "Unsafe"
    PULSE = 9, "Pulse"
    INTERNAL_RESISTANCE = 10, "Internal Resistance"
    AC_IMPEDANCE = 11, "AC Impedance"
    ACI_CELL = 12, "ACI Cell"
    TEST_SETTINGS = 13, "Test Settings"
    ERROR = 14, "Error"
    FINISHED = 15, "Finished"
    VOLT_METER = 16, "Volt Meter"
    WAITING_FOR_ACS = 17, "Waiting for ACS"
    PAUSE = 18, "Pause"
    EMPTY = 19, "Empty"
    IDLE_FROM_MCU = 20, "Idle from MCU"
    START = 21, "Start"
    RUNNING = 22, "Running"
    STEP_TRANSFER = 23, "Step Transfer"
    RESUME = 24, "Resume"
    GO_PAUSE = 25, "Go Pause"
    GO_STOP = 26, "Go Stop"
    GO_NEXT_STEP = 27, "Go Next Step"
    ONLINE_UPDATE = 28, "Online Update"
    DAQ_MEMORY_UNSAFE = 29, "DAQ Memory Unsafe"
    ACR = 30, "ACR"
    SUSPENDED = 31, "Suspended"  # newer servers

    @property
    def meaning(self) -> StatusClass:
        """Idle, running, paused, fault or other; an unknown number counts as running, never as idle."""
        return _MEANING.get(self._value_, StatusClass.RUNNING)


_MEANING = {
    **dict.fromkeys((0, 15, 19, 20), StatusClass.IDLE),
    **dict.fromkeys((18, 25, 31), StatusClass.PAUSED),
    **dict.fromkeys((8, 14, 29), StatusClass.FAULT),
    **dict.fromkeys((13, 16), StatusClass.OTHER),
}


class LoginResult(Code):
    """The answer to a login."""

    SUCCESS = 1
    FAILED = 2
    ALREADY_LOGGED_IN = 3

    @property
    def usable(self) -> bool:
        """Whether requests may follow."""
        return self in {LoginResult.SUCCESS, LoginResult.ALREADY_LOGGED_IN}


class ConnectResult(Code):
    """The answer to a connect request."""

    ACCEPTED = 0
    REFUSED = 1, "refused: full"


class UserType(Code):
    """The rank of the user who logged in."""

    USER = 0
    SUPER_USER = 1


class Selection(Code):
    """Which channels an all-channels request asks for."""

    ALL = 1
    RUNNING = 2
    UNSAFE = 3


class AssignResult(Code):
    """The answer to an assignment."""

    OK = 0
    CHANNEL_DOES_NOT_EXIST = 0x10
    MONITOR_WINDOW_IN_USE = 0x11
    SCHEDULE_NAME_EMPTY = 0x12
    SCHEDULE_NOT_FOUND = 0x13
    RUNNING = 0x14
    DOWNLOADING_ANOTHER_SCHEDULE = 0x15
    BATCH_FILE_OPEN = 0x16
    ASSIGN_FAILED = 0x17
    SAVE_FAILED = 0x18


class StartResult(Code):
    """The answer to a start."""

    OK = 0
    INVALID_CHANNEL = 0x10
    MONITOR_WINDOW_IN_USE = 0x11
    RUNNING_OR_UNSAFE = 0x12
    NOT_CONNECTED_TO_DAQ = 0x13, "not connected to DAQ"
    SCHEDULE_INCOMPATIBLE = 0x14
    NO_SCHEDULE_ASSIGNED = 0x15
    SCHEDULE_VERSION = 0x16
    POWER_PROTECTED = 0x17
    RESULTS_FILE_TOO_LARGE = 0x18
    STEP_NUMBER = 0x19
    NO_CAN_CONFIGURATION = 0x1A, "no CAN configuration"
    AUXILIARY_COUNT = 0x1B
    BUILT_IN_AUXILIARY_COUNT = 0x1C, "built-in auxiliary count"
    POWER_CLAMP = 0x1D
    CHECK_AUX_TEST_SETTING = 0x1E, "check Aux Test Setting"
    NO_CHANNELS_SELECTED = 0x1F
    BT6000_GROUP_RUNNING = 0x20, "BT6000 group running"
    DOWNLOADING_SCHEDULE = 0x21
    TEST_NAME_QUERY_FAILED = 0x22, "test-name query failed"
    TEST_NAME_EMPTY = 0x23  # v4.5's constant says that the name exists
    INVALID_STEP = 0x24
    INVALID_PARALLEL_CHANNEL = 0x25
    SAFETY_PRE_CHECK_FAILED = 0x26, "safety pre-check failed"
    SCHEDULE_NAME_DIFFERS = 0x27
    BATTERY_SIMULATION_NOT_PARALLEL = 0x28
    WAITING_FOR_CSV = 0x29, "waiting for CSV"  # newer servers, as the next two
    SUSPENDED = 0x2A
    TEST_NAME_TOO_LONG = 0x2B


class StopResult(Code):
    """The answer to a stop."""

    OK = 0
    CHANNEL_DOES_NOT_EXIST = 0x10
    MONITOR_WINDOW_IN_USE = 0x11
    NOT_RUNNING = 0x12
    NOT_CONNECTED = 0x13


class SetMetaVariableResult(Code):
    """The answer to a meta variable; the incumbent client has 0x11 and 0x12 swapped, both documents have them so."""

    OK = 0
    SET_FAILED = 0x10
    META_CODE_DOES_NOT_EXIST = 0x11
    NOT_RUNNING = 0x12
    NO_SUCH_CODE_ON_MITS_7 = 0x13, "no such code on MITS 7"


ControlResult = AssignResult | StartResult | StopResult | SetMetaVariableResult

META_VARIABLE_COUNT = 16


def meta_code(index: int) -> int:
    """The wire code of MV_UD<index>, index from 1 to 16.

    Raises:
        ValueError: no such variable.
    """
    if 1 <= index <= 4:
        return 51 + index
    if 5 <= index <= META_VARIABLE_COUNT:
        return 100 + index
    raise ValueError(f"MV_UD{index} does not exist; there are MV_UD1 to MV_UD{META_VARIABLE_COUNT}")


def meta_index(code: int) -> int | None:
    """Which MV_UD a wire code means (1 to 16), None for another code."""
    if 52 <= code <= 55:
        return code - 51
    if 105 <= code <= 116:
        return code - 100
    return None


def server_version(number: int) -> str:
    """MITS generation behind the version number of a login feedback."""
    if number == 0:
        return "MITS Pro 7"
    if number in {1, 2}:
        return "MITS Pro 8"
    if number & 0xFFFFFF00 == 0x01000000:
        return f"MITS X {number & 0xFF}"
    return f"Unknown {number}"
