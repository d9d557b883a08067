"""What a server can do wrong, or just differently, as one value.

Every entry is a habit of a real server or simulator, or a thing that networks do. What each does to the bytes lives in
`wire`, what it does to a conversation in `connection`. Channels are 0-based here, commands are named as in the record:
`login`, `connect`, `channels_info`, `assign`, `start`, `stop`, `set_meta_variable` and so on.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Self

from cti_mqtt.cti.commands import COMMANDS

COMMAND_NAMES = frozenset(command.request.code.reason for command in COMMANDS)
CONTROL_NAMES = frozenset(command.request.code.reason for command in COMMANDS if command.control)
FILE_NAMES = frozenset({"browse", "download", "upload", "new_folder", "delete", "new_or_delete"})
RESULT_NAMES = CONTROL_NAMES | FILE_NAMES | {"login", "connect", "get_serial", "send_message"}  # they carry a result


LARGEST_FILE_BYTES = 256 * 1024 * 1024


class AnswerStyle(Enum):
    """How readings are answered."""

    PER_CHANNEL = "per-channel"  # one frame a channel, as v1.1 says
    ONE = "one"  # one frame with every channel that was asked for
    ALWAYS_ALL = "always-all"  # one frame with all channels, also when one was asked for: MITS 10
    FIRST_ONLY = "first-only"  # one record only: pycti's ArbinSpoofer


class ChecksumStyle(Enum):
    """Where a feedback's checksum is, and whether it is right."""

    GOOD = "good"
    MISPLACED = "misplaced"  # behind the frame, zeros at its place: pycti's ArbinSpoofer
    WRONG = "wrong"


class TextStyle(Enum):
    """What the text fields hold besides their text."""

    CLEAN = "clean"
    STALE = "stale"  # bytes of an earlier, longer text behind the NUL
    BROKEN = "broken"  # bytes that do not decode, at the beginning


class Document(Enum):
    """Whose form an answer has where the documents contradict each other."""

    V11 = "v1.1"
    V45 = "v4.5"


class UpdateAnswer(Enum):
    """How an advanced update is answered."""

    PACKET = "packet"  # one feedback for all its values, which are taken together or not at all
    CHANNEL = "channel"  # one feedback a channel


_CHUNK = re.compile(r"(?P<number>[1-9]\d*)(?::(?P<times>\d+)x)?")
_FORCED = re.compile(r"(?P<command>\w+)=(?P<code>0x[0-9a-fA-F]+|\d+)(?::(?P<amount>\d+(\.\d+)?)(?P<unit>[sx]))?")


@dataclass(frozen=True, slots=True)
class ForcedResult:
    """Answer a command with a result code instead of carrying it out.

    A forced login that is usable (1, 3) is carried out all the same; only its code changes.

    Attributes:
        command: the command's name.
        code: what its feedbacks say.
        duration_s: for how long, in real seconds, from the first request that is answered so; None for ever.
        times: how many requests; None for all.
    """

    command: str
    code: int
    duration_s: float | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        _check_names((self.command,), RESULT_NAMES)
        if not 0 <= self.code <= 0xFF:
            raise ValueError(f"a result code is 0 to 0xFF, not {self.code:#x}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `stop=0x11`, `stop=0x11:10s` (ten seconds) or `stop=0x11:3x` (three times).

        Raises:
            ValueError: it is none of these.
        """
        match = _FORCED.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not COMMAND=CODE, COMMAND=CODE:SECONDSs or COMMAND=CODE:TIMESx")
        amount, unit = match["amount"], match["unit"]
        if unit == "x" and "." in amount:
            raise ValueError(f"{amount} is not a whole number of times")
        return cls(
            match["command"],
            int(match["code"], 0),
            duration_s=float(amount) if unit == "s" else None,
            times=int(amount) if unit == "x" else None,
        )


@dataclass(frozen=True, slots=True)
class ChunkFault:
    """Something happens to the so many'th chunk of a file.

    Attributes:
        number: which chunk, from 1.
        times: how often; None: always.
    """

    number: int
    times: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `2` (always) or `2:1x` (once).

        Raises:
            ValueError: it is neither.
        """
        match = _CHUNK.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not CHUNK or CHUNK:TIMESx; chunks are counted from 1")
        return cls(int(match["number"]), int(match["times"]) if match["times"] else None)


def _check_names(names: Iterable[str], known: frozenset[str] = COMMAND_NAMES) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(sorted(known))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Everything that can be wrong; the default is a server that follows v1.1 and v4.5.

    Attributes:
        answer: how readings are answered.
        checksum: of every feedback, or of the feedbacks to `checksum_of` only.
        text: of every text field.
        units: whether BMS and SMB values have units, and SMB entries values (v4.5); v1.1 has neither.
        start_names_channel: whether a successful start or continue names its channel (captured) or says -1 (v1.1).
        advanced_answer: whether an advanced update is answered once, or once a channel.
        advanced_limit: an update within 200 ms is refused with 0x14 (v1.1) or 0x13 (v4.5, newer servers).
        calibration: a calibration that does not start is answered with 0 (v1.1) or 2 (v4.5).
        upload_feedback: the result of an upload comes last (v1.1) or first (v4.5).
        newer_browse: a directory that is none is answered with 4 instead of 3.
        first_index: what the first chunk of a download is called: 0 or 1.
        largest_file_bytes: a larger file is not given away, "too large", nor taken, "failed".
        bad_md5: this chunk of a download has a wrong MD5; of an upload it is refused with "MD5".
        cut_chunk: the connection ends in the middle of this chunk of a download, or with it instead of an answer.
        chunk_delay_s: before each chunk of a download, and before the answer to each chunk of an upload.
        picture_bytes: size of the picture in the login feedback.
        junk_bytes: bytes before each frame that belong to none.
        segment_bytes: feedbacks are written in pieces of this size; 0: as they are.
        merge: the feedbacks to all requests of one segment leave in one write, else each frame in its own.
        delay_s: before any answer; `delays_s` for some commands instead. Other requests are served meanwhile.
        record_delay_s: between the frames of one answer.
        drop: commands that are lost: neither done nor answered.
        drop_every: every so many'th request of a connection is lost; 0: none.
        mute: commands that are done, but not answered.
        first_of_segment_only: of several requests in one TCP segment, only the first arrives: ArbinSpoofer.
        unknown: commands that the server says not to know (0xBB111111).
        results: result codes that come instead of an effect.
        statuses: channel -> status shown, e.g. 99.
        nan: channels whose voltage, current, power and temperatures are no numbers; `infinite`: infinite.
        comm_failures: channels that the cycler itself has lost.
        cut_after_frames: so many frames are sent on a connection; it ends in the middle of the next. None: never.
        cut_after_requests: so many requests are served on a connection; the next ends it. None: never.

    Raises:
        ValueError: an unknown command name, or a number that makes no sense.
    """

    answer: AnswerStyle = AnswerStyle.PER_CHANNEL
    checksum: ChecksumStyle = ChecksumStyle.GOOD
    checksum_of: frozenset[str] = frozenset()
    text: TextStyle = TextStyle.CLEAN
    units: bool = True
    start_names_channel: bool = True
    picture_bytes: int = 0
    junk_bytes: int = 0
    segment_bytes: int = 0
    merge: bool = True
    delay_s: float = 0.0
    delays_s: Mapping[str, float] = field(default_factory=dict)
    record_delay_s: float = 0.0
    drop: frozenset[str] = frozenset()
    drop_every: int = 0
    mute: frozenset[str] = frozenset()
    first_of_segment_only: bool = False
    unknown: frozenset[str] = frozenset()
    results: tuple[ForcedResult, ...] = ()
    statuses: Mapping[int, int] = field(default_factory=dict)
    nan: frozenset[int] = frozenset()
    infinite: frozenset[int] = frozenset()
    comm_failures: frozenset[int] = frozenset()
    cut_after_frames: int | None = None
    cut_after_requests: int | None = None
    advanced_answer: UpdateAnswer = UpdateAnswer.PACKET
    advanced_limit: Document = Document.V11
    calibration: Document = Document.V11
    upload_feedback: Document = Document.V11
    newer_browse: bool = False
    first_index: int = 0
    largest_file_bytes: int = LARGEST_FILE_BYTES
    bad_md5: ChunkFault | None = None
    cut_chunk: ChunkFault | None = None
    chunk_delay_s: float = 0.0

    def __post_init__(self) -> None:
        _check_names((*self.checksum_of, *self.drop, *self.mute, *self.unknown, *self.delays_s))
        numbers = (
            self.picture_bytes, self.junk_bytes, self.segment_bytes, self.delay_s, *self.delays_s.values(),
            self.record_delay_s, self.drop_every, self.cut_after_frames or 0, self.cut_after_requests or 0,
            self.largest_file_bytes, self.chunk_delay_s,
        )  # fmt: skip
        if any(not 0 <= number < inf for number in numbers):
            raise ValueError("counts, sizes and delays are 0 or more")
        if any(not -0x8000 <= status <= 0x7FFF for status in self.statuses.values()):
            raise ValueError("a status is a 16-bit number")
        if self.first_index not in {0, 1}:
            raise ValueError("chunks are counted from 0 or from 1")

    def delay_of(self, command: str) -> float:
        """Seconds before a command's answer."""
        return self.delays_s.get(command, self.delay_s)


NO_FAULTS = Faults()
