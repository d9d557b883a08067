"""The plain topics of the contract: everything as JSON below the base topic."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cti_mqtt import config
from cti_mqtt.bridge import payloads
from cti_mqtt.bridge.bus import (
    Alarm,
    ChannelState,
    CyclerState,
    Happening,
    Health,
    Item,
    LeaseState,
    MetaVariables,
    Poll,
    Reading,
    Result,
    Schedules,
    StaleReading,
)
from cti_mqtt.bridge.by_exception import ReportByException
from cti_mqtt.bridge.fragments import Fragments
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.topics import Topics

STATE_EXPIRY_S = 60  # at the least: a state that old tells nothing, whoever was to update it
SILENCES = 3  # a state outlives so many of the longest silences: one that is published late is still there

ONLINE, OFFLINE = b"online", b"offline"


class PlainOutput:
    """Turns items of the internal stream into messages.

    Args:
        settings: which topics, how large, and the cyclers' intervals and addresses.
        topics: names.
        boot: this run of the bridge.
        report: which readings are worth a `state`.
        publish: where the messages go.
        deliver: where polls go, with their readings as JSON, one text a channel; None: nobody wants them.
    """

    def __init__(
        self,
        settings: config.Config,
        topics: Topics,
        boot: str,
        report: ReportByException,
        publish: Callable[[Message], object],
        deliver: Callable[[Poll, Sequence[bytes]], None] | None,
    ) -> None:
        self._settings = settings.publish
        self._cyclers: Mapping[str, config.Cycler] = settings.cyclers
        self._topics = topics
        self._boot = boot
        self._report = report
        self._publish = publish
        self._deliver = deliver
        self._fragments = Fragments()

    def follow(self, cyclers: Mapping[str, config.Cycler]) -> None:
        """From now on these are the cyclers' settings."""
        self._cyclers = cyclers
        self._fragments.keep_only(cyclers)

    def __call__(self, item: Item) -> None:  # noqa: C901  # a table: one line a kind
        """Publish what an item says."""
        match item:
            case Poll():
                self._poll(item)
            case StaleReading(cycler, reading):
                self._states(cycler, [reading], self._fragments(cycler, [reading]))
            case CyclerState():
                self._cycler_state(item)
            case ChannelState(cycler, channel, availability):
                self._retain(self._topics.channel(cycler, channel, "availability"), availability.value.encode())
            case MetaVariables(cycler, channel, values):
                body = payloads.encode(payloads.meta_variables(values))
                self._retain(self._topics.channel(cycler, channel, "mv"), body)
            case Schedules(cycler, names):
                self._retain(self._topics.cycler(cycler, "schedules"), payloads.encode(names))
            case Happening():
                self._happening(item)
            case Result():
                self._result(item)
            case Alarm() | LeaseState():
                leaf = f"alarm/{item.name}" if isinstance(item, Alarm) else "lease"
                self._retain(self._topics.channel(item.cycler, item.channel, leaf), _while_it_stands(item.body))
            case Health(fields):
                self._retain(f"{self._topics.bridge}/health", payloads.encode(fields))

    def _retain(self, topic: str, payload: bytes) -> None:
        self._publish(Message(topic, payload, qos=1, retain=True))

    # --- readings ---

    def _poll(self, poll: Poll) -> None:
        fragments = None
        if self._deliver is not None:  # first: what comes behind may fail, and no reading be lost by that
            fragments = self._fragments(poll.cycler, poll.readings)
            self._deliver(poll, fragments)
        if self._settings.state:
            news = self._report.worth_telling(poll)
            if fragments is None:
                fragments = self._fragments(poll.cycler, news)
            elif news is not poll.readings:
                fragments = _bodies(news, poll.readings, fragments)
            self._states(poll.cycler, news, fragments)

    def _states(self, cycler: str, readings: Sequence[Reading], bodies: Sequence[bytes]) -> None:
        if not self._settings.state:
            return
        qos, expiry_s = self._settings.state_qos, self._state_expiry_s(cycler)
        for reading, body in zip(readings, bodies, strict=True):
            topic = self._topics.channel(cycler, reading.channel, "state")
            payload = payloads.state(self._boot, reading, body)
            self._publish(Message(topic, payload, qos=qos, retain=True, expiry_s=expiry_s))

    def _state_expiry_s(self, cycler: str) -> int:
        """How long the broker keeps a state; what a channel that lives says at last comes well before that."""
        between_s = 10 * self._cyclers[cycler].poll_interval_s, SILENCES * (self._report.longest_silence_s or 0.0)
        return max(STATE_EXPIRY_S, *map(math.ceil, between_s))

    # --- the rest ---

    def _cycler_state(self, item: CyclerState) -> None:
        if item.info is not None:
            cycler = self._cyclers[item.cycler]
            body = payloads.cycler_info(item.info, f"{cycler.host}:{cycler.port}")
            self._retain(self._topics.cycler(item.cycler, "info"), payloads.encode(body))
        self._retain(self._topics.cycler(item.cycler, "availability"), ONLINE if item.online else OFFLINE)

    def _happening(self, item: Happening) -> None:
        body = payloads.encode(payloads.happening(item))
        if item.cycler is None:
            topic = f"{self._topics.bridge}/event"
        elif item.channel is None:
            topic = self._topics.cycler(item.cycler, "event")
        else:
            topic = self._topics.channel(item.cycler, item.channel, "event")
        self._publish(Message(topic, body, qos=1))

    def _result(self, item: Result) -> None:
        body = payloads.encode(item.body)
        if item.cycler is None:
            topic = f"{self._topics.bridge}/result"
        elif item.channel_text is None:
            topic = self._topics.cycler(item.cycler, "result")
        else:
            topic = self._topics.channel(item.cycler, item.channel_text, "result")
        self._publish(Message(topic, body, qos=1, urgent=True))
        if item.reply_to is not None:
            correlation = item.reply_to.correlation
            self._publish(Message(item.reply_to.topic, body, qos=1, correlation=correlation, urgent=True))


def _bodies(news: Sequence[Reading], readings: Sequence[Reading], fragments: Sequence[bytes]) -> list[bytes]:
    """Of the readings' fragments those of the news."""
    channels = {reading.channel for reading in news}
    return [body for reading, body in zip(readings, fragments, strict=True) if reading.channel in channels]


def _while_it_stands(body: Mapping[str, Any] | None) -> bytes:
    """An empty retained message takes the topic away."""
    return b"" if body is None else payloads.encode(body)
