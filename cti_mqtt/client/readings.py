"""Asking a cycler for readings."""

import logging

from cti_mqtt.client.connection import Connection
from cti_mqtt.client.exchange import ReadExchange
from cti_mqtt.client.session import Session
from cti_mqtt.cti.codes import Selection
from cti_mqtt.cti.messages.channels import ALL_CHANNELS, AuxOption, ChannelRecord, ChannelsInfoRequest
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.numbering import as_printed, on_wire

log = logging.getLogger(__name__)

INCOMPLETE_LIMIT = 2  # answers to "all" that lack channels, before each channel is asked by itself


class Readings(Session):
    """What one can read from a cycler."""

    def __init__(self, name: str, connection: Connection, info: LoginFeedback) -> None:
        super().__init__(name, connection, info)
        self._incomplete = 0
        self._one_by_one = False
        self._partial: ReadExchange | None = None  # the last answer that lacked channels; they may come late

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
        self._note_completeness(exchange)
        return self._by_channel(records)

    def _note_completeness(self, exchange: ReadExchange) -> None:
        if self._one_by_one or self._connection.closed.done():
            return  # what was in flight when it was decided, or cut short: not the server's habit
        if self._partial and not self._partial.missing:
            self._incomplete = 0  # it came late after all
        self._partial = exchange if exchange.missing else None
        self._incomplete = self._incomplete + 1 if self._partial else 0
        if self._incomplete >= INCOMPLETE_LIMIT:
            log.warning(
                "%s: twice not all channels came when all were asked for; asking for each one from now on", self._name
            )
            self._one_by_one = True
            self._connection.expect_no_rest()
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
