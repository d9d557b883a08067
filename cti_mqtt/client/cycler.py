"""What one can ask of a cycler, typed; channels are numbered from 1."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cti_mqtt.client.connection import FEEDBACK_TIMEOUT_S, Connection, open_connection
from cti_mqtt.client.exchange import (
    URGENT,
    ChannelOutcome,
    Gate,
    ManyChannelsExchange,
    ReadExchange,
    SingleExchange,
    open_gate,
)
from cti_mqtt.cti.codes import (
    META_VARIABLE_COUNT,
    AssignResult,
    Selection,
    SetMetaVariableResult,
    StopResult,
)
from cti_mqtt.cti.messages.channels import ALL_CHANNELS, AuxOption, ChannelRecord, ChannelsInfoRequest
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginFeedback, LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest, StopRequest
from cti_mqtt.cti.messages.variables import SetMetaVariableRequest
from cti_mqtt.cti.numbering import as_printed, on_wire
from cti_mqtt.cti.stream import ChecksumPolicy
from cti_mqtt.errors import (
    CtiMqttError,
    InvalidRequestError,
    LoginRefusedError,
    NotConnectedError,
    OutcomeUnknownError,
    ProtocolError,
)

log = logging.getLogger(__name__)

INCOMPLETE_LIMIT = 2  # answers to "all" that lack channels, before each channel is asked by itself
MAX_CHANNELS = 0x7FFF  # what a request for readings can name


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a cycler is and how to talk to it.

    Attributes:
        name: how logs and errors call it.
        timeout_s: how long a request may stay without any answer.
        pipelining: whether several requests may be in flight.
    """

    name: str
    host: str
    port: int = 9031
    timeout_s: float = FEEDBACK_TIMEOUT_S
    checksum: ChecksumPolicy = ChecksumPolicy.WARN
    pipelining: bool = True


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user registered in MITS Pro."""

    username: str
    password: str = field(repr=False)


class Cycler:
    """A cycler that one is logged in to; made by `connect`.

    Attributes:
        info: what the cycler said of itself at login.
    """

    def __init__(self, name: str, connection: Connection, info: LoginFeedback) -> None:
        self.info = info
        self._name = name
        self._connection = connection
        self._incomplete = 0
        self._one_by_one = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, endpoint: Endpoint, credentials: Credentials) -> AsyncIterator["Cycler"]:
        """A session, logged in; closed when the block ends.

        Raises:
            NotConnectedError: nobody answers there, or not in time, or not to the login.
            LoginRefusedError: the cycler said no: user or password is wrong.
            UnsupportedCommandError: it does not know the login.
            ProtocolError: its answer makes no sense.
            InvalidRequestError: user or password do not fit into the 32 bytes of their field.
        """
        connection = await open_connection(
            endpoint.host,
            endpoint.port,
            name=endpoint.name,
            timeout_s=endpoint.timeout_s,
            policy=endpoint.checksum,
            pipelining=endpoint.pipelining,
        )
        try:
            yield cls(endpoint.name, connection, await _log_in(connection, endpoint.name, credentials))
        finally:
            connection.close(NotConnectedError("the session was closed on this side"))

    async def wait_closed(self) -> CtiMqttError:
        """Wait for the end of the session; why it ended."""
        return await asyncio.shield(self._connection.closed)

    @property
    def channels(self) -> range:
        """The channels the cycler announced at login."""
        return range(1, self.info.channel_count + 1)

    async def ping(self) -> ConnectFeedback:
        """Ask for a sign of life, with the connect request.

        Raises:
            NotSentError, OutcomeUnknownError, UnsupportedCommandError: as `Connection.ask`, here and below.

        Source: v1.1, "Connect".
        """
        feedback: ConnectFeedback = await self._connection.ask(SingleExchange(ConnectRequest()))
        return feedback

    # --- readings ---

    async def read_channels(self, aux: AuxOption = AuxOption.ALL) -> dict[int, ChannelRecord]:
        """The readings of all channels, by channel, with one request.

        Channels that the cycler did not send are absent. A server that twice leaves some out is from then on asked for
        each channel by itself, with one request in flight.

        Raises:
            NotSentError, OutcomeUnknownError, UnsupportedCommandError: nothing came at all.

        Source: v1.1, "Get channels info".
        """
        if self._one_by_one:
            return await self._read_one_by_one(aux)
        exchange = ReadExchange(ChannelsInfoRequest(aux_options=aux), [on_wire(n) for n in self.channels])
        records = await self._connection.ask(exchange)
        self._note_completeness(complete=not exchange.missing)
        return self._by_channel(records)

    def _note_completeness(self, *, complete: bool) -> None:
        if self._one_by_one or self._connection.closed.done():
            return  # what was in flight when it was decided, or cut short: not the server's habit
        self._incomplete = 0 if complete else self._incomplete + 1
        if self._incomplete >= INCOMPLETE_LIMIT:
            log.warning(
                "%s: twice not all channels came when all were asked for; asking for each one from now on", self._name
            )
            self._one_by_one = True
            self._connection.pipelining = False

    async def _read_one_by_one(self, aux: AuxOption) -> dict[int, ChannelRecord]:
        records = {}
        for channel in self.channels:
            records.update(await self.read_channel(channel, aux))
        return records

    async def read_channel(self, channel: int, aux: AuxOption = AuxOption.ALL) -> dict[int, ChannelRecord]:
        """The reading of one channel, by channel; a server may send others with it.

        Source: v1.1, "Get channels info".
        """
        wire = self._wire(channel)
        exchange = ReadExchange(ChannelsInfoRequest(wire, aux_options=aux), [wire])
        return self._by_channel(await self._connection.ask(exchange))

    async def read_selected(self, selection: Selection, aux: AuxOption = AuxOption.ALL) -> dict[int, ChannelRecord]:
        """The readings of the running or of the unsafe channels; ends after a short silence, for lack of a count.

        Source: v1.1, "Get channels info".
        """
        exchange = ReadExchange(ChannelsInfoRequest(ALL_CHANNELS, selection, aux), [])
        return self._by_channel(await self._connection.ask(exchange))

    def _by_channel(self, records: list[ChannelRecord]) -> dict[int, ChannelRecord]:
        """By printed channel; a channel that the cycler does not have is damage that no checksum stopped."""
        by_channel = {as_printed(record.channel): record for record in records}
        return {channel: record for channel, record in by_channel.items() if channel in self.channels}

    def _wire(self, channel: int) -> int:
        """The number on the wire; 0 would become -1 there, which some servers read as "all"."""
        if channel < 1:
            raise InvalidRequestError(f"{self._name}: channels are numbered from 1, there is no channel {channel}")
        return on_wire(channel)

    # --- control: never sent twice ---

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
        wire = [self._wire(channel) for channel in dict.fromkeys(channels)]
        if not wire:
            raise InvalidRequestError(f"{self._name}: no channels to start")
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
        self, channel: int, index: int, value: float, *, gate: Gate = open_gate
    ) -> SetMetaVariableResult:
        """Write MV_UD<index> (1 to 16) of a running channel; the wire holds a 32-bit float; `gate` as in `assign`.

        Raises:
            ValueError: no such variable.

        Source: v1.1, "Set meta variable".
        """
        wire = self._wire(channel)
        request = SetMetaVariableRequest.of(wire, index, value)
        feedback = await self._connection.ask(SingleExchange(request, wire, gate=gate))
        return SetMetaVariableResult(feedback.result)

    async def _ask_many(self, exchange: ManyChannelsExchange) -> Mapping[int, ChannelOutcome]:
        results = await self._connection.ask(exchange)
        return {as_printed(channel): result for channel, result in results.items()}


async def _log_in(connection: Connection, name: str, credentials: Credentials) -> LoginFeedback:
    request = LoginRequest(credentials.username, credentials.password)
    try:
        info: LoginFeedback = await connection.ask(SingleExchange(request))
    except OutcomeUnknownError as error:  # a login moves nothing: trying again is safe
        raise NotConnectedError(f"{error}; is the Monitor & Control window open there, and CTI enabled?") from error
    if not info.result.usable:
        raise LoginRefusedError(
            f"{name}: login as {credentials.username!r} refused ({info.result.text}); "
            "check user name and password, and that the user is registered in MITS Pro"
        )
    if info.channel_count > MAX_CHANNELS:
        raise ProtocolError(f"{name}: the login feedback speaks of {info.channel_count} channels, which cannot be")
    return info
