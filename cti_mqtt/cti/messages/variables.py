"""Meta variables: numbers that a running schedule reads."""

from dataclasses import dataclass
from typing import Annotated, Self

from cti_mqtt.cti.codes import SetMetaVariableResult, meta_code
from cti_mqtt.cti.layout import I32, U32, number

META_VARIABLE = 1  # the only mv_type in the documents
FLOAT_VALUE = 1  # the only value_type in the documents


@dataclass(frozen=True, slots=True)
class SetMetaVariableRequest:
    """Writes one meta variable of a running channel.

    Source: v1.1, "Set meta variable".
    """

    channel: U32
    mv_type: I32
    meta_code: Annotated[int, number("i", reserved=16)]
    value_type: I32
    value: Annotated[float, number("f", reserved=16)]

    @classmethod
    def of(cls, channel: int, index: int, value: float) -> Self:
        """Sets MV_UD<index> (1 to 16).

        Raises:
            ValueError: no such variable.
        """
        return cls(channel, META_VARIABLE, meta_code(index), FLOAT_VALUE, value)


@dataclass(frozen=True, slots=True)
class SetMetaVariableFeedback:
    """Whether the value was taken."""

    channel: I32
    result: Annotated[SetMetaVariableResult, number("B", SetMetaVariableResult, reserved=101)]
