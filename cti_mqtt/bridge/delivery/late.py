"""Sending a poll late, at its pace."""

import asyncio
from collections.abc import Callable

from cti_mqtt.bridge.delivery.pace import Pace
from cti_mqtt.bridge.delivery.parcels import SentPoll
from cti_mqtt.bridge.delivery.sending import NOT_SENT, Sender, Tally
from cti_mqtt.bridge.mqtt import Settled
from cti_mqtt.bridge.outbox import Message

CONGESTED_S = 0.1  # until a connection that takes no more is tried again


class LateSender:
    """Sends polls on `backfill`.

    Args:
        sender: makes the messages and hands them over.
        pace: how fast.
        is_connected: whether the broker is there.
    """

    def __init__(self, sender: Sender, pace: Pace, is_connected: Callable[[], bool]) -> None:
        self._sender = sender
        self._pace = pace
        self._is_connected = is_connected

    async def send(self, poll: SentPoll, settled: Settled) -> None:
        """Send a poll when it is its turn; `settled` is called once, whatever happens."""
        messages: list[Message] = []
        tally, gone = Tally(settled, 1), 0  # until there are messages, one end is owed
        try:
            await self._pace.turn()
            messages = self._sender.messages(poll, historical=True)
            tally.open = len(messages)
            for message in messages:
                if not await self._hand_over(message, tally):
                    break
                gone += 1
        finally:
            tally.give_up((len(messages) or 1) - gone, NOT_SENT)

    async def _hand_over(self, message: Message, tally: Tally) -> bool:
        """One message; False: the broker has gone."""

        def landed(failure: str | None) -> None:
            self._pace.landed()
            tally.settle(failure)

        await self._pace.room()
        try:
            while self._is_connected():
                if self._sender.offer(message, landed):
                    return True
                await asyncio.sleep(CONGESTED_S)
        except BaseException:
            self._pace.landed()
            raise
        self._pace.landed()
        return False
