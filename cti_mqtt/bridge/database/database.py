"""The writer thread and the event loop's side of it.

Requests wait in a queue. The thread takes all that wait, does them in one transaction (group commit), and reports them
to the loop with one call, in order. If that transaction fails, each is tried alone, so that one bad request does not
fail its neighbours.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cti_mqtt.bridge.database.file import DatabaseFile, RequestError, Work
from cti_mqtt.bridge.database.schema import Schema, touch
from cti_mqtt.errors import StorageError

QUEUE_LIMIT = 10_000
PROBE_S = 1.0  # how often writing is tried while it does not work and nobody asks for it

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Request:
    """One thing to do, and what came of it."""

    work: Callable[[sqlite3.Connection], Any]
    durable: bool
    reads: bool
    then: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    deadline: float
    result: Any = None
    failure: Exception | None = None
    done: bool = False


_Batch = list[_Request]
_Report = Callable[[_Batch, str | None], None]
"""Told of each batch, with what stands against writing: '' nothing, None: nothing was written, so nothing is known."""


class Database:
    """Does work on a database in a thread of its own; every future settles within the patience.

    Args:
        path: of the file; None: in memory.
        schema: its tables.
        patience_s: how long anybody waits.
        on_doubt: called in the thread when what was read before may no longer be so.
        make_room: deletes what is not needed, when the disk is full; None: there is no such thing.
        probe: how to find out whether writing works.
        queue_limit: requests that may wait.
    """

    def __init__(
        self,
        path: Path | None,
        schema: Schema,
        *,
        patience_s: float,
        on_doubt: Callable[[], None] = lambda: None,
        make_room: Work | None = None,
        probe: Work = touch,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._schema = schema
        self._file = DatabaseFile(path, schema, on_doubt, make_room)
        self._patience_s = patience_s
        self._probe_work = probe
        self._queue_limit = queue_limit
        self._inbox: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._waiting: deque[_Request] = deque()  # in order of submission, so in order of their deadlines
        self._timer: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._writer: _Writer | None = None
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why the last write did not work; '' if it did."""
        return self._problem

    @property
    def is_condemned(self) -> bool:
        """Whether the file is damaged or none of ours, so that nothing is read or written until it is another one."""
        return self._file.is_condemned

    async def open(self) -> None:
        """Start the thread and open the file; what stands against that is the problem, nothing is raised."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._writer = _Writer(self._schema.name, self._file, self._inbox, self._report, self._report_end)
        self._writer.start()
        with contextlib.suppress(StorageError):
            await self.submit(self._probe_work)

    async def close(self) -> None:
        """Do what is queued, for as long as patience lasts, and end the thread; nothing is taken any more."""
        writer, self._writer = self._writer, None
        if writer is None or self._ended is None:
            return
        self._inbox.put(None)
        try:
            await asyncio.wait([self._ended], timeout=self._patience_s)
        finally:
            self._leave(writer)

    def _leave(self, writer: "_Writer") -> None:
        if self._ended is not None and self._ended.done():
            writer.join()
        writer.given_up = True  # what still waits is dropped; inside a stalled disk it ends late, or with the process
        for timer in (self._timer, self._probe):
            if timer is not None:
                timer.cancel()
        while self._waiting:
            self._refuse(self._waiting.popleft().future, "was closed before it got there")

    def submit(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        durable: bool = False,
        reads: bool = False,
        then: Callable[[T], None] | None = None,
    ) -> asyncio.Future[T]:
        """Do this in a transaction; a failed future if it cannot even be queued.

        Args:
            work: called in the thread, perhaps twice (after a rollback).
            durable: its commit outlives a power cut; else it outlives the process.
            reads: it writes nothing, and works also where nothing can be written.
            then: told of the result in the loop once it is committed, also when nobody waits any more; it must not
                raise.
        """
        loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        future.add_done_callback(_retrieve)
        if self._writer is None:
            self._refuse(future, "is not open")
        elif self._inbox.qsize() >= self._queue_limit:
            self._refuse(future, f"has {self._queue_limit} requests waiting")
        else:
            request = _Request(work, durable, reads, then, future, loop.time() + self._patience_s)
            self._waiting.append(request)
            self._inbox.put(request)
            if self._timer is None:
                self._timer = loop.call_at(request.deadline, self._lose_patience)
        return future

    # --- in the loop ---

    def _lose_patience(self) -> None:
        assert self._loop is not None  # noqa: S101  # its timer called
        self._timer = None
        late = f"did not answer within {self._patience_s:g} s"
        while self._waiting and (self._waiting[0].future.done() or self._waiting[0].deadline <= self._loop.time()):
            request = self._waiting.popleft()
            if not request.future.done():
                self._refuse(request.future, late)
                self._set_problem(f"{self._file.name} {late}")
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0].deadline, self._lose_patience)

    def _refuse(self, future: asyncio.Future[Any], why: str) -> None:
        if not future.done():
            future.set_exception(StorageError(f"{self._file.name} {why}"))

    def _settle(self, batch: _Batch, problem: str | None) -> None:
        for request in batch:
            if request.then is not None and request.done and request.failure is None:
                request.then(request.result)
            if request.future.done():  # too late, or cancelled
                continue
            if request.failure is not None:
                request.future.set_exception(request.failure)
            else:
                request.future.set_result(request.result)
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        if problem is not None:
            self._set_problem(problem)

    def _set_problem(self, problem: str) -> None:
        if problem and not self._problem:
            _log.error("nothing is stored: %s", problem)
        elif self._problem and not problem:
            _log.info("%s is written again", self._file.name)
        self._problem = problem
        if problem and self._probe is None and self._loop is not None and self._writer is not None:
            self._probe = self._loop.call_later(PROBE_S, self._try_again)

    def _try_again(self) -> None:
        """Find out whether it works again, also where nobody asks; but do not pile up behind a stalled disk."""
        self._probe = None
        if not self._problem or self._writer is None or self._loop is None:
            return
        if self._inbox.empty():
            self.submit(self._probe_work)
        self._probe = self._loop.call_later(PROBE_S, self._try_again)

    # --- in the thread ---

    def _report(self, batch: _Batch, problem: str | None) -> None:
        self._tell(self._settle, batch, problem)

    def _report_end(self) -> None:
        def end() -> None:
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

        self._tell(end)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None  # noqa: S101  # the thread is started after it is set
        with contextlib.suppress(RuntimeError):  # the loop has gone, and with it whoever waited
            self._loop.call_soon_threadsafe(what, *arguments)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Whoever does not await a request does not want to be told of it."""
    if not future.cancelled():
        future.exception()


class _Writer(threading.Thread):
    """Takes requests until it finds None among them."""

    def __init__(
        self,
        name: str,
        file: DatabaseFile,
        inbox: "queue.SimpleQueue[_Request | None]",
        report: _Report,
        report_end: Callable[[], None],
    ) -> None:
        # A daemon: a thread inside a stalled disk must not keep the process from ending. `close` has waited for it with
        # patience; what is cut off after that is one transaction, which SQLite rolls back at the next opening.
        super().__init__(name=name, daemon=True)
        self.given_up = False
        self._file = file
        self._inbox = inbox
        self._report = report
        self._report_end = report_end

    def run(self) -> None:
        """Until the end."""
        try:
            goes_on = True
            while goes_on:
                batch, goes_on = self._take()
                if batch and not self.given_up:
                    self._report(batch, self._do(batch))
                    if self._inbox.empty():
                        self._file.tidy()
        finally:
            self._file.close()
            self._report_end()

    def _take(self) -> tuple[_Batch, bool]:
        """All that wait, at least one; whether more may come."""
        batch: _Batch = []
        request = self._inbox.get()
        while request is not None:
            batch.append(request)
            try:
                request = self._inbox.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _do(self, batch: _Batch) -> str | None:
        """Everything together, else each alone; what stands against writing."""
        if len(batch) == 1 and batch[0].reads:
            self._read(batch[0])
            return None
        problem = self._try(batch)
        if batch[0].failure is None:
            return problem
        worth_it = len(batch) > 1 and self._file.is_open
        known = [] if problem is None else [problem]
        for request in batch:
            if self.given_up:
                break
            if request.reads:
                self._read(request)
            found = self._try([request]) if worth_it and not request.reads else None
            if found is not None:
                known.append(found)
        return known[-1] if known else None

    def _try(self, batch: Sequence[_Request]) -> str | None:
        """One transaction."""
        before = self._file.changes if self._file.is_open else -1
        try:
            results = self._file.run([each.work for each in batch], durable=any(each.durable for each in batch))
        except StorageError as error:
            for request in batch:
                request.failure = StorageError(str(error))
                request.failure.__cause__ = error.__cause__
            return None if isinstance(error, RequestError) else str(error)
        for request, result in zip(batch, results, strict=True):
            request.result, request.failure, request.done = result, None, True
        return None if self._file.changes == before else ""

    def _read(self, request: _Request) -> None:
        """Alone, since it may work where nothing can be written."""
        try:
            request.result, request.failure, request.done = self._file.read(request.work), None, True
        except StorageError as error:
            request.failure = error
