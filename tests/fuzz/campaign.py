"""One stream under fire: no exception, a bounded buffer, and a way back. A seed comes again as it was."""

import random
from collections import Counter
from dataclasses import dataclass, field

from cti_mqtt.cti.codes import CommandCode
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.stream import ChecksumPolicy, Event, Received, ReceivedUnknown, Skipped, Stream
from tests.cti.golden import FEEDBACK, REQUEST, TOKEN, by_name, of_direction, u32
from tests.fuzz.frames import KIB, MIB, damaged_inside, fuzzed, segments

LARGEST = {REQUEST: MIB, FEEDBACK: 16 * MIB}  # the largest frame that a role believes
_LARGE_CODE = {REQUEST: CommandCode.UPLOAD, FEEDBACK: CommandCode.CHANNELS_INFO_FEEDBACK}
BATCH = 20  # frames that arrive together
SLACK = 256  # bytes that may stay in front of what is pending


class FuzzError(AssertionError):
    """The stream did what it must never do."""


@dataclass
class Figures:
    """What happened."""

    frames: int = 0
    fed_bytes: int = 0
    skipped_bytes: int = 0
    peak_buffer_bytes: int = 0
    events: Counter[str] = field(default_factory=Counter)
    returns: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Figures") -> None:
        self.frames += other.frames
        self.fed_bytes += other.fed_bytes
        self.skipped_bytes += other.skipped_bytes
        self.peak_buffer_bytes = max(self.peak_buffer_bytes, other.peak_buffer_bytes)
        self.events += other.events
        self.returns += other.returns


class Campaign:
    """One stream, and what it is fed.

    Args:
        direction: what it receives: requests as a server, feedbacks as a client.
        seed: gives the frames, the segments and the checksum policy.
    """

    def __init__(self, direction: Direction, seed: int) -> None:
        self._direction = direction
        self._rng = random.Random(f"{direction.name} {seed}")
        self._cases = of_direction(direction)
        self._good = by_name("StopRequest" if direction is REQUEST else "StopFeedback")
        self._policy = list(ChecksumPolicy)[seed % 3]
        self.stream = Stream(direction, self._policy)
        self.figures = Figures()

    def run(self, frames: int) -> Figures:
        """Three quarters of the frames wild, one bound of silence, and the rest junk with lengths that are right."""
        sound = frames // 4
        self.wild(frames - sound)
        self.announce()
        self.find_back()
        self.find_back_at_once(sound)
        return self.figures

    def wild(self, frames: int) -> None:
        """Anything, in any pieces."""
        for start in range(0, frames, BATCH):
            count = min(BATCH, frames - start)
            data = b"".join(fuzzed(self._rng, self._direction, self._cases) for _ in range(count))
            self.figures.frames += count
            for segment in segments(self._rng, data):
                self.feed(segment)

    def announce(self) -> None:
        """The header of the largest frame that is believed; nothing of it follows."""
        length = LARGEST[self._direction] - self._direction.value
        self.feed(TOKEN + u32(length) + u32(_LARGE_CODE[self._direction]) + u32(0))

    def find_back(self) -> None:
        """One bound of silence after whatever there was, and the next frame is understood."""
        for _ in range(LARGEST[self._direction] // (64 * KIB)):
            self.feed(bytes(64 * KIB))
        self._expect_good(self.feed(self._good.frame), "after one bound of silence")
        if self.stream.pending:
            raise FuzzError(f"{self.stream.pending} bytes stay behind a sound frame")

    def find_back_at_once(self, frames: int) -> None:
        """The frame behind junk whose lengths are right is understood without waiting."""
        for _ in range(frames):
            junk = damaged_inside(self._rng, self._direction, self._cases)
            self.figures.frames += 1
            events = [event for part in segments(self._rng, junk + self._good.frame) for event in self.feed(part)]
            self._expect_good(events, "at once")

    def feed(self, data: bytes) -> list[Event]:
        """Some bytes, and a look at what they did."""
        events = self.stream.feed(data)
        figures, pending, size = self.figures, self.stream.pending, len(self.stream._buffer)
        figures.fed_bytes += len(data)
        figures.peak_buffer_bytes = max(figures.peak_buffer_bytes, size)
        for event in events:
            figures.events[_kind(event)] += 1
            if isinstance(event, Skipped):
                figures.skipped_bytes += event.size
        if pending > LARGEST[self._direction] + 2:
            raise FuzzError(f"{pending} bytes are waiting")
        if size - pending >= SLACK:
            raise FuzzError(f"{size - pending} bytes are kept that nobody needs")
        if figures.skipped_bytes + pending > figures.fed_bytes:
            raise FuzzError("more was skipped than came")
        return events

    def _expect_good(self, events: list[Event], when: str) -> None:
        if self._good.message not in [event.message for event in events if isinstance(event, Received)]:
            raise FuzzError(f"a sound frame is not understood {when}")
        self.figures.returns[when] += 1


def _kind(event: Event) -> str:
    match event:
        case Received(checksum=checksum):
            return f"message, checksum {checksum.value}"
        case ReceivedUnknown():
            return "frame of unknown code"
        case Skipped():
            return "skipped stretch"
