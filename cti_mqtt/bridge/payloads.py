"""What is published, as JSON; pure.

The payloads of readings are put together from one text a channel (`fragments`), which `state` and `readings` share.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from cti_mqtt.bridge.bus import Happening, Reading
from cti_mqtt.bridge.floats import shortest_float
from cti_mqtt.cti.codes import server_version
from cti_mqtt.cti.messages.session import LoginFeedback

CONTRACT = "1"
_STEP_AND_CYCLE = re.compile(r"\[(\d+)\] (\d+): (.*), ([^,]*)")


def encode(body: Any) -> bytes:
    """Strict JSON: NaN and infinity become null.

    A copy, for what orjson returns keeps the whole of its buffer: up to ten times the text, as long as it lives.
    """
    return bytes(memoryview(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)))


# --- readings ---


@lru_cache(maxsize=8192)
def parse_step_and_cycle(text: str) -> tuple[int | None, int | None, str | None, str | None]:
    """Cycle, step, label and type from `[1] 2: CC, C-Rate`; four times None where it does not parse."""
    match = _STEP_AND_CYCLE.fullmatch(text)
    if match is None:
        return None, None, None, None
    return int(match[1]), int(match[2]), match[3], match[4].strip()


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
