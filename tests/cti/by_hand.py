"""Writing bytes by hand: the document's types, its frame, and what can be wrong with one."""

import struct
from dataclasses import dataclass
from typing import Any

from cti_mqtt.cti.frame import Direction

TOKEN = bytes([0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0x11])
REQUEST, FEEDBACK = Direction.REQUEST, Direction.FEEDBACK


def u8(value: int) -> bytes:
    return struct.pack("<B", value)


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def i16(value: int) -> bytes:
    return struct.pack("<h", value)


def i32(value: int) -> bytes:
    return struct.pack("<i", value)


def f32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def f64(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def char(text: str, size: int) -> bytes:
    return text.encode("utf-8").ljust(size, b"\0")


def wchar(text: str, size: int) -> bytes:
    return text.encode("utf-16-le").ljust(2 * size, b"\0")


def reserved(size: int) -> bytes:
    return bytes(size)


def wire_checksum(data: bytes) -> bytes:
    return u16(sum(data) % 65536)


def frame(direction: Direction, code: int, arguments: bytes) -> bytes:
    """A whole frame, by the document's table and its length rule."""
    whole = 8 + 4 + 4 + 4 + len(arguments) + 2
    length = whole - 12 if direction is REQUEST else whole
    body = TOKEN + u32(length) + u32(code) + u32(0) + arguments
    return body + wire_checksum(body)


def misplaced(good: bytes) -> bytes:
    """As ArbinSpoofer sends it: zeros at the checksum's place, the checksum behind the announced length."""
    body = good[:-2] + b"\0\0"
    return body + wire_checksum(body)


def damaged(good: bytes) -> bytes:
    """The same frame with a checksum that is wrong, and not zero."""
    stored = int.from_bytes(good[-2:], "little")
    return good[:-2] + u16((stored + 0x0101) % 65536 or 0x0202)


@dataclass(frozen=True)
class Golden:
    """A message and the bytes of its frame."""

    message: Any
    direction: Direction
    code: int
    arguments: bytes
    variant: str = ""

    @property
    def name(self) -> str:
        return type(self.message).__name__ + self.variant

    @property
    def frame(self) -> bytes:
        return frame(self.direction, self.code, self.arguments)
