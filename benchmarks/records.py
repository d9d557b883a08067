"""Channel readings as a running test has them, as values and as ready bytes."""

import random
import struct

from cti_mqtt.cti.codes import ChannelStatus, CommandCode
from cti_mqtt.cti.frame import Direction, pack_frame
from cti_mqtt.cti.messages.channels import AuxReading, ChannelRecord, ChannelsInfoFeedback, Extras
from cti_mqtt.cti.stream import pack_message

# Written out by hand, so that the floor owes nothing to the project's layout: fixed part, counts, one auxiliary.
RECORD = struct.Struct("<IhB400s144s100s64s144s400s400sHdd12f14Hff")
COUNT = struct.Struct("<I")
_TEXTS_END = struct.calcsize("<IhB400s144s100s64s144s400s400sH")
_TIMES = struct.Struct("<dd")
_NUMBERS = struct.Struct("<12f")
_NUMBERS_AT = _TEXTS_END + _TIMES.size
_AUX = struct.Struct("<ff")
_AUX_AT = RECORD.size - _AUX.size
TEST_TIME_AT = _TEXTS_END


def record(channel: int, poll: int) -> ChannelRecord:
    """One reading; numbers differ from poll to poll, texts from channel to channel."""
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


def feedback(channels: range, poll: int) -> bytes:
    """The frame that answers "all channels" in one piece."""
    return pack_message(ChannelsInfoFeedback(tuple(record(channel, poll) for channel in channels)))


def noisy_polls(channels: int, count: int) -> list[bytes]:
    """The records of successive polls, without a frame; no measured value occurs twice, as with a real instrument."""
    noise = random.Random(1)  # noqa: S311  # measured values, no secrets
    frame = feedback(range(channels), 0)
    template = frame[-channels * RECORD.size - 2 : -2]
    return [_with_noise(bytearray(template), poll, noise) for poll in range(count)]


def _with_noise(records: bytearray, poll: int, noise: random.Random) -> bytes:
    for offset in range(0, len(records), RECORD.size):
        voltage, current = 3.6 + noise.random() / 10, 1.5 + noise.random() / 1000
        hours = (poll + noise.random()) / 3600
        charged = voltage, current, voltage * current, current * hours, 0.0, voltage * current * hours, 0.0
        _TIMES.pack_into(records, offset + TEST_TIME_AT, 60.0 + poll, 30.0 + poll)
        _NUMBERS.pack_into(records, offset + _NUMBERS_AT, *charged, 0.02, noise.random() / 100, 0.0, 0.0, 0.0)
        _AUX.pack_into(records, offset + _AUX_AT, 25 + noise.random(), noise.random() / 100)
    return bytes(records)


def framed(records: bytes) -> bytes:
    """One frame around packed records."""
    count = COUNT.pack(len(records) // RECORD.size)
    return pack_frame(Direction.FEEDBACK, CommandCode.CHANNELS_INFO_FEEDBACK, count + records)
