"""Which polls of the journal are on their way or have arrived; the journal is told in portions."""

import asyncio
from asyncio import Future

from cti_mqtt.bridge.journal import Journal

GATHER_S = 0.5  # a kill within that time means that these are sent twice


class Marks:
    """Keeps them.

    Args:
        journal: is told what has arrived; None: there is none.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._on_the_way: set[int] = set()
        self._arrived: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many polls the journal still counts as waiting, and that need not be sent."""
        return len(self._on_the_way) + len(self._arrived)

    def numbers(self) -> frozenset[int]:
        """Of these polls."""
        return frozenset(self._on_the_way | self._arrived)

    def __contains__(self, number: int) -> bool:
        """Whether a poll need not be sent: it is on its way, or the broker has it already."""
        return number in self._on_the_way or number in self._arrived

    def sending(self, number: int) -> None:
        """A poll is on its way."""
        self._on_the_way.add(number)

    def settled(self, number: int, *, delivered: bool) -> None:
        """It has arrived, or is left where it was."""
        self._on_the_way.discard(number)
        if not delivered:
            return
        self._arrived.add(number)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.tell)

    def tell(self) -> "Future[None] | None":
        """Tell the journal what has arrived; what it cannot write it remembers itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._journal is None or not self._arrived:
            return None
        arrived, self._arrived = self._arrived, set()
        return self._journal.delivered(arrived)
