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
from cti_mqtt.bridge.journal.age import Age
from cti_mqtt.bridge.journal.gaps import Gaps
from cti_mqtt.bridge.journal.records import Gap, Lost, Portion, Span, Tally
from cti_mqtt.bridge.journal.schema import FILE_NAME, SCHEMA
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
        self._clock = clock
        self._gaps = Gaps(on_gap)
        self._began = clock.now().timestamp()
        self._began_s = clock.monotonic()
        self._ages: tuple[Age, Age] | None = None  # of what is not delivered, and of the rest
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
            await self._look()

    async def close(self) -> None:
        """Write what is queued, for as long as patience lasts; what is left then is lost. Ends the thread."""
        await self._database.close()
        self._gaps.tell()

    async def run(self) -> None:
        """Keep house until cancelled."""
        while True:
            await self.tidy()
            await asyncio.sleep(HOUSEKEEPING_S)

    async def tidy(self) -> None:
        """Make good what could not be marked, and give up what is too old or too much; not while it cannot be done."""
        with contextlib.suppress(StorageError):
            while self._unmarked:
                await self.delivered(tuple(islice(self._unmarked, MARKED_AT_ONCE)))
            for work in await self._too_old():
                while await self._write(work):
                    pass
            while await self._write(self._trim):
                pass

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
        addition = polls.Addition(cycler, self._boot, seq, ts, fragments, self._steady())

        def work(connection: Connection, lost: list[Lost]) -> int:
            number = addition.write(connection)
            self._trim(connection, lost)
            return number

        def settled(number: int) -> None:
            if future.done():  # too late; else it is about to succeed
                late(number)

        future = self._write(work, settled)
        return future

    def delivered(self, numbers: Collection[int]) -> "Future[None]":
        """The broker has these. Where that cannot be written it is remembered, and written later."""
        which, at = tuple(numbers), self._steady()
        self._unmarked.update(which)
        return self._write(
            lambda connection, _: polls.mark(connection, which, at),
            then=lambda _: self._unmarked.difference_update(which),
        )

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

        return self._database.submit(work, reads=True, then=lambda _: self._give_up(unreadable))

    def span(self, cycler: str, boot: str, from_seq: int, to_seq: int, limit: int) -> "Future[Portion]":
        """What is kept of a run between two polls, both included, by seq; also where nothing can be written.

        To go on, ask from the seq that follows on the `last` of the portion before.
        """
        asked = partial(polls.span, cycler=cycler, boot=boot, from_seq=from_seq, to_seq=to_seq, limit=limit)
        return self._database.submit(asked, reads=True)

    def kept(self, cycler: str) -> "Future[tuple[Span, ...]]":
        """What is kept of a cycler, the oldest run first; also where nothing can be written."""
        return self._database.submit(partial(polls.kept, cycler=cycler), reads=True)

    # --- inside ---

    def _steady(self) -> float:
        """The time of day, had it not been set since this run began; seconds since 1970."""
        return self._began + self._clock.monotonic() - self._began_s

    def _write(self, work: Callable[[Connection, list[Lost]], T], then: Callable[[T], object] = _ignore) -> "Future[T]":
        lost: list[Lost] = []
        seen = [Tally()]

        def whole(connection: Connection) -> T:
            lost.clear()  # it may be done anew
            result = work(connection, lost)
            seen[0] = polls.tally(connection)
            return result

        def note(result: T) -> None:
            then(result)
            self._tally = seen[0]
            self._lose(lost)

        return self._database.submit(whole, then=note)

    def _lose(self, lost: Sequence[Lost]) -> None:
        really = [each for each in lost if each.number not in self._unmarked]
        self._dropped += len(really)
        self._gaps.add(really)
        self._unmarked.difference_update(each.number for each in lost)

    def _give_up(self, numbers: Sequence[int]) -> None:
        if numbers:
            which = tuple(numbers)
            self._write(lambda connection, lost: polls.give_up(connection, which, polls.WHY_UNREADABLE, lost))

    def _trim(self, connection: Connection, lost: list[Lost]) -> int:
        return polls.trim(connection, self._bounds.max_bytes, lost)

    async def _look(self) -> tuple[int, int]:
        """The last number and the last place; notes how much there is, and what this run found."""

        def work(connection: Connection) -> tuple[tuple[int, int, float], Tally]:
            return polls.newest(connection), polls.tally(connection)

        (number, place, stamp), self._tally = await self._database.submit(work, reads=True)
        if self._ages is None:
            now_s, bounds = self._clock.monotonic(), self._bounds
            self._ages = Age(number, stamp, now_s, bounds.max_age_s), Age(place, stamp, now_s, bounds.replay_window_s)
        return number, place

    async def _too_old(self) -> tuple[Callable[[Connection, list[Lost]], int], ...]:
        number, place = await self._look()
        assert self._ages is not None  # noqa: S101  # it has looked
        waiting, rest = self._ages
        now, now_s = self._clock.now().timestamp(), self._clock.monotonic()
        waiting.note(number, now_s)
        rest.note(place, now_s)
        first, second = waiting.bound(now, now_s), rest.bound(now, now_s)
        return (
            lambda connection, lost: polls.expire_undelivered(connection, first, lost),
            lambda connection, _: polls.expire_delivered(connection, second),
        )
