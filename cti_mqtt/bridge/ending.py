"""How commands end when the bridge does: what is under way is cut short, but a stop is still sent and gets a second."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.desk import Desk

LAST_STOPS_S = 1.0  # for stops to be seen to work
LAST_MOMENT_S = 0.05  # for the very last of them to go out
LOOK_S = 0.02
CUT_S = 1.0  # for commands to take notice that they are cut short


class Ending:
    """What is still taken, and what becomes of it.

    Args:
        desks: where commands are dealt with.

    Attributes:
        begun: whether only stops are taken.
        over: whether nothing is taken: the sessions end.
    """

    def __init__(self, desks: Collection[Desk]) -> None:
        self.begun = False
        self.over = False
        self._desks = desks
        self._under_way: set[asyncio.Task[None]] = set()

    def watch(self, task: "asyncio.Task[None]") -> None:
        """A command is being carried out; not a stop."""
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def check(self, *, is_stop: bool) -> None:
        """Raises Refusal where a command comes too late."""
        if self.over or (self.begun and not is_stop):
            raise Refusal("not_connected", "the bridge is ending; nothing was sent")

    async def run(self, settle: Callable[[], Awaitable[None]]) -> None:
        """End in order; the sessions must last until this returns. `settle` waits for the record."""
        self.begun = True
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CUT_S)
        await self._wait_for_stops()
        self._cut()
        await settle()
        if self._is_waited_for:  # heard meanwhile
            await self._wait_for_stops()
            self.over = True
            await asyncio.sleep(LAST_MOMENT_S)
        self.end_now()

    def end_now(self) -> None:
        """There is nobody any more who could do something: whoever waits is told what is known."""
        self.begun = self.over = True
        self._cut()

    @property
    def _is_waited_for(self) -> bool:
        return any(desk.pursuit.is_waited_for for desk in self._desks)

    async def _wait_for_stops(self) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + LAST_STOPS_S
        while self._is_waited_for and loop.time() < until_s:  # noqa: ASYNC110  # several pursuits, and a short while
            await asyncio.sleep(LOOK_S)

    def _cut(self) -> None:
        for desk in self._desks:
            desk.pursuit.cut("the bridge ended")
