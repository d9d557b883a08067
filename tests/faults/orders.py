"""The commands of a crash test: each can be told from all others in the cycler's record."""

import json
import random
from dataclasses import dataclass
from typing import Any

from tests.faults.world import CHANNELS, CYCLER

SCHEDULES = ("CCCV.sdx", "Discharge.sdx", "Formation.sdx")  # none of them ends within a test
VERBS = ("start", "set_mv", "stop")
AT_REST = frozenset({"Idle", "Finished"})  # as results show a channel without a test
MAX_GROUP = 3  # channels of a command to the cycler
VARIABLES = 16


@dataclass(frozen=True)
class Order:
    """A command as it is sent, again and again.

    Attributes:
        channels: those it is about, from 1.
        to_cycler: whether it goes to the cycler, not to the one channel.
        body: never changed.
        value: of a `set_mv`: nobody else writes this one. A start's test name and barcode are its id.
    """

    id: str
    verb: str
    channels: tuple[int, ...]
    to_cycler: bool
    body: bytes
    value: float | None = None

    @property
    def target(self) -> str:
        """What stands before `command` and `result` in its topics, without the base."""
        return CYCLER if self.to_cycler else f"{CYCLER}/channel/{self.channels[0]}"

    @property
    def once(self) -> bool:
        """Whether it must not be executed twice; a stop may."""
        return self.verb != "stop"


class Deck:
    """Gives orders that mostly make sense: stops and writes where a test may run, starts where none may.

    Args:
        name: begins every id.
        rng: chooses.
    """

    def __init__(self, name: str, rng: random.Random) -> None:
        self._name = name
        self._rng = rng
        self._given = 0
        self._running: set[int] = set()

    def learn(self, channel: int, status: str) -> None:
        """What a result showed."""
        if status in AT_REST:
            self._running.discard(channel)
        else:
            self._running.add(channel)

    def next(self) -> Order:
        """Another one."""
        rng = self._rng
        self._given += 1
        verb = rng.choices(VERBS, (35, 40, 25))[0]
        channels = self._channels(verb)
        to_cycler = len(channels) > 1 or rng.random() < 0.05
        identity = f"{self._name}-{self._given:05}-{verb}"
        body: dict[str, Any] = {"id": identity, "channels": channels} if to_cycler else {"id": identity}
        value = None
        if verb == "start":
            body["test_name"] = identity
            if rng.random() < 0.75:
                body |= {"schedule": rng.choice(SCHEDULES), "barcode": identity}
            self._running |= set(channels)
        elif verb == "set_mv":
            value = self._given / 4  # a 32-bit float holds it exactly
            body["values"] = {str(rng.randint(1, VARIABLES)): value}
        else:
            self._running -= set(channels)
        return Order(identity, verb, tuple(channels), to_cycler, json.dumps(body).encode(), value)

    def _channels(self, verb: str) -> list[int]:
        everything = range(1, CHANNELS + 1)
        sensible = [n for n in everything if (n in self._running) is (verb != "start")]
        pool = sensible if sensible and self._rng.random() < 0.85 else list(everything)
        size = self._rng.randint(2, MAX_GROUP) if self._rng.random() < 0.15 else 1
        return sorted(self._rng.sample(pool, min(size, len(pool))))
