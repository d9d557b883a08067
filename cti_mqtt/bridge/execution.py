"""Carrying out what was permitted: send, look for the effect, say how it ended.

Every order is carried out on a group of channels; a command to one channel is a group of one. Nothing is sent twice.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from cti_mqtt.bridge.bus import Reading
from cti_mqtt.bridge.jobs import Job, StopGuard, shown_step, status_text, verify
from cti_mqtt.bridge.orders import Assign, Continue, Jump, ListSchedules, Resume, SetMv, ShowMessage, Start, Stop
from cti_mqtt.bridge.starting import Starting
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_answer, of_error
from cti_mqtt.bridge.whole import list_schedules, show_message
from cti_mqtt.bridge.writing import assign, write_many
from cti_mqtt.client import ChannelOutcome
from cti_mqtt.cti.codes import Code, StatusClass
from cti_mqtt.errors import CtiMqttError


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of state: what to call it, how it shows, how to ask for it.

    Attributes:
        done: the past participle, for sentences.
        is_seen: whether a reading shows the effect.
        one: asks for one channel.
        group: asks for the whole group with one request; where there is one, it is used.
    """

    done: str
    is_seen: Callable[[Reading], bool]
    one: Callable[[int], Awaitable[Code]] | None
    group: Callable[[], Awaitable[Mapping[int, ChannelOutcome]]] | None


class Executor:
    """Carries out orders on one cycler."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._stops: Counter[int] = Counter()

    def stop_admitted(self, channels: Collection[int]) -> None:
        """A stop is about to go out: whatever else these channels wait for must not come after it."""
        self._stops.update(channels)

    def guard(self, channels: Collection[int]) -> StopGuard:
        """To be taken when an order is admitted: from then on a stop overrules it."""
        return StopGuard(self._stops, channels)

    async def run(self, job: Job) -> None:
        """Carry out an order; every channel is answered when this returns."""
        station = self._station
        guard = job.guard
        match job.order:
            case Start() as order:
                await Starting(station, guard, job, order).run()
            case Assign() as order:
                verdicts = await asyncio.gather(
                    *(assign(station, channel, order, job.gate) for channel in job.channels)
                )
                for channel, verdict in zip(job.channels, verdicts, strict=True):
                    job.answer(channel, verdict)
            case SetMv():
                for channel, verdict in (await write_many(station, job)).items():
                    job.answer(channel, verdict)
            case ShowMessage() as order:
                job.answer(job.channels[0], await show_message(station, order, job.gate))
            case ListSchedules():
                job.answer(job.channels[0], await list_schedules(station))
            case _:
                await self._change_state(job, self._change(job, guard))

    def _change(self, job: Job, guard: StopGuard) -> _Change:
        """How to carry out a change of state other than a start."""
        station = self._station
        whole = job.every_channel and len(job.channels) > 1

        def gate(*channels: int) -> None:
            job.gate()
            guard.check(channels)

        match job.order:
            case Stop():
                return _Change(
                    "stopped",
                    lambda reading: not in_test(reading.record.status),
                    lambda channel: station.cycler.stop(channel),  # noqa: PLW0108  # the session of that moment
                    (lambda: station.cycler.stop_all()) if whole else None,  # noqa: PLW0108  # as above
                )
            case Resume():
                return _Change(
                    "resumed",
                    lambda reading: in_test(reading.record.status),
                    lambda channel: station.cycler.resume(channel, gate=partial(gate, channel)),
                    (lambda: station.cycler.resume_all(gate=partial(gate, *job.channels))) if whole else None,
                )
            case Continue():
                return _Change(
                    "continued",
                    lambda reading: reading.record.status.meaning is not StatusClass.PAUSED,
                    None,
                    lambda: station.cycler.continue_tests(job.channels, gate=partial(gate, *job.channels)),
                )
            case Jump(step=step):
                return _Change(
                    "jumped",
                    lambda reading: shown_step(reading) == step or not in_test(reading.record.status),
                    lambda channel: station.cycler.jump(channel, step, gate=partial(gate, channel)),
                    None,
                )
        raise AssertionError(job.order)

    async def _change_state(self, job: Job, change: _Change) -> None:
        before = {channel: self._station.book.latest(channel) for channel in job.channels}
        accepted: dict[int, Verdict] = {}
        for channel, verdict in (await _ask(job, change)).items():
            if verdict.outcome is Outcome.SUCCEEDED:
                accepted[channel] = verdict
            else:
                job.answer(channel, verdict)

        def tell(channel: int, *, seen: bool) -> None:
            message = self._message(change, before[channel], channel) if seen else self._unseen(change)
            job.answer(channel, replace(accepted[channel], verified=seen, message=message))

        await verify(self._station, accepted, change.is_seen, tell)

    def _message(self, change: _Change, before: Reading | None, channel: int) -> str:
        after = self._station.book.latest(channel)
        went = f"channel went {status_text(before)} -> {status_text(after)}"
        if change.done != "jumped" or after is None:
            return f"{change.done}, {went}"
        if not in_test(after.record.status):
            return f"jumped past the last step, so the test ended; {went}"
        return f"jumped, step {shown_step(before)} -> {shown_step(after)}, {went}"

    def _unseen(self, change: _Change) -> str:
        waited_s = self._station.settings.verify_timeout_s
        return f"accepted, but no poll within {waited_s:g} s showed the channel {change.done}"


async def _ask(job: Job, change: _Change) -> dict[int, Verdict]:
    """Send it, for the group or for each channel at the same time."""
    if change.group is not None:
        try:
            answers = await change.group()
        except CtiMqttError as error:
            return dict.fromkeys(job.channels, of_error(error))
        return {channel: of_answer(answers[channel]) for channel in job.channels}

    async def one(channel: int) -> Verdict:
        assert change.one is not None  # noqa: S101  # a change has one way or the other
        try:
            return of_answer(await change.one(channel))
        except CtiMqttError as error:
            return of_error(error)

    return dict(zip(job.channels, await asyncio.gather(*map(one, job.channels)), strict=True))
