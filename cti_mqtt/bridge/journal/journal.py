"""The journal: each poll is on disk until the broker has acknowledged it."""

import asyncio
import contextlib
from asyncio import Future
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from cti_mqtt import config
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.database import Database
from cti_mqtt.bridge.journal import polls
from cti_mqtt.bridge.journal.age import JournalTime
from cti_mqtt.bridge.journal.gaps import Gaps
from cti_mqtt.bridge.journal.holdings import Holdings
from cti_mqtt.bridge.journal.records import Gap, Lost, Portion, Span, Tally
from cti_mqtt.bridge.journal.schema import FILE_NAME, SCHEMA
from cti_mqtt.bridge.journal.survey import START, Key, Survey, survey
from cti_mqtt.errors import StorageError

PATIENCE_S = 2.0
HOUSEKEEPING_S = 5.0
QUEUE_LIMIT = 1000  # requests behind a stalled disk; each may hold the readings of a poll
MARKED_AT_ONCE = 1000
LEAST_PROBE_BYTES = 2**16

T = TypeVar("T")


def _ignore(_: object) -> None:
    """Nobody wants to be told."""


class Journal:
    """One database file, written by a thread of its own: commands never wait behind readings.

    Requests are plain functions that return a future at once; they are carried out in the order in which they were
    made, also where nobody awaits them. A future settles within the patience, at the latest with a StorageError ("did
    not answer within 2 s"); the work may still be done after that, in its turn. Any other StorageError means that
    nothing was done. Not thread-safe: call it from the loop that opened it.

    What is committed outlives the process, however it ends. A power cut may take the commits of the last seconds
    (nothing is synced for each of them), but never leaves a damaged file. What a gap says is told once: it is lost if
    the process is killed in that second.

    Args:
        folder: of the file, which must exist.
        bounds: how much is kept, and for how long.
        boot: of this run.
        clock: what time it is.
        on_gap: told in the event loop of what was given up undelivered, about a second later, in pieces as long as
            possible.
        patience_s: how long anybody waits.
    """

    def __init__(
        self,
        folder: Path,
        bounds: config.Journal,
        boot: str,
        clock: Clock,
        on_gap: Callable[[Gap], None],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._bounds = bounds
        self._boot = boot
        self._time = JournalTime(clock)
        self._gaps = Gaps(on_gap)
        self._holdings = Holdings()
        self._surveyed: Connection | None = None  # through which all that waits was found
        self._connection: Connection | None = None  # the last one through which was written
        self._tally = Tally()
        self._dropped = 0
        self._unmarked: set[int] = set()  # delivered, but the journal does not know
        self._largest = LEAST_PROBE_BYTES
        self._database = Database(
            folder / FILE_NAME,
            SCHEMA,
            patience_s=patience_s,
            make_room=polls.make_room,
            probe=lambda connection: polls.probe(connection, self._largest),
            queue_limit=QUEUE_LIMIT,
        )

    @property
    def problem(self) -> str:
        """Why the last write did not work; '' if it did. While there is one, writing is tried each second."""
        return self._database.problem

    @property
    def waiting(self) -> int:
        """Polls that are not delivered."""
        return max(0, self._tally.waiting - len(self._unmarked))

    @property
    def dropped(self) -> int:
        """Polls given up undelivered in this run."""
        return self._dropped

    @property
    def filled(self) -> float:
        """The share of `max_bytes` that is taken by what is not delivered."""
        return self._tally.waiting_bytes / self._bounds.max_bytes

    async def open(self) -> None:
        """Open the file, or say in `problem` why not; trouble with the disk is never raised."""
        await self._database.open()
        with contextlib.suppress(StorageError):
            self._tally = await self._database.submit(polls.tally, reads=True)  # it may be that it can only be read
            await self._write(lambda connection, _: self._time.now(connection))

    async def close(self) -> None:
        """Write what is queued, for as long as patience lasts; what is left then is lost. Ends the thread."""
        if self._holdings.in_doubt:
            with contextlib.suppress(StorageError):
                await self._survey()
        await self._database.close()
        self._lose_what_cannot_be_read()
        self._gaps.tell()

    async def run(self) -> None:
        """Keep house until cancelled."""
        while True:
            await self.tidy()
            await asyncio.sleep(HOUSEKEEPING_S)

    async def tidy(self) -> None:
        """Make good what could not be marked, and give up what is too old or too much; not while it cannot be done.

        And find out what was lost together with the file.
        """
        with contextlib.suppress(StorageError):
            while self._unmarked:
                await self.delivered(tuple(islice(self._unmarked, MARKED_AT_ONCE)))
            for work in (self._expire_undelivered, self._expire_delivered, self._trim):
                while await self._write(work):
                    pass
            await self._survey()
        self._lose_what_cannot_be_read()

    # --- polls ---

    def add(
        self, cycler: str, seq: int, ts: str, fragments: Sequence[bytes], late: Callable[[int], None] = _ignore
    ) -> "Future[int]":
        """Put a poll of this run on record; what is there already stays as it is.

        Args:
            cycler: its id.
            seq: of the poll.
            ts: when it was taken, as published.
            fragments: one JSON object a channel, without line feeds.
            late: told of the number where the future cannot bring it: it failed with the patience (or was cancelled),
                and the poll is on record after all. Called in the event loop; it must not raise.

        Returns:
            its number; that of the first where the same was added before and is still there.
        """
        self._largest = max(self._largest, sum(map(len, fragments)) // 4)
        addition = polls.Addition(cycler, self._boot, seq, ts, fragments)

        def work(connection: Connection, lost: list[Lost]) -> int:
            number = addition.write(connection, self._time.now(connection))
            self._trim(connection, lost)
            return number

        def settled(number: int) -> None:
            self._holdings.name(number, cycler, self._boot, seq)
            if addition.is_new:
                self._holdings.add(cycler, self._boot, seq)
            if future.done():  # too late; else it is about to succeed
                late(number)

        future = self._write(work, settled)
        return future

    def delivered(self, numbers: Collection[int]) -> "Future[None]":
        """The broker has these. Where that cannot be written it is remembered, and written later."""
        which = tuple(numbers)
        self._unmarked.update(which)
        self._holdings.delivered(which)

        def settled(_: None) -> None:
            self._unmarked.difference_update(which)
            self._holdings.delivered(which)  # a survey may have found them before they were marked

        return self._write(lambda connection, _: polls.mark(connection, which, self._time.now(connection)), settled)

    def undelivered(self, after: int, limit: int, without: Collection[int] = ()) -> "Future[Portion]":
        """What waits with a higher number, oldest first; also where nothing can be written.

        Args:
            after: a number; 0: from the oldest on. To go on: the `last` of the portion before.
            limit: how many polls at most; there may be fewer, even none, where more follow.
            without: numbers that are passed over without being read, at little cost.
        """
        passed_over = frozenset().union(without, self._unmarked)
        unreadable: list[int] = []

        def work(connection: Connection) -> Portion:
            unreadable.clear()  # it is done anew
            return polls.undelivered(connection, after, limit, passed_over, unreadable)

        def settled(portion: Portion) -> None:
            self._name(portion)
            self._give_up(unreadable)

        return self._database.submit(work, reads=True, then=settled)

    def span(self, cycler: str, boot: str, from_seq: int, to_seq: int, limit: int) -> "Future[Portion]":
        """What is kept of a run between two polls, both included, by seq; also where nothing can be written.

        To go on, ask from the seq that follows on the `last` of the portion before.
        """
        asked = partial(polls.span, cycler=cycler, boot=boot, from_seq=from_seq, to_seq=to_seq, limit=limit)
        return self._database.submit(asked, reads=True, then=self._name)

    def kept(self, cycler: str) -> "Future[tuple[Span, ...]]":
        """What is kept of a cycler, the oldest run first; also where nothing can be written."""
        return self._database.submit(partial(polls.kept, cycler=cycler), reads=True)

    # --- inside ---

    def _write(self, work: Callable[[Connection, list[Lost]], T], then: Callable[[T], object] = _ignore) -> "Future[T]":
        lost: list[Lost] = []
        seen: list[tuple[Connection, Tally]] = []

        def whole(connection: Connection) -> T:
            lost.clear()  # it may be done anew
            result = work(connection, lost)
            seen[:] = [(connection, polls.tally(connection))]
            return result

        def note(result: T) -> None:
            ((connection, self._tally),) = seen
            if connection is not self._connection:
                self._connection = connection
                self._holdings.doubt()
            then(result)
            self._lose(lost)

        return self._database.submit(whole, then=note)

    def _lose(self, lost: Sequence[Lost]) -> None:
        really = [each for each in lost if each.number not in self._unmarked]
        for each in lost:
            self._holdings.remove(each.cycler, each.boot, each.seq)
        self._dropped += len(really)
        self._gaps.add(really)
        self._unmarked.difference_update(each.number for each in lost)

    def _give_up(self, numbers: Sequence[int]) -> None:
        if numbers:
            which = tuple(numbers)
            self._write(lambda connection, lost: polls.give_up(connection, which, polls.WHY_UNREADABLE, lost))

    def _trim(self, connection: Connection, lost: list[Lost]) -> int:
        return polls.trim(connection, self._bounds.max_bytes, lost)

    def _expire_undelivered(self, connection: Connection, lost: list[Lost]) -> int:
        return polls.expire_undelivered(connection, self._time.now(connection) - self._bounds.max_age_s, lost)

    def _expire_delivered(self, connection: Connection, _: list[Lost]) -> int:
        return polls.expire_delivered(connection, self._time.now(connection) - self._bounds.replay_window_s)

    # --- what was lost with the file ---

    def _name(self, portion: Portion) -> None:
        for poll in portion.polls:
            self._holdings.name(poll.number, poll.cycler, poll.boot, poll.seq)

    async def _survey(self) -> None:
        """Find all that waits, after the file was opened; what is no longer there is lost.

        Raises:
            StorageError: that is not known yet.
        """
        connection, after = self._connection, START
        while connection is not self._surveyed:
            found = await self._survey_portion(connection, after)
            if found is None or connection is not self._connection:
                return  # opened anew meanwhile: the next time
            if found.last is not None:
                after = found.last
                continue
            self._surveyed = connection
            self._lose_doubted(polls.WHY_REMOVED)

    def _survey_portion(self, meant: Connection | None, after: Key) -> "Future[Survey | None]":
        """None: that file is not read through this connection."""
        without = frozenset(self._unmarked)

        def settled(found: Survey | None) -> None:
            if found is not None:
                self._holdings.found(found)

        return self._database.submit(
            lambda connection: survey(connection, after, without) if connection is meant else None,
            reads=True,
            then=settled,
        )

    def _lose_what_cannot_be_read(self) -> None:
        if self._database.is_condemned:
            self._tally = Tally()
            self._holdings.doubt()
            self._lose_doubted(polls.WHY_DAMAGED)

    def _lose_doubted(self, why: str) -> None:
        lost = self._holdings.take_doubted(why)
        self._dropped += sum(gap.polls for gap in lost)
        self._gaps.put(lost)
