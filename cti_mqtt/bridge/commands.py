"""A command's way through the bridge: heard, examined, put on record, carried out, answered.

Exactly one result a command, whatever happens. Everything but a stop is on record before it can be sent, and its result
before it is published; so a command that is repeated, even after the bridge was killed, is answered and not executed.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from cti_mqtt.bridge import checks
from cti_mqtt.bridge.alarms import AlarmBoard
from cti_mqtt.bridge.answers import Answers, Command
from cti_mqtt.bridge.bus import Bus
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.desk import Desk
from cti_mqtt.bridge.examination import Plan, body_digest, check_sender, examine
from cti_mqtt.bridge.life import Answer
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.orders import CYCLER_VERBS, ListSchedules, Release, SetMv, Start, new_id, peek_id
from cti_mqtt.bridge.recovery import INTERRUPTED, OWN_SUFFIX, Unwritten, forget_old_ids, rebuild, received, verdict_of
from cti_mqtt.bridge.retained import Judgement, RetainedGuard
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import CommandKey, KnownCommand, Store
from cti_mqtt.bridge.topics import Topics
from cti_mqtt.bridge.undertaking import DRY_RUN, Undertaking
from cti_mqtt.bridge.verdict import Verdict, refused
from cti_mqtt.errors import StorageError

log = logging.getLogger(__name__)

MAX_UNFINISHED = 1000  # commands a cycler; beyond, they would only grow old
WHOLE_CYCLER = 0  # stands for the channel where a command is about none
DURABLE_VERBS = frozenset({"start", "resume", "continue", "jump", "assign"})  # not forgotten in a power cut either
AGAIN_S = 2.0  # between attempts at what the store would not do
PASSING_REASONS = frozenset({"not_connected", "expired", "clock_skew"})  # a repeat is answered all the same


class Commander:
    """Hears commands and answers them; `run` must be running for those that take time.

    Args:
        topics: names.
        stations: the cyclers, by id.
        bus: where results are published.
        clock: stamps and ages.
        guard: judges retained messages.
        clear: publishes an empty retained message on a topic.
        store: what outlives the bridge.
    """

    def __init__(
        self,
        topics: Topics,
        stations: Mapping[str, Station],
        bus: Bus,
        clock: Clock,
        guard: RetainedGuard,
        clear: Callable[[str], None],
        store: Store,
    ) -> None:
        self._topics = topics
        self._clock = clock
        self._guard = guard
        self._clear = clear
        self._store = store
        self._alarms = AlarmBoard(bus, store, clock)
        self._desks = {name: Desk(station, store, bus, clock, self._alarms) for name, station in stations.items()}
        self._answers = Answers(topics, bus, clock, store, self._finished)
        self._unwritten = Unwritten(store)
        self._repeats: dict[CommandKey, list[Command]] = {}  # of every command of this run that has no end on record
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Carry out commands until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._restore(), name="taking up what was unfinished")
            tasks.create_task(self._make_good(), name="results that are not on record yet")
            tasks.create_task(forget_old_ids(self._store, self._clock), name="forgetting old commands")
            for name, desk in self._desks.items():
                tasks.create_task(desk.run(), name=f"{name}: stops and leases")
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None
                for desk in self._desks.values():
                    desk.pursuit.cut("the bridge ended")

    async def settle(self) -> None:
        """Wait until the results so far are on record, and so published; as long as the record's patience lasts."""
        with contextlib.suppress(StorageError):
            await self._store.audit([])  # whatever waited to get on record has done so, and was answered
            await self._store.audit([])  # and these answers are on record
            await self._unwritten.write()

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
        own_id = peek_id(incoming.payload)
        command = Command(topic, incoming, self._clock.now(), self._clock.monotonic(), own_id or new_id())
        desk = self._desks.get(topic.cycler)
        station = desk.station if desk else None
        try:
            if judgement.refusal and judgement is not Judgement.REFUSE_EARLY:
                raise Refusal("retained", judgement.refusal)
            checks.check_addressee(topic, station)
            if judgement.refusal:  # perhaps a stored one; but what has been answered before is answered the same way
                early = Refusal("retained", judgement.refusal)
                check_sender(topic, self._desks[topic.cycler].station)
                self._look_up(command, partial(self._answers.refusal, command, station, early))
                return
            self._examine(command, self._desks[topic.cycler], has_own_id=own_id is not None)
        except Refusal as refusal:
            self._answers.refusal(command, station, refusal)

    def _examine(self, command: Command, desk: Desk, *, has_own_id: bool) -> None:
        try:
            plan = examine(command, desk)
        except Refusal as refusal:
            may_be_known = has_own_id and command.topic.verb != "stop" and refusal.reason in PASSING_REASONS
            if not may_be_known:
                raise
            check_sender(command.topic, desk.station)
            self._look_up(command, partial(self._answers.refusal, command, desk.station, refusal))
            return
        if plan.is_stop:
            self._take_stop(command, plan)
        elif plan.channels or not plan.refused:
            self._record(command, plan, keep=has_own_id)
        elif has_own_id and PASSING_REASONS & {refusal.reason for refusal in plan.refused.values()}:
            self._look_up(command, partial(self._refuse_all, command, plan, None))
        else:
            self._refuse_all(command, plan, None)

    def _look_up(self, command: Command, refuse: Callable[[], None]) -> None:
        """It would be refused for what will pass; but what has been answered before is answered the same way."""

        def look(found: "asyncio.Future[KnownCommand | None]") -> None:
            known = None if found.cancelled() or found.exception() else found.result()
            if known is not None and known.command.digest == body_digest(command):
                self._repeat(command, known)
            else:
                refuse()

        self._store.find(self._key(command)).add_done_callback(look)

    # --- on record ---

    @staticmethod
    def _key(command: Command) -> CommandKey:
        topic = command.topic
        return CommandKey(topic.cycler, topic.channel, topic.verb, command.id)

    def _record(self, command: Command, plan: Plan, *, keep: bool) -> None:
        """Nothing is sent before it is on record; a dry run needs none, but asks all the same."""
        key, verb = self._key(command), command.topic.verb
        if command.dry_run:
            asked = self._store.find(key)
        else:
            asked = self._store.receive(received(command, key, plan, keep=keep), durable=verb in DURABLE_VERBS)
        asked.add_done_callback(partial(self._recorded, command, plan, key))

    def _recorded(
        self, command: Command, plan: Plan, key: CommandKey, asked: "asyncio.Future[KnownCommand | None]"
    ) -> None:
        try:
            known = asked.result()
        except (StorageError, asyncio.CancelledError) as error:
            if not command.dry_run and key not in self._repeats:  # it may get on record yet: then with this end
                command.key, command.waits, command.unsure = key, False, True
                self._repeats[key] = []
            self._refuse_all(
                command, plan, Refusal("storage", f"it cannot be put on record, so it was not sent: {error}")
            )
            return
        if known is None:
            if not command.dry_run:
                command.key = key
                self._repeats[key] = []
            self._take(command, plan)
        elif known.command.digest != body_digest(command):
            why = f"the id {command.id!r} was used for another {command.topic.verb} before; every command needs its own"
            self._refuse_all(command, plan, Refusal("id_conflict", why))
        else:
            self._repeat(command, known)

    def _repeat(self, command: Command, known: KnownCommand) -> None:
        """It was received before: the first results, now or when they are there."""
        key = known.command.key
        if said := self._unwritten.results(known):
            self._answers.repeat(command, said)
        elif known.finished:
            self._answers.repeat(command, [(each.channel, json.loads(each.body)) for each in known.results])
        elif key in self._repeats:
            self._repeats[key].append(command)
        else:  # left over from before a restart, and not taken up since the record could not be read
            self._repeats[key] = [command]
            self._take_up(known)

    def _finished(self, command: Command) -> None:
        """Its results are said: whoever sent it again meanwhile gets them too."""
        if command.lost:
            self._unwritten.add(command)
        for repeat in self._repeats.pop(command.key, ()) if command.key else ():
            self._answers.repeat(repeat, command.results)

    # --- checked against the moment ---

    def _refuse_all(self, command: Command, plan: Plan, refusal: Refusal | None) -> None:
        """Every channel gets a refusal: its own, else this one."""
        answer = self._answer(command, plan)
        if refusal is None:
            return
        for channel in plan.channels or (() if plan.refused else (WHOLE_CYCLER,)):
            answer(channel, refused(refusal.reason, str(refusal)))

    def _answer(self, command: Command, plan: Plan) -> Answer:
        """Where verdicts go; those of channels that were left out are given at once."""
        station = plan.desk.station
        if command.topic.verb in CYCLER_VERBS:
            return lambda _, verdict: self._answers.whole(command, station, verdict)
        if command.topic.channel_text is not None:
            return partial(self._answers.channel, command, station)
        verdicts: dict[int, Verdict] = {}

        def answer(channel: int, verdict: Verdict) -> None:
            verdicts[channel] = verdict
            self._answers.channel(command, station, channel, verdict)
            if len(verdicts) == len(plan.channels) + len(plan.refused):
                self._answers.many(command, station, verdicts)

        for channel, refusal in plan.refused.items():
            answer(channel, refused(refusal.reason, str(refusal)))
        return answer

    def _take(self, command: Command, plan: Plan) -> None:
        """The checks that depend on the moment and need no poll; then it goes its way."""
        desk, verb = plan.desk, command.topic.verb
        answer = self._answer(command, plan)
        ready = []
        for channel in plan.channels or (WHOLE_CYCLER,):
            self._note_status(command, desk.station, channel)
            try:
                self._check_moment(command, plan, channel)
            except Refusal as refusal:
                answer(channel, refused(refusal.reason, str(refusal)))
            else:
                ready.append(channel)
        if not ready:
            return
        undertaking = Undertaking(command, plan, ready, answer)
        if self._tasks is None:
            undertaking.close()
            return
        name = f"{desk.station.name}: {verb} {command.id}"
        self._tasks.create_task(undertaking.run(), name=name).add_done_callback(lambda _: undertaking.close())

    @staticmethod
    def _note_status(command: Command, station: Station, channel: int) -> None:
        if reading := station.book.latest(channel):
            command.status_before[channel] = reading.record.status.text

    @staticmethod
    def _check_moment(command: Command, plan: Plan, channel: int) -> None:
        desk, verb, order = plan.desk, command.topic.verb, plan.order
        if not isinstance(order, Release):  # that sends nothing
            if not isinstance(order, ListSchedules):
                checks.check_control_right(desk.station)
            checks.check_online(desk.station)
        if isinstance(order, Start | SetMv | Release):
            desk.leases.check(channel, command.topic.user, plan.lease_id)
        if desk.unfinished >= MAX_UNFINISHED:
            raise Refusal("busy", f"{MAX_UNFINISHED} commands to {desk.station.name} are not finished yet")
        if not plan.channels:
            return
        if overruled := plan.overruled.objection(channel):
            raise Refusal("superseded", overruled)  # and so it is not busy with what came later
        desk.busy.check(desk.station, channel, verb)

    # --- stops ---

    def _take_stop(self, command: Command, plan: Plan) -> None:
        """Nothing holds it up: it goes out at once. Only its result waits until it is on record."""
        desk, station = plan.desk, plan.desk.station
        if not command.dry_run:
            key = CommandKey(station.name, command.topic.channel, "stop", f"{command.id}{OWN_SUFFIX}{new_id()}")
            command.key = key
            self._repeats[key] = []
            self._store.receive(received(command, key, plan, keep=False), durable=False)
        answer = self._answer(command, plan)
        ready = []
        for channel in plan.channels:
            self._note_status(command, station, channel)
            try:
                checks.check_control_right(station)
            except Refusal as refusal:
                answer(channel, refused(refusal.reason, str(refusal)))
            else:
                ready.append(channel)
        if command.dry_run:
            for channel in ready:
                answer(channel, DRY_RUN)
        elif ready:
            self._pursue(desk, ready, answer)

    def _pursue(self, desk: Desk, channels: Collection[int], answer: Answer) -> None:
        desk.stop_heard(channels)
        desk.busy.begin(channels, "stop")

        def tell(channel: int, verdict: Verdict) -> None:
            desk.busy.end(channel, "stop")
            if verdict.verified:
                desk.stopped(channel)
            answer(channel, verdict)

        desk.pursuit.pursue(channels, tell)

    # --- after a restart ---

    async def _restore(self) -> None:
        """Alarms, leases and unfinished commands of the bridge's last run; again and again until they can be read."""
        while True:
            try:
                await self._alarms.restore()
                for desk in self._desks.values():
                    await desk.leases.restore()
                for known in await self._store.unfinished():
                    if known.command.key not in self._repeats:  # not one of this run
                        self._take_up(known)
            except StorageError as error:
                log.warning("what was unfinished cannot be taken up yet: %s", error)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _make_good(self) -> None:
        """Results that could not be put on record are tried again, until cancelled."""
        while True:
            await asyncio.sleep(AGAIN_S)
            with contextlib.suppress(StorageError):
                await self._unwritten.write()

    def _take_up(self, known: KnownCommand) -> None:
        """A command that the bridge did not live to answer: its outcome is unknown. A young stop is pursued again."""
        command = rebuild(known, self._clock.monotonic())
        key = known.command.key
        self._repeats.setdefault(key, [])
        desk = self._desks.get(key.cycler)
        if desk is None:
            self._store.answer(key, [], finished=True)
            self._repeats.pop(key, None)
            return
        log.warning("%s: %s %s was unfinished when the bridge ended", key.cycler, key.verb, command.id)
        verdicts = {each.channel: verdict_of(each) for each in known.results if each.channel is not None}
        open_channels = [channel for channel in known.command.channels if channel not in verdicts]
        answer = self._late_answer(command, desk.station, verdicts, len(open_channels))
        age_s = (self._clock.now() - command.received_at).total_seconds()
        if key.verb == "stop" and open_channels and 0 <= age_s < desk.station.settings.control.stop_timeout_s:
            self._pursue(desk, open_channels, answer)
            return
        for channel in open_channels or (WHOLE_CYCLER,):
            answer(channel, INTERRUPTED)

    def _late_answer(self, command: Command, station: Station, verdicts: dict[int, Verdict], missing: int) -> Answer:
        """Where the verdicts go that are still missing."""
        if command.topic.verb in CYCLER_VERBS:
            return lambda _, verdict: self._answers.whole(command, station, verdict)
        if command.topic.channel_text is not None:
            return partial(self._answers.channel, command, station)
        wanted = len(verdicts) + missing

        def answer(channel: int, verdict: Verdict) -> None:
            if channel != WHOLE_CYCLER:
                verdicts[channel] = verdict
                self._answers.channel(command, station, channel, verdict)
            if len(verdicts) == wanted:
                self._answers.many(command, station, verdicts)

        return answer
