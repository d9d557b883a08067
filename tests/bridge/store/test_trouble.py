"""Disks that stall, fill up or lose the file; files that are not what they should be; processes that are killed."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.store.audit import verify
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.bridge.store.schema import SCHEMA
from cti_mqtt.errors import StorageError
from tests.bridge.store.samples import command, entry, file_in, opened
from tests.bridge.store.test_group_commit import stalled

ROOT = Path(__file__).parents[3]
NOBODY = 65534


def child(*arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-B", "-m", "tests.bridge.store.child", *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


async def written_again(store: Store) -> None:
    async with asyncio.timeout(20):
        while store.problem:  # noqa: ASYNC110  # it recovers by itself
            await asyncio.sleep(0.02)


class TestStall:
    async def test_nobody_waits_longer_than_patience_and_it_recovers(self, tmp_path: Path) -> None:
        async with opened(tmp_path, patience_s=0.3) as store:
            with stalled(store):
                begun = time.monotonic()
                futures = [store.receive(command(f"{number}"), durable=False) for number in range(100)]
                errors = await asyncio.gather(*futures, return_exceptions=True)
                assert 0.2 < time.monotonic() - begun < 3
                assert {str(error) for error in errors} == {f"{file_in(tmp_path)} did not answer within 0.3 s"}
                assert all(isinstance(error, StorageError) for error in errors)
                assert store.problem == f"{file_in(tmp_path)} did not answer within 0.3 s"
            await written_again(store)
            assert len(await store.unfinished()) == 100  # done all the same, in its turn
            assert await store.receive(command("later"), durable=True) is None

    async def test_each_has_its_own_patience(self, tmp_path: Path) -> None:
        async with opened(tmp_path, patience_s=0.5) as store:
            with stalled(store):
                first = store.leases()
                await asyncio.sleep(0.3)
                second = store.leases()
                await asyncio.wait([first])
                assert not second.done()
            assert await second == ()

    async def test_closing_does_not_wait_for_ever(self, tmp_path: Path) -> None:
        store = Store(tmp_path, patience_s=0.2)
        await store.open()
        with stalled(store):
            future = store.receive(command(), durable=False)
            await store.close()
            with pytest.raises(StorageError):
                await future
        for thread in threading.enumerate():
            if thread.name == "store":
                await asyncio.to_thread(thread.join, 10)
                assert not thread.is_alive()


class TestFull:
    async def test_pages(self, tmp_path: Path) -> None:
        def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
            return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

        async with opened(tmp_path) as store:
            await store.receive(command("before"), durable=False)
            await store._database.submit(limit(1))
            with pytest.raises(StorageError, match="full"):
                await store.receive(command("during", request="x" * 100_000), durable=False)
            assert "full" in store.problem
            assert await store.find(command("before").key) is not None
            assert "full" in store.problem  # reading says nothing about writing
            await store._database.submit(limit(2**30))
            assert await store.receive(command("during"), durable=False) is None
            assert store.problem == ""

    async def test_files_may_not_grow(self, tmp_path: Path) -> None:
        process = child(tmp_path, "limited", "300000")
        output, errors = await asyncio.to_thread(process.communicate, timeout=50)
        assert process.returncode == 0, errors
        refused, problem, recovered = output.splitlines()
        assert refused.startswith(f"refused: {file_in(tmp_path)}: ")
        assert problem.startswith(f"problem: {file_in(tmp_path)}: ")
        assert recovered == "recovered: True None"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "another header": lambda content: b"hello" * 20 + content[100:],
    "a text": lambda content: b"hello",
    "cut": lambda content: content[: len(content) // 2],
    "zeros in the middle": lambda content: content[:4096] + bytes(4096 * 5) + content[4096 * 6 :],
}


class TestNotOurs:
    @pytest.mark.parametrize("damage", DAMAGES)
    async def test_a_damaged_file_is_left_alone(self, tmp_path: Path, damage: str) -> None:
        async with opened(tmp_path) as store:
            await store.receive(command(), durable=False)
        path = file_in(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[damage](whole))
        await self.stands(tmp_path, "damaged", whole)

    async def test_a_newer_schema(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            await store.receive(command(), durable=False)
        whole = file_in(tmp_path).read_bytes()
        connection = sqlite3.connect(file_in(tmp_path))
        connection.execute(f"PRAGMA user_version = {SCHEMA.version + 1}")
        connection.close()
        await self.stands(tmp_path, f"has schema {SCHEMA.version + 1}", whole)

    async def test_somebody_elses_database(self, tmp_path: Path) -> None:
        async with opened(tmp_path / ".." / tmp_path.name) as store:
            await store.receive(command(), durable=False)
        whole = file_in(tmp_path).read_bytes()
        file_in(tmp_path).unlink()
        connection = sqlite3.connect(file_in(tmp_path))
        connection.execute("CREATE TABLE audit(x)")
        connection.close()
        await self.stands(tmp_path, "not a database of cti-mqtt", whole)

    async def stands(self, folder: Path, why: str, whole: bytes) -> None:
        """Nothing is stored and nothing touched until a person puts another file there."""
        path = file_in(folder)
        content = path.read_bytes()
        async with opened(folder) as store:
            for _ in range(2):
                assert store.problem.startswith(f"{path}: ")
                assert why in store.problem
                for future in (store.receive(command(), durable=True), store.audit([entry()]), store.unfinished()):
                    with pytest.raises(StorageError, match=why):
                        await future
                await asyncio.sleep(1.1)  # it has tried again
            assert path.read_bytes() == content
            assert os.listdir(folder) == [path.name]  # noqa: PTH208  # nothing beside it, and nothing moved
            path.unlink()
            path.write_bytes(whole)
            await written_again(store)
            assert await store.receive(command(), durable=True) is not None

    async def test_damage_that_shows_while_running(self, tmp_path: Path) -> None:
        def corrupt(_: sqlite3.Connection) -> None:
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        async with opened(tmp_path) as store:
            await store.receive(command(), durable=False)
            store._database.submit(corrupt)
            for _ in range(2):
                with pytest.raises(StorageError, match="is damaged"):
                    await store.find(command().key)
                await asyncio.sleep(1.1)


class TestGone:
    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
    async def test_a_file_removed_while_running(self, tmp_path: Path, suffix: str) -> None:
        async with opened(tmp_path) as store:
            await store.audit([entry("kept")])
            os.unlink(f"{file_in(tmp_path)}{suffix}")  # noqa: PTH108  # what a person would do
            with pytest.raises(StorageError, match="removed or replaced"):
                await store.receive(command(), durable=False)
            assert "removed or replaced" in store.problem
            await written_again(store)
            assert await store.receive(command(), durable=True) is None
            await store.audit([entry("later")])
        with read_audit(file_in(tmp_path)) as reader:
            assert verify(reader.rows(), reader.last_seq()) is None
            assert reader.last_seq() == (2 if suffix else 1)

    async def test_a_directory_that_comes_later(self, tmp_path: Path) -> None:
        folder = tmp_path / "not yet"
        async with opened(folder) as store:
            assert store.problem.startswith(f"{file_in(folder)}: unable to open")
            with pytest.raises(StorageError, match="unable to open"):
                await store.leases()
            folder.mkdir()
            await written_again(store)
            assert await store.receive(command(), durable=True) is None
            shutil.rmtree(folder)
            with pytest.raises(StorageError):
                await store.receive(command("b"), durable=True)
            assert not folder.exists()

    @pytest.mark.parametrize("exists", [True, False])
    async def test_a_directory_that_may_not_be_written(self, exists: bool) -> None:
        with tempfile.TemporaryDirectory() as place:  # not pytest's, where other users cannot go
            folder = Path(place)
            if exists:
                async with opened(folder) as store:
                    await store.audit([entry()])
                file_in(folder).chmod(0o444)
            os.chmod(place, 0o555)  # noqa: PTH101  # as above
            process = child(folder, "once", str(os.geteuid() or NOBODY))  # root may write anywhere
            output, errors = await asyncio.to_thread(process.communicate, timeout=50)
            os.chmod(place, 0o755)  # noqa: PTH101  # as above
            assert process.returncode == 0, errors
            refused, problem = output.splitlines()
            assert refused.startswith(f"refused: {file_in(folder)}: ")
            assert problem == refused.replace("refused", "problem")
            assert "readonly" in problem or "unable to open" in problem
            assert os.listdir(folder) == [file_in(folder).name] * exists  # noqa: PTH208  # as above


class TestKilled:
    @pytest.mark.parametrize("after", [1, 400, 1500])
    async def test_what_was_stored_is_there(self, tmp_path: Path, after: int) -> None:
        process = child(tmp_path, "write")
        assert process.stdout is not None
        stored = [await asyncio.to_thread(process.stdout.readline) for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        rest, errors = await asyncio.to_thread(process.communicate, timeout=50)
        assert process.returncode == -signal.SIGKILL
        assert errors == ""
        # The first may be the end of a line whose beginning `readline` holds back, the last one may be cut off.
        stored += [line for line in rest.splitlines(keepends=True)[1:] if line.endswith("\n")]
        assert len(stored) >= after
        with read_audit(file_in(tmp_path)) as reader:  # first, beside the log that the dead process left
            assert verify(reader.rows(), reader.last_seq()) is None
        async with opened(tmp_path, patience_s=30) as store:
            assert store.problem == ""
            known = await asyncio.gather(*(store.find(command(line.strip()).key) for line in stored))
            assert all(known)
            await store.audit([entry("after")])
        with read_audit(file_in(tmp_path)) as reader:
            assert verify(reader.rows(), reader.last_seq()) is None
