"""The answers: what each feedback's result number says, command by command.

The same number means different things for different commands, so each command has an enum of its own. Numbers that are
not listed survive, as everywhere (see `codes.Code`).

Source: ArbinCTI Protocol v1.1 and Arbin CTI Instructions v4.5, the tables of result codes.
"""

from cti_mqtt.cti.codes import Code


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


class ResumeResult(Code):
    """The answer to a resumption."""

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
    NO_TEST_NAME_OR_NOT_LAST_SCHEDULE = 0x23, "no test name, or not the last schedule"
    LOAD_RESUME = 0x24
    TOO_MANY_RESULTS = 0x25
    SAFETY_PRE_CHECK_FAILED = 0x26, "safety pre-check failed"
    BATTERY_SIMULATION_NOT_PARALLEL = 0x27


class ContinueResult(Code):
    """The answer to a continue after a pause."""

    OK = 0
    INVALID_CHANNEL = 0x10
    MONITOR_WINDOW_IN_USE = 0x11
    RUNNING = 0x12
    NOT_CONNECTED_TO_DAQ = 0x13, "not connected to DAQ"
    CALIBRATING = 0x14
    NOT_PAUSED = 0x15
    UNSAFE = 0x16


class JumpResult(Code):
    """The answer to a jump to another step."""

    OK = 0
    INVALID_CHANNEL = 0x10
    MONITOR_WINDOW_IN_USE = 0x11
    NOT_RUNNING = 0x12
    NOT_CONNECTED_TO_DAQ = 0x13, "not connected to DAQ"
    INVALID_SCHEDULE = 0x14
    NO_SCHEDULE_ASSIGNED = 0x15
    SCHEDULE_VERSION = 0x16
    POWER_PROTECTED = 0x17
    RESULTS_FILE_TOO_LARGE = 0x18
    MORE_THAN_200_STEPS = 0x19
    NO_CAN_CONFIGURATION = 0x1A, "no CAN configuration"
    AUXILIARY_MAP = 0x1B
    BUILT_IN_AUXILIARY_COUNT = 0x1C, "built-in auxiliary count"
    POWER_CLAMP = 0x1D
    AI = 0x1E, "AI"
    GROUP_CHANNEL = 0x1F
    BT6000_GROUP_RUNNING = 0x20, "BT6000 group running"
    DOWNLOADING_SCHEDULE = 0x21
    TEST_NAME_QUERY = 0x22, "test-name query"
    TEST_NAME = 0x23
    INVALID_STEP_LIMIT = 0x24
    INVALID_PARALLEL = 0x25
    SAFETY_CHECK = 0x26
    SCHEDULE_NAME_DIFFERS = 0x27
    BATTERY_SIMULATION = 0x28


class UpdateMetaVariablesResult(Code):
    """The answer to an advanced update."""

    OK = 0
    SET_FAILED = 0x10
    META_CODE_DOES_NOT_EXIST = 0x11
    NOT_RUNNING = 0x12
    TOO_FREQUENT = 0x13  # newer servers (v4.5)
    UPDATED_WITHIN_200_MS = 0x14, "updated within 200 ms"


class StartDataCode(Code):
    """Why start or resume data of a channel are missing; 0 where they are not."""

    OK = 0
    TEST_NAME_QUERY_FAILED = 34, "test-name query failed"
    EMPTY_TEST_NAME = 35
    NO_RESUME_TABLE = 36


class CalibrationResult(Code):
    """The answer to the start of a calibration; the documents differ on what failure is."""

    FAILED = 0  # v1.1
    STARTED = 1
    FAILED_V45 = 2, "failed"


class SendMessageResult(Code):
    """The answer to a message for the console."""

    NOT_SHOWN = 0
    SHOWN = 1


class BrowseResult(Code):
    """The answer to a look into a directory."""

    DIRECTORY = 1
    SCHEDULE_DIRECTORY = 2
    INVALID = 3
    INVALID_NEWER = 4, "invalid"


class DownloadResult(Code):
    """The answer to a download, one a chunk."""

    OK = 1
    FAILED = 2
    MD5 = 3, "MD5"
    TOO_LARGE = 4


class UploadResult(Code):
    """The answer to an upload, one a chunk."""

    OK = 1
    FAILED = 2
    MD5 = 3, "MD5"
    FILE_IN_USE = 4


class FileResult(Code):
    """The answer to a new folder or a deletion."""

    CREATED = 1
    DELETED = 2
    CREATE_FAILED = 3
    NO_FOLDERS_ALLOWED_HERE = 4
    DELETE_FAILED = 5
    EXTENSION_NOT_ALLOWED = 6
    IN_USE = 7
    DOES_NOT_EXIST = 8
