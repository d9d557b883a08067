"""Feedbacks -> bytes, with the faults that are in the bytes.

Nothing about the wire is stated here: where a text field lies is read from the message's own annotations.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.commands import BY_CLASS, BY_CODE
from cti_mqtt.cti.fields import Field
from cti_mqtt.cti.frame import CHECKSUM_SIZE, Direction, pack_frame, stored_checksum
from cti_mqtt.cti.layout import CountedRecords, Layout
from cti_mqtt.cti.messages.channels import (
    AuxReading,
    ChannelRecord,
    ChannelsInfoFeedback,
    ExtrasCodec,
)
from cti_mqtt.cti.messages.extended import GetResumeDataFeedback, GetStartDataFeedback, ResumeData, StartData
from cti_mqtt.cti.messages.files import BrowseFeedback, Entry, UploadFeedback
from cti_mqtt.cti.messages.service import StartCalibrationFeedback
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.messages.tests import NO_CHANNEL, ContinueFeedback, StartFeedback
from cti_mqtt.cti.messages.variables import UpdateMetaVariablesFeedback
from cti_mqtt.cti.results import BrowseResult, CalibrationResult, UpdateMetaVariablesResult
from cti_mqtt.errors import InvalidRequestError
from cti_mqtt.simulator.faults import ChecksumStyle, Document, Faults, TextStyle

T = TypeVar("T")

_JUNK = b"junk\xdd\xdd\xdd"  # holds the beginning of a token
_STALE = "stale "


def encode(feedback: Any, command: str, faults: Faults) -> bytes:
    """A feedback to `command` as the bytes that leave: junk, frame and whatever is wrong with it."""
    feedback = _changed(feedback, faults)
    _, message_type = BY_CLASS[type(feedback)]
    frame = pack_frame(
        Direction.FEEDBACK, message_type.code, _layout(message_type.code, faults.text, faults.units).pack(feedback)
    )
    if not faults.checksum_of or command in faults.checksum_of:
        frame = _with_checksum(frame, faults.checksum)
    return _junk(faults.junk_bytes) + frame


def _junk(size: int) -> bytes:
    return (_JUNK * (size // len(_JUNK) + 1))[:size]


def _with_checksum(frame: bytes, style: ChecksumStyle) -> bytes:
    if style is ChecksumStyle.GOOD:
        return frame
    body, right = frame[:-CHECKSUM_SIZE], frame[-CHECKSUM_SIZE:]
    if style is ChecksumStyle.MISPLACED:
        return body + bytes(CHECKSUM_SIZE) + right
    wrong = stored_checksum(frame) ^ 0xFFFF or 1  # 0 is how a misplaced one begins
    return body + wrong.to_bytes(CHECKSUM_SIZE, "little")


# --- what the messages say -------------------------------------------------------------------------------------------


def _changed(feedback: Any, faults: Faults) -> Any:
    match feedback:
        case ChannelsInfoFeedback(records) if faults.statuses or faults.nan or faults.infinite or faults.comm_failures:
            return ChannelsInfoFeedback(tuple(_changed_record(record, faults) for record in records))
        case LoginFeedback() if faults.picture_bytes:
            return replace(feedback, picture=bytes(faults.picture_bytes))
        case StartFeedback(result=0) | ContinueFeedback(result=0) if not faults.start_names_channel:
            return replace(feedback, channel=NO_CHANNEL)
        case _:
            return _by_document(feedback, faults)


def _by_document(feedback: Any, faults: Faults) -> Any:
    """As the document says that the server follows."""
    match feedback:
        case UpdateMetaVariablesFeedback(result=UpdateMetaVariablesResult.UPDATED_WITHIN_200_MS) if (
            faults.advanced_limit is Document.V45
        ):
            return replace(feedback, result=UpdateMetaVariablesResult.TOO_FREQUENT)
        case StartCalibrationFeedback(result=CalibrationResult.FAILED) if faults.calibration is Document.V45:
            return StartCalibrationFeedback(CalibrationResult.FAILED_V45)
        case BrowseFeedback(result=BrowseResult.INVALID) if faults.newer_browse:
            return replace(feedback, result=BrowseResult.INVALID_NEWER)
        case UploadFeedback() if faults.upload_feedback is Document.V45:
            return feedback.result_first
        case _:
            return feedback


def _changed_record(record: ChannelRecord, faults: Faults) -> ChannelRecord:
    channel = record.channel
    if channel in faults.statuses:
        record = record._replace(status=ChannelStatus(faults.statuses[channel]))
    if channel in faults.nan:
        record = _with_values(record, math.nan)
    if channel in faults.infinite:
        record = _with_values(record, math.inf)
    return record._replace(comm_failure=True) if channel in faults.comm_failures else record


def _with_values(record: ChannelRecord, value: float) -> ChannelRecord:
    aux = {kind: tuple(AuxReading(value, value) for _ in readings) for kind, readings in record.extras.aux.items()}
    extras = record.extras._replace(aux=aux)
    return record._replace(voltage=value, current=value, power=value, extras=extras)


# --- the bytes of their text fields ----------------------------------------------------------------------------------


_RECORDS: Mapping[type[Any], tuple[str, type[Any]]] = {  # feedbacks whose texts are in records
    ChannelsInfoFeedback: ("records", ChannelRecord),
    GetStartDataFeedback: ("records", StartData),
    GetResumeDataFeedback: ("records", ResumeData),
    BrowseFeedback: ("entries", Entry),
}


@lru_cache(maxsize=64)
def _layout(code: int, text: TextStyle, units: bool) -> Layout[Any]:  # noqa: FBT001 - a key of the cache
    """The layout of a feedback under these faults."""
    message_type = BY_CODE[Direction.FEEDBACK][code]
    if text is TextStyle.CLEAN and (units or message_type.cls is not ChannelsInfoFeedback):
        return message_type.layout
    if message_type.cls not in _RECORDS:
        return _DirtyLayout(message_type.cls, text)
    field, record_class = _RECORDS[message_type.cls]
    record = _DirtyLayout(record_class, text, units=units or record_class is not ChannelRecord)
    return Layout(message_type.cls, replace={field: CountedRecords(record)})


class _DirtyLayout(Layout[T]):
    """A layout whose text fields hold more than their text."""

    def __init__(self, message: type[T], style: TextStyle, *, units: bool = True) -> None:
        replace_codecs = {} if units else {"extras": ExtrasCodec(units=False)}
        super().__init__(message, replace=replace_codecs)
        self._style = style
        self._texts = text_fields(message)

    def pack(self, message: T) -> bytes:
        """The message, and dirt."""
        data = bytearray(super().pack(message))
        for offset, size, encoding in self._texts:
            if self._style is TextStyle.STALE:
                _leave_stale(data, offset, size, encoding)
            elif self._style is TextStyle.BROKEN:
                broken = b"\xff" if encoding == "utf-8" else b"\x00\xd8"  # no such byte; half a surrogate pair
                data[offset : offset + len(broken)] = broken
        return bytes(data)


def _leave_stale(data: bytearray, offset: int, size: int, encoding: str) -> None:
    unit = len("\0".encode(encoding))
    start = offset
    while any(data[start : start + unit]):
        start += unit
    room = offset + size - (start + unit)
    stale = (_STALE * size).encode(encoding)[:room]
    data[start + unit : offset + size] = stale


def text_fields(message: type[Any]) -> list[tuple[int, int, str]]:
    """Offset, size in bytes and encoding of each text in the fixed beginning of a message."""
    found = []
    offset = 0
    for hint in get_type_hints(message, include_extras=True).values():
        wire = hint.__metadata__[0]
        if not isinstance(wire, Field):
            break
        if hint.__origin__ is str:
            encoding = _encoding(wire)
            if encoding:
                found.append((offset, struct.calcsize(f"<{wire.item}"), encoding))
        offset += struct.calcsize(f"<{wire.format}")
    return found


def _encoding(wire: Field) -> str | None:
    """How a text field encodes; None where the text is something else in disguise, an address say."""
    try:
        sample = wire.encode("A") if wire.encode else b""
    except InvalidRequestError:
        return None
    return {b"A": "utf-8", "A".encode("utf-16-le"): "utf-16-le"}.get(sample)
