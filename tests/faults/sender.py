"""Says each order again and again until it is answered, and keeps every result.

A refusal of a message that came too early (`retained` on 3.1.1, `not_connected`) is no answer: it says to send again.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from tests.faults.client import Voice
from tests.faults.judgement import Answer
from tests.faults.orders import Order
from tests.faults.world import CYCLER, World
from tests.support.observer import Heard

REPEAT_S = (0.35, 0.6)  # at least and at most between two of the same order
LOOK_S = 0.05


class Sender:
    """The controller of a world.

    Args:
        world: where the bridge is.
        rng: varies the time between repeats.

    Attributes:
        orders: every order sent, by id.
        open: those without an answer, with the time of their next repeat.
        answers: every result heard.
        messages: how often something was sent.
        online: set while commands are heard and the cycler is there.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.orders: dict[str, Order] = {}
        self.open: dict[str, float] = {}
        self.answers: list[Answer] = []
        self.messages = 0
        self.online = asyncio.Event()
        self._news = asyncio.Event()
        self._base = world.base
        self._rng = rng
        self._voice: Voice | None = None
        self._loop = asyncio.get_running_loop()
        self._alive = {"bridge/availability": False, f"{CYCLER}/availability": False}

    @classmethod
    @asynccontextmanager
    async def connect(cls, world: World, rng: random.Random) -> AsyncIterator[Self]:
        """Connected, and repeating."""
        it = cls(world, rng)
        filters = [f"{world.base}/{leaf}" for leaf in ("+/availability", "+/result", "+/channel/+/result")]
        async with Voice.connect(world.broker_port, world.protocol, filters, it._hear) as it._voice:
            repeating = asyncio.create_task(it._repeat(), name=f"{world.base}: repeats")
            try:
                yield it
            finally:
                repeating.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await repeating

    def send(self, order: Order) -> None:
        """Say an order for the first time."""
        self.orders[order.id] = order
        self._say(order)

    def say_again(self, *, everything: bool = False) -> list[str]:
        """Repeat at once: what is open, or everything that must be answered as it was answered before; the ids."""
        chosen = [order for order in self.orders.values() if order.once] if everything else []
        chosen = chosen or [self.orders[identity] for identity in self.open]
        for order in chosen:
            self._say(order)
        return [order.id for order in chosen]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition, looked at after each result, is true."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    def bridge_gone(self) -> None:
        """What was heard of the bridge before this counts no more."""
        self._alive = dict.fromkeys(self._alive, False)
        self.online.clear()

    def _say(self, order: Order) -> None:
        assert self._voice is not None
        self.messages += 1
        self.open[order.id] = self._loop.time() + self._rng.uniform(*REPEAT_S)
        self._voice.say(f"{self._base}/{order.target}/command/{order.verb}", order.body)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._loop.time()
            for identity in [identity for identity, due in self.open.items() if due <= now]:
                self._say(self.orders[identity])

    def _hear(self, heard: Heard) -> None:
        leaf = heard.topic.removeprefix(f"{self._base}/")
        if leaf in self._alive:
            self._alive[leaf] = heard.payload == b"online" and not heard.retain
            if all(self._alive.values()):
                self.online.set()
            else:
                self.online.clear()
        elif leaf.endswith("/result"):
            answer = Answer(leaf.removesuffix("/result"), json.loads(heard.payload))
            self.answers.append(answer)
            order = self.orders.get(answer.body["id"])
            if order is not None and order.target == answer.target and not answer.passing:
                self.open.pop(order.id, None)
            self._news.set()
