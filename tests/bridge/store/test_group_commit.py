"""Many requests at once, some of them bad, some of them taken back."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cti_mqtt.bridge.database.database import QUEUE_LIMIT
from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.store.audit import verify
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.errors import StorageError
from tests.bridge.store.samples import command, entry, file_in, opened


@contextmanager
def stalled(store: Store) -> Iterator[None]:
    """A disk that does not answer; what is asked for meanwhile waits."""
    go, busy = threading.Event(), threading.Event()

    def block(connection: sqlite3.Connection) -> None:
        busy.set()
        go.wait(30)

    store._database.submit(block)
    assert busy.wait(30)
    try:
        yield
    finally:
        go.set()


def commits(store: Store, into: list[str]) -> None:
    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(lambda sql: into.append(sql) if sql in {"COMMIT", "ROLLBACK"} else None)

    store._database.submit(trace)


async def test_thousands_are_settled_in_order_by_one_commit(tmp_path: Path) -> None:
    order: list[int] = []
    seen: list[str] = []
    async with opened(tmp_path, patience_s=30) as store:
        commits(store, seen)
        with stalled(store):
            futures = [store.receive(command(f"{number % 4000}"), durable=False) for number in range(5000)]
            for number, future in enumerate(futures):
                future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
        results = await asyncio.gather(*futures)
        assert order == list(range(5000))
        assert results[:4000] == [None] * 4000
        assert [known.command.key.id for known in results[4000:] if known] == [f"{number}" for number in range(1000)]
        assert len(seen) <= 3
        assert [each.command.key.id for each in await store.unfinished()] == [f"{number}" for number in range(4000)]


async def test_a_bad_request_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO alarm VALUES ('lost', 1, 'x', '')")
        connection.execute("INSERT INTO command(cycler) VALUES (NULL)")

    async with opened(tmp_path) as store:
        await store.audit([entry("first")])
        with stalled(store):
            audits = [store.audit([entry(f"{number}")]) for number in range(5)]
            wrong = [
                store._database.submit(bad),
                store._database.submit(lambda _: 1 // 0),
                store.receive(command("\ud800"), durable=True),
                store.receive(command(channel=2**70), durable=False),
            ]
            audits += [store.audit([entry(f"{number}")]) for number in range(5)]
            good = store.receive(command(), durable=True)
        for future in wrong:
            with pytest.raises(StorageError, match="cannot be stored"):
                await future  # type: ignore[misc]
        assert await asyncio.gather(*audits) == [None] * 10
        assert await good is None
        assert store.problem == ""
        assert await store.alarms() == ()
    with read_audit(file_in(tmp_path)) as reader:
        assert verify(reader.rows(), reader.last_seq()) is None
        assert reader.last_seq() == 11


async def test_a_cancelled_caller_harms_nobody_and_its_work_is_done(tmp_path: Path) -> None:
    async def ask(store: Store, id_: str) -> object:
        return await store.receive(command(id_), durable=False)

    async with opened(tmp_path) as store:
        with stalled(store):
            tasks = [asyncio.create_task(ask(store, id_)) for id_ in "abc"]
            await asyncio.sleep(0)
            tasks[1].cancel()
        assert [await tasks[0], await tasks[2]] == [None, None]
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert len(await store.unfinished()) == 3


async def test_more_than_the_queue_holds(tmp_path: Path) -> None:
    async with opened(tmp_path, patience_s=30) as store:
        with stalled(store):
            futures = [store.find(command().key) for _ in range(QUEUE_LIMIT)]
            refused = store.find(command().key)
            assert refused.done()
            with pytest.raises(StorageError, match="10000 requests waiting"):
                await refused
        assert await asyncio.gather(*futures) == [None] * QUEUE_LIMIT


async def test_two_threads_read_while_it_writes(tmp_path: Path) -> None:
    found: list[object] = []
    end = threading.Event()

    def read() -> None:
        while not end.is_set():
            with read_audit(file_in(tmp_path)) as reader:
                found.append(verify(reader.rows(), reader.last_seq()))

    async with opened(tmp_path, patience_s=30) as store:
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(60):
            await asyncio.gather(*(store.audit([entry(f"{number}")]) for _ in range(20)))
        end.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert len(found) >= 2
    assert set(found) == {None}
