"""A command's life: heard, checked, carried out, answered. Exactly one result a command, whatever happens."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from cti_mqtt.bridge import checks
from cti_mqtt.bridge.bus import Bus, Happening, Item, Poll, ReplyTo, Result
from cti_mqtt.bridge.checks import BusyBoard, Refusal
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.execution import Executor
from cti_mqtt.bridge.jobs import Job
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.orders import (
    CYCLER_VERBS,
    STATE_VERBS,
    Deadline,
    MalformedError,
    Order,
    ShowMessage,
    new_id,
    parse_order,
    parse_stop,
    parse_stop_all,
    parse_value,
    peek_id,
)
from cti_mqtt.bridge.retained import Judgement, RetainedGuard
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.topics import CommandTopic, Topics
from cti_mqtt.bridge.verdict import Outcome, Verdict, refused
from cti_mqtt.errors import CtiMqttError, WithdrawnError

log = logging.getLogger(__name__)

MAX_UNFINISHED = 1000  # commands a cycler; beyond, they would only grow old
MAX_CORRELATION_BYTES = 1024
WHOLE_CYCLER = 0  # stands for the channel where a command is about none


@dataclass(slots=True)
class Command:
    """One message on a command topic, on its way to its result.

    Attributes:
        id: its own, or one it was given.
        dry_run: whether to check everything and send nothing.
    """

    topic: CommandTopic
    incoming: Incoming
    received_at: datetime
    began: float
    id: str
    dry_run: bool = False
    status_before: dict[int, str] = field(default_factory=dict)


class Commander:
    """Hears commands and answers them; `run` must be running for those that take time.

    Args:
        topics: names.
        stations: the cyclers, by id.
        bus: where results are published.
        clock: stamps and ages.
        guard: judges retained messages.
        clear: publishes an empty retained message on a topic.
    """

    def __init__(
        self,
        topics: Topics,
        stations: Mapping[str, Station],
        bus: Bus,
        clock: Clock,
        guard: RetainedGuard,
        clear: Callable[[str], None],
    ) -> None:
        self._topics = topics
        self._stations = stations
        self._bus = bus
        self._clock = clock
        self._guard = guard
        self._clear = clear
        self._executors = {name: Executor(station) for name, station in stations.items()}
        self._busy = BusyBoard()
        self._unfinished = dict.fromkeys(stations, 0)
        self._unresolved: dict[tuple[str, int], list[tuple[str, str]]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        bus.subscribe(self._look_at)

    async def run(self) -> None:
        """Carry out commands until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    # --- heard ---

    def hear(self, incoming: Incoming) -> None:
        """Take a message from the broker."""
        topic = self._topics.parse_command(incoming.topic)
        if topic is None:
            return
        judgement = self._guard.judge(
            incoming.topic, incoming.payload, retain=incoming.retain, is_stop=topic.verb == "stop"
        )
        if judgement is Judgement.SWALLOW:
            return
        if judgement in {Judgement.TAKE_AND_CLEAR, Judgement.REFUSE_AND_CLEAR}:
            self._clear(incoming.topic)
        command = Command(
            topic, incoming, self._clock.now(), self._clock.monotonic(), peek_id(incoming.payload) or new_id()
        )
        try:
            if judgement in {Judgement.REFUSE, Judgement.REFUSE_AND_CLEAR}:
                raise Refusal("retained", "retained commands are not carried out; publish it without the retain flag")
            self._admit(command)
        except Refusal as refusal:
            self._answer_refusal(command, refusal)

    def _admit(self, command: Command) -> None:
        topic = command.topic
        station = checks.check_addressee(topic, self._stations.get(topic.cycler))
        control = station.settings.control
        channel = None
        if topic.channel_text is not None:
            channel = checks.check_channel(topic.channel, topic.channel_text, station)
        checks.check_verb_and_user(topic, control)
        if channel is not None:
            checks.check_channel_allowed(channel, control)
        order = self._parse(command)
        command.dry_run = order.dry_run or control.mode == "shadow"
        checks.check_permitted_steps(order, control)
        checks.check_server_needs(order, station)
        if topic.verb in CYCLER_VERBS:
            self._take_whole(command, station, order)
        elif channel is None:
            self._take_many(command, station, order)
        else:
            self._take(command, station, order, (channel,), partial(self._answer_channel, command, station))

    def _parse(self, command: Command) -> Order:
        topic, payload = command.topic, command.incoming.payload
        try:
            match topic:
                case CommandTopic(verb="stop", channel_text=None):
                    order = parse_stop_all(payload)
                case CommandTopic(verb="stop"):
                    order = parse_stop(payload)
                case CommandTopic(variable=int(variable)):
                    order = parse_value(variable, payload)
                case _:
                    order = parse_order(topic.verb, payload, to_cycler=topic.channel_text is None)
        except MalformedError as error:
            raise Refusal("malformed", str(error)) from error
        command.id = order.id or command.id
        return order

    # --- one channel, many, or the cycler as a whole ---

    def _take_whole(self, command: Command, station: Station, order: Order) -> None:
        """A command that is about no channel: one answer, on the cycler's topic."""
        deadline = self._deadline(command, station, order)
        checks.check_age(deadline, self._clock.now())
        if isinstance(order, ShowMessage):
            checks.check_control_right(station)
        checks.check_online(station)
        self._check_load(station, command.topic.verb)
        answer = partial(self._answer_whole, command, station)
        job = Job(order, (WHOLE_CYCLER,), partial(self._still_in_time, deadline), answer)
        self._spawn(command, station, job)

    def _deadline(self, command: Command, station: Station, order: Order) -> Deadline:
        return Deadline(order, command.received_at, command.incoming.expiry_s, station.settings.control.max_age_s)

    def _take_many(self, command: Command, station: Station, order: Order) -> None:
        """A command to the cycler: each channel stands for itself, and a summary comes last."""
        control = station.settings.control
        if order.channels == "all":
            wanted = [channel for channel in station.cycler_channels if control.allows_channel(channel)]
        else:
            wanted = list(order.channels or ())
        if not wanted:
            raise Refusal("not_allowed", "control.channels permits no channel of this cycler")
        verdicts: dict[int, Verdict] = {}

        def answer(channel: int, verdict: Verdict) -> None:
            verdicts[channel] = verdict
            self._answer_channel(command, station, channel, verdict)
            if len(verdicts) == len(wanted):
                self._answer_many(command, station, verdicts)

        permitted = []
        for channel in wanted:
            try:
                checks.check_channel(channel, str(channel), station)
                checks.check_channel_allowed(channel, control)
            except Refusal as refusal:
                answer(channel, refused(refusal.reason, str(refusal)))
            else:
                permitted.append(channel)
        if permitted:
            self._take(command, station, order, tuple(permitted), answer)

    def _take(
        self,
        command: Command,
        station: Station,
        order: Order,
        channels: tuple[int, ...],
        answer: Callable[[int, Verdict], None],
    ) -> None:
        """The checks that depend on the moment; then it goes its way."""
        deadline = self._deadline(command, station, order)
        verb = command.topic.verb
        ready = []
        for channel in channels:
            if reading := station.book.latest(channel):
                command.status_before[channel] = reading.record.status.text
            try:
                if verb != "stop":
                    checks.check_age(deadline, self._clock.now())
                checks.check_control_right(station)
                checks.check_online(station)
                self._check_load(station, verb)
                self._busy.check(station, channel, verb)
            except Refusal as refusal:
                answer(channel, refused(refusal.reason, str(refusal)))
            else:
                ready.append(channel)
        if not ready:
            return
        if verb == "stop" and not command.dry_run:
            self._executors[station.name].stop_admitted(ready)
        job = Job(
            order,
            tuple(ready),
            partial(self._still_in_time, deadline) if verb != "stop" else _no_objection,
            answer,
            every_channel=len(ready) == len(station.cycler_channels),
        )
        self._spawn(command, station, job)

    def _check_load(self, station: Station, verb: str) -> None:
        if verb != "stop" and self._unfinished[station.name] >= MAX_UNFINISHED:
            raise Refusal("busy", f"{MAX_UNFINISHED} commands to {station.name} are not finished yet")

    def _still_in_time(self, deadline: Deadline) -> None:
        if late := deadline.expired(self._clock.now()):
            raise WithdrawnError(late, "expired")

    # --- carried out ---

    def _spawn(self, command: Command, station: Station, job: Job) -> None:
        if self._tasks is None:
            for channel in job.channels:
                job.answer(channel, refused("not_connected", "the bridge is about to end; nothing was sent"))
            return
        self._unfinished[station.name] += 1
        if command.topic.verb in STATE_VERBS:
            self._busy.begin(station.name, job.channels)
        name = f"{station.name}: {command.topic.verb} {command.id}"
        self._tasks.create_task(self._carry_out(command, station, job), name=name)

    async def _carry_out(self, command: Command, station: Station, job: Job) -> None:
        """From the last checks to the last answer; whatever happens, every channel gets one."""
        open_channels = dict.fromkeys(job.channels)

        def answer(channel: int, verdict: Verdict) -> None:
            if channel in open_channels:
                del open_channels[channel]
                job.answer(channel, verdict)

        lost = Verdict(Outcome.UNKNOWN, None, "shutdown", "the bridge ended before the outcome was known")
        try:
            ready = await self._check_readings(command, station, replace(job, answer=answer))
            if command.dry_run:
                for channel in ready.channels:
                    answer(channel, _DRY_RUN)
            elif ready.channels:
                await self._executors[station.name].run(ready)
        except Exception as error:  # a bug in one command must not end the others
            log.exception("%s: %s failed", station.name, command.topic.verb)
            lost = Verdict(Outcome.UNKNOWN, None, "internal_error", f"unexpected error in the bridge: {error!r}")
        finally:
            self._unfinished[station.name] -= 1
            if command.topic.verb in STATE_VERBS:
                self._busy.end(station.name, job.channels)
            for channel in tuple(open_channels):
                answer(channel, lost)

    async def _check_readings(self, command: Command, station: Station, job: Job) -> Job:
        """The checks against what the channels show and hold; the job for those that pass."""
        if command.topic.verb == "stop" or command.topic.verb in CYCLER_VERBS:
            return job
        if job.order.expect is not None:
            await self._freshen(station, job.channels)
        passed = []
        for channel in job.channels:
            try:
                if job.order.expect is not None:
                    checks.check_expectation(job.order.expect, channel, station.book)
                checks.check_values(job.order, channel, station)
            except Refusal as refusal:
                job.answer(channel, refused(refusal.reason, str(refusal)))
            else:
                passed.append(channel)
        return replace(job, channels=tuple(passed))

    async def _freshen(self, station: Station, channels: tuple[int, ...]) -> None:
        """Poll anew what is too old to be held against an expectation."""
        old = [channel for channel in channels if station.book.good(channel) is None]
        if old:
            with contextlib.suppress(CtiMqttError):  # then there is no good reading, which is an answer too
                await station.refresh(old[0] if len(old) == 1 else None)

    # --- answered ---

    def _answer_refusal(self, command: Command, refusal: Refusal) -> None:
        verdict = refused(refusal.reason, str(refusal))
        station = self._stations.get(command.topic.cycler)
        body = self._body(command, command.topic.channel, verdict, None)
        if command.topic.channel_text is None and station is not None:
            body["channels"] = {}
        self._publish(command, station.name if station else None, command.topic.channel_text, body, reply=True)

    def _answer_channel(self, command: Command, station: Station, channel: int, verdict: Verdict) -> None:
        body = self._body(command, channel, verdict, station)
        if verdict.outcome is Outcome.UNKNOWN:
            waiting = self._unresolved.setdefault((station.name, channel), [])
            waiting.append((command.id, command.topic.verb))
        self._publish(command, station.name, str(channel), body, reply=command.topic.channel_text is not None)

    def _answer_whole(self, command: Command, station: Station, _: int, verdict: Verdict) -> None:
        self._publish(command, station.name, None, self._body(command, None, verdict, None), reply=True)

    def _answer_many(self, command: Command, station: Station, verdicts: Mapping[int, Verdict]) -> None:
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
            "command": command.topic.verb,
            "cycler": command.topic.cycler,
            "channel": channel,
            "outcome": verdict.outcome.text,
            "code": verdict.code,
            "reason": verdict.reason,
            "message": verdict.message,
            "verified": verdict.verified,
            "status_before": command.status_before.get(channel) if channel is not None else None,
            "status_after": reading.record.status.text if reading else None,
            "duplicate": False,
            "user": command.topic.user,
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


_DRY_RUN = Verdict(Outcome.SUCCEEDED, None, "ok", "dry run: every check passed, nothing was sent")


def _no_objection() -> None:
    """A stop is never too late."""
