"""Get channels info: the readings.

Records are named tuples: they are the hot path, where building a frozen dataclass would cost more than all the rest.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_args

from cti_mqtt.cti.codes import ChannelStatus, Selection
from cti_mqtt.cti.fields import F32, F64, I16, U16, U32, char, encode_text, flag, number, wchar
from cti_mqtt.cti.layout import CountedRecords, Layout
from cti_mqtt.errors import InvalidRequestError, ProtocolError

ALL_CHANNELS = -1

AuxKind = Literal[
    "voltage",
    "temperature",
    "pressure",
    "external",
    "flow",
    "ao",
    "di",
    "do",
    "humidity",
    "safety",
    "ph",
    "density",
]
AUX_KINDS: tuple[AuxKind, ...] = get_args(AuxKind)


class AuxOption(IntFlag):
    """Which additional values a request asks for."""

    NONE = 0
    BMS = 0x100
    SMB = 0x200
    AUXILIARY = 0x400
    ALL = BMS | SMB | AUXILIARY


def _decode_options(bits: int) -> AuxOption:
    """The known bits only: the class would keep every other number it ever saw, for ever."""
    return AuxOption(bits & AuxOption.ALL)


@dataclass(frozen=True, slots=True)
class ChannelsInfoRequest:
    """Asks for the readings of one channel, or of many by `selection`.

    Source: v1.1, "Get channels info".
    """

    channel: I16 = ALL_CHANNELS
    selection: Annotated[Selection, number("h", Selection)] = Selection.ALL
    aux_options: Annotated[AuxOption, number("I", _decode_options, reserved=32)] = AuxOption.ALL


class AuxReading(NamedTuple):
    """One auxiliary input: its value and how fast that changes, per second, in the unit of its kind."""

    value: float
    dt: float


@dataclass(frozen=True, slots=True)
class BmsReading:
    """One value that the battery's own management system (CAN) reports."""

    index: int
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class SmbReading:
    """One value from the smart-battery bus: a number or a text."""

    index: int
    value: float | str
    unit: str


class Extras(NamedTuple):
    """What a record holds besides its fixed fields; `aux` has only the kinds that are present."""

    aux: Mapping[str, tuple[AuxReading, ...]] = MappingProxyType({})
    bms: tuple[BmsReading, ...] = ()
    smb: tuple[SmbReading, ...] = ()


NO_EXTRAS = Extras()

_new = tuple.__new__  # what making a named tuple comes to, without its call in between

_COUNTS = struct.Struct(f"<{len(AUX_KINDS)}HHH")
_NO_COUNTS = bytes(_COUNTS.size)
_AUX = struct.Struct("<ff")
_BMS = struct.Struct("<Id")
_SMB = struct.Struct("<II")
_F64 = struct.Struct("<d")
_SMB_NUMBER, _SMB_TEXT = 0, 1
_U32_SIZE = 4
_TEXT_ROOM = 65535  # no document sets a limit


class ExtrasCodec:
    """The variable part of a record: counts, auxiliaries in the order of the counts, BMS and SMB values.

    Args:
        units: v4.5 has units, and a value for each SMB entry; v1.1 has neither.
    """

    min_size = _COUNTS.size

    def __init__(self, *, units: bool) -> None:
        self._units = units

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[Extras, int]:
        """The extras at `offset`, and where the next record begins."""
        counts, offset = buffer[offset : offset + _COUNTS.size], offset + _COUNTS.size
        if counts == _NO_COUNTS:
            return NO_EXTRAS, offset
        try:
            aux_counts, bms_count, smb_count = _read_counts(counts)
            aux = {}
            for kind, count in aux_counts:
                end = offset + count * _AUX.size
                if end > len(buffer):
                    raise ProtocolError(f"{count} {kind} auxiliaries announced, room for fewer")
                aux[kind] = tuple([_new(AuxReading, pair) for pair in _AUX.iter_unpack(buffer[offset:end])])
                offset = end
            if not bms_count and not smb_count:
                return _new(Extras, (aux, (), ())), offset
            bms = []
            for _ in range(bms_count):
                entry, offset = self._bms(buffer, offset)
                bms.append(entry)
            smb = []
            for _ in range(smb_count):
                reading, offset = self._smb(buffer, offset)
                smb.append(reading)
        except struct.error as error:
            raise ProtocolError(f"channel record ends too early: {error}") from error
        return Extras(aux, tuple(bms), tuple(smb)), offset

    def _bms(self, buffer: bytes, offset: int) -> tuple[BmsReading, int]:
        index, value = _BMS.unpack_from(buffer, offset)
        unit, offset = self._unit(buffer, offset + _BMS.size)
        return BmsReading(index, value, unit), offset

    def _smb(self, buffer: bytes, offset: int) -> tuple[SmbReading, int]:
        index, kind = _SMB.unpack_from(buffer, offset)
        offset += _SMB.size
        if kind not in {_SMB_NUMBER, _SMB_TEXT}:
            raise ProtocolError(f"SMB value of unknown type {kind}")
        value: float | str = "" if kind == _SMB_TEXT else float("nan")
        if self._units and kind == _SMB_TEXT:
            value, offset = _text(buffer, offset)
        elif self._units:
            (value,) = _F64.unpack_from(buffer, offset)
            offset += _F64.size
        unit, offset = self._unit(buffer, offset)
        return SmbReading(index, value, unit), offset

    def _unit(self, buffer: bytes, offset: int) -> tuple[str, int]:
        return _text(buffer, offset) if self._units else ("", offset)

    def pack(self, value: Extras) -> bytes:
        """The extras as bytes."""
        if unknown := value.aux.keys() - set(AUX_KINDS):
            raise InvalidRequestError(f"no such auxiliaries: {', '.join(sorted(unknown))}")
        aux = [value.aux.get(kind, ()) for kind in AUX_KINDS]
        parts = [_COUNTS.pack(*map(len, aux), len(value.bms), len(value.smb))]
        parts += [_AUX.pack(*reading) for readings in aux for reading in readings]
        for bms in value.bms:
            parts += [_BMS.pack(bms.index, bms.value), self._pack_text(bms.unit)]
        for smb in value.smb:
            is_text = isinstance(smb.value, str)
            parts.append(_SMB.pack(smb.index, _SMB_TEXT if is_text else _SMB_NUMBER))
            if self._units:
                parts.append(self._pack_text(smb.value) if isinstance(smb.value, str) else _F64.pack(smb.value))
            parts.append(self._pack_text(smb.unit))
        return b"".join(parts)

    def _pack_text(self, text: str) -> bytes:
        return encode_text(text, "utf-8", 1, _TEXT_ROOM) + b"\0" if self._units else b""


@lru_cache(maxsize=256)
def _read_counts(counts: bytes) -> tuple[tuple[tuple[str, int], ...], int, int]:
    """Which kinds of auxiliaries follow, and how many of each; how many BMS and SMB values."""
    *aux_counts, bms_count, smb_count = _COUNTS.unpack(counts)
    aux = tuple((kind, count) for kind, count in zip(AUX_KINDS, aux_counts, strict=True) if count)
    return aux, bms_count, smb_count


def _text(buffer: bytes, offset: int) -> tuple[str, int]:
    end = buffer.find(b"\0", offset)
    if end < 0:
        raise ProtocolError("text without its NUL")
    return buffer[offset:end].decode("utf-8", "replace"), end + 1


class ChannelRecord(NamedTuple):
    """The reading of one channel; V, A, W, Ah, Wh, ohm, s; charge current is positive.

    Attributes:
        channel: 0-based, as on the wire; so is `master_channel`.
        step_and_cycle: `[cycle] step: label, type`.

    Source: v1.1, "Get channels info feedback"; captured from MITS 8 and MITS 10.
    """

    channel: U32
    status: Annotated[ChannelStatus, number("h", ChannelStatus)]
    comm_failure: Annotated[bool, flag()]
    schedule: Annotated[str, wchar(200)]
    test_name: Annotated[str, wchar(72)]
    exit_condition: Annotated[str, char(100)]
    step_and_cycle: Annotated[str, char(64)]
    barcode: Annotated[str, wchar(72)]
    can_config: Annotated[str, wchar(200)]
    smb_config: Annotated[str, wchar(200)]
    master_channel: U16
    test_time: F64
    step_time: F64
    voltage: F32
    current: F32
    power: F32
    charge_capacity: F32
    discharge_capacity: F32
    charge_energy: F32
    discharge_energy: F32
    internal_resistance: F32
    dvdt: F32
    acr: F32
    aci: F32
    aci_phase: F32
    extras: Annotated[Extras, ExtrasCodec(units=True)] = NO_EXTRAS


RECORD = Layout(ChannelRecord)
RECORD_WITHOUT_UNITS = Layout(ChannelRecord, replace={"extras": ExtrasCodec(units=False)})

STEADY = ChannelRecord._fields.index("test_time")  # the fields ahead of it seldom change; all others are numbers
_NUMBERS = struct.Struct("<2d12f")
_STEADY_SIZE = RECORD.min_size - _NUMBERS.size - ExtrasCodec.min_size
MOST_REMEMBERED = 1024  # channels; more than any cycler has


class RememberingRecord(Layout[ChannelRecord]):
    """Reads one peer's records; the texts, most of the bytes, are decoded only when they are not what they were.

    What is remembered is bounded: a peer that thinks of ever new channels gains nothing.

    Args:
        units: as for `ExtrasCodec`.
    """

    def __init__(self, *, units: bool) -> None:
        self._extras = ExtrasCodec(units=units)
        self._steady: dict[bytes, tuple[bytes, tuple[Any, ...]]] = {}  # by channel: as bytes, and decoded
        super().__init__(ChannelRecord, replace={"extras": self._extras})

    def unpack_from(self, buffer: bytes, offset: int) -> tuple[ChannelRecord, int]:
        """The record at `offset`, and where the next one begins."""
        known = self._steady.get(buffer[offset : offset + _U32_SIZE])
        if known is None or not buffer.startswith(known[0], offset):
            return self._learn(buffer, offset)
        numbers_at = offset + _STEADY_SIZE
        try:
            numbers = _NUMBERS.unpack_from(buffer, numbers_at)
        except struct.error as error:
            raise ProtocolError(f"channel record ends too early: {error}") from error
        extras, end = self._extras.unpack_from(buffer, numbers_at + _NUMBERS.size)
        return _new(ChannelRecord, (*known[1], *numbers, extras)), end

    def _learn(self, buffer: bytes, offset: int) -> tuple[ChannelRecord, int]:
        record, end = super().unpack_from(buffer, offset)
        if len(self._steady) >= MOST_REMEMBERED:
            self._steady.clear()
        steady = buffer[offset : offset + _STEADY_SIZE]
        self._steady[steady[:_U32_SIZE]] = steady, record[:STEADY]
        return record, end


class ChannelsInfoFeedback(NamedTuple):
    """Any number of readings: one, some or all of those that were asked for, or more."""

    records: Annotated[tuple[ChannelRecord, ...], CountedRecords(RECORD)]


class ChannelsInfoFeedbackLayout(Layout[ChannelsInfoFeedback]):
    """Reads records with units and, where the frame does not come out exactly, without (v1.1).

    Args:
        record: the layout of a record with units.
        record_without_units: the same without.
    """

    def __init__(
        self,
        record: Layout[ChannelRecord] = RECORD,
        record_without_units: Layout[ChannelRecord] = RECORD_WITHOUT_UNITS,
    ) -> None:
        self._records = CountedRecords(record)
        self._records_without_units = CountedRecords(record_without_units)
        super().__init__(ChannelsInfoFeedback, replace={"records": self._records})

    def for_one_peer(self) -> "ChannelsInfoFeedbackLayout":
        """One that decodes the texts of a record, most of its bytes, only when they have changed."""
        return ChannelsInfoFeedbackLayout(RememberingRecord(units=True), RememberingRecord(units=False))

    def unpack(self, buffer: bytes) -> ChannelsInfoFeedback:
        """The message that fills `buffer` exactly, by either document.

        Raises:
            ProtocolError: it is neither.
        """
        try:
            return _all_of(self._records, buffer)
        except ProtocolError as with_units:
            try:
                return _all_of(self._records_without_units, buffer)
            except ProtocolError:
                raise with_units from None


def _all_of(layout: CountedRecords[ChannelRecord], buffer: bytes) -> ChannelsInfoFeedback:
    records, end = layout.unpack_from(buffer, 0)
    if end != len(buffer):
        raise ProtocolError(f"{len(buffer) - end} bytes too many")
    return ChannelsInfoFeedback(records)
