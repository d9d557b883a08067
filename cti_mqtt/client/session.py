"""A session that is logged in: what every group of operations stands on."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from cti_mqtt.client.connection import FEEDBACK_TIMEOUT_S, Connection, open_connection
from cti_mqtt.client.exchange import ChannelOutcome, Exchange, SingleExchange
from cti_mqtt.client.noise import Noise
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginFeedback, LoginRequest
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


class Session:
    """A cycler that one is logged in to; made by `connect`. Channels are numbered from 1.

    Attributes:
        info: what the cycler said of itself at login.
    """

    def __init__(self, name: str, connection: Connection, info: LoginFeedback) -> None:
        self.info = info
        self._name = name
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, endpoint: Endpoint, credentials: Credentials) -> AsyncIterator[Self]:
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
    def noise(self) -> Noise:
        """What the cycler sent that was of no use."""
        return self._connection.noise

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

    def _wire(self, channel: int) -> int:
        """The number on the wire; 0 would become -1 there, which some servers read as "all"."""
        if channel < 1:
            raise InvalidRequestError(f"{self._name}: channels are numbered from 1, there is no channel {channel}")
        return on_wire(channel)

    def _wire_all(self, channels: Collection[int]) -> list[int]:
        """The numbers on the wire, each once; none at all would get one answer that is for none."""
        wire = [self._wire(channel) for channel in dict.fromkeys(channels)]
        if not wire:
            raise InvalidRequestError(f"{self._name}: no channels given")
        return wire

    async def _ask_many(self, exchange: Exchange[Mapping[int, ChannelOutcome]]) -> Mapping[int, ChannelOutcome]:
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
