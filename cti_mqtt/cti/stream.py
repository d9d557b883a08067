"""Bytes in any pieces -> messages, for both ends of a connection.

A peer that misbehaves costs a skipped stretch of bytes, never an exception and never more memory than one frame's
bound. What is skipped is reported as an event.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from cti_mqtt.cti.commands import BY_CLASS, BY_CODE, DEFAULT_BOUND, MessageType
from cti_mqtt.cti.frame import (
    CHECKSUM_SIZE,
    HEADER,
    OVERHEAD,
    TOKEN,
    Direction,
    RunningSums,
    pack_frame,
)
from cti_mqtt.cti.layout import Layout
from cti_mqtt.errors import InvalidRequestError, ProtocolError


class ChecksumPolicy(Enum):
    """What to do with a frame whose checksum does not match."""

    STRICT = "strict"  # skip it
    WARN = "warn"  # take it; the owner of the stream says so in the log
    IGNORE = "ignore"  # take it silently


class Checksum(Enum):
    """What a frame's checksum says."""

    GOOD = "good"
    MISPLACED = "misplaced"  # right, but behind the frame, zeros at its place: a habit of some servers
    WRONG = "wrong"


class Received(NamedTuple):
    """A message arrived; a named tuple, since there may be one for each channel of each poll."""

    message: Any
    checksum: Checksum


@dataclass(frozen=True, slots=True)
class ReceivedUnknown:
    """A sound frame with a command code that this side does not know."""

    code: int
    extended: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """Bytes that made no message."""

    size: int
    reason: str


Event = Received | ReceivedUnknown | Skipped


def pack_message(message: Any) -> bytes:
    """A message as a whole frame.

    Raises:
        InvalidRequestError: a value has no place in its field, or the whole is more than the peer believes.
    """
    direction, message_type = BY_CLASS[type(message)]
    frame = pack_frame(direction, message_type.code, message_type.layout.pack(message))
    if not message_type.believes(len(frame)):
        raise InvalidRequestError(f"a frame of {len(frame)} bytes is too large: at most {message_type.bound} are taken")
    return frame


class Stream:
    """One direction of one connection.

    Args:
        receives: what the peer sends.
        policy: what to do with wrong checksums.
    """

    def __init__(self, receives: Direction, policy: ChecksumPolicy = ChecksumPolicy.WARN) -> None:
        self._types = BY_CODE[receives]
        self._uncounted = receives.value  # bytes of a frame that its length leaves out
        self._policy = policy
        self._buffer = bytearray()
        self._sums = RunningSums(self._buffer)
        self._position = 0
        self._wanted = HEADER.size  # how many bytes must be there before looking again makes sense
        self._trailer: bytes | None = None  # what a misplaced checksum behind the last frame would be
        self._misplaces = False
        self._skipped = 0
        self._reason = ""
        self._layouts: dict[int, Layout[Any]] = {}  # by code; some remember what this peer sent before

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete, in order."""
        self._buffer += data
        events: list[Event] = []
        while len(self._buffer) - self._position >= self._wanted:
            event = self._next()
            if event is not None:
                if self._skipped:
                    self._report_skipped(events)
                events.append(event)
        if self._skipped:
            self._report_skipped(events)
        self._position -= self._sums.discard(self._position)
        return events

    def _report_skipped(self, events: list[Event]) -> None:
        events.append(Skipped(self._skipped, self._reason))
        self._skipped = 0

    def _skip_to(self, position: int, reason: str) -> None:
        if not self._skipped:
            self._reason = reason  # what follows is its consequence
        self._skipped += position - self._position
        self._position = position
        self._wanted = HEADER.size
        self._trailer = None

    def _next(self) -> Event | None:
        """One step through the buffer: an event, or None where there is nothing to say yet."""
        if self._trailer is not None:
            self._drop_trailer(self._trailer)
            if self.pending < HEADER.size:
                return None
        if not self._buffer.startswith(TOKEN, self._position) and not self._at_token():
            return None
        _, length, code, extended = HEADER.unpack_from(self._buffer, self._position)
        size = length + self._uncounted
        message_type = self._types.get(code)
        if not (message_type.believes(size) if message_type else OVERHEAD <= size <= DEFAULT_BOUND):
            self._skip_to(self._position + 1, f"a frame of {size} bytes cannot have code {code:#010x}")
            return None
        end = self._position + size
        if len(self._buffer) < end:
            self._wanted = size
            return None
        verdict = self._verify(end)
        if verdict is None or (verdict is Checksum.WRONG and not self._acceptable(end, message_type)):
            return None
        return self._take(end, message_type, verdict, code, extended)

    def _drop_trailer(self, trailer: bytes) -> None:
        end = self._position + CHECKSUM_SIZE
        if self._buffer[self._position : end] == trailer:
            self._misplaces = True
            self._position = end
        self._trailer = None

    def _at_token(self) -> bool:
        """Move to the next token; whether a whole header is there."""
        start = self._buffer.find(TOKEN, self._position)
        if start < 0:
            self._skip_to(max(self._position, len(self._buffer) - len(TOKEN) + 1), "no frame begins here")
            return False
        if start > self._position:
            self._skip_to(start, "no frame begins here")
        return len(self._buffer) - self._position >= HEADER.size

    def _verify(self, end: int) -> Checksum | None:
        """What the checksum of the frame up to `end` says; None while two more bytes must come to tell."""
        body_end = end - CHECKSUM_SIZE
        stored = int.from_bytes(self._buffer[body_end:end], "little")
        expected = self._sums.between(self._position, body_end)
        if stored == expected:
            return Checksum.GOOD
        if stored != 0:
            return Checksum.WRONG
        trailer = expected.to_bytes(CHECKSUM_SIZE, "little")
        behind = self._buffer[end : end + CHECKSUM_SIZE]
        if behind == trailer:
            self._misplaces = True
            return Checksum.MISPLACED
        if len(behind) == CHECKSUM_SIZE:
            return Checksum.WRONG
        if self._misplaces:
            self._wanted = end + CHECKSUM_SIZE - self._position
            return None
        self._trailer = trailer
        return Checksum.WRONG

    def _acceptable(self, end: int, message_type: MessageType | None) -> bool:
        """Whether to take a frame with a wrong checksum; if not, it is skipped."""
        inner = self._buffer.find(TOKEN, self._position + 1, end + len(TOKEN) - 1)
        if inner > 0:
            self._skip_to(inner, "a frame was cut short by the next one")
            return False
        if message_type is None or self._policy is ChecksumPolicy.STRICT:
            self._skip_to(self._position + 1, "wrong checksum")
            return False
        return True

    def _take(
        self, end: int, message_type: MessageType | None, verdict: Checksum, code: int, extended: int
    ) -> Event | None:
        if verdict is Checksum.MISPLACED and self._policy is ChecksumPolicy.STRICT:
            self._skip_to(end + CHECKSUM_SIZE, "checksum in the wrong place")
            return None
        event: Event
        if message_type is None:
            event = ReceivedUnknown(code, extended)
        else:
            arguments = bytes(memoryview(self._buffer)[self._position + HEADER.size : end - CHECKSUM_SIZE])
            try:
                event = Received(self._layout(code, message_type).unpack(arguments), verdict)
            except ProtocolError as error:
                after = self._position + 1 if verdict is Checksum.WRONG else end
                self._skip_to(after, f"code {code:#010x} does not parse: {error}")
                return None
        self._position = end if verdict is Checksum.GOOD else self._end_of_taken(end, verdict)
        self._wanted = HEADER.size
        return event

    def _layout(self, code: int, message_type: MessageType) -> Layout[Any]:
        if code not in self._layouts:
            self._layouts[code] = message_type.layout.for_one_peer()
        return self._layouts[code]

    def _end_of_taken(self, end: int, verdict: Checksum) -> int:
        """Where the bytes of a frame that was taken end, where its checksum is not as it should be."""
        if verdict is Checksum.MISPLACED:
            return end + CHECKSUM_SIZE
        # If it lacks a few bytes, its last ones are the beginning of the next token.
        tail = self._buffer[end - len(TOKEN) + 1 : end]
        return end - len(tail) + len(tail.rstrip(TOKEN[:1]))
