"""What was asked of the simulated cycler, and what came of it: one JSON object a request.

Channels are 1-based here, as printed on the cycler; steps are as they were asked for. Passwords are never recorded, of
a file's bytes only their number and their MD5.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum, IntFlag
from hashlib import md5
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cti_mqtt.cti.codes import Code, meta_index
from cti_mqtt.cti.commands import BY_CLASS
from cti_mqtt.cti.messages.channels import ChannelsInfoFeedback
from cti_mqtt.cti.messages.extended import GetResumeDataFeedback, GetStartDataFeedback
from cti_mqtt.cti.messages.files import BrowseFeedback, DownloadFeedback, UploadFeedback
from cti_mqtt.cti.messages.service import GetSerialFeedback, StartCalibrationRequest, UnknownCommandFeedback
from cti_mqtt.cti.messages.session import LoginRequest
from cti_mqtt.cti.results import UploadResult
from cti_mqtt.cti.stream import ReceivedUnknown

Entry = dict[str, Any]


def command_name(message: Any) -> str:
    """A message's command, e.g. `set_meta_variable`; `unknown` for a code that is not known."""
    if isinstance(message, ReceivedUnknown):
        return "unknown"
    return BY_CLASS[type(message)][1].code.reason


class Recorder:
    """Keeps the last entries, and appends every one to a file if there is one.

    Use it as a context manager, or call `close`, where a file is given.

    Args:
        path: JSON lines, flushed one by one.
        keep: how many entries stay in memory.
        on_entry: called with each.
        wall: the time of day.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        keep: int = 10_000,
        on_entry: Callable[[Entry], None] | None = None,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._entries: deque[Entry] = deque(maxlen=keep)
        self._on_entry = on_entry
        self._wall = wall
        self._file = path.open("a", encoding="utf-8") if path else None

    @property
    def entries(self) -> list[Entry]:
        """The last entries, oldest first."""
        return list(self._entries)

    def commands(self, *names: str) -> list[Entry]:
        """The last entries of these commands."""
        return [entry for entry in self._entries if entry["command"] in names]

    def add(self, entry: Mapping[str, Any]) -> None:
        """Put the wall time before an entry and keep it."""
        stamped = {"time": self._wall().isoformat(timespec="milliseconds").replace("+00:00", "Z"), **entry}
        self._entries.append(stamped)
        if self._file:
            self._file.write(json.dumps(stamped, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        if self._on_entry:
            self._on_entry(stamped)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def arguments(request: Any) -> Entry:
    """A request's fields in plain JSON."""
    if isinstance(request, ReceivedUnknown):
        return {"code": f"{request.code:#010x}"}
    plain: Entry = _fields(request)
    if isinstance(request, LoginRequest):
        del plain["password"]
    if isinstance(request, StartCalibrationRequest):
        del plain["reserved"]
    if plain.get("all_channels"):
        plain["channel"] = None
    return plain


def _fields(message: Any) -> Entry:
    names = [item.name for item in fields(message)] if is_dataclass(message) else message._fields
    plain = {name: _plain(name, getattr(message, name)) for name in names}
    if "meta_code" in plain:
        plain["index"] = meta_index(message.meta_code)
    return plain


def results(feedbacks: list[Any]) -> list[Entry]:
    """What the feedbacks say: channel, code and name each, or how many readings in how many frames."""
    if feedbacks and all(isinstance(feedback, ChannelsInfoFeedback) for feedback in feedbacks):
        return [{"readings": sum(len(feedback.records) for feedback in feedbacks), "frames": len(feedbacks)}]
    return [_result(feedback) for feedback in feedbacks]


def _result(feedback: Any) -> Entry:
    match feedback:
        case UnknownCommandFeedback():
            entry: Entry = {"reason": "unknown_command"}
        case GetSerialFeedback():
            entry = {"serial": feedback.serial, "code": feedback.result}
        case GetStartDataFeedback() | GetResumeDataFeedback():
            entry = {"channels": [_result_of(record.channel, record.code) for record in feedback.records]}
        case BrowseFeedback():
            entry = _result_of(None, feedback.result) | {"entries": len(feedback.entries)}
        case DownloadFeedback():
            entry = _result_of(None, feedback.result) | {"packages": feedback.packages}
        case UploadFeedback():
            entry = _result_of(None, UploadResult(int.from_bytes(feedback.content[-4:], "little")))
        case _:
            entry = _result_of(getattr(feedback, "channel", None), feedback.result)
    return entry


def _result_of(channel: int | None, result: Code) -> Entry:
    entry: Entry = {} if channel is None else {"channel": _plain("channel", channel)}
    return entry | {"code": int(result), "reason": result.reason}


def _plain(name: str, value: Any) -> Any:
    """A value for JSON; channels from 1, no channel as null."""
    match name, value:
        case "channel", int():
            plain: Any = value + 1 if value >= 0 else None
        case "channels", tuple():
            plain = [channel + 1 for channel in value]
        case "md5", bytes():
            plain = value.hex()
        case _, bytes():
            plain = {"length": len(value), "md5": md5(value, usedforsecurity=False).hexdigest()}
        case _, float() if not math.isfinite(value):
            plain = str(value)
        case _, Enum():
            plain = _enum(value)
        case _, tuple() if not hasattr(value, "_fields"):
            plain = [_plain("", item) for item in value]
        case _, _ if is_dataclass(value) or isinstance(value, tuple):
            plain = _fields(value)
        case _:
            plain = value
    return plain


def _enum(value: Enum) -> Any:
    if isinstance(value, Code):
        return value.reason
    if isinstance(value, IntFlag):
        return [str(flag.name).lower() for flag in value]
    return value.name.lower()
