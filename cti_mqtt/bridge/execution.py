"""Carrying out what was permitted: send, look for the effect, say how it ended.

Every order is carried out on a group of channels; a command to one channel is a group of one. Nothing is sent twice,
a stop excepted, which is `pursuit`'s business.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cti_mqtt.bridge.assigning import assign
from cti_mqtt.bridge.bus import Reading
from cti_mqtt.bridge.delivery import Replayer
from cti_mqtt.bridge.jobs import Job, shown_step, status_text, verify
from cti_mqtt.bridge.leases import LeaseBook
from cti_mqtt.bridge.orders import (
    Assign,
    Continue,
    Jump,
    ListSchedules,
    Release,
    Replay,
    Resume,
    SetMv,
    ShowMessage,
    Start,
)
from cti_mqtt.bridge.starting import Starting
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_answer, of_error, refused
from cti_mqtt.bridge.whole import list_schedules, show_message
from cti_mqtt.client import ChannelOutcome, Gate
from cti_mqtt.cti.codes import Code, StatusClass
from cti_mqtt.errors import CtiMqttError, WithdrawnError


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of state: what to call it, how it shows, how to ask for it.

    Attributes:
        done: the past participle, for sentences.
        is_seen: whether a reading shows the effect.
        one: asks for one channel.
        group: asks for several with one request; where there is one, it is used.
        only_all: whether `group` always means every channel of the cycler, so that none may be left out.
    """

    done: str
    is_seen: Callable[[Reading], bool]
    one: Callable[[int], Awaitable[Code]] | None
    group: Callable[[Sequence[int], Gate], Awaitable[Mapping[int, ChannelOutcome]]] | None
    only_all: bool = False


class Executor:
    """Carries out orders on one cycler.

    Args:
        station: the cycler.
        leases: who vouches for its channels.
        on_start: told of every channel whose start the cycler accepted, and when that was admitted (monotonic).
        replayer: sends readings again.
    """

    def __init__(
        self, station: Station, leases: LeaseBook, on_start: Callable[[int, float], None], replayer: Replayer
    ) -> None:
        self._station = station
        self._leases = leases
        self._on_start = on_start
        self._replayer = replayer

    async def run(self, job: Job) -> None:
        """Carry out an order; every channel is answered when this returns."""
        station = self._station
        match job.order:
            case Start() as order:
                await Starting(station, self._leases, job, order, self._on_start).run()
            case Assign() as order:
                await self._assign(job, order)
            case SetMv() as order:
                await self._write(job, order)
            case Release():
                for channel in job.channels:
                    job.end(channel, self._release(channel))
            case ShowMessage() as order:
                job.end(job.channels[0], await show_message(station, order, partial(job.life.gate, job.channels[0])))
            case ListSchedules():
                job.end(job.channels[0], await list_schedules(station))
            case Replay(boot=boot, from_seq=first, to_seq=last):
                job.end(job.channels[0], await self._replayer.replay(station.name, boot, first, last))
            case _:
                await self._change_state(job, self._change(job))

    async def _assign(self, job: Job, order: Assign) -> None:
        async def one(channel: int) -> None:
            job.end(channel, await assign(self._station, channel, order, partial(job.life.gate, channel)))

        await asyncio.gather(*map(one, job.channels))

    async def _write(self, job: Job, order: SetMv) -> None:
        """The order's values, and with them until when the channel is vouched for."""
        wanted = {channel: dict(order.values_for(channel)) for channel in job.channels}
        for channel, values in wanted.items():
            if not values:
                job.end(channel, refused("malformed", f"values: none for channel {channel}"))
            elif order.lease is not None:
                values.update(self._leases.deadman(channel, order.lease))
        life = job.life
        await self._station.writer.write(wanted, life.gate, job.end, number=job.number, may_wait=life.may_go)

    def _release(self, channel: int) -> Verdict:
        lease = self._leases.end(channel, "released by its holder")
        return Verdict(Outcome.SUCCEEDED, None, "ok", "released" if lease else "there was no lease to release")

    def _change(self, job: Job) -> _Change:
        """How to carry out a change of state other than a start or a stop."""
        station = self._station
        gate = job.life.gate
        whole = job.every_channel and len(job.channels) > 1

        match job.order:
            case Resume():
                return _Change(
                    "resumed",
                    lambda reading: in_test(reading.record.status),
                    lambda channel: station.cycler.resume(channel, gate=partial(gate, channel)),
                    (lambda _, gate: station.cycler.resume_all(gate=gate)) if whole else None,
                    only_all=True,
                )
            case Continue():
                return _Change(
                    "continued",
                    lambda reading: reading.record.status.meaning is not StatusClass.PAUSED,
                    None,
                    lambda channels, gate: station.cycler.continue_tests(channels, gate=gate),
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
                job.life.accepted(channel, verdict)
            else:
                job.end(channel, verdict)

        def tell(channel: int, *, seen: bool) -> None:
            message = self._message(change, before[channel], channel) if seen else self._unseen(change)
            if seen:
                job.life.verified(channel)
            job.end(channel, replace(accepted[channel], verified=seen, message=message))

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
    verdicts: dict[int, Verdict] = {}
    if change.group is not None:
        verdicts = await _ask_together(job, change, change.group)

    async def one(channel: int) -> Verdict:
        assert change.one is not None  # noqa: S101  # a change has one way or the other
        try:
            return of_answer(await change.one(channel))
        except CtiMqttError as error:
            return of_error(error)

    rest = [channel for channel in job.channels if channel not in verdicts]
    return verdicts | dict(zip(rest, await asyncio.gather(*map(one, rest)), strict=True))


async def _ask_together(
    job: Job, change: _Change, group: Callable[[Sequence[int], Gate], Awaitable[Mapping[int, ChannelOutcome]]]
) -> dict[int, Verdict]:
    """One request for many channels; one that is withdrawn keeps back no other. Those that are left have no verdict."""
    verdicts: dict[int, Verdict] = {}
    channels = list(job.channels)
    while channels and not (verdicts and change.only_all):
        withdrawn: dict[int, Verdict] = {}
        try:
            answers = await group(tuple(channels), partial(_gate, job, tuple(channels), withdrawn))
        except CtiMqttError as error:
            verdicts |= withdrawn or dict.fromkeys(channels, of_error(error))
            channels = [channel for channel in channels if channel not in verdicts]
        else:
            return verdicts | {channel: of_answer(answers[channel]) for channel in channels}
    return verdicts


def _gate(job: Job, channels: Collection[int], withdrawn: dict[int, Verdict]) -> None:
    """Raises WithdrawnError where it must not go out to some of these, and notes the verdict of each."""
    for channel in channels:
        try:
            job.life.may_go(channel)
        except WithdrawnError as error:
            withdrawn[channel] = of_error(error)
    if withdrawn:
        raise WithdrawnError("some channels are left out")
    job.life.gate(*channels)
