"""Meta variables: numbers that a running schedule reads."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, NamedTuple, Self

from cti_mqtt.cti.codes import meta_code
from cti_mqtt.cti.fields import F32, I32, U16, U32, number
from cti_mqtt.cti.layout import Layout
from cti_mqtt.cti.results import SetMetaVariableResult, UpdateMetaVariablesResult
from cti_mqtt.errors import InvalidRequestError, ProtocolError

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


MAX_UPDATES = 160  # entries in one advanced update


class MetaVariableUpdate(NamedTuple):
    """One value in an advanced update."""

    channel: U16
    meta_code: U16
    value: F32

    @classmethod
    def of(cls, channel: int, index: int, value: float) -> Self:
        """Sets MV_UD<index> (1 to 16).

        Raises:
            ValueError: no such variable.
        """
        return cls(channel, meta_code(index), value)


class UpdateHeader(Enum):
    """What stands between the count and the entries: the documents differ. The value is its size in bytes."""

    V11 = 18
    V45 = 22


_UPDATE = Layout(MetaVariableUpdate)


class UpdatesCodec:
    """`count u16`, the header of one document or the other, then the entries; which header it is shows in the size."""

    min_size = 2 + UpdateHeader.V11.value

    def unpack_from(self, buffer: bytes, offset: int) -> tuple["Updates", int]:
        """The entries, and the header that they came with."""
        count = int.from_bytes(buffer[offset : offset + 2], "little")
        header = len(buffer) - offset - 2 - count * _UPDATE.min_size
        if header not in {each.value for each in UpdateHeader}:
            raise ProtocolError(f"{count} updates announced, {len(buffer) - offset} bytes present")
        entries = []
        offset += 2 + header
        for _ in range(count):
            entry, offset = _UPDATE.unpack_from(buffer, offset)
            entries.append(entry)
        return Updates(tuple(entries), UpdateHeader(header)), offset

    def pack(self, value: "Updates") -> bytes:
        """Count, header and entries."""
        if len(value.entries) > MAX_UPDATES:
            raise InvalidRequestError(f"{len(value.entries)} updates are too many: at most {MAX_UPDATES} fit")
        head = len(value.entries).to_bytes(2, "little") + bytes(value.header.value)
        return head + b"".join(map(_UPDATE.pack, value.entries))


class Updates(NamedTuple):
    """The values of an advanced update."""

    entries: tuple[MetaVariableUpdate, ...]
    header: UpdateHeader = UpdateHeader.V11


@dataclass(frozen=True, slots=True)
class UpdateMetaVariablesRequest:
    """Writes meta variables of several channels at once; at most one such request in 200 ms.

    Source: v1.1 and v4.5, "Update meta variables, advanced".
    """

    updates: Annotated[Updates, UpdatesCodec()]


@dataclass(frozen=True, slots=True)
class UpdateMetaVariablesFeedback:
    """One a request, or one a channel: the documents do not say."""

    channel: I32
    result: Annotated[UpdateMetaVariablesResult, number("B", UpdateMetaVariablesResult, reserved=101)]
