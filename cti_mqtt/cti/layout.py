"""A message's fields, declared once, become its pack and its unpack.

A message is a frozen dataclass (or, on the hot path, a named tuple) whose annotations are the wire::

    @dataclass(frozen=True, slots=True)
    class StopRequest:
        channel: U32
        all_channels: Annotated[bool, flag(reserved=101)]

    STOP = Layout(StopRequest)

Everything is little-endian and packed. Fixed fields that follow each other are compiled into one `struct.Struct`; a
field whose size depends on its content is a `Codec`. `reserved` is the number of unused bytes after a field: zero when
sent, ignored when received.

Source: ArbinCTI Protocol v1.1, "Message format".
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

from cti_mqtt.cti.fields import Field, encode_text
from cti_mqtt.errors import InvalidRequestError, ProtocolError

T = TypeVar("T")

_UNFIT = (struct.error, OverflowError, InvalidRequestError)  # a value that has no place in its field


class Codec(Protocol):
    """A field whose size depends on its content."""

    @property
    def min_size(self) -> int:
        """The fewest bytes it can take."""

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[Any, int]:
        """The value at `offset`, and where the next field begins.

        Raises:
            ProtocolError: the bytes do not hold such a value.
        """

    def pack(self, value: Any) -> bytes:
        """The value as bytes.

        Raises:
            InvalidRequestError: the value cannot be expressed; struct.error and OverflowError mean the same.
        """


# --- fields whose size depends on their content ---

_COUNT = struct.Struct("<I")
_LONG_COUNT = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class CountedBytes:
    """`length u32`, then so many bytes."""

    min_size: int = _COUNT.size

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[bytes, int]:
        """The bytes, without their length."""
        start = offset + _COUNT.size
        (length,) = _unpack(_COUNT, buffer, offset)
        if start + length > len(buffer):
            raise ProtocolError(f"{length} bytes announced, {len(buffer) - start} present")
        return buffer[start : start + length], start + length

    def pack(self, value: bytes) -> bytes:
        """Length and bytes."""
        return _COUNT.pack(len(value)) + value


@dataclass(frozen=True, slots=True)
class Rest:
    """All bytes up to the end of the message."""

    min_size: int = 0

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[bytes, int]:
        """The bytes."""
        return buffer[offset:], len(buffer)

    def pack(self, value: bytes) -> bytes:
        """The bytes as they are."""
        return value


@dataclass(frozen=True, slots=True)
class SizedRest:
    """`length u64`, then the rest of the message, which must be so long."""

    min_size: int = _LONG_COUNT.size

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[bytes, int]:
        """The bytes, without their length."""
        (length,) = _unpack(_LONG_COUNT, buffer, offset)
        data = buffer[offset + _LONG_COUNT.size :]
        if len(data) != length:
            raise ProtocolError(f"{length} bytes announced, {len(data)} present")
        return data, len(buffer)

    def pack(self, value: bytes) -> bytes:
        """Length and bytes."""
        return _LONG_COUNT.pack(len(value)) + value


@dataclass(frozen=True, slots=True)
class CountedNumbers:
    """`count u32`, then so many numbers of one kind."""

    item: str
    min_size: int = _COUNT.size

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[tuple[Any, ...], int]:
        """The numbers as a tuple."""
        start = offset + _COUNT.size
        (count,) = _unpack(_COUNT, buffer, offset)
        end = start + count * struct.calcsize("<" + self.item)
        if end > len(buffer):
            raise ProtocolError(f"{count} numbers announced, room for fewer")
        return struct.unpack_from(f"<{count}{self.item}", buffer, start), end

    def pack(self, value: tuple[Any, ...]) -> bytes:
        """Count and numbers."""
        return _COUNT.pack(len(value)) + struct.pack(f"<{len(value)}{self.item}", *value)


class CountedRecords(Generic[T]):
    """`count u32`, then so many records of one layout."""

    min_size = _COUNT.size

    def __init__(self, layout: "Layout[T]") -> None:
        self._layout = layout

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[tuple[T, ...], int]:
        """The records as a tuple."""
        (count,) = _unpack(_COUNT, buffer, offset)
        offset += _COUNT.size
        if count * self._layout.min_size > len(buffer) - offset:
            raise ProtocolError(f"{count} records announced, room for fewer")
        unpack_from = self._layout.unpack_from
        records = []
        for _ in range(count):
            record, offset = unpack_from(buffer, offset)
            records.append(record)
        return tuple(records), offset

    def pack(self, value: tuple[T, ...]) -> bytes:
        """Count and records."""
        return _COUNT.pack(len(value)) + b"".join(map(self._layout.pack, value))


@dataclass(frozen=True, slots=True)
class Texts:
    """So many texts as an earlier field says, each as `length u32` and its bytes (UTF-8; what fails is replaced).

    Attributes:
        counted_by: the name of that field.
    """

    counted_by: str

    def unpack_from(self, buffer: bytes, offset: int, count: int) -> tuple[tuple[str, ...], int]:
        """The texts as a tuple."""
        if count * _COUNT.size > len(buffer) - offset:
            raise ProtocolError(f"{count} texts announced, room for fewer")
        texts = []
        for _ in range(count):
            data, offset = _COUNTED_BYTES.unpack_from(buffer, offset)
            texts.append(data.decode("utf-8", "replace"))
        return tuple(texts), offset

    def pack(self, value: tuple[str, ...], count: int) -> bytes:
        """Lengths and texts."""
        if len(value) != count:
            raise InvalidRequestError(f"{self.counted_by} says {count}, there are {len(value)}")
        return b"".join(_COUNTED_BYTES.pack(encode_text(text, "utf-8", 1, _ANY_LENGTH)) for text in value)


_COUNTED_BYTES = CountedBytes()
_ANY_LENGTH = 2**31


# --- the layout ---


def _unpack(layout: struct.Struct, buffer: bytes, offset: int) -> tuple[Any, ...]:
    try:
        return layout.unpack_from(buffer, offset)
    except struct.error as error:
        raise ProtocolError(f"ends too early: {layout.size} bytes wanted, {len(buffer) - offset} present") from error


class _FixedRun:
    """Fixed fields that follow each other, as one struct."""

    def __init__(self, fields: list[tuple[str, Field]]) -> None:
        self._fields = fields
        self._struct = struct.Struct("<" + "".join(field.format for _, field in fields))
        self._decoders = [(i, field.decode) for i, (_, field) in enumerate(fields) if field.decode]
        self.min_size = self._struct.size

    def unpack_from(self, buffer: bytes, offset: int, _before: list[Any]) -> tuple[Iterable[Any], int]:
        values = list(_unpack(self._struct, buffer, offset))
        for index, decode in self._decoders:
            values[index] = decode(values[index])
        return values, offset + self.min_size

    def pack(self, message: object) -> bytes:
        return b"".join(_pack_field(name, field, getattr(message, name)) for name, field in self._fields)


def _pack_field(name: str, field: Field, value: Any) -> bytes:
    try:
        return struct.pack("<" + field.format, field.encode(value) if field.encode else value)
    except _UNFIT as error:
        raise InvalidRequestError(f"{name}: {error}") from error


class _VariableField:
    """A field that brings its own codec, in the shape of a run."""

    def __init__(self, name: str, codec: Codec) -> None:
        self._name = name
        self._codec = codec
        self.min_size = codec.min_size

    def unpack_from(self, buffer: bytes, offset: int, _before: list[Any]) -> tuple[Iterable[Any], int]:
        value, end = self._codec.unpack_from(buffer, offset)
        return (value,), end

    def pack(self, message: object) -> bytes:
        try:
            return self._codec.pack(getattr(message, self._name))
        except _UNFIT as error:
            raise InvalidRequestError(f"{self._name}: {error}") from error


class _TextsField:
    """Texts that an earlier field counts, in the shape of a run."""

    min_size = 0

    def __init__(self, name: str, texts: Texts, count_at: int) -> None:
        self._name = name
        self._texts = texts
        self._count_at = count_at

    def unpack_from(self, buffer: bytes, offset: int, before: list[Any]) -> tuple[Iterable[Any], int]:
        value, end = self._texts.unpack_from(buffer, offset, before[self._count_at])
        return (value,), end

    def pack(self, message: object) -> bytes:
        try:
            return self._texts.pack(getattr(message, self._name), getattr(message, self._texts.counted_by))
        except _UNFIT as error:
            raise InvalidRequestError(f"{self._name}: {error}") from error


class Layout(Generic[T]):
    """The wire form of a message class, read from its annotations.

    Args:
        message: a dataclass or named tuple, each of whose fields is annotated with a `Field` or a `Codec`.
        replace: other codecs for some fields, for peers that write them differently.

    Attributes:
        min_size: the fewest bytes such a message takes.
        fixed_size: its size where it is always the same, else None.
    """

    def __init__(self, message: Callable[..., T], replace: Mapping[str, Codec] | None = None) -> None:
        self._message = message
        self._runs: list[_FixedRun | _VariableField | _TextsField] = []
        fixed: list[tuple[str, Field]] = []
        hints = get_type_hints(message, include_extras=True)
        names = list(hints)
        for name, hint in hints.items():
            wire = (replace or {}).get(name) or hint.__metadata__[0]
            if isinstance(wire, Field):
                fixed.append((name, wire))
                continue
            self._close(fixed)
            fixed = []
            if isinstance(wire, Texts):
                self._runs.append(_TextsField(name, wire, names.index(wire.counted_by)))
            else:
                self._runs.append(_VariableField(name, wire))
        self._close(fixed)
        self.min_size = sum(run.min_size for run in self._runs)
        self.fixed_size = self.min_size if all(isinstance(run, _FixedRun) for run in self._runs) else None

    def _close(self, fixed: list[tuple[str, Field]]) -> None:
        if fixed:
            self._runs.append(_FixedRun(fixed))

    def for_one_peer(self) -> "Layout[T]":
        """What reads the messages of one peer, in order; where that pays, it remembers what came before."""
        return self

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[T, int]:
        """The message at `offset`, and where the next one begins.

        Raises:
            ProtocolError: the bytes do not hold such a message.
        """
        values: list[Any] = []
        for run in self._runs:
            part, offset = run.unpack_from(buffer, offset, values)
            values.extend(part)
        return self._message(*values), offset

    def unpack(self, buffer: bytes) -> T:
        """The message that fills `buffer` exactly.

        Raises:
            ProtocolError: too few bytes, too many, or bytes that make no sense.
        """
        message, end = self.unpack_from(buffer, 0)
        if end != len(buffer):
            raise ProtocolError(f"{len(buffer) - end} bytes too many")
        return message

    def pack(self, message: T) -> bytes:
        """The message as bytes.

        Raises:
            InvalidRequestError: a value has no place in its field; the message names it.
        """
        return b"".join(run.pack(message) for run in self._runs)
