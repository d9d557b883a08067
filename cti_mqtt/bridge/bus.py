"""The bridge's internal stream: what happened, as values, to whoever wants to know.

Outputs (plain topics, and whatever is added later) subscribe here. Who publishes knows nothing of them. Channels are
numbered from 1. Times are UTC text with milliseconds, as they are published.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from cti_mqtt.cti.messages.channels import ChannelRecord
from cti_mqtt.cti.messages.session import LoginFeedback

log = logging.getLogger(__name__)


class Quality(Enum):
    """How far a reading can be trusted."""

    GOOD = "good"
    STALE = "stale"  # older than three intervals
    COMM_LOST = "comm_lost"  # the cycler itself has lost the channel


class Availability(Enum):
    """Whether somebody is there."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


class Reading(NamedTuple):
    """One channel at one time; a named tuple, since there are more of them than of all the rest."""

    channel: int
    record: ChannelRecord
    quality: Quality
    ts: str
    seq: int


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll brought; `seq` counts such polls of a cycler since the bridge started."""

    cycler: str
    ts: str
    seq: int
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class StaleReading:
    """A channel has not been heard of for three intervals; `reading` is the last one, marked so."""

    cycler: str
    reading: Reading


@dataclass(frozen=True, slots=True)
class CyclerState:
    """A cycler came or went; `info` is what it said at its last login."""

    cycler: str
    online: bool
    info: LoginFeedback | None


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel's availability changed."""

    cycler: str
    channel: int
    availability: Availability


@dataclass(frozen=True, slots=True)
class Schedules:
    """The schedule files on a cycler, as they can be assigned."""

    cycler: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetaVariables:
    """The variables that this bridge wrote and the cycler accepted since the test started."""

    cycler: str
    channel: int
    values: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something a person or program may want to react to: the `event` topics."""

    ts: str
    type: str
    message: str
    cycler: str | None = None
    channel: int | None = None
    before: Any = None
    after: Any = None
    command_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where else a result is wanted (MQTT 5)."""

    topic: str
    correlation: bytes | None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one command.

    Attributes:
        cycler: None for a cycler that does not exist.
        channel_text: the channel level of the topic it goes to; None for the cycler's own.
        body: the payload's fields, in order.
    """

    cycler: str | None
    channel_text: str | None
    body: Mapping[str, Any] = field(hash=False)
    reply_to: ReplyTo | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm of a channel; `body` has the payload's fields while it stands, None when it does not."""

    cycler: str
    channel: int
    name: str
    body: Mapping[str, Any] | None = field(hash=False)


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who vouches for a channel; `body` has the payload's fields while a lease runs, None when none does."""

    cycler: str
    channel: int
    body: Mapping[str, Any] | None = field(hash=False)


@dataclass(frozen=True, slots=True)
class Health:
    """The bridge's verdict on itself; the payload's fields, in order."""

    body: Mapping[str, Any] = field(hash=False)


Item = (
    Poll
    | StaleReading
    | CyclerState
    | ChannelState
    | MetaVariables
    | Schedules
    | Happening
    | Result
    | Alarm
    | LeaseState
    | Health
)


class Bus:
    """Hands each item to each subscriber, in order, at once."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[Callable[[Item], None], str | None]] = []

    def subscribe(self, subscriber: Callable[[Item], None], cycler: str | None = None) -> Callable[[], None]:
        """From now on `subscriber` gets every item, until what this returns is called; it must not block.

        Args:
            subscriber: called in the event loop.
            cycler: whose items it wants; None: all. Where each of hundreds of cyclers has somebody who listens, looking
                at the others' items costs more than the items.
        """
        entry = subscriber, cycler
        self._subscribers.append(entry)

        def unsubscribe() -> None:
            if entry in self._subscribers:
                remaining = self._subscribers.copy()  # an item may be handed round just now
                remaining.remove(entry)
                self._subscribers = remaining

        return unsubscribe

    def publish(self, item: Item) -> None:
        """Hand an item to every subscriber; one that fails is logged and keeps no other from it."""
        whose = getattr(item, "cycler", None)
        for subscriber, cycler in self._subscribers:
            if cycler is not None and cycler != whose:
                continue
            try:
                subscriber(item)
            except Exception:  # an output's bug must not keep a stop from its channel
                log.exception("an output failed on %s", type(item).__name__)
