"""What a command says: payload -> checked order; pure.

Strict: an unknown field, a key that stands twice, a text where a number belongs: all refused. A typing error must not
start a test.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cti_mqtt.bridge.variables import to_float32
from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.validation import describe

MAX_PAYLOAD_BYTES = 64 * 1024
SET_MV = "set_mv"
STATE_VERBS = frozenset({"start", "stop", "resume", "continue", "jump"})  # they exclude each other
CYCLER_VERBS = frozenset({"message", "schedules", "replay"})  # about the cycler as a whole: no channel, no channels
LONGEST_MESSAGE = 1000  # UTF-16 units; with the date in front it must fit into 1023
MAX_STEP = 65535
LONGEST_LEASE_S = 7 * 24 * 3600.0  # beyond that nobody is expected any more


class MalformedError(ValueError):
    """The payload is not the command's; the message names what was wrong and what would be right."""


def _finite_float32(value: float) -> float:
    to_float32(value)
    return value


def _variable(key: str) -> str:
    if not (key.isascii() and key.isdigit() and str(int(key)) == key and 1 <= int(key) <= META_VARIABLE_COUNT):
        raise ValueError(f'{key!r} is no meta variable; there are "1" to "{META_VARIABLE_COUNT}"')
    return key


def _channel(key: str) -> str:
    if not (key.isascii() and key.isdigit() and key.lstrip("0") == key):
        raise ValueError(f"{key!r:.40} is no channel number")
    return key


def _text_only(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or value.replace(".", "").isdigit():
        raise ValueError('must be a text such as "2026-01-02T03:04:05Z"')
    return value


def _unique(channels: list[int]) -> list[int]:
    if len(set(channels)) != len(channels):
        raise ValueError("a channel stands twice")
    return channels


Values = Annotated[
    dict[Annotated[str, AfterValidator(_variable)], Annotated[float, AfterValidator(_finite_float32)]],
    Field(min_length=1),
]
LeaseId = Annotated[str, Field(min_length=1, max_length=128)]
Channels = (
    Annotated[
        list[Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1, max_length=1024), AfterValidator(_unique)
    ]
    | Literal["all"]
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Expect(_Model):
    """What must hold for the command to be carried out."""

    status: str | None = None
    test_name: str | None = None
    schedule: str | None = None
    step: int | None = None
    running: bool | None = None


class OnExpiry(_Model):
    """What the bridge does by itself when a lease runs out: write variables."""

    set_mv: Values


class LeaseTerms(_Model):
    """Until when the sender vouches for a channel, and what is to happen if it is not heard of by then.

    Attributes:
        lease_id: of the lease that is renewed, where no user level says who renews it.
    """

    ttl_s: Annotated[float, Field(gt=0, le=LONGEST_LEASE_S)]
    on_expiry: OnExpiry | Literal["stop", "alarm"]
    lease_id: LeaseId | None = None

    @property
    def fallback(self) -> Mapping[int, float]:
        """The variables that are written when it runs out."""
        return _by_index(self.on_expiry.set_mv) if isinstance(self.on_expiry, OnExpiry) else {}


class Order(_Model):
    """What every command may say."""

    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    issued_at: Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text_only)] | None = None
    ttl_s: Annotated[float, Field(gt=0)] | None = None
    expect: Expect | None = None
    dry_run: bool = False
    channels: Channels | None = None

    def values_for(self, channel: int) -> Mapping[int, float]:
        """The meta variables to write on a channel, by index."""
        del channel
        return {}


class Start(Order):
    """Start a test; with a schedule, assign that first."""

    test_name: Annotated[str, Field(min_length=1)]
    schedule: Annotated[str, Field(min_length=1)] | None = None
    barcode: str = ""
    capacity_ah: Annotated[float, AfterValidator(_finite_float32), Field(gt=0)] | None = None
    values: Values | None = None
    lease: LeaseTerms | None = None
    lease_id: LeaseId | None = None

    def values_for(self, channel: int) -> Mapping[int, float]:
        """What to write once the test runs."""
        del channel
        return _by_index(self.values)


class Assign(Order):
    """Put a schedule on a channel."""

    schedule: Annotated[str, Field(min_length=1)]
    barcode: str = ""
    capacity_ah: Annotated[float, AfterValidator(_finite_float32), Field(gt=0)] | None = None
    values: Values | None = None

    def values_for(self, channel: int) -> Mapping[int, float]:
        """What counts on MITS 7 only."""
        del channel
        return _by_index(self.values)


class SetMv(Order):
    """Write meta variables."""

    values: Values | None = None
    per_channel: Annotated[dict[Annotated[str, AfterValidator(_channel)], Values], Field(max_length=1024)] | None = None
    lease: LeaseTerms | None = None
    lease_id: LeaseId | None = None

    def values_for(self, channel: int) -> Mapping[int, float]:
        """What to write; a channel's own values stand above those for all."""
        return _by_index({**(self.values or {}), **(self.per_channel or {}).get(str(channel), {})})


class Release(Order):
    """Give a lease back before it runs out."""

    lease_id: LeaseId | None = None


class Stop(Order):
    """Stop the test."""


class Resume(Order):
    """Take a stopped test up again."""


class Continue(Order):
    """End a pause."""


class Jump(Order):
    """Go on at another step of the running schedule."""

    step: Annotated[int, Field(ge=1, le=MAX_STEP)]


class ShowMessage(Order):
    """Show a text to the person at the console."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_MESSAGE)]


class ListSchedules(Order):
    """Publish anew which schedule files there are."""


class Replay(Order):
    """Send readings again that the journal still holds.

    Attributes:
        boot: the run of the bridge that took them.
    """

    boot: Annotated[str, Field(min_length=1, max_length=64)]
    from_seq: Annotated[int, Field(ge=1)]
    to_seq: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _in_order(self) -> "Replay":
        if self.to_seq < self.from_seq:
            raise ValueError(f"to_seq {self.to_seq} comes before from_seq {self.from_seq}")
        return self


ORDERS: dict[str, type[Order]] = {
    "start": Start,
    "stop": Stop,
    "resume": Resume,
    "continue": Continue,
    "jump": Jump,
    "assign": Assign,
    SET_MV: SetMv,
    "release": Release,
    "message": ShowMessage,
    "schedules": ListSchedules,
    "replay": Replay,
}


def _by_index(values: Mapping[str, float] | None) -> Mapping[int, float]:
    return {int(index): value for index, value in sorted((values or {}).items(), key=lambda item: int(item[0]))}


# --- parsing ---


def parse_json(payload: bytes) -> Any:
    """Strict JSON.

    Raises:
        MalformedError: it is none, or a key stands twice, or it is too large.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedError(f"{len(payload)} bytes are too many; at most {MAX_PAYLOAD_BYTES}")
    return _parse_json(payload)


@lru_cache(maxsize=16)  # a command's id, its order and its digest are looked for one after the other
def _parse_json(payload: bytes) -> Any:
    try:
        orjson.loads(payload)  # refuses what Python's own parser lets pass: NaN, lone surrogates, bad UTF-8
        return _DECODER.decode(payload.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error


def _no_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key stands twice")
    return body


_DECODER = json.JSONDecoder(object_pairs_hook=_no_repeated_keys)


def parse_order(verb: str, payload: bytes, *, to_cycler: bool) -> Order:
    """The order behind a JSON payload.

    Args:
        verb: one of `ORDERS`.
        payload: as it came.
        to_cycler: whether it was sent to the cycler, so that it must name channels.

    Raises:
        MalformedError: it does not say what the verb needs, or says something else besides.
    """
    body = parse_json(payload)
    if not isinstance(body, dict):
        raise MalformedError(f"the payload must be a JSON object, not {_kind(body)}")
    try:
        order = ORDERS[verb].model_validate(body)
    except ValidationError as error:
        raise MalformedError("; ".join(describe(error, f"{verb} has no such field"))) from None
    _check_channels(verb, order, to_cycler=to_cycler)
    return order


def parse_stop_all(payload: bytes) -> Order:
    """The order behind a stop sent to the cycler: empty means every permitted channel.

    Raises:
        MalformedError: it is neither empty nor names channels.
    """
    return parse_order("stop", payload, to_cycler=True) if payload else Stop(channels="all")


def parse_stop(payload: bytes) -> Order:
    """The order behind a stop sent to a channel: any payload means stop."""
    return Stop(id=peek_id(payload))


def parse_value(variable: int, payload: bytes) -> Order:
    """The order behind the meta-variable shortcut: one JSON number and nothing else.

    Raises:
        MalformedError: it is something else.
    """
    body = parse_json(payload)
    if isinstance(body, bool) or not isinstance(body, int | float):
        raise MalformedError(f"the payload must be one JSON number, not {_kind(body)}")
    try:
        return SetMv(values={str(variable): float(body)})
    except (ValidationError, OverflowError):
        raise MalformedError(f"{body!r:.40} does not fit into a 32-bit float") from None


def peek_id(payload: bytes) -> str | None:
    """The id of a command that may be wrong otherwise, so that its sender recognises the refusal."""
    try:
        body = parse_json(payload)
    except MalformedError:
        return None
    identifier = body.get("id") if isinstance(body, dict) else None
    return identifier if isinstance(identifier, str) and 1 <= len(identifier) <= 128 else None


@lru_cache(maxsize=16)
def digest(payload: bytes) -> str:
    """What a command asks for, as a hash: the same for a repeat that only says anew when it was sent.

    Raises:
        MalformedError: the payload is no JSON.
    """
    body = parse_json(payload)
    if isinstance(body, dict):
        body = {key: value for key, value in body.items() if key not in _SENDING_TIMES}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_SENDING_TIMES = frozenset({"issued_at", "ttl_s"})


def new_id() -> str:
    """An id for a command that came without one."""
    return uuid.uuid4().hex


def _check_channels(verb: str, order: Order, *, to_cycler: bool) -> None:
    if verb in CYCLER_VERBS:
        for name in ("channels", "expect"):
            if getattr(order, name) is not None:
                raise MalformedError(f"{name}: {verb} is about the cycler as a whole")
        return
    if to_cycler and order.channels is None:
        raise MalformedError('channels: missing; give a list such as [1, 2] or "all"')
    if not to_cycler and order.channels is not None:
        raise MalformedError(f"channels: belongs to a command to the cycler; this one goes to a channel ({verb})")
    if isinstance(order, SetMv):
        _check_values(order, to_cycler=to_cycler)


def _check_values(order: SetMv, *, to_cycler: bool) -> None:
    if order.per_channel and not to_cycler:
        raise MalformedError("per_channel: belongs to a command to the cycler; this one goes to a channel")
    if not order.values and not order.per_channel:
        raise MalformedError('values: missing; give for instance {"1": 2.5}')
    named = order.channels if isinstance(order.channels, list) else None
    texts = set(map(str, named or ()))
    strangers = [key for key in order.per_channel or {} if named is not None and key not in texts]
    if strangers:
        raise MalformedError(f"per_channel: {', '.join(strangers)} not among channels")
    without = [n for n in named or () if not order.values_for(n)]
    if without:
        raise MalformedError(f"values: missing for channel {', '.join(map(str, without))}")


def _kind(body: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(body), "a number")
