"""Staying connected: connect, log in, wait for the end, back off, again."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cti_mqtt.client.cycler import Cycler
from cti_mqtt.errors import CtiMqttError, NotConnectedError

log = logging.getLogger(__name__)

SHORTEST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
STABLE_S = 5.0  # a session that lasted so long was a good one: the next wait is short again


class Backoff:
    """How long to wait before the next attempt: doubling, with jitter so that many clients do not come at once.

    Args:
        shortest_s: the first wait, and the least of any.
        longest_s: the most.
        uniform: random source, `random.uniform` or its like.
    """

    def __init__(
        self,
        shortest_s: float = SHORTEST_WAIT_S,
        longest_s: float = LONGEST_WAIT_S,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._uniform = uniform
        self._ceiling_s = 2 * shortest_s

    def next_s(self) -> float:
        """Seconds to wait now."""
        wait_s = self._uniform(self._ceiling_s / 2, self._ceiling_s)
        self._ceiling_s = min(self._longest_s, 2 * self._ceiling_s)
        return wait_s

    def reset(self) -> None:
        """All is well: begin with the shortest wait again."""
        self._ceiling_s = 2 * self._shortest_s


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
