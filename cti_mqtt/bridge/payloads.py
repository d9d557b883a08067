"""What is published, as JSON; pure.

The payloads of readings are put together from one encoded fragment a channel, which `state` and `readings` share.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import floor, log10
from typing import Any

import orjson

from cti_mqtt.bridge.bus import Happening, Quality, Reading
from cti_mqtt.cti.codes import server_version
from cti_mqtt.cti.messages.channels import ChannelRecord, Extras
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.numbering import as_printed

CONTRACT = "1"
_STEP_AND_CYCLE = re.compile(r"\[(\d+)\] (\d+): (.*), ([^,]*)")
_F32 = struct.Struct("<f")


def encode(body: Any) -> bytes:
    """Strict JSON: NaN and infinity become null.

    A copy, for what orjson returns keeps the whole of its buffer: up to ten times the text, as long as it lives.
    """
    return bytes(memoryview(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)))


# --- readings ---


def shortest_float(value: float) -> float:
    """A 32-bit float with the digits it has: 3.7012, not 3.7011999130249023."""
    if _SMALLEST < abs(value) < _LARGEST:
        places = 6 - floor(log10(abs(value)))
        for power in _POWERS[places : places + 3]:  # 7, 8 and 9 digits
            scaled = value * power
            whole = round(scaled)
            candidate = whole / power  # as exact as reading its digits: both are whole numbers that a float holds
            if _F32.unpack(_F32.pack(candidate))[0] == value:
                if abs(scaled - whole) > _TIE:
                    break
                return candidate
    return _shortest_by_text(value)


_SMALLEST, _LARGEST = 1e-12, 1e7  # between them no power of ten is beyond 10 ** 22, the last that a float holds
_POWERS = tuple(10.0**places for places in range(23))
_TIE = 0.4999  # so near to a tie `scaled`, which was rounded itself, does not tell on which side it is


def _shortest_by_text(value: float) -> float:
    for digits in (7, 8, 9):
        candidate = float(f"{value:.{digits}g}")
        try:
            if _F32.unpack(_F32.pack(candidate))[0] == value:
                return candidate
        except OverflowError:  # rounded up beyond the largest 32-bit float
            continue
    return value


_cached_shortest_float = lru_cache(maxsize=16384)(shortest_float)


def shortest_floats(values: Iterable[float]) -> list[float]:
    """Each as `shortest_float` has it; what comes again and again is looked up."""
    return [_cached_shortest_float(value) if value else value for value in values]  # a cache takes -0.0 for 0.0


@lru_cache(maxsize=8192)
def parse_step_and_cycle(text: str) -> tuple[int | None, int | None, str | None, str | None]:
    """Cycle, step, label and type from `[1] 2: CC, C-Rate`; four times None where it does not parse."""
    match = _STEP_AND_CYCLE.fullmatch(text)
    if match is None:
        return None, None, None, None
    return int(match[1]), int(match[2]), match[3], match[4].strip()


NUMBERS = {
    "test_time": "test_time_s",
    "step_time": "step_time_s",
    "voltage": "voltage_v",
    "current": "current_a",
    "power": "power_w",
    "charge_capacity": "charge_capacity_ah",
    "discharge_capacity": "discharge_capacity_ah",
    "charge_energy": "charge_energy_wh",
    "discharge_energy": "discharge_energy_wh",
    "internal_resistance": "internal_resistance_ohm",
    "dvdt": "dvdt_v_per_s",
    "acr": "acr_ohm",
    "aci": "aci_ohm",
    "aci_phase": "aci_phase_deg",
}
"""A record's numbers, and what they are called in JSON; in the same order in both."""


def reading_fields(channel: int, record: ChannelRecord, quality: Quality) -> dict[str, Any]:
    """A reading without its time, as in `readings`."""
    times = ("test_time", "step_time")  # 64-bit floats
    return {
        **steady_fields(channel, record, quality),
        **{
            shown: getattr(record, name) if name in times else shortest_float(getattr(record, name))
            for name, shown in NUMBERS.items()
        },
        "aux": {
            kind: [{"value": shortest_float(value), "dt": shortest_float(dt)} for value, dt in inputs]
            for kind, inputs in record.extras.aux.items()
        },
        **bus_values(record.extras),
    }


def steady_fields(channel: int, record: ChannelRecord, quality: Quality) -> dict[str, Any]:
    """What comes first in a reading, and seldom changes: all that is no number."""
    cycle, step, step_label, step_type = parse_step_and_cycle(record.step_and_cycle)
    return {
        "channel": channel,
        "quality": quality.value,
        "status": record.status.text,
        "status_code": int(record.status),
        "test_name": record.test_name,
        "schedule": record.schedule,
        "barcode": record.barcode,
        "can_config": record.can_config,
        "smb_config": record.smb_config,
        "cycle": cycle,
        "step": step,
        "step_label": step_label,
        "step_type": step_type,
        "step_and_cycle": record.step_and_cycle,
        "exit_condition": record.exit_condition,
        "comm_failure": record.comm_failure,
        "master_channel": as_printed(record.master_channel),
    }


def bus_values(extras: Extras) -> dict[str, Any]:
    """What comes last in a reading: what the battery's own electronics say."""
    return {
        "bms": [{"index": entry.index, "value": entry.value, "unit": entry.unit} for entry in extras.bms],
        "smb": [{"index": entry.index, "value": entry.value, "unit": entry.unit} for entry in extras.smb],
    }


def fragment(reading: Reading) -> bytes:
    """A reading as an element of `channels`; for many, `fragments.Fragments` says the same faster."""
    return encode(reading_fields(reading.channel, reading.record, reading.quality))


def state(boot: str, reading: Reading, body: bytes) -> bytes:
    """The payload of `state`: a fragment with its time in front."""
    return _stamp(reading.ts, boot, reading.seq) + b"," + body[1:]


def readings(
    ts: str,
    boot: str,
    seq: int,
    fragments: Sequence[bytes],
    max_bytes: int | None = None,
    *,
    historical: bool = False,
) -> Iterator[bytes]:
    """The payloads of `readings` or `backfill`: one, or several parts where one would be larger than `max_bytes`."""
    stamp = _stamp(ts, boot, seq) + (b',"historical":true' if historical else b"")
    parts = list(_split(fragments, None if max_bytes is None else max_bytes - len(stamp) - _PARTS_ROOM))
    for number, part in enumerate(parts, 1):
        split = b',"part":%d,"parts":%d' % (number, len(parts)) if len(parts) > 1 else b""
        yield stamp + split + b',"channels":[' + b",".join(part) + b"]}"


_PARTS_ROOM = len(b',"part":1024,"parts":1024,"channels":[]}')


@lru_cache(maxsize=16)
def _stamp(ts: str, boot: str, seq: int) -> bytes:
    return b'{"ts":"%b","boot":"%b","seq":%d' % (ts.encode(), boot.encode(), seq)


def _split(fragments: Iterable[bytes], room: int | None) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for body in fragments:
        if part and room is not None and size + len(body) + 1 > room:
            yield part
            part, size = [], 0
        part.append(body)
        size += len(body) + 1
    yield part


# --- the rest ---


def cycler_info(info: LoginFeedback, address: str) -> dict[str, Any]:
    """The payload of `<cycler>/info`."""
    return {
        "serial": info.serial,
        "nickname": info.nickname,
        "location": info.location,
        "note": info.note,
        "channels": info.channel_count,
        "server_version": server_version(info.version),
        "server_version_code": info.version,
        "allow_control": info.allow_control,
        "address": address,
    }


def happening(item: Happening) -> dict[str, Any]:
    """The payload of `event`."""
    return {
        "ts": item.ts,
        "type": item.type,
        "cycler": item.cycler,
        "channel": item.channel,
        "before": item.before,
        "after": item.after,
        "message": item.message,
        "command_id": item.command_id,
    }


def meta_variables(values: Mapping[int, float]) -> dict[str, float]:
    """The payload of `mv`."""
    return {str(index): shortest_float(value) for index, value in sorted(values.items())}
