"""What must outlive the process: commands with their results, leases, alarms, retained topics, and the audit."""

from asyncio import Future
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection

from cti_mqtt.bridge.database import Database
from cti_mqtt.bridge.store import ledger, standing
from cti_mqtt.bridge.store.audit import Chain, canonical
from cti_mqtt.bridge.store.records import (
    AlarmRow,
    CommandKey,
    KnownCommand,
    LeaseRow,
    Newest,
    ReceivedCommand,
    StoredResult,
)
from cti_mqtt.bridge.store.schema import FILE_NAME, SCHEMA
from cti_mqtt.bridge.store.space import Space, space_of

PATIENCE_S = 2.0


class Store:
    """One database file, written by one thread.

    Requests are plain functions that return a future at once; they are carried out in the order in which they were
    made, also where nobody awaits them or whoever did was cancelled. A future settles within the patience, at the
    latest with a StorageError ("did not answer within 2 s"); the work may still be done after that, in its turn. Any
    other StorageError means that nothing was done. Not thread-safe: call it from the loop that opened it.

    Args:
        folder: of the file, which must exist; None: in memory.
        patience_s: how long anybody waits.
    """

    def __init__(self, folder: Path | None, *, patience_s: float = PATIENCE_S) -> None:
        self._chain = Chain()
        self._folder = folder
        path = None if folder is None else folder / FILE_NAME
        self._database = Database(path, SCHEMA, patience_s=patience_s, on_doubt=self._chain.forget)

    @property
    def problem(self) -> str:
        """Why the last write did not work; '' if it did. While there is one, writing is tried each second."""
        return self._database.problem

    def space(self) -> "Future[Space | None]":
        """How much room the disk has; None: nobody can tell. Asked in the thread, for a disk may stall."""
        folder = self._folder
        return self._database.submit(lambda _: None if folder is None else space_of(folder))

    async def open(self) -> None:
        """Open the file, or say in `problem` why not; trouble with the disk is never raised."""
        await self._database.open()

    async def close(self) -> None:
        """Write what is queued, for as long as patience lasts; what is left then is lost. Ends the thread."""
        await self._database.close()

    # --- commands ---

    def receive(self, command: ReceivedCommand, *, durable: bool) -> "Future[KnownCommand | None]":
        """Record a command.

        Args:
            command: what came.
            durable: it outlives a power cut, not only the process.

        Returns:
            None: it is new, and recorded now. Else what is known under its key; nothing was recorded.
        """
        return self._database.submit(partial(ledger.receive, command=command), durable=durable)

    def find(self, key: CommandKey) -> "Future[KnownCommand | None]":
        """What is known of a command."""
        return self._database.submit(partial(ledger.find, key=key))

    def answer(
        self,
        key: CommandKey,
        results: Sequence[StoredResult],
        *,
        finished: bool,
        audit: Sequence[Mapping[str, object]] = (),
        durable: bool = False,
    ) -> "Future[None]":
        """Store results of a command and append to the audit, both or nothing.

        Args:
            key: of the command; where it is not known only the audit is written.
            results: added to those that are stored already.
            finished: nothing more will come; a command that is not to be kept is forgotten.
            audit: entries.
            durable: as for `receive`.
        """
        results, entries = tuple(results), [canonical(entry) for entry in audit]

        def work(connection: Connection) -> None:
            ledger.answer(connection, key, results, finished=finished)
            self._chain.append(connection, entries)

        return self._database.submit(work, durable=durable)

    def settle(
        self, key: CommandKey, received_at: str, results: Sequence[StoredResult], *, replace: bool
    ) -> "Future[None]":
        """Finish a command with these results and no others, whatever was done or not done of what was asked before.

        Args:
            key: of the command.
            received_at: of the command; where another one is known under its key nothing is done.
            results: all of them.
            replace: also where it is finished already.
        """
        results = tuple(results)
        return self._database.submit(
            lambda connection: ledger.settle(connection, key, received_at, results, replace=replace)
        )

    def unfinished(self) -> "Future[tuple[KnownCommand, ...]]":
        """Commands without an end, oldest first."""
        return self._database.submit(ledger.unfinished)

    def newest(self) -> "Future[Newest]":
        """The youngest of the finished commands."""
        return self._database.submit(ledger.newest)

    def forget(self, up_to: int, received_before: str | None = None) -> "Future[int]":
        """Forget finished commands, but never the newest; a bounded number a call.

        Args:
            up_to: none with a higher number; later commands have higher ones.
            received_before: only those received before this; None: all.

        Returns:
            how many went; 0: all are gone.
        """
        return self._database.submit(partial(ledger.forget, up_to=up_to, received_before=received_before))

    # --- the audit ---

    def audit(self, entries: Sequence[Mapping[str, object]]) -> "Future[None]":
        """Append to the audit; entries are taken as they are now."""
        texts = [canonical(entry) for entry in entries]
        return self._database.submit(lambda connection: self._chain.append(connection, texts))

    # --- what stands ---

    def put_lease(self, lease: LeaseRow, *, durable: bool = False) -> "Future[None]":
        """The one lease of its channel from now on."""
        return self._database.submit(partial(standing.put_lease, lease=lease), durable=durable)

    def drop_lease(self, cycler: str, channel: int, lease_id: str) -> "Future[None]":
        """Take back a lease, if it still is this one."""
        return self._database.submit(partial(standing.drop_lease, cycler=cycler, channel=channel, lease_id=lease_id))

    def leases(self) -> "Future[tuple[LeaseRow, ...]]":
        """All of them."""
        return self._database.submit(standing.leases)

    def put_alarm(self, alarm: AlarmRow) -> "Future[None]":
        """Raise an alarm, or change what it says."""
        return self._database.submit(partial(standing.put_alarm, alarm=alarm))

    def drop_alarm(self, cycler: str, channel: int, name: str) -> "Future[None]":
        """Take back an alarm."""
        return self._database.submit(partial(standing.drop_alarm, cycler=cycler, channel=channel, name=name))

    def alarms(self) -> "Future[tuple[AlarmRow, ...]]":
        """All of them."""
        return self._database.submit(standing.alarms)

    def note_retained(self, add: Collection[str], remove: Collection[str]) -> "Future[None]":
        """Topics that hold a retained message of this bridge from now on, and others that no longer do.

        Both or neither; one that is among both holds one. To be noted before it is published, and taken back after it
        was cleared: so what is forgotten in a power cut is at worst a clearing, which can be done again.
        """
        added, removed = tuple(add), tuple(remove)
        return self._database.submit(
            lambda connection: standing.note_retained(connection, added, removed), durable=bool(added)
        )

    def retained_topics(self) -> "Future[tuple[str, ...]]":
        """All topics that hold a retained message of this bridge, by name."""
        return self._database.submit(standing.retained_topics)
