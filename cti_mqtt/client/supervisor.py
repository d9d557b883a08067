"""Staying connected: connect, log in, wait for the end, back off, again."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cti_mqtt.backoff import Backoff
from cti_mqtt.client.cycler import Cycler
from cti_mqtt.errors import CtiMqttError, NotConnectedError

log = logging.getLogger(__name__)

STABLE_S = 5.0  # a session that lasted so long was a good one: the next wait is short again


class Listener(Protocol):
    """Who wants to know how the connection fares."""

    def connected(self, cycler: Cycler) -> None:
        """Logged in."""

    def disconnected(self, reason: CtiMqttError) -> None:
        """The session ended, or an attempt failed; the next one follows by itself."""


class Supervisor:
    """Keeps one session with a cycler, as long as `run` runs.

    Args:
        connect: opens a session that is logged in.
        listener: is told of each beginning and end.
        backoff: how long to wait between attempts.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Cycler]],
        listener: Listener,
        backoff: Backoff | None = None,
    ) -> None:
        self._connect = connect
        self._listener = listener
        self._backoff = backoff or Backoff()
        self._cycler: Cycler | None = None
        self._reason: CtiMqttError = NotConnectedError("not connected yet")

    @property
    def cycler(self) -> Cycler:
        """The cycler, while logged in.

        Raises:
            NotConnectedError: no session just now; the message says why.
        """
        if self._cycler is None:
            raise NotConnectedError(str(self._reason))
        return self._cycler

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            self._reason = await self._one_session()
            self._listener.disconnected(self._reason)
            await asyncio.sleep(self._backoff.next_s())

    async def _one_session(self) -> CtiMqttError:
        """One attempt, and the session if it succeeds; why it ended."""
        loop = asyncio.get_running_loop()
        try:
            async with self._connect() as cycler:
                began = loop.time()
                self._cycler = cycler
                try:
                    self._listener.connected(cycler)
                    return await cycler.wait_closed()
                finally:
                    self._cycler = None
                    if loop.time() - began >= STABLE_S:
                        self._backoff.reset()
        except CtiMqttError as error:
            return error
