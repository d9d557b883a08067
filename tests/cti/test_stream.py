"""Bytes in any pieces -> messages: what a receiver must survive."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.channels import ChannelsInfoFeedback
from cti_mqtt.cti.messages.tests import StartFeedback, StopFeedback
from cti_mqtt.cti.results import LoginResult, StartResult, StopResult
from cti_mqtt.cti.stream import (
    Checksum,
    ChecksumPolicy,
    Event,
    Received,
    ReceivedUnknown,
    Skipped,
    Stream,
    pack_message,
)
from tests.cti import golden
from tests.cti.golden import FEEDBACK, GOLDEN, REQUEST, TOKEN, Golden, by_name, damaged, frame, misplaced, u16, u32
from tests.cti.strategies import FEEDBACKS, QUICK, REQUESTS, split

STRICT, WARN, IGNORE = ChecksumPolicy.STRICT, ChecksumPolicy.WARN, ChecksumPolicy.IGNORE
GOOD, MISPLACED, WRONG = Checksum.GOOD, Checksum.MISPLACED, Checksum.WRONG
KIB, MIB = 1024, 1024 * 1024
CHANNELS, LOGIN, STOP = 0xEEBA0003, 0xEEBA0001, 0xBB130001

STOP_9, START_5 = StopFeedback(9, StopResult.OK), StartFeedback(5, StartResult.OK)
STOP_FRAME, START_FRAME = pack_message(STOP_9), pack_message(START_5)

JUNK = {
    "nothing": b"",
    "a byte": b"\0",
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a checksum behind": b"\x12\x34",
    "the token's beginning": b"\xdd\xdd\xdd",
    "too many token bytes": b"\xdd" * 12,
    "half a token": TOKEN[:4] + b"\0",
    "a token alone": TOKEN,
    "tokens": TOKEN * 5,
    "a header that cannot be": TOKEN + u32(7) + u32(STOP) + u32(0),
    "zeros": bytes(100),
}


def feed(stream: Stream, *segments: bytes) -> list[Event]:
    return [event for segment in segments for event in stream.feed(segment)]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def received(events: list[Event]) -> list[tuple[Any, Checksum]]:
    return [(event.message, event.checksum) for event in events if isinstance(event, Received)]


def messages(events: list[Event]) -> list[Any]:
    return [message for message, _ in received(events)]


def skipped(events: list[Event]) -> int:
    return sum(event.size for event in events if isinstance(event, Skipped))


# --- segments ---


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
class TestEveryMessage:
    """One frame, in every disguise that TCP and sloppy peers can give it."""

    def test_whole(self, case: Golden) -> None:
        stream = Stream(case.direction)
        assert stream.feed(case.frame) == [Received(case.message, GOOD)]
        assert stream.pending == 0

    def test_byte_by_byte(self, case: Golden) -> None:
        stream = Stream(case.direction)
        for index, byte in enumerate(byte_by_byte(case.frame)[:-1]):
            assert stream.feed(byte) == []
            assert stream.pending == index + 1
        assert stream.feed(case.frame[-1:]) == [Received(case.message, GOOD)]

    @pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
    def test_between_junk(self, case: Golden, junk: bytes) -> None:
        stream = Stream(case.direction)
        events = stream.feed(junk + case.frame + junk + case.frame + junk)
        assert messages(events) == [case.message] * 2
        assert skipped(events) + stream.pending == 3 * len(junk)
        assert stream.pending < 20

    def test_several_in_one_segment(self, case: Golden) -> None:
        assert Stream(case.direction).feed(case.frame * 3) == [Received(case.message, GOOD)] * 3


@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name)
def test_all_messages_byte_by_byte_with_junk_between(direction: Direction) -> None:
    cases = golden.of_direction(direction)
    stream = Stream(direction)
    events = feed(stream, *byte_by_byte(b"".join(b"junk" + case.frame for case in cases)))
    assert messages(events) == [case.message for case in cases]
    assert skipped(events) == 4 * len(cases)


@pytest.mark.parametrize(
    ("direction", "strategies"), [(REQUEST, REQUESTS), (FEEDBACK, FEEDBACKS)], ids=["requests", "feedbacks"]
)
@QUICK
@given(data=st.data())
def test_any_messages_in_any_segments(
    direction: Direction, strategies: dict[type[Any], Any], data: st.DataObject
) -> None:
    sent = data.draw(st.lists(st.one_of(*strategies.values()), max_size=4))
    stream = Stream(direction, data.draw(st.sampled_from(ChecksumPolicy)))
    segments = data.draw(split(b"".join(map(pack_message, sent))))
    assert feed(stream, *segments) == [Received(message, GOOD) for message in sent]
    assert stream.pending == 0


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_the_other_role_does_not_believe_it(case: Golden) -> None:
    other = REQUEST if case.direction is FEEDBACK else FEEDBACK
    stream = Stream(other)
    assert received(stream.feed(case.frame + bytes(70 * KIB))) == []
    assert stream.pending < 20


def test_no_bytes_no_events() -> None:
    assert Stream(FEEDBACK).feed(b"") == []


def test_what_is_skipped_is_reported_in_order() -> None:
    events = Stream(FEEDBACK).feed(b"one" + STOP_FRAME + b"three" + START_FRAME + bytes(30))
    assert events == [
        Skipped(3, "no frame begins here"),
        Received(STOP_9, GOOD),
        Skipped(5, "no frame begins here"),
        Received(START_5, GOOD),
        Skipped(23, "no frame begins here"),  # the last seven could be the beginning of a token
    ]


# --- checksums ---


def unchanged(data: bytes) -> bytes:
    return data


def zeroed(data: bytes) -> bytes:
    return data[:-2] + b"\0\0"


DAMAGE = {"good": unchanged, "misplaced": misplaced, "wrong": damaged, "zero": zeroed}


@pytest.mark.parametrize(
    ("policy", "damage", "verdict"),
    [
        (STRICT, "good", GOOD),
        (STRICT, "misplaced", None),
        (STRICT, "wrong", None),
        (STRICT, "zero", None),
        *[
            (policy, damage, verdict)
            for policy in (WARN, IGNORE)
            for damage, verdict in (("good", GOOD), ("misplaced", MISPLACED), ("wrong", WRONG), ("zero", WRONG))
        ],
    ],
    ids=lambda value: getattr(value, "value", str(value)),
)
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_checksum_policies(case: Golden, policy: ChecksumPolicy, damage: str, verdict: Checksum | None) -> None:
    stream = Stream(case.direction, policy)
    data = DAMAGE[damage](case.frame)
    events = stream.feed(data + case.frame)
    wanted = [(case.message, verdict), (case.message, GOOD)]
    assert received(events) == [pair for pair in wanted if pair[1] is not None]
    assert skipped(events) == (0 if verdict else len(data))
    assert stream.pending == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (damaged(STOP_FRAME), "wrong checksum"),
        (misplaced(STOP_FRAME), "checksum in the wrong place"),
        (b"junk", "no frame begins here"),
        (frame(FEEDBACK, STOP, bytes(105)), "a frame of 127 bytes cannot have code 0xbb130001"),
        (STOP_FRAME[:100], "a frame was cut short by the next one"),
        (frame(FEEDBACK, CHANNELS, u32(1)), "code 0xeeba0003 does not parse: 1 records announced, room for fewer"),
    ],
    ids=["wrong", "misplaced", "junk", "size", "cut", "content"],
)
def test_reason_is_the_cause_and_not_its_consequence(data: bytes, reason: str) -> None:
    events = Stream(FEEDBACK, STRICT).feed(data + STOP_FRAME + STOP_FRAME)
    assert events == [Skipped(len(data), reason), Received(STOP_9, GOOD), Received(STOP_9, GOOD)]


@pytest.mark.parametrize("policy", [WARN, IGNORE], ids=lambda policy: policy.value)
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_misplaced_checksums_byte_by_byte(case: Golden, policy: ChecksumPolicy) -> None:
    """Only the first one's verdict has to come before its two bytes behind; nothing counts as junk."""
    stream = Stream(case.direction, policy)
    events = feed(stream, *byte_by_byte(misplaced(case.frame) * 3))
    assert events == [Received(case.message, verdict) for verdict in (WRONG, MISPLACED, MISPLACED)]
    assert stream.pending == 0


@pytest.mark.parametrize("cut", [0, 1], ids=["both bytes later", "the second byte later"])
def test_trailing_checksum_in_a_later_segment(cut: int) -> None:
    stream = Stream(FEEDBACK)
    data = misplaced(STOP_FRAME)
    first, rest = data[: 128 + cut], data[128 + cut :]
    assert stream.feed(first) == [Received(STOP_9, WRONG)]
    assert stream.feed(rest) == []
    assert stream.feed(START_FRAME) == [Received(START_5, GOOD)]
    assert stream.pending == 0
    # By now it is known to misplace them, so that its next frame waits for the two bytes.
    assert stream.feed(first) == []
    assert stream.feed(rest) == [Received(STOP_9, MISPLACED)]


def test_no_trailing_checksum_after_all() -> None:
    stream = Stream(FEEDBACK)
    assert stream.feed(STOP_FRAME[:-2] + b"\0\0") == [Received(STOP_9, WRONG)]
    assert stream.feed(START_FRAME) == [Received(START_5, GOOD)]
    # It never was known to misplace them: no waiting.
    assert stream.feed(STOP_FRAME[:-2] + b"\0\0") == [Received(STOP_9, WRONG)]


def test_misplaced_means_zeros_at_its_place() -> None:
    stream = Stream(FEEDBACK)
    stream.feed(misplaced(STOP_FRAME))
    data = damaged(STOP_FRAME)
    assert stream.feed(data) == [Received(STOP_9, WRONG)]  # without waiting for two more bytes
    assert received(stream.feed(data + STOP_FRAME[-2:] + START_FRAME)) == [(STOP_9, WRONG), (START_5, GOOD)]


def test_known_to_misplace_but_not_this_time() -> None:
    stream = Stream(FEEDBACK)
    stream.feed(misplaced(STOP_FRAME))
    assert stream.feed(STOP_FRAME[:-2] + b"\0\0") == []
    assert stream.feed(START_FRAME) == [Received(STOP_9, WRONG), Received(START_5, GOOD)]


def test_trailing_bytes_of_a_frame_that_was_not_taken_count_for_nothing() -> None:
    stream = Stream(FEEDBACK, STRICT)
    zero = STOP_FRAME[:-2] + b"\0\0"
    body_sum = u16(sum(zero) % 65536)
    assert stream.feed(zero) == [Skipped(121, "wrong checksum")]  # the last seven stay, as ever
    assert stream.feed(body_sum + STOP_FRAME) == [Skipped(9, "no frame begins here"), Received(STOP_9, GOOD)]


def login_with_checksum(wanted: int) -> bytes:
    """A login feedback whose picture makes the checksum this number."""
    rest = (wanted - sum(frame(FEEDBACK, LOGIN, golden.LOGIN_FEEDBACK_FIXED + u32(400) + bytes(400))[:-2])) % 65536
    picture = bytes([255] * (rest // 255) + [rest % 255]).ljust(400, b"\0")
    data = frame(FEEDBACK, LOGIN, golden.LOGIN_FEEDBACK_FIXED + u32(400) + picture)
    assert data.endswith(u16(wanted))
    return data


def test_rejected_frame_leaves_no_trailing_checksum_to_look_for() -> None:
    """The checksum that could come behind looks like the token's own bytes here, which must not be taken for it."""
    data = zeroed(login_with_checksum(0xDDDD))
    stream = Stream(FEEDBACK, STRICT)
    assert stream.feed(data) == [Skipped(len(data) - 7, "wrong checksum")]
    assert not stream._misplaces


def test_checksum_that_really_is_zero() -> None:
    data = login_with_checksum(0)
    ((message, verdict),) = received(Stream(FEEDBACK).feed(data))
    assert message.result is LoginResult.SUCCESS
    assert verdict is GOOD


def test_token_inside_a_sound_frame_is_content() -> None:
    picture = TOKEN + u32(128) + u32(STOP) + u32(0) + STOP_FRAME
    data = frame(FEEDBACK, LOGIN, golden.LOGIN_FEEDBACK_FIXED + u32(len(picture)) + picture)
    for segments in ([data], byte_by_byte(data)):
        (message,) = messages(feed(Stream(FEEDBACK), *segments))
        assert message.picture == picture


# --- frames cut short ---


@pytest.mark.parametrize("policy", ChecksumPolicy, ids=lambda policy: policy.value)
@pytest.mark.parametrize("how", ["whole", "byte by byte"])
@pytest.mark.parametrize("missing", [*range(1, 12), 50, 107, 108, 119, 127])
def test_truncated_frame_then_whole_ones(missing: int, how: str, policy: ChecksumPolicy) -> None:
    data = STOP_FRAME[:-missing] + START_FRAME * 2
    segments = [data] if how == "whole" else byte_by_byte(data)
    stream = Stream(FEEDBACK, policy)
    events = feed(stream, *segments)
    good = [message for message, verdict in received(events) if verdict is GOOD]
    assert good == [START_5, START_5]
    assert stream.pending == 0
    if how == "whole":
        assert received(events) == [(START_5, GOOD)] * 2
        assert skipped(events) == 128 - missing


@pytest.mark.parametrize("missing", range(1, 8))
def test_truncated_frame_that_does_not_parse_byte_by_byte(missing: int) -> None:
    whole = by_name("ChannelsInfoFeedback-extras").frame
    cut = whole[: 24 + 1753 + 20] + whole[24 + 1753 + 20 + missing :]  # counts that make no sense any more
    events = feed(Stream(FEEDBACK), *byte_by_byte(cut + STOP_FRAME * 2))
    assert received(events) == [(STOP_9, GOOD)] * 2
    assert skipped(events) == len(cut)


@pytest.mark.parametrize("tail", [b"\xdd\xdd", b"\x01\xdd"], ids=["DD DD", "01 DD"])
def test_wrong_checksum_that_looks_like_a_token_begins(tail: bytes) -> None:
    stream = Stream(FEEDBACK)
    assert stream.feed(STOP_FRAME[:-2] + tail) == [Received(STOP_9, WRONG)]
    events = stream.feed(START_FRAME)
    assert messages(events) == [START_5]
    assert skipped(events) == tail.count(b"\xdd")


def test_large_frame_cut_short_is_left_behind_within_its_bound() -> None:
    stream = Stream(FEEDBACK)
    whole = by_name("ChannelsInfoFeedback-extras").frame
    events = feed(stream, whole[:-1000], *[STOP_FRAME] * 20)
    assert messages(events) == [STOP_9] * 20
    assert skipped(events) == len(whole) - 1000


# --- sizes ---

HUGE = 0xFFFF_FFFF
SIZES = [
    *[(FEEDBACK, STOP, size, size == 128) for size in (0, 12, 21, 22, 127, 128, 129, 64 * KIB, HUGE)],
    *[(FEEDBACK, LOGIN, size, 8678 <= size <= 4 * MIB) for size in (0, 8677, 8678, 8679, 4 * MIB, 4 * MIB + 1, HUGE)],
    *[(FEEDBACK, CHANNELS, size, 26 <= size <= 16 * MIB) for size in (0, 25, 26, 1779, 16 * MIB, 16 * MIB + 1, HUGE)],
    *[(FEEDBACK, 0x12345678, size, 22 <= size <= 64 * KIB) for size in (0, 21, 22, 64 * KIB, 64 * KIB + 1, HUGE)],
    *[(REQUEST, 0xBB310001, size, size == 128) for size in (12, 127, 128, 129, HUGE)],
    *[(REQUEST, 0xBB320004, size, 170 <= size <= 64 * KIB) for size in (12, 169, 170, 171, 64 * KIB, 64 * KIB + 1)],
    *[(REQUEST, 0xEEAB0001, size, size == 86) for size in (12, 74, 85, 86, 87, HUGE)],
    *[(REQUEST, 0x12345678, size, 22 <= size <= 64 * KIB) for size in (12, 21, 22, 64 * KIB, 64 * KIB + 1, HUGE)],
]


@pytest.mark.parametrize(
    ("direction", "code", "size", "believed"),
    [pytest.param(*row, id=f"{row[0].name}-{row[1]:x}-{row[2]}") for row in SIZES],
)
def test_sizes_that_are_believed(direction: Direction, code: int, size: int, believed: bool) -> None:
    """A frame that can be is waited for; else the search goes on from the next byte, and nothing is kept."""
    header = TOKEN + u32(size - 12 if direction is REQUEST else size) + u32(code) + u32(0)
    stream = Stream(direction, STRICT)
    events = stream.feed(header)
    if believed:
        assert (events, stream.pending) == ([], 20)
        return
    assert (skipped(events), stream.pending) == (1, 19)
    after = by_name("StopRequest") if direction is REQUEST else by_name("StopFeedback")
    assert messages(stream.feed(after.frame)) == [after.message]


def test_search_goes_on_inside_a_frame_of_the_wrong_size() -> None:
    inside = frame(FEEDBACK, STOP, START_FRAME + bytes(50))
    events = Stream(FEEDBACK).feed(inside)
    assert messages(events) == [START_5]


@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name)
def test_unknown_code(direction: Direction) -> None:
    whole = frame(direction, 0x12345678, b"whatever")
    whole = whole[:16] + u32(5) + whole[20:-2]
    whole += golden.wire_checksum(whole)
    stream = Stream(direction)
    assert stream.feed(whole + misplaced(whole)) == [ReceivedUnknown(0x12345678, 5)] * 2
    (event,) = Stream(direction, IGNORE).feed(damaged(whole))
    assert event == Skipped(len(whole) - 7, "wrong checksum")


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [("good", GOOD), ("misplaced", MISPLACED), ("wrong", WRONG)],
    ids=lambda value: str(value)[:9],
)
def test_content_that_does_not_parse_is_skipped(damage: str, verdict: Checksum) -> None:
    data = DAMAGE[damage](frame(FEEDBACK, CHANNELS, u32(1) + golden.RECORD_FIXED))
    stream = Stream(FEEDBACK)
    events = stream.feed(data + STOP_FRAME)
    assert received(events) == [(STOP_9, GOOD)]
    assert skipped(events) == len(data)
    assert stream.pending == 0


def test_length_mutated_to_every_small_number() -> None:
    for length in range(400):
        stream = Stream(FEEDBACK)
        mutated = STOP_FRAME[:8] + u32(length) + STOP_FRAME[12:]
        assert messages(stream.feed(mutated + START_FRAME * 4)[-4:])[-3:] == [START_5] * 3, length


# --- much ---


def process_time_of(stream: Stream, data: bytes, step: int) -> tuple[list[Event], float]:
    start = time.process_time()
    events = feed(stream, *[data[index : index + step] for index in range(0, len(data), step)])
    return events, time.process_time() - start


def largest_frame() -> bytes:
    """A frame of exactly 16 MiB, the largest that is believed."""
    record = golden.RECORD_FIXED + golden.NO_COUNTS
    count = (16 * MIB - 26) // len(record)
    rest = 16 * MIB - 26 - count * len(record)
    padding = golden.NO_COUNTS[:24] + u16(1) + u16(0) + u32(1) + golden.f64(1) + b"u" * (rest - 13) + b"\0"
    return frame(FEEDBACK, CHANNELS, u32(count) + record * (count - 1) + golden.RECORD_FIXED + padding)


def test_largest_frame_in_small_pieces() -> None:
    data = largest_frame()
    assert len(data) == 16 * MIB
    stream = Stream(FEEDBACK)
    events, seconds = process_time_of(stream, data, KIB)
    (message,) = messages(events)
    assert isinstance(message, ChannelsInfoFeedback)
    assert len(message.records) == (16 * MIB - 26) // 1753
    assert stream.pending == 0
    assert seconds < 10


def test_large_frame_byte_by_byte() -> None:
    record = golden.RECORD_FIXED + golden.NO_COUNTS
    data = frame(FEEDBACK, CHANNELS, u32(100) + record * 100)
    events, seconds = process_time_of(Stream(FEEDBACK), data, 1)
    assert len(messages(events)) == 1
    assert seconds < 5


def header(size: int, code: int) -> bytes:
    return TOKEN + u32(size) + u32(code) + u32(0)


HOSTILE = {
    "tokens": TOKEN,
    "token bytes": b"\xdd",
    "zeros": b"\0",
    "headers of large frames": header(MIB // 2, CHANNELS),
    "headers of large frames, zeros behind": header(MIB // 2, CHANNELS) + b"\0\0",
    "headers of largest frames": header(16 * MIB, CHANNELS),
    "headers of login frames": header(MIB // 2, LOGIN),
    "headers of unknown frames": header(64 * KIB, 77),
    "headers of changing frames": header(MIB // 2, CHANNELS) + header(64 * KIB, 77) + header(MIB // 4, LOGIN),
    "frames cut": STOP_FRAME[:-1],
    "frames of the wrong size": frame(FEEDBACK, STOP, b""),
    "sound frames that do not parse": frame(FEEDBACK, CHANNELS, u32(5)),
}


@pytest.mark.parametrize(("step", "policy"), [(KIB, STRICT), (MIB, WARN)], ids=["in KiB, strict", "at once, warn"])
@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_cost_linear_time(pattern: bytes, step: int, policy: ChecksumPolicy) -> None:
    """What makes a simple receiver sum, copy or search the same bytes again and again: 20 s, not 0.2."""
    data = pattern * (768 * KIB // len(pattern))
    stream = Stream(FEEDBACK, policy)
    events, seconds = process_time_of(stream, data, step)
    assert seconds < 5
    assert len(events) <= 2 * len(data) // len(pattern) + 2
    assert stream.pending <= len(data)


def test_skipped_junk_is_not_kept() -> None:
    stream = Stream(FEEDBACK)
    for _ in range(100):
        stream.feed(bytes(100_000))
        assert stream.pending < 20
        assert len(stream._buffer) < 300
    assert messages(stream.feed(STOP_FRAME)) == [STOP_9]


def test_buffer_of_a_long_connection_does_not_grow() -> None:
    stream = Stream(FEEDBACK)
    for index in range(3000):
        segment = STOP_FRAME[index % 128 :] + STOP_FRAME[: index % 128]
        stream.feed(segment)
        assert len(stream._buffer) < 2 * 128 + 256
        assert len(stream._sums._before) < 5
