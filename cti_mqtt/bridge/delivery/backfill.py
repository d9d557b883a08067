"""What could not be delivered when it was taken goes out later: oldest first, at a bounded rate beside live ones."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from cti_mqtt.bridge.delivery.late import LateSender
from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.parcels import Parcel, SentPoll, WaitingRoom
from cti_mqtt.bridge.delivery.sending import NOT_SENT
from cti_mqtt.bridge.delivery.troubles import Trouble, Troubles
from cti_mqtt.bridge.journal import Journal, KeptPoll
from cti_mqtt.bridge.mqtt import LOST, SUSPECT
from cti_mqtt.errors import StorageError

log = logging.getLogger(__name__)

PORTION = 20  # polls that are read from the journal together
AGAIN_S = 2.0  # between two passes over what waits: what failed is not tried in a storm


class Backfill:
    """Sends what waits; `run` must be running.

    Args:
        late: sends one poll.
        journal: where polls wait on disk; None: nowhere.
        marks: which of them need not be sent.
        waiting: where polls wait that are not on disk.
        is_connected: whether the broker is there.
        settled: told what became of each poll.
    """

    def __init__(
        self,
        late: LateSender,
        journal: Journal | None,
        marks: Marks,
        waiting: WaitingRoom,
        is_connected: Callable[[], bool],
        settled: Callable[[SentPoll, str | None], None],
    ) -> None:
        self._late = late
        self._journal = journal
        self._marks = marks
        self._waiting = waiting
        self._is_connected = is_connected
        self._tell = settled
        self._behind = asyncio.Event()
        self._troubles = Troubles()

    def wake(self) -> None:
        """There may be something to send: a poll was not delivered, or the broker is there again."""
        self._behind.set()

    async def run(self) -> None:
        """Catch up whenever something waits, until cancelled."""
        self._behind.set()
        while True:
            await self._wait()
            self._behind.clear()
            try:
                await self._store_what_waits()
                await self._send_kept()
            except StorageError as error:
                log.debug("backfill: %s", error)
                self._behind.set()
            await self._send_waiting()
            await asyncio.sleep(AGAIN_S)

    async def _wait(self) -> None:
        """Until something is to be sent: news, or one that was left alone for a while has its turn."""
        moments = [moment for moment in (self._troubles.next_s(), self._waiting.next_s()) if moment is not None]
        try:
            async with asyncio.timeout_at(min(moments, default=None)):
                await self._behind.wait()
        except TimeoutError:
            pass

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
        if self._journal is None:
            return
        deferred = self._troubles.deferred(_now_s())
        seen, after = set(deferred), 0
        while self._is_connected():
            portion = await self._journal.undelivered(after, PORTION, deferred | self._marks.numbers())
            if portion.last is None:
                self._troubles.keep_only(seen)
                return
            after = portion.last
            for poll in portion.polls:
                seen.add(poll.number)
                if self._is_connected() and poll.number not in self._marks:
                    self._marks.sending(poll.number)
                    await self._late.send(poll, partial(self._settled, poll))

    def _settled(self, poll: KeptPoll, failure: str | None) -> None:
        self._marks.settled(poll.number, delivered=failure is None)
        self._tell(poll, failure)
        if failure is None:
            self._troubles.over(poll.number)
        elif failure not in {LOST, NOT_SENT} and self._troubles.note(poll.number, _now_s()):
            log.warning("%s: seq %d of boot %s: not delivered, others come first: %s", poll.cycler, poll.seq, poll.boot,
                        failure)  # fmt: skip
        elif failure not in {LOST, SUSPECT, NOT_SENT}:
            self.wake()

    # --- from memory ---

    async def _send_waiting(self) -> None:
        """What is not on disk, each once."""
        for parcel in self._waiting.take_all():
            if self._is_connected() and (parcel.trouble is None or parcel.trouble.until_s <= _now_s()):
                await self._late.send(parcel, partial(self._settled_waiting, parcel))
            else:
                self._waiting.add(parcel)

    def _settled_waiting(self, parcel: Parcel, failure: str | None) -> None:
        self._tell(parcel, failure)
        parcel.failure = failure
        if parcel.number is not None:  # the disk took it meanwhile
            self._marks.settled(parcel.number, delivered=failure is None)
            self.wake()
            return
        if failure is None:
            return
        self._waiting.add(parcel)
        if failure in {LOST, NOT_SENT}:
            return
        parcel.trouble = parcel.trouble or Trouble()
        if not parcel.trouble.note(_now_s()) and failure != SUSPECT:
            self.wake()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
