"""A command's way through the bridge: heard, examined, put on record, carried out, answered.

Exactly one result a command, whatever happens. Everything but a stop is on record before it can be sent, and its result
before it is published; so a command that is repeated, even after the bridge was killed, is answered and not executed.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from cti_mqtt.bridge import checks
from cti_mqtt.bridge.alarms import AlarmBoard
from cti_mqtt.bridge.answers import Answers, Command
from cti_mqtt.bridge.bus import Bus
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.delivery import Replayer
from cti_mqtt.bridge.desk import Desk
from cti_mqtt.bridge.desks import Desks
from cti_mqtt.bridge.ending import Ending
from cti_mqtt.bridge.examination import Plan, body_digest, check_sender, examine
from cti_mqtt.bridge.life import Answer
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.order_parsing import new_id, peek_id
from cti_mqtt.bridge.orders import CYCLER_VERBS, ListSchedules, Release, Replay, SetMv, Start
from cti_mqtt.bridge.recovery import OWN_SUFFIX, Underway, Unwritten, forget_old_ids, received
from cti_mqtt.bridge.repeats import Repeats
from cti_mqtt.bridge.restoring import WHOLE_CYCLER, Restorer
from cti_mqtt.bridge.retained import Judgement, RetainedGuard
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import CommandKey, KnownCommand, Store
from cti_mqtt.bridge.topics import Topics
from cti_mqtt.bridge.undertaking import DRY_RUN, Undertaking
from cti_mqtt.bridge.verdict import Verdict, refused
from cti_mqtt.errors import StorageError

log = logging.getLogger(__name__)

MAX_UNFINISHED = 2000  # commands a cycler, each counted once for every channel; beyond, they would only grow old
DURABLE_VERBS = frozenset({"start", "resume", "continue", "jump", "assign"})  # not forgotten in a power cut either
AGAIN_S = 2.0  # between attempts at what the store would not do
PASSING_REASONS = frozenset(
    {"not_connected", "no_control_right", "expired", "clock_skew", "busy"}
)  # a repeat is answered all the same


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
        may_act: whether no elder bridge is known to command these cyclers.
        replayer: sends readings again.
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
        may_act: Callable[[], bool],
        replayer: Replayer,
    ) -> None:
        self._topics = topics
        self._clock = clock
        self._guard = guard
        self._clear = clear
        self._store = store
        self._alarms = AlarmBoard(bus, store, clock)
        self._desks = Desks(
            stations.values(),
            bus,
            lambda station, branch: Desk(station, store, branch, clock, self._alarms, may_act, replayer),
        )
        self._known = dict(stations)  # also those that are gone: what was heard before is answered
        self._answers = Answers(topics, bus, clock, store, self._finished)
        self._unwritten = Unwritten(store)
        self._numbers = itertools.count(1)
        self._underway = Underway()
        self._restorer = Restorer(store, self._alarms, self._desks, self._answers, clock, self._underway, self._pursue)
        self._repeats = Repeats(
            store, self._answers, self._known, self._underway, self._unwritten, self._restorer.take_up
        )
        self._tasks: asyncio.TaskGroup | None = None
        self._taken_up = asyncio.Event()
        self._ending = Ending(self._desks.values())

    async def run(self) -> None:
        """Carry out commands until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            restoring = tasks.create_task(self._restorer.run(), name="taking up what was unfinished")
            restoring.add_done_callback(lambda _: self._taken_up.set())
            tasks.create_task(self._make_good(), name="results that are not on record yet")
            tasks.create_task(forget_old_ids(self._store, self._clock), name="forgetting old commands")
            tasks.create_task(self._desks.run(), name="stops and leases")
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None
                self._ending.end_now()

    async def end(self) -> None:
        """Before `run` is cancelled, while the sessions stand: see `Ending`. The results are on record then."""
        if self._tasks is not None:
            await self._ending.run(self.settle)

    async def settle(self) -> None:
        """Wait until the results so far are on record, and so published; as long as the record's patience lasts."""
        with contextlib.suppress(StorageError):
            await self._store.audit([])  # whatever waited to get on record has done so, and was answered
            await self._store.audit([])  # and these answers are on record
            await self._unwritten.write()

    # --- cyclers come and go ---

    async def taken_up(self, patience_s: float) -> bool:
        """Wait for what an earlier run left unfinished; whether it is taken up. Before that no cycler comes or goes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._taken_up.wait()
        return self._taken_up.is_set() and self._tasks is not None

    def add(self, station: Station) -> None:
        """Commands to a new cycler are heard from now on."""
        self._known[station.name] = station
        self._desks.add(station)

    @property
    def desks(self) -> Desks:
        """Where the commands to each cycler are dealt with."""
        return self._desks

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
        now, now_s, number = self._clock.now(), self._clock.monotonic(), next(self._numbers)
        command = Command(topic, incoming, now, now_s, own_id or new_id(), number)
        command.waits = not self._ending.begun
        desk = self._desks.get(topic.cycler)
        station = desk.station if desk else None
        try:
            if judgement.refusal and judgement is not Judgement.REFUSE_EARLY:
                raise Refusal("retained", judgement.refusal)
            checks.check_addressee(topic, station)
            if judgement.refusal:  # perhaps a stored one; but what has been answered before is answered the same way
                early = Refusal("retained", judgement.refusal)
                check_sender(topic, self._desks[topic.cycler].station)
                self._repeats.look_up(
                    command, self._key(command), partial(self._answers.refusal, command, station, early)
                )
                return
            self._examine(command, self._desks[topic.cycler], has_own_id=own_id is not None)
        except Refusal as refusal:
            self._answers.refusal(command, station, refusal)

    def _examine(self, command: Command, desk: Desk, *, has_own_id: bool) -> None:
        try:
            plan = examine(command, desk)
            self._ending.check(is_stop=plan.is_stop)
            if not plan.is_stop:
                self._check_load(desk)
        except Refusal as refusal:
            may_be_known = has_own_id and command.topic.verb != "stop" and refusal.reason in PASSING_REASONS
            if not may_be_known:
                raise
            check_sender(command.topic, desk.station)
            self._repeats.look_up(
                command, self._key(command), partial(self._answers.refusal, command, desk.station, refusal)
            )
            return
        if plan.is_stop:
            self._take_stop(command, plan)
        elif plan.channels or not plan.refused:
            self._record(command, plan, keep=has_own_id)
        elif has_own_id and PASSING_REASONS & {refusal.reason for refusal in plan.refused.values()}:
            self._repeats.look_up(command, self._key(command), partial(self._refuse_all, command, plan, None))
        else:
            self._refuse_all(command, plan, None)

    # --- on record ---

    @staticmethod
    def _key(command: Command) -> CommandKey:
        topic = command.topic
        return CommandKey(topic.cycler, topic.channel, topic.verb, command.id)

    def _record(self, command: Command, plan: Plan, *, keep: bool) -> None:
        """Nothing is sent before it is on record; a dry run needs none, but asks all the same."""
        key, verb = self._key(command), command.topic.verb
        plan.desk.waiting += max(1, len(plan.channels))  # one about the cycler has none
        if command.dry_run:
            asked = self._store.find(key)
        else:
            asked = self._store.receive(received(command, key, plan, keep=keep), durable=verb in DURABLE_VERBS)
        asked.add_done_callback(partial(self._recorded, command, plan, key))

    def _recorded(
        self, command: Command, plan: Plan, key: CommandKey, asked: "asyncio.Future[KnownCommand | None]"
    ) -> None:
        plan.desk.waiting -= max(1, len(plan.channels))
        try:
            known = asked.result()
        except (StorageError, asyncio.CancelledError) as error:
            if not command.dry_run and self._repeats.answer_unread(command, key):
                return
            if not command.dry_run and key not in self._underway:  # it may get on record yet: then with this end
                command.key, command.waits, command.unsure = key, False, True
                self._underway.begin(key, body_digest(command))
            self._refuse_all(
                command, plan, Refusal("storage", f"it cannot be put on record, so it was not sent: {error}")
            )
            return
        if known is None:
            if not command.dry_run:
                command.key = key
                self._underway.begin(key, body_digest(command))
            self._take(command, plan)
        elif known.command.digest != body_digest(command):
            why = f"the id {command.id!r} was used for another {command.topic.verb} before; every command needs its own"
            self._refuse_all(command, plan, Refusal("id_conflict", why))
        else:
            self._repeats.answer(command, known)

    def _finished(self, command: Command) -> None:
        self._repeats.finished(command)

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
        if self._tasks is None or self._ending.begun:
            undertaking.close()
            return
        task = self._tasks.create_task(undertaking.run(), name=f"{desk.station.name}: {verb} {command.id}")
        task.add_done_callback(lambda _: undertaking.close())
        self._ending.watch(task)

    @staticmethod
    def _check_load(desk: Desk) -> None:
        """Too much is too much: one refusal, before the record has more work with it than it would make itself."""
        if desk.unfinished + desk.waiting >= MAX_UNFINISHED:
            checks.check_control_right(desk.station)
            checks.check_online(desk.station)
            raise _too_many(desk)

    @staticmethod
    def _note_status(command: Command, station: Station, channel: int) -> None:
        if reading := station.book.latest(channel):
            command.status_before[channel] = reading.record.status.text

    @staticmethod
    def _check_moment(command: Command, plan: Plan, channel: int) -> None:
        desk, verb, order = plan.desk, command.topic.verb, plan.order
        where, control = channel if plan.channels else None, desk.station.settings.control
        checks.check_still_permitted(command.topic, order, where, control, dry_run=command.dry_run)
        if not isinstance(order, Release | Replay):  # these send nothing to the cycler
            if not isinstance(order, ListSchedules):
                checks.check_control_right(desk.station)
            checks.check_online(desk.station)
        if isinstance(order, Start | SetMv | Release):
            desk.leases.check(channel, command.topic.user, plan.lease_id)
        if desk.unfinished >= MAX_UNFINISHED:
            raise _too_many(desk)
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
            self._underway.begin(key, body_digest(command))
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

    # --- later ---

    async def _make_good(self) -> None:
        """Results that could not be put on record are tried again, until cancelled."""
        while True:
            await asyncio.sleep(AGAIN_S)
            with contextlib.suppress(StorageError):
                await self._unwritten.write()


def _too_many(desk: Desk) -> Refusal:
    return Refusal("busy", f"commands to {MAX_UNFINISHED} channels of {desk.station.name} are not finished yet")
