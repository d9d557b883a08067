"""A reading as JSON, without its time: an element of `channels`, and most of `state`.

A reading begins with what seldom changes; that is kept as JSON for each channel. Its numbers follow: those of all
readings of a poll are encoded at once and put into texts that have their names.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from cti_mqtt.bridge.bus import Quality, Reading
from cti_mqtt.bridge.floats import f32_texts, f64_texts
from cti_mqtt.bridge.payloads import encode, parse_step_and_cycle
from cti_mqtt.cti.messages.channels import STEADY, ChannelRecord, Extras
from cti_mqtt.cti.numbering import as_printed

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

_FIRST_F32 = ChannelRecord._fields.index("voltage")  # ahead of it are times, which are 64-bit floats
_EXTRAS = ChannelRecord._fields.index("extras")
_TIMES = _FIRST_F32 - STEADY


class Fragments:
    """Readings as elements of `channels`; keeps one text a channel."""

    def __init__(self) -> None:
        self._steady: dict[tuple[str, int], tuple[tuple[Any, ...], Quality, bytes]] = {}

    def __call__(self, cycler: str, readings: Sequence[Reading]) -> list[bytes]:
        """Readings of a cycler as JSON, one text each."""
        times: list[float] = []
        floats: list[float] = []
        for reading in readings:
            values: tuple[Any, ...] = reading.record
            times += values[STEADY:_FIRST_F32]
            floats += values[_FIRST_F32:_EXTRAS]
            if aux := reading.record.extras.aux:
                floats += chain.from_iterable(chain.from_iterable(aux.values()))
        next_time, next_float = iter(f64_texts(times)), iter(f32_texts(floats))
        found = []
        for reading in readings:
            extras = reading.record.extras
            text, count = _template(tuple([(kind, len(inputs)) for kind, inputs in extras.aux.items()]))
            numbers = text % (*islice(next_time, _TIMES), *islice(next_float, count))
            found.append(b"".join((self._steady_part(cycler, reading), numbers.encode(), _rest(extras))))
        return found

    def keep_only(self, cyclers: Collection[str]) -> None:
        """There are no others any more."""
        self._steady = {key: kept for key, kept in self._steady.items() if key[0] in cyclers}

    def _steady_part(self, cycler: str, reading: Reading) -> bytes:
        key, values, quality = (cycler, reading.channel), reading.record[:STEADY], reading.quality
        kept = self._steady.get(key)
        if kept is None or kept[0] != values or kept[1] is not quality:
            text = encode(_steady_fields(reading.channel, reading.record, quality))[:-1]
            kept = self._steady[key] = values, quality, text
        return kept[2]


def _steady_fields(channel: int, record: ChannelRecord, quality: Quality) -> dict[str, Any]:
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


@lru_cache(maxsize=64)
def _template(aux: tuple[tuple[str, int], ...]) -> tuple[str, int]:
    """The names of all numbers, with a place for each; and how many of these are 32-bit floats.

    Args:
        aux: how many inputs of which kind there are.
    """
    numbers = "".join(f',"{name}":%s' for name in NUMBERS.values())
    inputs = (f'"{kind}":[{",".join([_INPUT] * count)}]' for kind, count in aux)
    text = f'{numbers},"aux":{{{",".join(inputs)}}}'
    return text, text.count("%s") - _TIMES


_INPUT = '{"value":%s,"dt":%s}'


def _rest(extras: Extras) -> bytes:
    """What comes last in a reading: what the battery's own electronics say."""
    if not extras.bms and not extras.smb:
        return b',"bms":[],"smb":[]}'
    body = {
        "bms": [{"index": entry.index, "value": entry.value, "unit": entry.unit} for entry in extras.bms],
        "smb": [{"index": entry.index, "value": entry.value, "unit": entry.unit} for entry in extras.smb],
    }
    return b"," + encode(body)[1:]
