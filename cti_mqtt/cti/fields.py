"""Fields of fixed size: numbers, flags, texts and arrays, as a message's annotations name them. Little-endian.

Source: ArbinCTI Protocol v1.1, "Message format".
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from cti_mqtt.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Field:
    """A field of fixed size: one struct item and, where needed, two conversions.

    `encode` raises InvalidRequestError for a value that has no place in the field.
    """

    item: str
    decode: Callable[[Any], Any] | None = None
    encode: Callable[[Any], Any] | None = None
    reserved: int = 0

    @property
    def format(self) -> str:
        """The struct format, unused bytes included."""
        return self.item + (f"{self.reserved}x" if self.reserved else "")


def number(
    item: str, kind: Callable[[int], Any] | None = None, *, plain: Callable[[Any], int] = int, reserved: int = 0
) -> Field:
    """An integer or float; `kind` (an enum, say) is what it stands for, `plain` the way back."""
    return Field(item, kind, plain if kind else None, reserved)


def flag(item: str = "B", *, reserved: int = 0) -> Field:
    """A truth value: 1 or 0; any number but 0 counts as true."""
    return Field(item, bool, int, reserved)


def raw(size: int, *, reserved: int = 0) -> Field:
    """Exactly `size` bytes."""

    def encode(value: bytes) -> bytes:
        if len(value) != size:
            raise InvalidRequestError(f"needs exactly {size} bytes, not {len(value)}")
        return value

    return Field(f"{size}s", None, encode, reserved)


def array(item: str, length: int, *, reserved: int = 0) -> Field:
    """A tuple of exactly `length` numbers."""
    inner = struct.Struct(f"<{length}{item}")

    def encode(values: tuple[float, ...]) -> bytes:
        if len(values) != length:
            raise InvalidRequestError(f"needs exactly {length} numbers, not {len(values)}")
        return inner.pack(*values)

    return Field(f"{inner.size}s", inner.unpack, encode, reserved)


def char(size: int, *, may_fill: bool = False, reserved: int = 0) -> Field:
    """Text in `size` bytes of UTF-8, NUL-padded; the last byte stays NUL unless it `may_fill` them all."""
    room = size if may_fill else size - 1
    return Field(f"{size}s", _decode_char, lambda text: encode_text(text, "utf-8", 1, room), reserved)


def wchar(size: int, *, reserved: int = 0) -> Field:
    """Text in `size` UTF-16 units (2 * size bytes), NUL-padded; the last unit stays NUL."""
    return Field(f"{2 * size}s", _decode_wchar, lambda text: encode_text(text, "utf-16-le", 2, size - 1), reserved)


@lru_cache(maxsize=8192)
def _decode_char(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


@lru_cache(maxsize=8192)
def _decode_wchar(data: bytes) -> str:
    return data.decode("utf-16-le", "replace").split("\0", 1)[0]


def encode_text(text: str, encoding: str, unit: int, room: int) -> bytes:
    """Text as bytes, without its NUL: at most `room` units of `unit` bytes.

    Raises:
        InvalidRequestError: it has no place there, or would not come back as it was.
    """
    if "\0" in text:
        raise InvalidRequestError("text must not contain a NUL character")
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError as error:
        # Without its cause, which holds the text: it can be a password.
        raise InvalidRequestError(f"text is not valid Unicode: {error.reason}") from None
    if len(data) > room * unit:
        raise InvalidRequestError(f"text is too long: {len(data) // unit} units, at most {room} fit")
    return data


U8 = Annotated[int, number("B")]
U16 = Annotated[int, number("H")]
U32 = Annotated[int, number("I")]
I16 = Annotated[int, number("h")]
I32 = Annotated[int, number("i")]
F32 = Annotated[float, number("f")]
F64 = Annotated[float, number("d")]
