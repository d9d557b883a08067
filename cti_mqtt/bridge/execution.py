"""Carrying out what was permitted: send, look for the effect, say how it ended.

Every order is carried out on a group of channels; a command to one channel is a group of one. Nothing is sent twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from cti_mqtt.bridge.bus import Reading
from cti_mqtt.bridge.orders import Assign, Order, SetMv, Start, Stop
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_answer, of_code, of_error, refused
from cti_mqtt.client import ChannelOutcome
from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.cti.results import StartResult, StopResult
from cti_mqtt.errors import CtiMqttError, WithdrawnError

VERIFY_PAUSE_S = 0.2  # between polls that look for the effect of a command

Answer = Callable[[int, Verdict], None]


@dataclass(frozen=True, slots=True)
class Job:
    """An order on some channels of a cycler.

    Attributes:
        order: what to do.
        channels: where; every one passed its checks.
        gate: asked again just before each request goes out; raises WithdrawnError where the order is too late by then.
        answer: to be called once for each channel.
        every_channel: whether these are all channels of the cycler, so that CTI's own all-channels flag may be used.
    """

    order: Order
    channels: tuple[int, ...]
    gate: Callable[[], None]
    answer: Answer
    every_channel: bool = False


class Executor:
    """Carries out orders on one cycler."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._stops: Counter[int] = Counter()

    def stop_admitted(self, channels: Collection[int]) -> None:
        """A stop is about to go out: whatever else these channels wait for must not come after it."""
        self._stops.update(channels)

    async def run(self, job: Job) -> None:
        """Carry out an order; every channel is answered when this returns."""
        match job.order:
            case Stop():
                await self._stop(job)
            case Start():
                await _Start(self._station, self._stops, job, job.order).run()
            case Assign() as assignment:
                await _each(job, lambda channel: assign(self._station, channel, assignment, job.gate))
            case SetMv() as writing:
                await _each(job, lambda channel: write_values(self._station, channel, writing, job.gate))

    # --- stop ---

    async def _stop(self, job: Job) -> None:
        if job.every_channel and len(job.channels) > 1:
            answers = await self._stop_all(job)
        else:
            verdicts = await asyncio.gather(*(self._stop_one(channel) for channel in job.channels))
            answers = dict(zip(job.channels, verdicts, strict=True))
        accepted = []
        for channel, verdict in answers.items():
            if verdict.outcome is Outcome.SUCCEEDED:
                accepted.append(channel)
            else:
                job.answer(channel, verdict)
        before = {channel: status_text(self._station.book.latest(channel)) for channel in accepted}

        def tell(channel: int, *, seen: bool) -> None:
            job.answer(channel, self._stop_verdict(channel, before[channel], seen=seen))

        await verify(self._station, accepted, lambda reading: not in_test(reading.record.status), tell)

    async def _stop_one(self, channel: int) -> Verdict:
        try:
            return of_code(await self._station.cycler.stop(channel))
        except CtiMqttError as error:
            return of_error(error)

    async def _stop_all(self, job: Job) -> dict[int, Verdict]:
        try:
            answers = await self._station.cycler.stop_all()
        except CtiMqttError as error:
            return dict.fromkeys(job.channels, of_error(error))
        return {channel: of_answer(answers[channel]) for channel in job.channels}

    def _stop_verdict(self, channel: int, before: str, *, seen: bool) -> Verdict:
        message = (
            f"stopped, channel went {before} -> {status_text(self._station.book.latest(channel))}"
            if seen
            else f"accepted, but no poll within {self._station.settings.verify_timeout_s:g} s showed it stopped"
        )
        return replace(of_code(StopResult.OK, message), verified=seen)


class _Start:
    """A start: assign where a schedule is given, start all channels with one request, look, then write the values.

    A stop that comes in meanwhile wins: what has not gone out by then stays here.
    """

    def __init__(self, station: Station, stops: Counter[int], job: Job, order: Start) -> None:
        self._station = station
        self._job = job
        self._order = order
        self._stops = stops
        self._stops_before = {channel: stops[channel] for channel in job.channels}
        self._assigned: dict[int, bool] = {}
        self._before = {channel: station.book.latest(channel) for channel in job.channels}

    async def run(self) -> None:
        """Every channel is answered when this returns."""
        channels = list(self._job.channels)
        if self._order.schedule is not None:
            channels = await self._assign(channels, self._order.schedule)
        started = await self._start(channels)
        async with asyncio.TaskGroup() as tasks:

            def tell(channel: int, *, seen: bool) -> None:
                tasks.create_task(self._finish(channel, seen=seen), name=f"values of channel {channel}")

            await verify(self._station, started, self._is_seen, tell)

    def _answer(self, channel: int, verdict: Verdict) -> None:
        self._job.answer(channel, replace(verdict, assigned=self._assigned.get(channel)))

    # --- a stop wins ---

    def _stopped(self, channel: int) -> bool:
        return self._stops[channel] != self._stops_before[channel]

    def _gate(self, channels: Iterable[int]) -> None:
        self._job.gate()
        self._stop_gate(channels)

    def _stop_gate(self, channels: Iterable[int]) -> None:
        stopped = [str(channel) for channel in channels if self._stopped(channel)]
        if stopped:
            raise WithdrawnError(f"a stop of channel {', '.join(stopped)} came first")

    # --- the stages ---

    async def _assign(self, channels: list[int], schedule: str) -> list[int]:
        """Assign on each channel; those where it worked."""
        order = Assign(
            schedule=schedule,
            barcode=self._order.barcode,
            capacity_ah=self._order.capacity_ah,
            values=self._order.values,
        )

        async def one(channel: int) -> Verdict:
            return await assign(self._station, channel, order, lambda: self._gate([channel]))

        assigned = []
        verdicts = await asyncio.gather(*map(one, channels))
        for channel, verdict in zip(channels, verdicts, strict=True):
            self._assigned[channel] = verdict.outcome is Outcome.SUCCEEDED
            if self._assigned[channel]:
                assigned.append(channel)
            else:
                self._answer(channel, replace(verdict, message=f"not assigned, so not started: {verdict.message}"))
        return assigned

    async def _start(self, channels: list[int]) -> list[int]:
        """Start with one request; the channels that the cycler accepted."""
        while channels:
            asked = tuple(channels)
            try:
                answers = await self._station.cycler.start(
                    asked, self._order.test_name, gate=partial(self._gate, asked)
                )
            except WithdrawnError as error:
                withdrawn = [channel for channel in asked if self._stopped(channel)] or asked
                for channel in withdrawn:
                    self._answer(channel, of_error(error))
                channels = [channel for channel in asked if channel not in withdrawn]
            except CtiMqttError as error:
                for channel in asked:
                    self._answer(channel, of_error(error))
                return []
            else:
                return self._accepted(answers)
        return []

    def _accepted(self, answers: Mapping[int, ChannelOutcome]) -> list[int]:
        accepted = []
        for channel, answer in answers.items():
            verdict = of_answer(answer)
            if verdict.outcome is Outcome.SUCCEEDED:
                self._station.variables.test_started(channel)
                accepted.append(channel)
            else:
                self._answer(channel, verdict)
        return accepted

    def _is_seen(self, reading: Reading) -> bool:
        """A test under way, or one of this name that has come to an end already."""
        before, record = self._before[reading.channel], reading.record
        ended = record.test_name == self._order.test_name and (
            before is None or before.record.test_name != record.test_name or before.record.status is not record.status
        )
        return in_test(record.status) or ended

    async def _finish(self, channel: int, *, seen: bool) -> None:
        self._station.variables.start_settled(channel)
        verdict = self._verdict(channel, seen=seen)
        values = self._order.values_for(channel)
        if values and not seen:
            verdict = _worse(
                verdict, "values_not_written", "the values were not written, since it was not seen running"
            )
        elif values:
            written = await write_values(self._station, channel, self._order, lambda: self._stop_gate([channel]))
            if written.outcome is Outcome.SUCCEEDED:
                verdict = replace(verdict, message=f"{verdict.message}; {written.message}")
            else:
                message = f"{verdict.message}, but the values were not all written: {written.message}"
                outcome = max(Outcome.FAILED, written.outcome)
                verdict = replace(written, outcome=outcome, verified=seen, message=message)
        self._answer(channel, verdict)

    def _verdict(self, channel: int, *, seen: bool) -> Verdict:
        before, after = status_text(self._before[channel]), status_text(self._station.book.latest(channel))
        waited_s = self._station.settings.verify_timeout_s
        message = (
            f"started, channel went {before} -> {after}"
            if seen
            else f"accepted, but no poll within {waited_s:g} s showed the channel running"
        )
        return replace(of_code(StartResult.OK, message), verified=seen)


def _worse(verdict: Verdict, reason: str, message: str) -> Verdict:
    """The test runs, but not as asked for."""
    return replace(verdict, outcome=Outcome.FAILED, code=None, reason=reason, message=f"{verdict.message}; {message}")


def status_text(reading: Reading | None) -> str:
    """What a reading shows, for a sentence."""
    return reading.record.status.text if reading else "unknown"


async def verify(
    station: Station, channels: Collection[int], is_seen: Callable[[Reading], bool], tell: Callable[..., None]
) -> None:
    """Poll at once, and again, until each channel shows the effect or the time is over.

    Args:
        station: the cycler.
        channels: where the cycler accepted a command.
        is_seen: whether a reading shows the effect.
        tell: called once a channel, with the channel and `seen`.
    """
    loop = asyncio.get_running_loop()
    began = station.book.mark()
    deadline = loop.time() + station.settings.verify_timeout_s
    pending = list(channels)
    while pending:
        with contextlib.suppress(CtiMqttError, TimeoutError):  # no reading this time: what counts is the deadline
            async with asyncio.timeout_at(deadline):
                await station.refresh(pending[0] if len(pending) == 1 else None)
        for channel in tuple(pending):
            reading = station.book.since(began, channel)
            if reading is not None and is_seen(reading):
                pending.remove(channel)
                tell(channel, seen=True)
        if loop.time() >= deadline:
            for channel in pending:
                tell(channel, seen=False)
            return
        if pending:
            await asyncio.sleep(VERIFY_PAUSE_S)


async def assign(station: Station, channel: int, order: Assign, gate: Callable[[], None]) -> Verdict:
    """Assign a schedule to one channel."""
    values = order.values_for(channel)
    try:
        code = await station.cycler.assign(
            channel,
            order.schedule,
            barcode=order.barcode,
            capacity_ah=order.capacity_ah or 0.0,
            meta_variables=[values.get(index, 0.0) for index in range(1, META_VARIABLE_COUNT + 1)],
            gate=gate,
        )
    except CtiMqttError as error:
        return of_error(error)
    return of_code(code, f"{order.schedule} assigned" if code == 0 else "")


async def write_values(station: Station, channel: int, order: Order, gate: Callable[[], None]) -> Verdict:
    """Write an order's meta variables on one channel, one after the other; the worst outcome counts."""
    verdicts = []
    for index, value in order.values_for(channel).items():
        try:
            verdict = of_code(await station.cycler.set_meta_variable(channel, index, value, gate=gate))
        except CtiMqttError as error:
            verdict = of_error(error)
        if verdict.outcome is Outcome.SUCCEEDED:
            station.variables.accepted(channel, index, value)
            verdict = replace(verdict, message=f"MV_UD{index} = {value:g}")
        else:
            verdict = replace(verdict, message=f"MV_UD{index}: {verdict.message}")
        verdicts.append(verdict)
    if not verdicts:
        return refused("malformed", f"values: none for channel {channel}")
    worst = max(verdicts, key=lambda verdict: verdict.outcome)
    return replace(worst, message="; ".join(verdict.message for verdict in verdicts))


async def _each(job: Job, carry_out: Callable[[int], Awaitable[Verdict]]) -> None:
    """The same on each channel, at the same time."""

    async def one(channel: int) -> None:
        job.answer(channel, await carry_out(channel))

    await asyncio.gather(*map(one, job.channels))
