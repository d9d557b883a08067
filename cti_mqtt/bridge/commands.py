"""A command's life: heard, checked, carried out, answered. Exactly one result a command, whatever happens."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from cti_mqtt.bridge import checks
from cti_mqtt.bridge.answers import Answers, Command
from cti_mqtt.bridge.bus import Bus
from cti_mqtt.bridge.checks import BusyBoard, Refusal
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.execution import Executor
from cti_mqtt.bridge.jobs import Job
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.orders import (
    CYCLER_VERBS,
    Assign,
    Deadline,
    MalformedError,
    Order,
    SetMv,
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
WHOLE_CYCLER = 0  # stands for the channel where a command is about none


class _Progress:
    """How far a job has come.

    Attributes:
        open_channels: those that have no answer yet.
        reserved: the meta variables that are on their way, by channel.
        lost: the answer for those that have none in the end.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.open_channels = dict.fromkeys(job.channels)
        self.reserved: dict[int, Mapping[int, float]] = {}
        self.lost = Verdict(Outcome.UNKNOWN, None, "shutdown", "the bridge ended before the outcome was known")

    def answer(self, channel: int, verdict: Verdict) -> None:
        """Answer a channel, once."""
        if channel in self.open_channels:
            del self.open_channels[channel]
            self.job.answer(channel, verdict)

    def reserve(self, station: Station, channel: int) -> None:
        """Remember what is on its way to a channel."""
        values = self.job.order.values_for(channel)
        if values and not isinstance(self.job.order, Assign):
            station.variables.reserve(channel, values)
            self.reserved[channel] = values


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
        self._clock = clock
        self._guard = guard
        self._clear = clear
        self._executors = {name: Executor(station) for name, station in stations.items()}
        self._busy = BusyBoard()
        self._unfinished = dict.fromkeys(stations, 0)
        self._answers = Answers(topics, bus, clock)
        self._tasks: asyncio.TaskGroup | None = None

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
            if judgement.refusal:
                raise Refusal("retained", judgement.refusal)
            self._admit(command)
        except Refusal as refusal:
            self._answers.refusal(command, self._stations.get(topic.cycler), refusal)

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
        checks.check_fits(order)
        checks.check_server_needs(order, station)
        if topic.verb in CYCLER_VERBS:
            self._take_whole(command, station, order)
        elif channel is None:
            self._take_many(command, station, order)
        else:
            self._take(command, station, order, (channel,), partial(self._answers.channel, command, station))

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

        def answer(_: int, verdict: Verdict) -> None:
            self._answers.whole(command, station, verdict)

        guard = self._executors[station.name].guard(())
        job = Job(order, (WHOLE_CYCLER,), partial(self._still_in_time, deadline), guard, answer)
        self._spawn(command, station, job)

    @staticmethod
    def _strangers(order: Order, station: Station) -> list[str]:
        """Channels that have values of their own and do not exist."""
        if order.channels != "all" or not isinstance(order, SetMv):
            return []
        channels = set(map(str, station.cycler_channels))
        return [key for key in order.per_channel or {} if key not in channels]

    def _deadline(self, command: Command, station: Station, order: Order) -> Deadline:
        return Deadline(order, command.received_at, command.incoming.expiry_s, station.settings.control.max_age_s)

    def _take_many(self, command: Command, station: Station, order: Order) -> None:
        """A command to the cycler: each channel stands for itself, and a summary comes last."""
        control = station.settings.control
        if order.channels == "all":
            wanted = [channel for channel in station.cycler_channels if control.allows_channel(channel)]
        else:
            wanted = list(order.channels or ())
        strangers = self._strangers(order, station)
        if strangers:
            raise Refusal("malformed", f"per_channel: {station.name} has no channel {', '.join(strangers)}")
        if not wanted:
            raise Refusal("not_allowed", "control.channels permits no channel of this cycler")
        verdicts: dict[int, Verdict] = {}

        def answer(channel: int, verdict: Verdict) -> None:
            verdicts[channel] = verdict
            self._answers.channel(command, station, channel, verdict)
            if len(verdicts) == len(wanted):
                self._answers.many(command, station, verdicts)

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
            self._executors[station.name].guard(ready),
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
        verb = command.topic.verb
        self._unfinished[station.name] += 1
        self._busy.begin(station.name, job.channels, verb)
        progress = _Progress(job)
        task = self._tasks.create_task(
            self._carry_out(command, station, progress), name=f"{station.name}: {verb} {command.id}"
        )
        task.add_done_callback(lambda _: self._finish(station, verb, progress))

    def _finish(self, station: Station, verb: str, progress: "_Progress") -> None:
        """However a command ended, also before it began: every channel gets its answer, and nothing stays reserved."""
        self._unfinished[station.name] -= 1
        self._busy.end(station.name, progress.job.channels, verb)
        for channel, values in progress.reserved.items():
            station.variables.release(channel, values)
        for channel in tuple(progress.open_channels):
            progress.answer(channel, progress.lost)

    async def _carry_out(self, command: Command, station: Station, progress: "_Progress") -> None:
        """From the last checks to the last answer."""
        job = replace(progress.job, answer=progress.answer)
        try:
            ready = await self._check_readings(command, station, job, progress)
            if command.dry_run:
                for channel in ready.channels:
                    progress.answer(channel, _DRY_RUN)
            elif ready.channels:
                await self._executors[station.name].run(ready)
        except Exception as error:  # a bug in one command must not end the others
            log.exception("%s: %s failed", station.name, command.topic.verb)
            message = f"unexpected error in the bridge: {error!r}"
            progress.lost = Verdict(Outcome.UNKNOWN, None, "internal_error", message)

    async def _check_readings(self, command: Command, station: Station, job: Job, progress: "_Progress") -> Job:
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
                progress.reserve(station, channel)
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


_DRY_RUN = Verdict(Outcome.SUCCEEDED, None, "ok", "dry run: every check passed, nothing was sent")


def _no_objection() -> None:
    """A stop is never too late."""
