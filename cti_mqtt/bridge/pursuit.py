"""A stop is pursued: sent again each second, across reconnects, until a poll shows the channel not running.

Who asks for a stop waits `stop_timeout_s` for that; then the answer is what is known, and the alarm `stop_failed`
stands. A stop that the bridge itself needs (a lease ran out) goes on until it is done. After a start of unknown outcome
a channel at rest proves nothing for `stop_timeout_s`: the start may still be on its way.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from cti_mqtt.bridge.alarms import STOP_FAILED, AlarmBoard
from cti_mqtt.bridge.bus import Bus, CyclerState, Item, Poll, Reading
from cti_mqtt.bridge.jobs import VERIFY_PAUSE_S, status_text
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.stop_target import Target, Tell, Wish, shows_rest
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_answer, of_code, of_error, refused
from cti_mqtt.cti.results import StopResult
from cti_mqtt.errors import CtiMqttError

log = logging.getLogger(__name__)

AGAIN_S = 1.0  # between two sendings to one channel
SHORTEST_PAUSE_S = 0.02  # what is overdue because it cannot be sent must not keep the bridge busy
MOST_IN_FLIGHT = 12  # stops of one channel that wait for an answer: more would only fill a stalled connection


class StopPursuit:
    """The stops of one cycler; `run` must be running.

    Args:
        station: the cycler.
        bus: where its polls are heard of.
        alarms: where `stop_failed` is raised.
        is_starting: whether a start of a channel is under way: then a poll that shows it idle proves nothing.
        on_rest: told of each channel that was to be stopped and was seen not running.
    """

    def __init__(
        self,
        station: Station,
        bus: Bus,
        alarms: AlarmBoard,
        is_starting: Callable[[int], bool],
        on_rest: Callable[[int], None],
    ) -> None:
        self._station = station
        self._alarms = alarms
        self._is_starting = is_starting
        self._on_rest = on_rest
        self._targets: dict[int, Target] = {}
        self._unsure_since_s: dict[int, float] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._news = asyncio.Event()
        self._poll_wanted = asyncio.Event()
        bus.subscribe(self._look_at)

    # --- asked ---

    def pursue(self, channels: Iterable[int], tell: Tell) -> None:
        """Stop these channels; `tell` is called once for each, within `stop_timeout_s` (see `start_unknown`)."""
        until_s = self._station.monotonic() + self._station.settings.control.stop_timeout_s
        for channel in channels:
            target = self._target(channel)
            to_look_s = self._station.settings.verify_timeout_s if self._may_yet_run(channel) else 0.0
            target.wishes.append(Wish(until_s + to_look_s, tell))
            target.sent_s = None if target.sent_s is None else (target.sent_s[0], -AGAIN_S)  # at once
        self._send_due()
        self._news.set()

    def insist(self, channel: int, done: Callable[[str], None]) -> None:
        """Stop a channel, however long it takes; `done` is told how it ended."""
        target = self._target(channel)
        target.insist_until_s = self._station.monotonic() + self._station.settings.control.stop_timeout_s
        target.done.append(done)
        self._news.set()

    @property
    def channels(self) -> list[int]:
        """Those that are being stopped."""
        return sorted(self._targets)

    def pursued(self, channel: int) -> bool:
        """Whether a channel is being stopped."""
        return channel in self._targets

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for a stop."""
        return any(target.wishes for target in self._targets.values())

    def start_accepted(self, channel: int, admitted_s: float) -> None:
        """A start that was admitted after the last stop ends it: what runs now is another test."""
        target = self._targets.get(channel)
        if target is not None and target.asked_s >= admitted_s:
            target.sent_s = None  # whatever was sent may have come before the start
            self._news.set()
            return
        why = "a later start of the channel was accepted"
        self._alarms.clear(self._station.name, channel, STOP_FAILED, why)
        if target is not None:
            why += ", so the stop is no longer pursued"
            verdict = target.verdict or refused("superseded", why)
            self._finish(target, replace(verdict, verified=False, message=why), why)

    def start_unknown(self, channel: int) -> None:
        """Nobody knows whether a start or resume reached the cycler: it may yet; a stop has `verify_timeout_s` more."""
        self._unsure_since_s[channel] = self._station.monotonic()

    def _may_yet_run(self, channel: int) -> bool:
        """Whether a start of unknown outcome may still be on its way."""
        since_s = self._unsure_since_s.get(channel)
        if since_s is None:
            return False
        if self._station.monotonic() - since_s < self._station.settings.control.stop_timeout_s:
            return True
        del self._unsure_since_s[channel]
        return False

    def _target(self, channel: int) -> Target:
        now_s, target = self._station.monotonic(), self._targets.get(channel)
        if target is None:
            target = self._targets[channel] = Target(channel, now_s, self._station.book.latest(channel))
        target.asked_s = now_s
        return target

    # --- pursued ---

    async def run(self) -> None:
        """Pursue until cancelled; what was under way when it ended by a bug is sent again."""
        for target in self._targets.values():
            target.doubt |= target.in_flight > 0
            target.in_flight = 0
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll_when_wanted(), name=f"{self._station.name}: polls after stops")
            self._tasks = tasks
            try:
                while True:
                    self._answer_overdue()
                    self._send_due()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause_s()):
                            await self._news.wait()
                    self._news.clear()
            finally:
                self._tasks = None

    def cut(self, why: str) -> None:
        """The bridge ends: whoever waits is told what is known."""
        for target in tuple(self._targets.values()):
            self._tell_all(target, self._verdict_at_end(target, why, "shutdown"))

    def _pause_s(self) -> float | None:
        """How long nothing can become due."""
        if not self._targets:
            return None
        now_s = self._station.monotonic()
        moments = [now_s + AGAIN_S]
        for target in self._targets.values():
            if target.sent_s is not None:
                moments.append(target.sent_s[1] + AGAIN_S)
            if target.wishes:
                moments.append(target.wishes[0].until_s)
        return max(SHORTEST_PAUSE_S, min(moments) - now_s)

    def _is_due(self, target: Target, now_s: float) -> bool:
        if target.in_flight >= MOST_IN_FLIGHT or not (target.is_wanted or not self._is_starting(target.channel)):
            return False  # one that is only watched for must not meet somebody's new start
        return target.sent_s is None or now_s - target.sent_s[1] >= AGAIN_S

    def _send_due(self) -> None:
        tasks = self._tasks
        if tasks is None or not self._station.online:
            return
        now_s = self._station.monotonic()
        due = [target for target in self._targets.values() if self._is_due(target, now_s)]
        for target in due:
            target.sent_s = (target.sent_s[0] if target.sent_s else now_s, now_s)
            target.in_flight += 1
        # Together only where these are all there are: a cycler may come back with other channels than before.
        together = len(due) > 1 and {target.channel for target in due} == set(self._station.cycler_channels)
        for group in [due] if together else [[target] for target in due]:
            what = "all channels" if together else f"channel {group[0].channel}"
            tasks.create_task(self._send(group, together=together), name=f"{self._station.name}: stop of {what}")

    async def _send(self, targets: Collection[Target], *, together: bool) -> None:
        """One stop, of a channel or of all."""
        try:
            if together:
                answers = await self._station.cycler.stop_all()
                verdicts = {target.channel: of_answer(answers[target.channel]) for target in targets}
            else:
                verdicts = {
                    target.channel: of_code(await self._station.cycler.stop(target.channel)) for target in targets
                }
        except CtiMqttError as error:
            verdicts = {target.channel: of_error(error) for target in targets}
        except Exception as error:  # a bug here must not keep the other stops from their channels
            log.exception("%s: stop", self._station.name)
            verdict = Verdict(Outcome.UNKNOWN, None, "internal_error", f"an unexpected error in the bridge: {error!r}")
            verdicts = {target.channel: verdict for target in targets}
        self._hear([(target, verdicts[target.channel]) for target in targets])

    def _hear(self, verdicts: Iterable[tuple[Target, Verdict]]) -> None:
        now_s = self._station.monotonic()
        for target, verdict in verdicts:
            target.hear(verdict, now_s)
        self._poll_wanted.set()

    # --- seen ---

    async def _poll_when_wanted(self) -> None:
        """Look at once after an answer, and again and again for a while after a yes."""
        while True:
            await self._poll_wanted.wait()
            self._poll_wanted.clear()
            if not self._targets:
                continue
            channels = list(self._targets)
            try:
                async with asyncio.timeout(self._station.settings.timeout_s):
                    await self._station.refresh(channels[0] if len(channels) == 1 else None)
            except (CtiMqttError, TimeoutError):
                pass  # no reading this time
            except Exception:  # a bug here must not keep stops from their channels
                log.exception("%s: poll after a stop", self._station.name)
            since_s = self._station.monotonic() - self._station.settings.verify_timeout_s
            if any(target.accepted_s is not None and target.accepted_s > since_s for target in self._targets.values()):
                self._poll_wanted.set()
                await asyncio.sleep(VERIFY_PAUSE_S)

    def _look_at(self, item: Item) -> None:
        match item:
            case CyclerState(online=True) if item.cycler == self._station.name:
                self._news.set()
            case Poll() if item.cycler == self._station.name:
                for reading in item.readings:
                    if not in_test(reading.record.status):
                        self._seen_at_rest(reading)

    def _seen_at_rest(self, reading: Reading) -> None:
        channel, name = reading.channel, self._station.name
        proven = shows_rest(reading)
        if self._may_yet_run(channel):
            return
        if proven and self._alarms.stands(name, channel, STOP_FAILED):
            self._alarms.clear(name, channel, STOP_FAILED, f"the channel shows {reading.record.status.text}")
        target = self._targets.get(channel)
        if target is None or self._is_starting(channel) or not (proven or target.said_not_running):
            return
        since_s = target.asked_s if target.sent_s is None else target.sent_s[0]
        if self._station.book.asked_after(since_s, channel) is None:
            return  # it shows what was before the stop
        waits_for_first_answer = target.verdict is None and target.in_flight > 0
        if waits_for_first_answer and self._station.monotonic() - since_s < AGAIN_S:
            return
        self._finish(target, self._verdict_at_rest(target, reading), "the channel was seen not running")
        self._on_rest(channel)

    def _verdict_at_rest(self, target: Target, reading: Reading) -> Verdict:
        ran = target.before is not None and in_test(target.before.record.status)
        last = target.verdict
        if not (ran or target.doubt or target.accepted_s is not None) and last and last.outcome is Outcome.FAILED:
            return last  # a channel that did not run in the first place
        went = f"channel went {status_text(target.before)} -> {reading.record.status.text}"
        return replace(of_code(StopResult.OK, f"stopped, {went}"), verified=True)

    # --- given up ---

    def _answer_overdue(self) -> None:
        now_s = self._station.monotonic()
        waited = f"not seen to stop within {self._station.settings.control.stop_timeout_s:g} s"
        for target in tuple(self._targets.values()):
            overdue = target.take_overdue(now_s)
            if overdue:
                self._tell(target.channel, overdue, self._verdict_at_end(target, waited, "not_verified"))
                if self._may_yet_run(target.channel):
                    target.watch_until_s = now_s + self._station.settings.control.stop_timeout_s
            if overdue or (target.insist_until_s is not None and target.insist_until_s <= now_s):
                self._raise(target, waited)
            if not target.is_wanted and (target.watch_until_s is None or target.watch_until_s <= now_s):
                self._targets.pop(target.channel, None)

    def _raise(self, target: Target, waited: str) -> None:
        if not self._alarms.stands(self._station.name, target.channel, STOP_FAILED):
            shown = self._station.book.latest(target.channel)
            last = f"; the last answer: {target.verdict.message}" if target.verdict else "; it could not be sent"
            message = f"the channel was {waited}{last}"
            log.error("%s: channel %d: %s", self._station.name, target.channel, message)
            self._alarms.raise_(self._station.name, target.channel, STOP_FAILED, message, status_text(shown))

    def _verdict_at_end(self, target: Target, why: str, reason: str) -> Verdict:
        last = target.verdict
        if last is None or last.outcome is Outcome.REFUSED:  # no answer, whatever became of the first attempts
            if target.in_flight:
                return Verdict(Outcome.UNKNOWN, None, reason, f"{why}; it was sent and not answered", verified=False)
            return refused("not_connected", f"{why}; {last.message if last else 'it could not be sent'}")
        accepted_before = target.accepted_s is not None and target.said_not_running
        if last.outcome is Outcome.SUCCEEDED or accepted_before:
            shown = self._station.book.good(target.channel)
            since = self._station.book.asked_after(target.accepted_s or 0.0, target.channel)
            if shown is not None and shown is since and in_test(shown.record.status):
                message = f"{why}; accepted, but the channel shows {status_text(shown)}"
                return Verdict(Outcome.FAILED, None, "still_running", message, verified=False)
            message = f"{why}; accepted, but no good reading shows whether it worked"
            return Verdict(Outcome.UNKNOWN, None, reason, message, verified=False)
        if self._may_yet_run(target.channel):
            message = f"{why}; {last.message}, but a start of unknown outcome may still come through"
            return Verdict(Outcome.UNKNOWN, None, reason, message, verified=False)
        return replace(last, verified=False, message=f"{why}; {last.message}")

    # --- the end ---

    def _tell(self, channel: int, wishes: Iterable[Wish], verdict: Verdict) -> None:
        for wish in wishes:
            try:
                wish.tell(channel, verdict)
            except Exception:  # a bug in one answer must not cost the others theirs
                log.exception("%s: channel %d: the answer to a stop", self._station.name, channel)

    def _tell_all(self, target: Target, verdict: Verdict) -> None:
        wishes, target.wishes = target.wishes, deque()
        self._tell(target.channel, wishes, verdict)

    def _finish(self, target: Target, verdict: Verdict, how: str) -> None:
        self._targets.pop(target.channel, None)
        self._tell_all(target, verdict)
        for done in target.done:
            done(how)
