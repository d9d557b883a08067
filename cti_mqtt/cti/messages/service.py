"""The cycler beside its channels: serial number, calibration, a message for its operator, what it does not know."""

from dataclasses import dataclass
from typing import Annotated

from cti_mqtt.cti.fields import U32, number, raw, wchar
from cti_mqtt.cti.results import CalibrationResult, SendMessageResult


@dataclass(frozen=True, slots=True)
class GetSerialRequest:
    """Asks for the serial number. What the two fields mean is not documented: zero.

    Source: v1.1, "Get serial number".
    """

    first: U32 = 0
    second: Annotated[int, number("B", reserved=101)] = 0


@dataclass(frozen=True, slots=True)
class GetSerialFeedback:
    """The serial number; what `result` means is not documented."""

    serial: U32
    result: Annotated[int, number("B", reserved=101)]


@dataclass(frozen=True, slots=True)
class StartCalibrationRequest:
    """Starts the automatic calibration; 102 bytes without a meaning.

    Source: v1.1, "Start automatic calibration".
    """

    reserved: Annotated[bytes, raw(102)] = bytes(102)


@dataclass(frozen=True, slots=True)
class StartCalibrationFeedback:
    """Whether it was started."""

    result: Annotated[CalibrationResult, number("I", CalibrationResult)]


@dataclass(frozen=True, slots=True)
class SendMessageRequest:
    """A text for the person at the console, in the form `[date time]<-->[rich text]`.

    Source: v1.1, "Send message to the console".
    """

    message: Annotated[str, wchar(1024)]


@dataclass(frozen=True, slots=True)
class SendMessageFeedback:
    """Whether it is shown."""

    result: Annotated[SendMessageResult, number("I", SendMessageResult)]


@dataclass(frozen=True, slots=True)
class UnknownCommandFeedback:
    """The server does not know that command.

    Attributes:
        command: the command code of the request.
        extended: its extended code.
    """

    command: U32
    extended: Annotated[int, number("I", reserved=128)]
