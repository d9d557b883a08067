"""What moves a cycler's channels. Nothing here is ever sent twice by itself.

Every operation takes a `gate`: asked just before sending, it raises NotSentError where the request must not go out any
more. Those on several channels return for each channel its result, or the error that left its outcome unknown.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from cti_mqtt.client.connection import Connection
from cti_mqtt.client.exchange import (
    NORMAL,
    URGENT,
    ChannelOutcome,
    Gate,
    ManyChannelsExchange,
    SingleExchange,
    UpdatesExchange,
    open_gate,
)
from cti_mqtt.client.session import Session
from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.cti.messages.extended import ExtendedResume, ExtendedStart, ResumeExtendedRequest, StartExtendedRequest
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.messages.tests import (
    AssignRequest,
    ContinueRequest,
    JumpRequest,
    ResumeRequest,
    StartRequest,
    StopRequest,
)
from cti_mqtt.cti.messages.variables import (
    FLOAT_VALUE,
    MAX_UPDATES,
    META_VARIABLE,
    MetaVariableUpdate,
    SetMetaVariableRequest,
    UpdateHeader,
    UpdateMetaVariablesRequest,
    Updates,
)
from cti_mqtt.cti.numbering import as_printed, on_wire
from cti_mqtt.cti.results import AssignResult, JumpResult, ResumeResult, SetMetaVariableResult, StopResult
from cti_mqtt.errors import CtiMqttError, InvalidRequestError, OutcomeUnknownError, UnsupportedCommandError

UPDATE_PAUSE_S = 0.2  # between two advanced updates: what a server takes at the most


class Control(Session):
    """What one can make a cycler do."""

    def __init__(self, name: str, connection: Connection, info: LoginFeedback) -> None:
        super().__init__(name, connection, info)
        self._update_turn = asyncio.Lock()
        self._next_update_at = 0.0
        self._knows_updates = True

    async def assign(
        self,
        channel: int,
        schedule: str,
        *,
        barcode: str = "",
        capacity_ah: float = 0.0,
        meta_variables: Sequence[float] = (0.0,) * META_VARIABLE_COUNT,
        gate: Gate = open_gate,
    ) -> AssignResult:
        """Put a schedule on a channel.

        Args:
            channel: from 1.
            schedule: the schedule file's name.
            barcode: up to 71 characters.
            capacity_ah: counts on MITS 7 only, where it overwrites the channel's.
            meta_variables: MV_UD1 to MV_UD16; as `capacity_ah`.
            gate: asked just before sending; raises NotSentError where the request must not go out any more.

        Source: v1.1, "Assign schedule".
        """
        wire = self._wire(channel)
        request = AssignRequest(
            wire,
            all_channels=False,
            schedule=schedule,
            capacity=capacity_ah,
            barcode=barcode,
            meta_variables=tuple(meta_variables),
        )
        feedback = await self._connection.ask(SingleExchange(request, wire, gate=gate))
        return AssignResult(feedback.result)

    async def start(
        self, channels: Collection[int], test_name: str, *, gate: Gate = open_gate
    ) -> Mapping[int, ChannelOutcome]:
        """Start the assigned schedules, all under one test name, with one request; `gate` as in `assign`.

        Returns:
            for each channel its `StartResult`, or the error that left its outcome unknown.

        Raises:
            InvalidRequestError: also for no channel at all, which would get one answer that is for none.

        Source: v4.5, "Start schedule".
        """
        wire = self._wire_all(channels)
        request = StartRequest(test_name, tuple(wire))
        # A successful start may come back without its channel: with two in flight nobody could tell whose it is.
        return await self._ask_many(ManyChannelsExchange(request, wire, gate=gate, alone=True))

    async def stop(self, channel: int) -> StopResult:
        """Stop one channel; goes ahead of everything that still waits to be sent.

        Source: v1.1, "Stop".
        """
        wire = self._wire(channel)
        return StopResult((await self._connection.ask(SingleExchange(StopRequest(wire), wire, URGENT))).result)

    async def stop_all(self) -> Mapping[int, ChannelOutcome]:
        """Stop every channel of the cycler with one request; ahead of everything that waits.

        Returns:
            for each channel its `StopResult`, or the error that left its outcome unknown.

        Source: v1.1, "Stop".
        """
        wire = [on_wire(channel) for channel in self.channels]
        return await self._ask_many(ManyChannelsExchange(StopRequest(0, all_channels=True), wire, URGENT))

    async def set_meta_variable(
        self, channel: int, index: int, value: float, *, priority: int = NORMAL, gate: Gate = open_gate
    ) -> SetMetaVariableResult:
        """Write MV_UD<index> (1 to 16) of a running channel; the wire holds a 32-bit float; `gate` as in `assign`.

        An URGENT one goes ahead of everything NORMAL that still waits to be sent.

        Raises:
            ValueError: no such variable.

        Source: v1.1, "Set meta variable".
        """
        wire = self._wire(channel)
        request = SetMetaVariableRequest.of(wire, index, value)
        feedback = await self._connection.ask(SingleExchange(request, wire, priority, gate))
        return SetMetaVariableResult(feedback.result)

    # --- the rest of a test's life ---

    async def assign_all(
        self, schedule: str, *, barcode: str = "", gate: Gate = open_gate
    ) -> Mapping[int, ChannelOutcome]:
        """Put a schedule on every channel of the cycler with one request; not for MITS 7, where it overwrites values.

        Source: v1.1, "Assign schedule".
        """
        wire = [on_wire(channel) for channel in self.channels]
        request = AssignRequest(0, all_channels=True, schedule=schedule, barcode=barcode)
        return await self._ask_many(ManyChannelsExchange(request, wire, gate=gate))

    async def resume(self, channel: int, *, gate: Gate = open_gate) -> ResumeResult:
        """Take the stopped test of a channel up again where it stood.

        Source: v1.1, "Resume".
        """
        wire = self._wire(channel)
        feedback = await self._connection.ask(SingleExchange(ResumeRequest(wire), wire, gate=gate))
        return ResumeResult(feedback.result)

    async def resume_all(self, *, gate: Gate = open_gate) -> Mapping[int, ChannelOutcome]:
        """Take the stopped tests of all channels up again with one request.

        Source: v1.1, "Resume".
        """
        wire = [on_wire(channel) for channel in self.channels]
        return await self._ask_many(ManyChannelsExchange(ResumeRequest(0, all_channels=True), wire, gate=gate))

    async def continue_tests(
        self, channels: Collection[int], *, gate: Gate = open_gate
    ) -> Mapping[int, ChannelOutcome]:
        """End the pause of some channels with one request.

        Source: v4.5, "Continue".
        """
        wire = self._wire_all(channels)
        return await self._ask_many(ManyChannelsExchange(ContinueRequest(tuple(wire)), wire, gate=gate, alone=True))

    async def jump(self, channel: int, step: int, *, gate: Gate = open_gate) -> JumpResult:
        """Go on at another step of the running schedule.

        Args:
            channel: from 1.
            step: from 1, as readings show it; a step past the end stops the test.
            gate: as everywhere.

        Source: v1.1, "Jump to step".
        """
        wire = self._wire(channel)
        if step < 1:
            raise InvalidRequestError(f"{self._name}: steps are numbered from 1, there is no step {step}")
        feedback = await self._connection.ask(SingleExchange(JumpRequest(step - 1, wire), wire, gate=gate))
        return JumpResult(feedback.result)

    async def start_extended(
        self, starts: Collection[ExtendedStart], *, gate: Gate = open_gate
    ) -> Mapping[int, ChannelOutcome]:
        """Start channels with schedule, step and state of their own; one request, one test name (the first record's).

        The records carry wire channels, from 0.

        Raises:
            InvalidRequestError: no records, or different test names: servers take the first for all.

        Source: v1.1 and v4.5, "Start schedule, extended".
        """
        if len({start.test_name for start in starts}) != 1:
            raise InvalidRequestError(f"{self._name}: one test name a request; send one request a name")
        wire = [start.channel for start in starts]
        return await self._ask_many(
            ManyChannelsExchange(StartExtendedRequest(tuple(starts)), wire, gate=gate, alone=True)
        )

    async def resume_extended(
        self, resumptions: Collection[ExtendedResume], *, gate: Gate = open_gate
    ) -> Mapping[int, ChannelOutcome]:
        """Take tests up again from given states; the records carry wire channels, from 0.

        Source: v1.1, "Resume schedule, extended".
        """
        wire = [each.channel for each in resumptions]
        return await self._ask_many(ManyChannelsExchange(ResumeExtendedRequest(tuple(resumptions)), wire, gate=gate))

    # --- many meta variables at once ---

    async def update_meta_variables(
        self,
        values: Mapping[int, Mapping[int, float]],
        *,
        header: UpdateHeader = UpdateHeader.V11,
        gate: Gate = open_gate,
        fall_back: bool = True,
    ) -> Mapping[int, ChannelOutcome]:
        """Write meta variables of several channels: as few packets as hold them, 200 ms apart.

        Args:
            values: by channel, then by index (1 to 16).
            header: the documents differ on what stands before the entries.
            gate: as everywhere; asked before each packet.
            fall_back: whether a cycler that knows no packets gets single writes.

        Returns:
            for each channel its `UpdateMetaVariablesResult` (from single writes its `SetMetaVariableResult`), the
            worst of its packets, or the error that left its outcome unknown.

        Raises:
            NotSentError, OutcomeUnknownError: of the first packet; after that the channels' outcomes say it.
            UnsupportedCommandError: the cycler knows no packets; without `fall_back` only, and nothing was done.

        Source: v1.1 and v4.5, "Update meta variables, advanced".
        """
        entries = [
            MetaVariableUpdate.of(self._wire(channel), index, value)
            for channel, variables in values.items()
            for index, value in variables.items()
        ]
        results: dict[int, ChannelOutcome] = {}
        for start in range(0, len(entries), MAX_UPDATES):
            packet = entries[start : start + MAX_UPDATES]
            try:
                answers = await self._update(packet, header, gate, fall_back=fall_back)
            except CtiMqttError as error:
                if not results:
                    raise
                rest = OutcomeUnknownError(f"only some of the values were sent: {error}")
                answers = {as_printed(entry.channel): rest for entry in packet}
            for channel, outcome in answers.items():
                results[channel] = _worse(results.get(channel), outcome)
        return results

    async def _update(
        self, packet: Sequence[MetaVariableUpdate], header: UpdateHeader, gate: Gate, *, fall_back: bool
    ) -> Mapping[int, ChannelOutcome]:
        """One packet, or single writes for a server that knows no packets."""
        if self._knows_updates:
            request = UpdateMetaVariablesRequest(Updates(tuple(packet), header))
            wire = list(dict.fromkeys(entry.channel for entry in packet))
            try:
                return await self._send_update(UpdatesExchange(request, wire, gate=gate))
            except UnsupportedCommandError:
                self._knows_updates = False
        if not fall_back:
            raise UnsupportedCommandError(f"{self._name}: the cycler does not know advanced updates")
        return await self._write_singly(packet, gate)

    async def _write_singly(self, packet: Sequence[MetaVariableUpdate], gate: Gate) -> Mapping[int, ChannelOutcome]:
        async def one(entry: MetaVariableUpdate) -> ChannelOutcome:
            request = SetMetaVariableRequest(entry.channel, META_VARIABLE, entry.meta_code, FLOAT_VALUE, entry.value)
            feedback = await self._connection.ask(SingleExchange(request, entry.channel, gate=gate))
            return SetMetaVariableResult(feedback.result)

        answers = await asyncio.gather(*map(one, packet), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(errors) == len(answers) or any(not isinstance(error, CtiMqttError) for error in errors):
            raise errors[0]
        results: dict[int, ChannelOutcome] = {}
        for entry, answer in zip(packet, answers, strict=True):
            outcome = OutcomeUnknownError(str(answer)) if isinstance(answer, BaseException) else answer
            results[as_printed(entry.channel)] = _worse(results.get(as_printed(entry.channel)), outcome)
        return results

    async def _send_update(self, exchange: UpdatesExchange) -> Mapping[int, ChannelOutcome]:
        """One packet, not too soon after the one before."""
        loop = asyncio.get_running_loop()
        async with self._update_turn:
            await asyncio.sleep(self._next_update_at - loop.time())
            try:
                return await self._ask_many(exchange)
            finally:
                self._next_update_at = loop.time() + UPDATE_PAUSE_S


def _worse(one: ChannelOutcome | None, other: ChannelOutcome) -> ChannelOutcome:
    """Unknown is worse than no, and no is worse than yes."""
    if one is None or isinstance(other, OutcomeUnknownError) or (one == 0 and not isinstance(one, OutcomeUnknownError)):
        return other
    return one
