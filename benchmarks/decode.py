"""How fast channel readings are decoded, beside the least that Python must do for the same bytes.

Both sides take the same frames, each with the readings of 16 channels (1761 bytes a record, one temperature each):

- `stream`: `cti_mqtt.cti.stream.Stream`, from bytes off the wire to named tuples with texts and states;
- `floor`: the same checksum over the same bytes, then one `struct.unpack_from` a record into one bare tuple.

Numbers differ from frame to frame as in a running test; texts repeat, as they do on a cycler. Rounds of both sides
alternate. What counts is the median of the rounds' ratios: the rates themselves depend on the machine and its load.

Run it with `make bench`, or `python benchmarks/decode.py --json`.
"""

import json
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from reporting import machine, machine_line, parsed, parser

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.frame import CHECKSUM_SIZE, HEADER, Direction, checksum, stored_checksum
from cti_mqtt.cti.messages.channels import AuxReading, ChannelRecord, ChannelsInfoFeedback, Extras
from cti_mqtt.cti.stream import Checksum, Received, Stream, pack_message

CHANNELS = 16
FRAMES = 64
# Written out by hand, so that the floor owes nothing to the project's layout: fixed part, counts, one auxiliary.
RECORD = struct.Struct("<IhB400s144s100s64s144s400s400sHdd12f14Hff")
COUNT_SIZE = 4


def frames() -> list[bytes]:
    """Successive answers to "all channels"."""
    return [
        pack_message(ChannelsInfoFeedback(tuple(_record(channel, poll) for channel in range(CHANNELS))))
        for poll in range(FRAMES)
    ]


def _record(channel: int, poll: int) -> ChannelRecord:
    voltage, current = 3.6 + 0.001 * poll + 0.01 * channel, 1.5
    return ChannelRecord(
        channel=channel,
        status=ChannelStatus.CHARGE,
        comm_failure=False,
        schedule="CCCV.sdx",
        test_name=f"cell-{channel}",
        exit_condition="N/A",
        step_and_cycle="[1] 2: CC, C-Rate",
        barcode=f"B{channel:06}",
        can_config="",
        smb_config="",
        master_channel=channel,
        test_time=60.0 + poll,
        step_time=30.0 + poll,
        voltage=voltage,
        current=current,
        power=voltage * current,
        charge_capacity=0.0004 * poll,
        discharge_capacity=0.0,
        charge_energy=0.0015 * poll,
        discharge_energy=0.0,
        internal_resistance=0.02,
        dvdt=0.001,
        acr=0.0,
        aci=0.0,
        aci_phase=0.0,
        extras=Extras({"temperature": (AuxReading(25.0 + 0.01 * poll, 0.01),)}),
    )


def decode_stream(wire: Sequence[bytes]) -> int:
    """Everything through the stream; how many records came out."""
    stream = Stream(Direction.FEEDBACK)
    count = 0
    for frame in wire:
        for event in stream.feed(frame):
            if not isinstance(event, Received) or event.checksum is not Checksum.GOOD:
                raise AssertionError(f"a sound frame came out as {event}")
            count += len(event.message.records)
    return count


def decode_floor(wire: Sequence[bytes]) -> int:
    """The least: checksum and one tuple a record."""
    unpack_from, size = RECORD.unpack_from, RECORD.size
    count = 0
    for frame in wire:
        if checksum(memoryview(frame)[:-CHECKSUM_SIZE]) != stored_checksum(frame):
            raise AssertionError("a sound frame has a wrong checksum")
        records = [
            unpack_from(frame, offset) for offset in range(HEADER.size + COUNT_SIZE, len(frame) - CHECKSUM_SIZE, size)
        ]
        count += len(records)
    return count


def rate(decode: Callable[[Sequence[bytes]], int], wire: Sequence[bytes], seconds: float) -> float:
    """Records a second, over at least `seconds`."""
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        count += decode(wire)
    return count / elapsed


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Alternate both sides; medians, and every round."""
    wire = frames()
    for decode in (decode_stream, decode_floor):  # also warms up
        if decode(wire) != CHANNELS * FRAMES:
            raise AssertionError("records were lost")
    pairs = [(rate(decode_stream, wire, seconds), rate(decode_floor, wire, seconds)) for _ in range(rounds)]
    ratios = [stream / floor for stream, floor in pairs]
    return {
        "stream_records_per_s": round(statistics.median(stream for stream, _ in pairs)),
        "floor_records_per_s": round(statistics.median(floor for _, floor in pairs)),
        "stream_to_floor": round(statistics.median(ratios), 4),
        "stream_to_floor_rounds": [round(ratio, 4) for ratio in ratios],
        "record_bytes": RECORD.size,
        "channels": CHANNELS,
        "machine": machine(),
    }


def main() -> None:
    """Measure and print."""
    options = parsed(parser("Readings decoded per second, beside the floor.", rounds=7, seconds=0.5))
    found = measure(options.rounds, options.seconds)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    stream, floor, ratio = found["stream_records_per_s"], found["floor_records_per_s"], found["stream_to_floor"]
    print(machine_line(found["machine"]))
    print(f"{options.rounds} rounds of {options.seconds:g} s a side, {CHANNELS} records of {RECORD.size} bytes a frame")
    print(f"stream  {stream:>10,} records/s   bytes to typed readings")
    print(f"floor   {floor:>10,} records/s   checksum and one struct.unpack_from a record")
    print(f"ratio   {ratio:>10}             median of the rounds' ratios (1 would be the floor itself)")


if __name__ == "__main__":
    main()
