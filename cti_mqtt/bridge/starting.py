"""Starting a test: assign where a schedule is given, start, look, then write the values."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from cti_mqtt.bridge.assigning import assign
from cti_mqtt.bridge.bus import Reading
from cti_mqtt.bridge.jobs import Job, status_text, verify
from cti_mqtt.bridge.leases import LeaseBook
from cti_mqtt.bridge.orders import Assign, Start
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_answer, of_code, of_error
from cti_mqtt.client import ChannelOutcome
from cti_mqtt.cti.results import StartResult
from cti_mqtt.errors import CtiMqttError, WithdrawnError


class Starting:
    """A start: assign where a schedule is given, start all channels with one request, look, then write the values.

    A stop that comes in meanwhile wins: what has not gone out by then stays here.
    """

    def __init__(
        self,
        station: Station,
        leases: LeaseBook,
        job: Job,
        order: Start,
        on_start: Callable[[int, float], None],
    ) -> None:
        self._station = station
        self._leases = leases
        self._job = job
        self._order = order
        self._on_start = on_start
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
        assigned = self._assigned.get(channel)
        if assigned and verdict.outcome is Outcome.REFUSED:  # which means: nothing was sent
            verdict = replace(verdict, outcome=Outcome.FAILED)
        self._job.end(channel, replace(verdict, assigned=assigned))

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
            return await assign(self._station, channel, order, partial(self._job.life.gate, channel))

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
        """Start with one request; the channels that the cycler accepted. One that is withdrawn keeps back no other."""
        while channels:
            withdrawn: dict[int, WithdrawnError] = {}
            gate = partial(self._gate, tuple(channels), withdrawn)
            try:
                answers = await self._station.cycler.start(channels, self._order.test_name, gate=gate)
            except WithdrawnError:
                for channel, error in withdrawn.items():
                    self._answer(channel, of_error(error))
                channels = [channel for channel in channels if channel not in withdrawn]
            except CtiMqttError as error:
                for channel in channels:
                    self._answer(channel, of_error(error))
                return []
            else:
                return self._accepted(answers)
        return []

    def _gate(self, channels: Collection[int], withdrawn: dict[int, WithdrawnError]) -> None:
        """Raises WithdrawnError where some of these must not be started any more, and notes which, and why."""
        for channel in channels:
            try:
                self._job.life.gate(channel)
            except WithdrawnError as error:
                withdrawn[channel] = error
        if withdrawn:
            raise WithdrawnError("some channels must not be started any more")

    def _accepted(self, answers: Mapping[int, ChannelOutcome]) -> list[int]:
        accepted = []
        for channel, answer in answers.items():
            verdict = of_answer(answer)
            if verdict.outcome is Outcome.SUCCEEDED:
                self._station.variables.test_started(channel)
                self._on_start(channel, self._job.admitted_s)
                self._leases.extend(channel)
                self._job.life.accepted(channel, verdict)
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
        if seen:
            self._job.life.verified(channel)
        verdict = self._verdict(channel, seen=seen)
        values = dict(self._order.values_for(channel))
        if self._order.lease is not None:
            values.update(self._leases.deadman(channel, self._order.lease))
        if values and not seen:
            verdict = _worse(
                verdict, "values_not_written", "the values were not written, since it was not seen running"
            )
        elif values:
            verdict = _with_values(verdict, await self._write(channel, values))
        self._answer(channel, verdict)

    async def _write(self, channel: int, values: Mapping[int, float]) -> Verdict:
        gate = self._job.life.gate_again
        return (await self._station.writer.write({channel: values}, gate, number=self._job.number))[channel]

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


def _with_values(verdict: Verdict, written: Verdict) -> Verdict:
    """The test runs; whether its values were written counts too."""
    overtaken = written.outcome is Outcome.REFUSED and written.reason == "superseded"
    if written.outcome is Outcome.SUCCEEDED or overtaken:
        return replace(verdict, message=f"{verdict.message}; {written.message}")
    message = f"{verdict.message}, but the values were not all written: {written.message}"
    return replace(written, outcome=max(Outcome.FAILED, written.outcome), verified=True, message=message)
