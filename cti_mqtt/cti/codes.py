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
    RESUME = 0xBB310002
    RESUME_FEEDBACK = 0xBB130002
    CONTINUE = 0xBB320006
    CONTINUE_FEEDBACK = 0xBB230006
    JUMP = 0xBB320005
    JUMP_FEEDBACK = 0xBB230005
    UPDATE_META_VARIABLES = 0xBB150002
    UPDATE_META_VARIABLES_FEEDBACK = 0xBB510002
    GET_SERIAL = 0xBB340001
    GET_SERIAL_FEEDBACK = 0xBB430001
    GET_START_DATA = 0xCD130001
    GET_START_DATA_FEEDBACK = 0xCD310001
    START_EXTENDED = 0xCD130002  # answered like START
    GET_RESUME_DATA = 0xCD130003
    GET_RESUME_DATA_FEEDBACK = 0xCD310003
    RESUME_EXTENDED = 0xCD130004  # answered like RESUME
    START_CALIBRATION = 0xCD140001
    START_CALIBRATION_FEEDBACK = 0xCD410001
    SEND_MESSAGE = 0xCD140002
    SEND_MESSAGE_FEEDBACK = 0xCD410002
    BROWSE = 0xCC130001
    BROWSE_FEEDBACK = 0xCC310001
    DOWNLOAD = 0xCC130002
    DOWNLOAD_FEEDBACK = 0xCC310002
    UPLOAD = 0xCC130003
    UPLOAD_FEEDBACK = 0xCC310003
    NEW_OR_DELETE = 0xCC130004  # deprecated
    NEW_OR_DELETE_FEEDBACK = 0xCC310004
    NEW_FOLDER = 0xCC130005
    NEW_FOLDER_FEEDBACK = 0xCC310005
    DELETE = 0xCC130006
    DELETE_FEEDBACK = 0xCC310006
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


class UserType(Code):
    """The rank of the user who logged in."""

    USER = 0
    SUPER_USER = 1


class Selection(Code):
    """Which channels an all-channels request asks for."""

    ALL = 1
    RUNNING = 2
    UNSAFE = 3


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


MITS_7_VERSION = 0  # its assignments overwrite capacity and meta variables


def server_version(number: int) -> str:
    """MITS generation behind the version number of a login feedback."""
    if number == MITS_7_VERSION:
        return "MITS Pro 7"
    if number in {1, 2}:
        return "MITS Pro 8"
    if number & 0xFFFFFF00 == 0x01000000:
        return f"MITS X {number & 0xFF}"
    return f"Unknown {number}"
