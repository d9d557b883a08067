"""What a command can say, as checked orders; pure. `order_parsing` makes them of payloads.

Strict: an unknown field, a key that stands twice, a text where a number belongs: all refused. A typing error must not
start a test.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from cti_mqtt.bridge.variables import to_float32
from cti_mqtt.cti.codes import META_VARIABLE_COUNT

SET_MV = "set_mv"
STATE_VERBS = frozenset({"start", "stop", "resume", "continue", "jump"})  # they exclude each other
CYCLER_VERBS = frozenset({"message", "schedules", "replay"})  # about the cycler as a whole: no channel, no channels
LONGEST_MESSAGE = 1000  # UTF-16 units; with the date in front it must fit into 1023
MAX_STEP = 65535
LONGEST_LEASE_S = 7 * 24 * 3600.0  # beyond that nobody is expected any more


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
