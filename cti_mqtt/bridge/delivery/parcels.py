"""A poll on its way to the broker, and where it waits when neither the broker nor the disk takes it."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cti_mqtt.bridge.delivery.troubles import Trouble

MAX_WAITING_BYTES = 64 * 1024 * 1024


class SentPoll(Protocol):
    """A poll as it is published, now or later; its readings as JSON, one text a channel."""

    @property
    def cycler(self) -> str:
        """The cycler's id."""

    @property
    def boot(self) -> str:
        """The run of the bridge that took it."""

    @property
    def seq(self) -> int:
        """Its number in that run, per cycler."""

    @property
    def ts(self) -> str:
        """When it was taken."""

    @property
    def fragments(self) -> tuple[bytes, ...]:
        """The readings."""


@dataclass(slots=True, eq=False)
class Parcel:
    """A poll of this run.

    Attributes:
        number: its place in the journal; None while it has none.
        written: whether the journal has answered, and so `number` tells whether it is on disk.
        sent: whether it was handed to the broker's connection, or tried to be.
        settled: whether it is known what became of that.
        failure: why the broker has not got it; None where it has.
        trouble: what it has gone through since, where it waits in memory.
        timer: what sends it where disk or broker take too long.
    """

    cycler: str
    boot: str
    seq: int
    ts: str
    fragments: tuple[bytes, ...]
    number: int | None = None
    written: bool = False
    sent: bool = False
    settled: bool = False
    failure: str | None = None
    trouble: Trouble | None = None
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """In bytes, about."""
        return sum(map(len, self.fragments))


class WaitingRoom:
    """Parcels in memory, oldest first, bounded: the oldest are given up.

    Args:
        on_lost: told of each that is given up.
        max_bytes: how much may wait.
    """

    def __init__(self, on_lost: Callable[[Parcel], None], max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._on_lost = on_lost
        self._max_bytes = max_bytes
        self._parcels: deque[Parcel] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._parcels)

    def add(self, parcel: Parcel) -> None:
        """One more, in its place: the broker may give back a younger one before an older one."""
        behind: list[Parcel] = []
        while self._parcels and (self._parcels[-1].ts, self._parcels[-1].seq) > (parcel.ts, parcel.seq):
            behind.append(self._parcels.pop())
        self._parcels.append(parcel)
        self._parcels.extend(reversed(behind))
        self._bytes += parcel.size
        while self._bytes > self._max_bytes:
            oldest = self.take()
            if oldest is not None:
                self._on_lost(oldest)

    def take(self) -> Parcel | None:
        """The oldest, out of here."""
        if not self._parcels:
            return None
        parcel = self._parcels.popleft()
        self._bytes -= parcel.size
        return parcel

    def remove(self, parcel: Parcel) -> None:
        """This one need not wait here any more."""
        if parcel in self._parcels:
            self._parcels.remove(parcel)
            self._bytes -= parcel.size

    def next_s(self) -> float | None:
        """When the first of those is tried again that were refused, monotonic."""
        return min((each.trouble.until_s for each in self._parcels if each.trouble), default=None)

    def take_all(self) -> list[Parcel]:
        """All of them, oldest first."""
        parcels, self._parcels, self._bytes = list(self._parcels), deque(), 0
        return parcels
