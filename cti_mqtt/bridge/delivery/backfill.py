"""What could not be delivered when it was taken goes out later: oldest first, at a bounded rate beside live ones."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.pace import Pace
from cti_mqtt.bridge.delivery.parcels import Parcel, SentPoll, WaitingRoom
from cti_mqtt.bridge.delivery.sending import Sender
from cti_mqtt.bridge.journal import Journal, KeptPoll
from cti_mqtt.bridge.mqtt import LOST, SUSPECT, TOO_LARGE, Settled
from cti_mqtt.errors import StorageError

log = logging.getLogger(__name__)

PORTION = 20  # polls that are read from the journal together
AGAIN_S = 2.0  # after something did not work
CONGESTED_S = 0.1  # until a connection that takes no more is tried again
MOST_FAILURES = 5  # so often one poll is tried before all others; then they come first
DEFERRED_S = 600.0  # until it is tried again


class Backfill:
    """Sends what waits; `run` must be running.

    Args:
        sender: sends one poll.
        journal: where polls wait on disk; None: nowhere.
        marks: which of them need not be sent.
        waiting: where polls wait that are not on disk.
        pace: how fast.
        is_connected: whether the broker is there.
        refused: told of each poll that the broker refused, and why.
    """

    def __init__(
        self,
        sender: Sender,
        journal: Journal | None,
        marks: Marks,
        waiting: WaitingRoom,
        pace: Pace,
        is_connected: Callable[[], bool],
        refused: Callable[[SentPoll, str], None],
    ) -> None:
        self._sender = sender
        self._journal = journal
        self._marks = marks
        self._waiting = waiting
        self._pace = pace
        self._is_connected = is_connected
        self._refused = refused
        self._behind = asyncio.Event()
        self._failures: Counter[int] = Counter()
        self._deferred_until_s: dict[int, float] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """There may be something to send: a poll was not delivered, or the broker is there again."""
        self._behind.set()

    async def run(self) -> None:
        """Catch up whenever something waits, until cancelled."""
        self._behind.set()
        while True:
            await self._behind.wait()
            self._behind.clear()
            try:
                await self._store_what_waits()
                await self._send_kept()
            except StorageError as error:
                log.debug("backfill: %s", error)
                self._wake_at(asyncio.get_running_loop().time() + AGAIN_S)
            await self._send_waiting()
            if self._deferred_until_s:
                self._wake_at(min(self._deferred_until_s.values()))
            if self._behind.is_set():
                await asyncio.sleep(AGAIN_S)  # what failed is not tried in a storm

    def _wake_at(self, moment_s: float) -> None:
        """Look again then, or sooner if that was settled already."""
        if self._alarm is not None and not self._alarm.cancelled() and self._alarm.when() <= moment_s:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(moment_s, self._wake_up)

    def _wake_up(self) -> None:
        self._alarm = None
        self.wake()

    # --- from the journal ---

    async def _store_what_waits(self) -> None:
        """What the disk did not take is written now, to go out in its turn.

        Raises:
            StorageError: it still does not work.
        """
        if self._journal is None:
            return
        while parcel := self._waiting.take():
            try:
                parcel.number = await self._journal.add(parcel.cycler, parcel.seq, parcel.ts, parcel.fragments)
            except BaseException:
                self._waiting.add(parcel)
                raise

    async def _send_kept(self) -> None:
        """Everything on disk that has not arrived, oldest first.

        Raises:
            StorageError: the journal cannot be read.
        """
        after = 0
        while self._journal is not None and self._is_connected():
            polls = await self._journal.undelivered(after, PORTION)
            if not polls:
                return
            for poll in polls:
                after = poll.number
                if poll.number in self._marks or self._is_deferred(poll.number):
                    continue
                self._marks.sending(poll.number)
                if not await self._send(poll, partial(self._settled, poll)):
                    self._marks.settled(poll.number, delivered=False)
                    return

    def _settled(self, poll: KeptPoll, failure: str | None) -> None:
        self._pace.landed()
        self._marks.settled(poll.number, delivered=failure is None)
        if failure is None:
            self._failures.pop(poll.number, None)
        else:
            self._note(poll, failure)

    def _note(self, poll: KeptPoll, failure: str) -> None:
        """One that did not get there; the broker may end the connection because of it, each time."""
        if failure == LOST:
            return
        if failure != SUSPECT:
            self._refuse(poll, failure)
        self._failures[poll.number] += 1
        if self._failures[poll.number] >= MOST_FAILURES:
            log.warning("%s: seq %d of boot %s: not delivered, others come first: %s", poll.cycler, poll.seq, poll.boot,
                        failure)  # fmt: skip
            del self._failures[poll.number]
            self._deferred_until_s[poll.number] = asyncio.get_running_loop().time() + DEFERRED_S

    def _is_deferred(self, number: int) -> bool:
        until_s = self._deferred_until_s.get(number)
        if until_s is not None and until_s <= asyncio.get_running_loop().time():
            del self._deferred_until_s[number]
            return False
        return until_s is not None

    def _refuse(self, poll: SentPoll, failure: str) -> None:
        if failure == TOO_LARGE:
            self._sender.shrink(poll)
        self._refused(poll, failure)
        self._behind.set()

    # --- from memory ---

    async def _send_waiting(self) -> None:
        """What is not on disk."""
        while self._is_connected() and (parcel := self._waiting.take()):
            if not await self._send(parcel, partial(self._settled_waiting, parcel)):
                self._waiting.add(parcel)
                return

    def _settled_waiting(self, parcel: Parcel, failure: str | None) -> None:
        self._pace.landed()
        if failure is None:
            return
        self._waiting.add(parcel)
        if failure not in {LOST, SUSPECT}:
            self._refuse(parcel, failure)

    # --- both ---

    async def _send(self, poll: SentPoll, settled: Settled) -> bool:
        """When it is its turn; whether it went out, and so is settled later."""
        await self._pace.turn()
        while self._is_connected():
            if self._sender.send(poll, settled, historical=True):
                return True
            await asyncio.sleep(CONGESTED_S)
        self._pace.landed()
        return False
