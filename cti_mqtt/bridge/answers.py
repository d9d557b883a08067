"""What is said of a command: its result, where it is wanted, and later what became of one whose outcome is unknown.

A result is put on record before it is published: what was said once is said again after a restart.
"""

import logging
from asyncio import Future
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cti_mqtt.bridge.bus import Bus, Happening, Item, Poll, ReplyTo, Result
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.orders import CYCLER_VERBS
from cti_mqtt.bridge.payloads import encode
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import CommandKey, Store, StoredResult
from cti_mqtt.bridge.topics import CommandTopic, Topics
from cti_mqtt.bridge.verdict import Outcome, Verdict, refused

log = logging.getLogger(__name__)

MAX_CORRELATION_BYTES = 1024
LONGEST_MESSAGE = 1000  # characters: a result must not become larger than a broker takes
LONGEST_ECHO = 128  # of what a topic said
LONGEST_ON_RECORD = 2000  # bytes of a payload that the audit keeps


@dataclass(slots=True)
class Command:
    """One message on a command topic, on its way to its result.

    Attributes:
        began: when it was received, monotonic, s.
        number: counts commands in the order in which they were heard; 0 for one of an earlier run.
        id: its own, or one it was given.
        key: under which it is on record; None while it is not.
        waits: whether its results are published only once they are on record.
        unsure: whether it is refused because nobody knows if it got on record.
        lost: whether one of its results is not on record, or perhaps not.
        dry_run: whether to check everything and send nothing.
        status_before: what each of its channels showed when it was received.
        lease_ids: the leases that it was granted or renewed, by channel.
        results: what was published of it: its channel (None: the cycler's) and the payload's fields.
    """

    topic: CommandTopic
    incoming: Incoming
    received_at: datetime
    began: float
    id: str
    number: int = 0
    key: CommandKey | None = None
    waits: bool = True
    unsure: bool = False
    lost: bool = False
    dry_run: bool = False
    status_before: dict[int, str] = field(default_factory=dict)
    lease_ids: dict[int, str] = field(default_factory=dict)
    results: list[tuple[int | None, Mapping[str, Any]]] = field(default_factory=list)


class Answers:
    """Publishes results.

    Args:
        topics: names.
        bus: where results are published.
        clock: stamps and durations.
        store: where they are put on record.
        on_finished: told of each command on record when its last result is.
    """

    def __init__(
        self, topics: Topics, bus: Bus, clock: Clock, store: Store, on_finished: Callable[[Command], None]
    ) -> None:
        self._topics = topics
        self._bus = bus
        self._clock = clock
        self._store = store
        self._on_finished = on_finished
        self._unresolved: dict[tuple[str, int], list[tuple[str, str]]] = {}
        bus.subscribe(self._look_at)

    # --- results ---

    def refusal(self, command: Command, station: Station | None, refusal: Refusal) -> None:
        """Of a command that was refused before any channel was looked at."""
        topic = command.topic
        body = self._body(command, topic.channel, refused(refusal.reason, str(refusal)), None)
        if topic.channel_text is None and station is not None and topic.verb not in CYCLER_VERBS:
            body["channels"] = {}
        cycler = station.name if station else None
        self._settle(command, topic.channel, body, self._result(command, cycler, topic.channel_text, body, reply=True))

    def channel(self, command: Command, station: Station, channel: int, verdict: Verdict) -> None:
        """Of one channel."""
        body = self._body(command, channel, verdict, station)
        if verdict.outcome is Outcome.UNKNOWN:
            self.look_for(station.name, channel, command.id, command.topic.verb)
        alone = command.topic.channel_text is not None
        result = self._result(command, station.name, str(channel), body, reply=alone)
        self._settle(command, channel, body, result, last=alone)

    def whole(self, command: Command, station: Station, verdict: Verdict) -> None:
        """Of a command about the cycler as a whole."""
        body = self._body(command, None, verdict, None)
        self._settle(command, None, body, self._result(command, station.name, None, body, reply=True))

    def many(self, command: Command, station: Station, verdicts: Mapping[int, Verdict]) -> None:
        """The summary of a command over many channels, after theirs."""
        worst = max(verdicts.values(), key=lambda verdict: verdict.outcome)
        succeeded = sum(verdict.outcome is Outcome.SUCCEEDED for verdict in verdicts.values())
        message = f"{succeeded} of {len(verdicts)} channels succeeded"
        if worst.outcome is not Outcome.SUCCEEDED:
            message += f"; the worst: {worst.message}"
        body = self._body(command, None, replace(worst, message=message, verified=None, assigned=None), None)
        body["channels"] = {str(channel): verdict.outcome.text for channel, verdict in sorted(verdicts.items())}
        self._settle(command, None, body, self._result(command, station.name, None, body, reply=True))

    def repeat(self, command: Command, results: list[tuple[int | None, Mapping[str, Any]]]) -> None:
        """The first results once more, for a command that was sent again."""
        log.info("%s: %s %s: sent again", command.topic.cycler, command.topic.verb, command.id)
        to_channel = command.topic.channel_text is not None
        for channel, body in results:
            text = None if channel is None else str(channel)
            again = {**body, "duplicate": True}
            self._bus.publish(
                self._result(command, command.topic.cycler, text, again, reply=to_channel or channel is None)
            )

    def look_for(self, cycler: str, channel: int, command_id: str, verb: str) -> None:
        """The next poll of this channel shows how a command of unknown outcome ended."""
        self._unresolved.setdefault((cycler, channel), []).append((command_id, verb))

    # --- on record, then published ---

    def _settle(
        self, command: Command, channel: int | None, body: Mapping[str, Any], result: Result, *, last: bool = True
    ) -> None:
        command.results.append((channel, body))
        written = self._write(command, channel, body, last=last)
        if written is None or not command.waits:
            self._publish(result)
        if written is None:
            return

        def on_record(done: "Future[None]") -> None:
            if error := done.cancelled() or done.exception():
                command.lost = True
                log.error("%s: the result of %s is not on record: %s", command.topic.cycler, command.id, error)
            if command.waits:
                self._publish(result)
            if last:
                self._on_finished(command)

        written.add_done_callback(on_record)

    def _write(
        self, command: Command, channel: int | None, body: Mapping[str, Any], *, last: bool
    ) -> "Future[None] | None":
        """Put a result on record, with an entry in the audit; None where nobody has to wait for that."""
        entry, key = audit_entry(command, channel, body), command.key
        if key is None or command.unsure:
            self._store.audit([entry])
            return settle(self._store, command) if last and command.unsure else None
        return self._store.answer(key, [stored_result(channel, body)], finished=last, audit=[entry])

    def _publish(self, result: Result) -> None:
        """The result first: a line in the log can wait."""
        self._bus.publish(result)
        body = result.body
        log.info(
            "%s: %s %s: %s (%s) %s",
            body["cycler"],
            body["command"],
            result.channel_text or "",
            body["outcome"],
            body["reason"],
            body["message"],
        )

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
        lease_ids = {command.lease_ids[channel]} if channel in command.lease_ids else set(command.lease_ids.values())
        if len(lease_ids) == 1 and (channel is None or channel in command.lease_ids):
            body["lease_id"] = lease_ids.pop()
        return body

    def _result(
        self, command: Command, cycler: str | None, channel_text: str | None, body: Mapping[str, Any], *, reply: bool
    ) -> Result:
        text = None if cycler is None else channel_text
        return Result(cycler, text, body, self._reply_to(command.incoming) if reply else None)

    def _reply_to(self, incoming: Incoming) -> ReplyTo | None:
        topic, correlation = incoming.response_topic, incoming.correlation
        if topic is None or not self._topics.may_reply_to(topic) or len(correlation or b"") > MAX_CORRELATION_BYTES:
            return None
        return ReplyTo(topic, correlation)

    # --- later ---

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


def settle(store: Store, command: Command) -> "Future[None]":
    """Make what was said of a command that is on record, or may be, its results there."""
    assert command.key is not None  # noqa: S101  # it has been asked for
    results = [stored_result(channel, body) for channel, body in command.results]
    return store.settle(command.key, stamp(command.received_at), results, replace=not command.unsure)


def stored_result(channel: int | None, body: Mapping[str, Any]) -> StoredResult:
    """A result as it is kept."""
    return StoredResult(channel, encode(body).decode())


def audit_entry(command: Command, channel: int | None, body: Mapping[str, Any]) -> Mapping[str, object]:
    """Who asked for what, when, what was before and after, and how it ended.

    What a command to the cycler said stands once, in the entry of its summary; its channels' entries have its id.
    """
    is_part = channel is not None and command.topic.channel_text is None
    said = {"received_at": body["received_at"], "request": request_text(command.incoming.payload)}
    return {
        "ts": body["completed_at"],
        "who": body["user"],
        "what": body["command"],
        "cycler": body["cycler"],
        "channel": channel,
        "id": command.id,
        "before": body["status_before"],
        "after": body["status_after"],
        "outcome": body["outcome"],
        "reason": body["reason"],
        "code": body["code"],
        "message": body["message"],
        "dry_run": command.dry_run,
        **({} if is_part else said),
    }


def request_text(payload: bytes) -> str:
    """A payload as it is put on record: as text, and not longer than is good for a record."""
    text = payload[:LONGEST_ON_RECORD].decode("utf-8", "replace")
    return text if len(payload) <= LONGEST_ON_RECORD else f"{text} … ({len(payload)} bytes)"
