"""The payload of a command -> its order, its id, its digest; pure."""

import hashlib
import json
import uuid
from functools import lru_cache
from typing import Any

import orjson
from pydantic import ValidationError

from cti_mqtt.bridge.orders import CYCLER_VERBS, ORDERS, Order, SetMv, Stop
from cti_mqtt.validation import describe

MAX_PAYLOAD_BYTES = 64 * 1024


class MalformedError(ValueError):
    """The payload is not the command's; the message names what was wrong and what would be right."""


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
