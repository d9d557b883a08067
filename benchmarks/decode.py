"""How fast channel readings are decoded, beside the incumbent and beside the least that Python must do.

All sides take the same bytes, as a cycler of 16 channels sends them (1761 bytes a record, one temperature each), in
both shapes that cyclers use: all records in one frame (`all`), and a frame a record (`each`):

- `stream`: `cti_mqtt.cti.stream.Stream`, from bytes off the wire to named tuples with texts and states;
- `pycti`: pycti-arbin's `unpack`, frame by frame; only for `each`, since it reads no more than the first record of a
  frame. It looks at no checksum, and complains of auxiliaries in its log, which is switched off here: that is faster;
- `floor`: the same checksum over the same bytes, then one `struct.unpack_from` a record into one bare tuple.

Numbers differ from poll to poll as in a running test; texts repeat, as they do on a cycler. Rounds of all sides
alternate. What counts is the median of the rounds' ratios: the rates themselves depend on the machine and its load.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from plan import Plan
from pyctiarbin import Msg
from records import COUNT, RECORD, feedback
from reporting import median, medians_of_ratios

from cti_mqtt.cti.frame import CHECKSUM_SIZE, HEADER, Direction, checksum, stored_checksum
from cti_mqtt.cti.stream import Checksum, Received, Stream

CHANNELS = 16
POLLS = 64
Wire = Sequence[Sequence[bytes]]  # by poll: its frames
Decode = Callable[[Wire], int]


def decode_stream(wire: Wire) -> int:
    """Everything through the stream, a poll at a time as it comes off a socket; how many records came out."""
    stream = Stream(Direction.FEEDBACK)
    count = 0
    for frames in wire:
        for event in stream.feed(b"".join(frames)):
            if not isinstance(event, Received) or event.checksum is not Checksum.GOOD:
                raise AssertionError(f"a sound frame came out as {event}")
            count += len(event.message.records)
    return count


def decode_pycti(wire: Wire) -> int:
    """The same frames through pycti-arbin."""
    unpack = Msg.ChannelInfo.Server.unpack
    count = 0
    for frames in wire:
        for frame in frames:
            if not unpack(frame):
                raise AssertionError("a sound frame brought nothing")
            count += 1
    return count


def decode_floor(wire: Wire) -> int:
    """The least: checksum and one tuple a record."""
    unpack_from, size = RECORD.unpack_from, RECORD.size
    count = 0
    for frames in wire:
        for frame in frames:
            if checksum(memoryview(frame)[:-CHECKSUM_SIZE]) != stored_checksum(frame):
                raise AssertionError("a sound frame has a wrong checksum")
            offsets = range(HEADER.size + COUNT.size, len(frame) - CHECKSUM_SIZE, size)
            count += len([unpack_from(frame, offset) for offset in offsets])
    return count


SHAPES: dict[str, tuple[Wire, dict[str, Decode]]] = {
    "each": (
        [[feedback(range(channel, channel + 1), poll) for channel in range(CHANNELS)] for poll in range(POLLS)],
        {"stream": decode_stream, "pycti": decode_pycti, "floor": decode_floor},
    ),
    "all": (
        [[feedback(range(CHANNELS), poll)] for poll in range(POLLS)],
        {"stream": decode_stream, "floor": decode_floor},
    ),
}


def rate(decode: Decode, wire: Wire, seconds: float) -> float:
    """Records a second, over at least `seconds`."""
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        count += decode(wire)
    return count / elapsed


def measure(plan: Plan) -> dict[str, Any]:
    """Both shapes; medians, and every round."""
    shapes = {}
    logging.getLogger("pyctiarbin").setLevel(logging.CRITICAL)
    for name, (wire, sides) in SHAPES.items():
        for decode in sides.values():  # also warms up
            if decode(wire) != CHANNELS * POLLS:
                raise AssertionError("records were lost")
        rounds = [
            {side: rate(decode, wire, plan.seconds) for side, decode in sides.items()} for _ in range(plan.rounds)
        ]
        rates = {f"{side}_records_per_s": round(median(rounds, side)) for side in sides}
        shapes[name] = {**rates, **medians_of_ratios(rounds, "stream", [side for side in sides if side != "stream"])}
    return {"shapes": shapes, "record_bytes": RECORD.size, "channels": CHANNELS}


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    said = {"each": "a frame a record", "all": f"{found['channels']} records a frame"}
    text = [f"records of {found['record_bytes']} bytes, decoded per second"]
    for name, shape in found["shapes"].items():
        text += ["", f"{said[name]}:"]
        for side in ("stream", "pycti", "floor"):
            if f"{side}_records_per_s" in shape:
                ratio = "" if side == "stream" else f"   stream to {side}: ratio {shape[f'stream_to_{side}']:.3f}"
                text.append(f"  {side:<8}{shape[f'{side}_records_per_s']:>10,}{ratio}")
    return text
