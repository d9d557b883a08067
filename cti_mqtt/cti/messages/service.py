"""What the server says about the conversation itself."""

from dataclasses import dataclass
from typing import Annotated

from cti_mqtt.cti.layout import U32, number


@dataclass(frozen=True, slots=True)
class UnknownCommandFeedback:
    """The server does not know that command.

    Attributes:
        command: the command code of the request.
        extended: its extended code.
    """

    command: U32
    extended: Annotated[int, number("I", reserved=128)]
