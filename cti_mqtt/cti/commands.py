"""The one table: which message has which code, and which request is answered by which feedback.

To add a message: write its class in `messages/`, give its codes names in `codes.CommandCode`, add its line here.
"""

from dataclasses import dataclass
from typing import Any

from cti_mqtt.cti.codes import CommandCode
from cti_mqtt.cti.frame import OVERHEAD, Direction
from cti_mqtt.cti.layout import Layout
from cti_mqtt.cti.messages import channels, service, session, tests, variables

KIB, MIB = 1024, 1024 * 1024
DEFAULT_BOUND = 64 * KIB
CHANNELS_BOUND = 16 * MIB
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
        _type(_C.START_FEEDBACK, tests.StartFeedback),
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
