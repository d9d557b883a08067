"""Readings as JSON, fast: byte for byte what `payloads.fragment` says.

A reading begins with what seldom changes; that is kept as JSON for each channel. Its numbers follow: they are encoded
all at once and put into a text that has their names.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import orjson

from cti_mqtt.bridge.bus import Quality, Reading
from cti_mqtt.bridge.payloads import NUMBERS, bus_values, encode, shortest_floats, steady_fields
from cti_mqtt.cti.messages.channels import STEADY, ChannelRecord, Extras

_FIRST_F32 = ChannelRecord._fields.index("voltage")  # ahead of it are times, which are 64-bit floats
_EXTRAS = ChannelRecord._fields.index("extras")


class Fragments:
    """Readings as elements of `channels`; keeps one text a channel."""

    def __init__(self) -> None:
        self._steady: dict[tuple[str, int], tuple[tuple[Any, ...], Quality, bytes]] = {}

    def __call__(self, cycler: str, reading: Reading) -> bytes:
        """A reading of a cycler as JSON."""
        values: tuple[Any, ...] = reading.record
        extras = reading.record.extras
        floats = values[_FIRST_F32:_EXTRAS]
        shape: tuple[tuple[str, int], ...] = ()
        if extras.aux:
            floats += tuple([number for inputs in extras.aux.values() for pair in inputs for number in pair])
            shape = tuple([(kind, len(inputs)) for kind, inputs in extras.aux.items()])
        numbers = orjson.dumps([*values[STEADY:_FIRST_F32], *shortest_floats(floats)])[1:-1].decode().split(",")
        named = _template(shape) % tuple(numbers)
        return self._steady_part(cycler, reading) + named.encode() + _rest(extras)

    def keep_only(self, cyclers: Collection[str]) -> None:
        """There are no others any more."""
        self._steady = {key: kept for key, kept in self._steady.items() if key[0] in cyclers}

    def _steady_part(self, cycler: str, reading: Reading) -> bytes:
        key, values, quality = (cycler, reading.channel), reading.record[:STEADY], reading.quality
        kept = self._steady.get(key)
        if kept is None or kept[0] != values or kept[1] is not quality:
            text = encode(steady_fields(reading.channel, reading.record, quality))[:-1]
            kept = self._steady[key] = values, quality, text
        return kept[2]


def _rest(extras: Extras) -> bytes:
    if extras.bms or extras.smb:
        return b"," + encode(bus_values(extras))[1:]
    return b',"bms":[],"smb":[]}'


@lru_cache(maxsize=64)
def _template(aux: tuple[tuple[str, int], ...]) -> str:
    """The names of all numbers, with a place for each; `aux` says how many inputs of which kind there are."""
    numbers = "".join(f',"{name}":%s' for name in NUMBERS.values())
    inputs = (f'"{kind}":[{",".join([_INPUT] * count)}]' for kind, count in aux)
    return f'{numbers},"aux":{{{",".join(inputs)}}}'


_INPUT = '{"value":%s,"dt":%s}'
