"""After a restart: alarms, leases and unfinished commands are taken up from the record, each by itself."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from cti_mqtt.bridge.alarms import AlarmBoard
from cti_mqtt.bridge.answers import Answers, Command
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.desk import Desk
from cti_mqtt.bridge.life import Answer
from cti_mqtt.bridge.orders import CYCLER_VERBS
from cti_mqtt.bridge.recovery import INTERRUPTED, Underway, rebuild, verdicts_of
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import KnownCommand, Store
from cti_mqtt.bridge.verdict import Verdict
from cti_mqtt.errors import StorageError

log = logging.getLogger(__name__)

AGAIN_S = 2.0  # between attempts at a record that cannot be read
WHOLE_CYCLER = 0  # stands for the channel where a command is about none


class Restorer:
    """Takes up what was unfinished when the bridge ended.

    Args:
        store: the record.
        alarms: what stands raised.
        desks: the cyclers.
        answers: says what became of commands.
        clock: ages.
        underway: this run's commands; those that are taken up are among them until they are finished.
        pursue: stops channels.
    """

    def __init__(
        self,
        store: Store,
        alarms: AlarmBoard,
        desks: Mapping[str, Desk],
        answers: Answers,
        clock: Clock,
        underway: Underway,
        pursue: Callable[[Desk, Collection[int], Answer], None],
    ) -> None:
        self._store = store
        self._alarms = alarms
        self._desks = desks
        self._answers = answers
        self._clock = clock
        self._underway = underway
        self._pursue = pursue

    async def run(self) -> None:
        """Until everything is taken up; again and again until it can be read."""
        while True:
            try:
                await self._alarms.restore()
                for desk in self._desks.values():
                    await desk.leases.restore()
                for known in await self._store.unfinished():
                    if known.command.key not in self._underway:  # not one of this run
                        self.take_up(known)
            except StorageError as error:
                log.warning("what was unfinished cannot be taken up yet: %s", error)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    def take_up(self, known: KnownCommand) -> None:
        """A command that the bridge did not live to answer: its outcome is unknown. A young stop is pursued again.

        Whatever is wrong with one keeps neither the bridge from working nor the others from being taken up.
        """
        try:
            self._take_up(known)
        except Exception:
            log.exception("a command on record cannot be taken up: %r", known)
            self._underway.end(known.command.key)

    def _take_up(self, known: KnownCommand) -> None:
        command = rebuild(known, self._clock.now(), self._clock.monotonic())
        key = known.command.key
        self._underway.begin(key, known.command.digest)
        desk = self._desks.get(key.cycler)
        if desk is None:
            self._store.answer(key, [], finished=True)
            self._underway.end(key)
            return
        log.warning("%s: %s %s was unfinished when the bridge ended", key.cycler, key.verb, command.id)
        verdicts = verdicts_of(command)
        channels = (key.channel,) if key.channel is not None else known.command.channels
        open_channels = [channel for channel in channels if channel not in verdicts]
        answer = self._answer(command, desk.station, verdicts, len(open_channels))
        stopped = self._to_stop(command, desk, open_channels)
        if stopped:
            self._pursue(desk, stopped, answer)
        for channel in [each for each in open_channels if each not in stopped] or ([] if stopped else [WHOLE_CYCLER]):
            if command.topic.verb in {"start", "resume"} and channel != WHOLE_CYCLER:
                desk.start_unknown(channel)
            answer(channel, INTERRUPTED)

    def _to_stop(self, command: Command, desk: Desk, channels: Collection[int]) -> list[int]:
        """Which channels a stop is still owed to: a clock that was set back must not take it from them."""
        age_s = (self._clock.now() - command.received_at).total_seconds()
        too_old = age_s >= desk.station.settings.control.stop_timeout_s
        if command.topic.verb != "stop" or too_old or desk.authority.stands_by:
            return []
        return [channel for channel in channels if not desk.authority.objection(channel)]

    def _answer(self, command: Command, station: Station, verdicts: dict[int, Verdict], missing: int) -> Answer:
        """Where the verdicts go that are still missing."""
        wanted = len(verdicts) + missing
        if command.topic.verb in CYCLER_VERBS or (command.topic.channel_text is None and not wanted):
            return lambda _, verdict: self._answers.whole(command, station, verdict)
        if command.topic.channel_text is not None:
            return partial(self._answers.channel, command, station)

        def answer(channel: int, verdict: Verdict) -> None:
            if channel != WHOLE_CYCLER:
                verdicts[channel] = verdict
                self._answers.channel(command, station, channel, verdict)
            if len(verdicts) == wanted:
                self._answers.many(command, station, verdicts)

        return answer
