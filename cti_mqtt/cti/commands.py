"""The one table: which message has which code, and which request is answered by which feedback.

To add a message: write its class in `messages/`, give its codes names in `codes.CommandCode`, add its line here.
"""

from dataclasses import dataclass
from typing import Any

from cti_mqtt.cti.codes import CommandCode
from cti_mqtt.cti.frame import OVERHEAD, Direction
from cti_mqtt.cti.layout import Layout
from cti_mqtt.cti.messages import channels, extended, files, service, session, tests, variables

KIB, MIB = 1024, 1024 * 1024
DEFAULT_BOUND = 64 * KIB
CHANNELS_BOUND = 16 * MIB
FILE_BOUND = 1 * MIB  # one chunk of a file, or a directory of some thousand entries
LOGIN_BOUND = 4 * MIB  # it can hold a picture


@dataclass(frozen=True, slots=True)
class MessageType:
    """One message on the wire: its code, its class, its layout and the largest frame that is believed."""

    code: CommandCode
    cls: type[Any]
    layout: Layout[Any]
    bound: int = DEFAULT_BOUND

    def believes(self, frame_size: int) -> bool:
        """Whether a frame of this size can hold the message."""
        if self.layout.fixed_size is not None:
            return frame_size == OVERHEAD + self.layout.fixed_size
        return OVERHEAD + self.layout.min_size <= frame_size <= self.bound


@dataclass(frozen=True, slots=True)
class Command:
    """A request and its feedback.

    Attributes:
        control: whether it moves something at the cycler; such a request is never sent twice by itself.
    """

    request: MessageType
    feedback: MessageType
    control: bool = False


def _type(
    code: CommandCode, cls: type[Any], layout: Layout[Any] | None = None, bound: int = DEFAULT_BOUND
) -> MessageType:
    return MessageType(code, cls, layout or Layout(cls), bound)


_C = CommandCode

# Two requests each are answered alike.
_START_FEEDBACK = _type(_C.START_FEEDBACK, tests.StartFeedback)
_RESUME_FEEDBACK = _type(_C.RESUME_FEEDBACK, tests.ResumeFeedback)

COMMANDS = (
    Command(
        _type(_C.LOGIN, session.LoginRequest),
        _type(_C.LOGIN_FEEDBACK, session.LoginFeedback, bound=LOGIN_BOUND),
    ),
    Command(
        _type(_C.CONNECT, session.ConnectRequest),
        _type(_C.CONNECT_FEEDBACK, session.ConnectFeedback),
    ),
    Command(
        _type(_C.CHANNELS_INFO, channels.ChannelsInfoRequest),
        _type(
            _C.CHANNELS_INFO_FEEDBACK,
            channels.ChannelsInfoFeedback,
            channels.ChannelsInfoFeedbackLayout(),
            CHANNELS_BOUND,
        ),
    ),
    Command(
        _type(_C.ASSIGN, tests.AssignRequest),
        _type(_C.ASSIGN_FEEDBACK, tests.AssignFeedback),
        control=True,
    ),
    Command(
        _type(_C.START, tests.StartRequest),
        _START_FEEDBACK,
        control=True,
    ),
    Command(
        _type(_C.STOP, tests.StopRequest),
        _type(_C.STOP_FEEDBACK, tests.StopFeedback),
        control=True,
    ),
    Command(
        _type(_C.SET_META_VARIABLE, variables.SetMetaVariableRequest),
        _type(_C.SET_META_VARIABLE_FEEDBACK, variables.SetMetaVariableFeedback),
        control=True,
    ),
    Command(
        _type(_C.RESUME, tests.ResumeRequest),
        _RESUME_FEEDBACK,
        control=True,
    ),
    Command(
        _type(_C.CONTINUE, tests.ContinueRequest),
        _type(_C.CONTINUE_FEEDBACK, tests.ContinueFeedback),
        control=True,
    ),
    Command(
        _type(_C.JUMP, tests.JumpRequest),
        _type(_C.JUMP_FEEDBACK, tests.JumpFeedback),
        control=True,
    ),
    Command(
        _type(_C.UPDATE_META_VARIABLES, variables.UpdateMetaVariablesRequest),
        _type(_C.UPDATE_META_VARIABLES_FEEDBACK, variables.UpdateMetaVariablesFeedback),
        control=True,
    ),
    Command(
        _type(_C.GET_SERIAL, service.GetSerialRequest),
        _type(_C.GET_SERIAL_FEEDBACK, service.GetSerialFeedback),
    ),
    Command(
        _type(_C.GET_START_DATA, extended.GetStartDataRequest),
        _type(_C.GET_START_DATA_FEEDBACK, extended.GetStartDataFeedback),
    ),
    Command(
        _type(_C.START_EXTENDED, extended.StartExtendedRequest),
        _START_FEEDBACK,
        control=True,
    ),
    Command(
        _type(_C.GET_RESUME_DATA, extended.GetResumeDataRequest),
        _type(_C.GET_RESUME_DATA_FEEDBACK, extended.GetResumeDataFeedback),
    ),
    Command(
        _type(_C.RESUME_EXTENDED, extended.ResumeExtendedRequest),
        _RESUME_FEEDBACK,
        control=True,
    ),
    Command(
        _type(_C.START_CALIBRATION, service.StartCalibrationRequest),
        _type(_C.START_CALIBRATION_FEEDBACK, service.StartCalibrationFeedback),
        control=True,
    ),
    Command(
        _type(_C.SEND_MESSAGE, service.SendMessageRequest),
        _type(_C.SEND_MESSAGE_FEEDBACK, service.SendMessageFeedback),
    ),
    Command(
        _type(_C.BROWSE, files.BrowseRequest),
        _type(_C.BROWSE_FEEDBACK, files.BrowseFeedback, bound=FILE_BOUND),
    ),
    Command(
        _type(_C.DOWNLOAD, files.DownloadRequest),
        _type(_C.DOWNLOAD_FEEDBACK, files.DownloadFeedback, bound=FILE_BOUND),
    ),
    Command(
        _type(_C.UPLOAD, files.UploadRequest, bound=FILE_BOUND),
        _type(_C.UPLOAD_FEEDBACK, files.UploadFeedback),
    ),
    Command(
        _type(_C.NEW_OR_DELETE, files.NewOrDeleteRequest),
        _type(_C.NEW_OR_DELETE_FEEDBACK, files.NewOrDeleteFeedback),
    ),
    Command(
        _type(_C.NEW_FOLDER, files.NewFolderRequest),
        _type(_C.NEW_FOLDER_FEEDBACK, files.NewFolderFeedback),
    ),
    Command(
        _type(_C.DELETE, files.DeleteRequest),
        _type(_C.DELETE_FEEDBACK, files.DeleteFeedback),
    ),
)

UNKNOWN_COMMAND = _type(_C.UNKNOWN_COMMAND_FEEDBACK, service.UnknownCommandFeedback)

BY_REQUEST_CLASS = {command.request.cls: command for command in COMMANDS}

BY_CODE: dict[Direction, dict[int, MessageType]] = {
    Direction.REQUEST: {command.request.code: command.request for command in COMMANDS},
    Direction.FEEDBACK: {
        **{command.feedback.code: command.feedback for command in COMMANDS},
        UNKNOWN_COMMAND.code: UNKNOWN_COMMAND,
    },
}

BY_CLASS: dict[type[Any], tuple[Direction, MessageType]] = {
    message_type.cls: (direction, message_type)
    for direction, types in BY_CODE.items()
    for message_type in types.values()
}
