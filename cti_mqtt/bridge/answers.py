"""What is said of a command: its result, where it is wanted, and later what became of one whose outcome is unknown."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cti_mqtt.bridge.bus import Bus, Happening, Item, Poll, ReplyTo, Result
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.orders import CYCLER_VERBS
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.topics import CommandTopic, Topics
from cti_mqtt.bridge.verdict import Outcome, Verdict, refused

log = logging.getLogger(__name__)

MAX_CORRELATION_BYTES = 1024
LONGEST_MESSAGE = 1000  # characters: a result must not become larger than a broker takes
LONGEST_ECHO = 128  # of what a topic said


@dataclass(slots=True)
class Command:
    """One message on a command topic, on its way to its result.

    Attributes:
        began: when it was received, monotonic, s.
        id: its own, or one it was given.
        dry_run: whether to check everything and send nothing.
        status_before: what each of its channels showed when it was received.
    """

    topic: CommandTopic
    incoming: Incoming
    received_at: datetime
    began: float
    id: str
    dry_run: bool = False
    status_before: dict[int, str] = field(default_factory=dict)


class Answers:
    """Publishes results.

    Args:
        topics: names.
        bus: where results are published.
        clock: stamps and durations.
    """

    def __init__(self, topics: Topics, bus: Bus, clock: Clock) -> None:
        self._topics = topics
        self._bus = bus
        self._clock = clock
        self._unresolved: dict[tuple[str, int], list[tuple[str, str]]] = {}
        bus.subscribe(self._look_at)

    def refusal(self, command: Command, station: Station | None, refusal: Refusal) -> None:
        """Of a command that was refused before any channel was looked at."""
        topic = command.topic
        body = self._body(command, topic.channel, refused(refusal.reason, str(refusal)), None)
        if topic.channel_text is None and station is not None and topic.verb not in CYCLER_VERBS:
            body["channels"] = {}
        self._publish(command, station.name if station else None, topic.channel_text, body, reply=True)

    def channel(self, command: Command, station: Station, channel: int, verdict: Verdict) -> None:
        """Of one channel."""
        body = self._body(command, channel, verdict, station)
        if verdict.outcome is Outcome.UNKNOWN:
            waiting = self._unresolved.setdefault((station.name, channel), [])
            waiting.append((command.id, command.topic.verb))
        self._publish(command, station.name, str(channel), body, reply=command.topic.channel_text is not None)

    def whole(self, command: Command, station: Station, verdict: Verdict) -> None:
        """Of a command about the cycler as a whole."""
        self._publish(command, station.name, None, self._body(command, None, verdict, None), reply=True)

    def many(self, command: Command, station: Station, verdicts: Mapping[int, Verdict]) -> None:
        """The summary of a command over many channels, after theirs."""
        worst = max(verdicts.values(), key=lambda verdict: verdict.outcome)
        succeeded = sum(verdict.outcome is Outcome.SUCCEEDED for verdict in verdicts.values())
        message = f"{succeeded} of {len(verdicts)} channels succeeded"
        if worst.outcome is not Outcome.SUCCEEDED:
            message += f"; the worst: {worst.message}"
        body = self._body(command, None, replace(worst, message=message, verified=None, assigned=None), None)
        body["channels"] = {str(channel): verdict.outcome.text for channel, verdict in sorted(verdicts.items())}
        self._publish(command, station.name, None, body, reply=True)

    def _body(self, command: Command, channel: int | None, verdict: Verdict, station: Station | None) -> dict[str, Any]:
        reading = station.book.latest(channel) if station and channel is not None else None
        body: dict[str, Any] = {
            "id": command.id,
            "command": command.topic.verb[:LONGEST_ECHO],
            "cycler": command.topic.cycler[:LONGEST_ECHO],
            "channel": channel,
            "outcome": verdict.outcome.text,
            "code": verdict.code,
            "reason": verdict.reason,
            "message": verdict.message[:LONGEST_MESSAGE],
            "verified": verdict.verified,
            "status_before": command.status_before.get(channel) if channel is not None else None,
            "status_after": reading.record.status.text if reading else None,
            "duplicate": False,
            "user": None if command.topic.user is None else command.topic.user[:LONGEST_ECHO],
            "received_at": stamp(command.received_at),
            "completed_at": stamp(self._clock.now()),
            "duration_ms": round(1000 * (self._clock.monotonic() - command.began), 3),
        }
        if verdict.assigned is not None:
            body["assigned"] = verdict.assigned
        if command.dry_run:
            body["dry_run"] = True
        return body

    def _publish(
        self, command: Command, cycler: str | None, channel_text: str | None, body: Mapping[str, Any], *, reply: bool
    ) -> None:
        log.info(
            "%s: %s %s: %s (%s) %s",
            command.topic.cycler,
            command.topic.verb,
            channel_text or "",
            body["outcome"],
            body["reason"],
            body["message"],
        )
        if cycler is None:
            channel_text = None
        self._bus.publish(Result(cycler, channel_text, body, self._reply_to(command.incoming) if reply else None))

    def _reply_to(self, incoming: Incoming) -> ReplyTo | None:
        topic, correlation = incoming.response_topic, incoming.correlation
        if topic is None or not self._topics.may_reply_to(topic) or len(correlation or b"") > MAX_CORRELATION_BYTES:
            return None
        return ReplyTo(topic, correlation)

    def _look_at(self, item: Item) -> None:
        """The next poll after an unknown outcome shows how it ended."""
        if not isinstance(item, Poll) or not self._unresolved:
            return
        for reading in item.readings:
            for command_id, verb in self._unresolved.pop((item.cycler, reading.channel), ()):
                status = reading.record.status.text
                message = f"after a {verb} of unknown outcome the channel shows {status}"
                self._bus.publish(
                    Happening(
                        item.ts,
                        "command_finding",
                        message,
                        item.cycler,
                        reading.channel,
                        after=status,
                        command_id=command_id,
                    )
                )
