"""Disks that stall or are full, files that may not be written or are not what they should be, processes killed."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cti_mqtt.bridge.journal import Journal
from cti_mqtt.bridge.journal.schema import SCHEMA
from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.store.schema import FILE_NAME as STORE_NAME
from cti_mqtt.errors import StorageError
from tests.bridge.journal.samples import FRAGMENTS, file_in, opened, stalled, written_again

ROOT = Path(__file__).parents[3]
NOBODY = 65534
OTHER = "0123456789abcdef"


def child(*arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-B", "-m", "tests.bridge.journal.child", *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


async def limit(journal: Journal, pages: int) -> None:
    """No room beyond so many pages; as few as there are where it is fewer."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    await journal._database.submit(work)


class TestStall:
    async def test_an_add_that_was_given_up_is_there_later(self, tmp_path: Path) -> None:
        async with opened(tmp_path, patience_s=0.5) as bench:
            with stalled(bench.journal):
                with pytest.raises(StorageError, match=r"did not answer within 0\.5 s"):
                    await bench.add(1)
                assert "did not answer" in bench.journal.problem
            await written_again(bench.journal)
            (kept,) = (await bench.journal.undelivered(0, 10)).polls
            assert await bench.add(1) == [kept.number]
            assert bench.journal.waiting == 1  # also what was done late is counted

    async def test_whoever_did_not_hear_of_it_is_told_later(self, tmp_path: Path) -> None:
        late: list[int] = []
        async with opened(tmp_path, patience_s=0.5) as bench:
            in_time = await bench.journal.add("arbin1", 1, "", FRAGMENTS, late.append)
            with stalled(bench.journal):
                with pytest.raises(StorageError, match="did not answer"):
                    await bench.journal.add("arbin1", 2, "", FRAGMENTS, late.append)
                assert late == []
            await written_again(bench.journal)
            (_, kept) = (await bench.journal.undelivered(0, 10)).polls
            assert late == [kept.number]
            with pytest.raises(StorageError, match="cannot be stored"):
                await bench.journal.add("arbin1", 3, "", (b"",), late.append)
            assert in_time not in late
            await bench.journal.delivered(late)
            assert await bench.waiting() == [1]

    async def test_what_waits_is_bounded(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            with stalled(bench.journal):
                futures = [bench.journal.add("arbin1", seq, "", (b"{}",)) for seq in range(1, 1002)]
                with pytest.raises(StorageError, match="1000 requests waiting"):
                    await futures[-1]
            await asyncio.gather(*futures[:-1])

    async def test_delivered_ones_are_not_sent_again(self, tmp_path: Path) -> None:
        def broken(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TEMP TRIGGER t BEFORE DELETE ON undelivered BEGIN SELECT RAISE(ABORT, 'x'); END")

        async with opened(tmp_path) as bench:
            numbers = await bench.add(1, 4)
            await bench.journal._database.submit(broken)
            with pytest.raises(StorageError):
                await bench.journal.delivered(numbers[:2])
            assert await bench.waiting() == [3, 4]
            assert bench.journal.waiting == 2
            await bench.journal._database.submit(lambda connection: connection.execute("DROP TRIGGER t") and None)
            await bench.journal.tidy()
        async with opened(tmp_path) as bench:
            assert await bench.waiting() == [3, 4]
            assert bench.journal.waiting == 2

    async def test_a_process_ends_although_the_disk_does_not_answer(self, tmp_path: Path) -> None:
        process = child(tmp_path, "stall")
        output, errors = await asyncio.to_thread(process.communicate, timeout=20)  # the disk answers after 60 s
        assert (process.returncode, errors) == (0, "")
        assert output == "closed\n"
        async with opened(tmp_path) as bench:
            assert await bench.waiting() == [1, 2, 3]  # what was done before; and the file is as it should be


class TestFull:
    async def test_reading_goes_on_and_writing_resumes(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            numbers = await bench.add(1, 3)
            await limit(bench.journal, 1)
            with pytest.raises(StorageError, match="full"):
                await bench.add(4, size=300_000)
            assert "full" in bench.journal.problem
            assert await bench.waiting() == [1, 2, 3]
            assert await bench.kept() == [1, 2, 3]
            await asyncio.sleep(1.5)
            assert "full" in bench.journal.problem  # it has tried, and is not taken in by room for a few bytes
            await bench.journal.delivered(numbers[:1])
            assert await bench.waiting() == [2, 3]
            await limit(bench.journal, 2**30)
            await written_again(bench.journal)
            await bench.add(4, size=300_000)
            assert await bench.waiting() == [2, 3, 4]

    async def test_reading_beside_writing_that_fails(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            await bench.add(1, 3)
            await limit(bench.journal, 1)
            with stalled(bench.journal):  # so that they come in one batch
                adding = asyncio.create_task(bench.add(4, size=300_000))
                await asyncio.sleep(0)
                reading = asyncio.create_task(bench.waiting())
                await asyncio.sleep(0)
            with pytest.raises(StorageError, match="full"):
                await adding
            assert await reading == [1, 2, 3]

    async def test_delivered_ones_make_room(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            numbers = await bench.add(1, 150, size=20_000)
            await bench.journal.delivered(numbers[:120])
            await limit(bench.journal, 1)
            await bench.add(151, 200, size=20_000)
            assert bench.journal.problem == ""
            assert await bench.kept() == list(range(101, 201))
            assert await bench.waiting() == list(range(121, 201))
            assert bench.journal.dropped == 0

    async def test_undelivered_ones_do_not(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            await bench.add(1, 50, size=20_000)
            await limit(bench.journal, 1)
            with pytest.raises(StorageError, match="full"):
                await bench.add(51, 60, size=200_000)
            assert (await bench.waiting())[:50] == list(range(1, 51))
            assert bench.journal.dropped == 0


class TestReadOnly:
    @pytest.mark.parametrize("log", [True, False])
    async def test_reading_works_from_the_start(self, log: bool) -> None:
        with tempfile.TemporaryDirectory() as place:  # not pytest's, where other users cannot go
            folder, copy = Path(place) / "a", Path(place) / "b"
            folder.mkdir()
            async with opened(folder) as bench:
                numbers = await bench.add(1, 3)
                await bench.journal.delivered(numbers[:1])
                if log:
                    shutil.copytree(folder, copy)  # as a process that was killed left it
            shown = copy if log else folder
            os.chmod(place, 0o755)  # noqa: PTH101  # what a person would do
            for path in (*shown.iterdir(), shown):
                path.chmod(0o555 if path is shown else 0o444)
            process = child(shown, "read", str(os.geteuid() or NOBODY))  # root may write anywhere
            output, errors = await asyncio.to_thread(process.communicate, timeout=50)
            shown.chmod(0o755)
            assert process.returncode == 0, errors
            refused, problem, waiting, kept = output.splitlines()
            assert refused.startswith(f"refused: {file_in(shown)}: ")
            assert problem == refused.replace("refused", "problem")
            assert (waiting, kept) == ("waiting: [2, 3]", "kept: [1, 2, 3]")

    async def test_while_running(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            await bench.add(1, 3)

            def query_only(on: str) -> Callable[[sqlite3.Connection], None]:
                return lambda connection: connection.execute(f"PRAGMA query_only = {on}").close()

            await bench.journal._database.submit(query_only("on"), reads=True)
            with pytest.raises(StorageError, match="readonly"):
                await bench.add(4)
            assert "readonly" in bench.journal.problem
            assert await bench.waiting() == [1, 2, 3]
            await written_again(bench.journal)  # by a new connection
            await bench.add(4)
            assert await bench.waiting() == [1, 2, 3, 4]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "another header": lambda content: b"hello" * 20 + content[100:],
    "a text": lambda content: b"hello",
    "cut": lambda content: content[: len(content) // 2],
}


class TestNotOurs:
    @pytest.mark.parametrize("damage", DAMAGES)
    async def test_a_damaged_file_is_left_alone(self, tmp_path: Path, damage: str) -> None:
        async with opened(tmp_path) as bench:
            await bench.add(1, 3)
        path = file_in(tmp_path)
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        await self.stands(tmp_path, "is damaged")

    async def test_a_newer_schema(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            await bench.add(1, 3)
        connection = sqlite3.connect(file_in(tmp_path))
        connection.execute(f"PRAGMA user_version = {SCHEMA.version + 1}")
        connection.close()
        await self.stands(tmp_path, f"has schema {SCHEMA.version + 1}")

    async def test_a_store_in_its_place(self, tmp_path: Path) -> None:
        store = Store(tmp_path, patience_s=10)
        await store.open()
        await store.close()
        (tmp_path / STORE_NAME).rename(file_in(tmp_path))
        await self.stands(tmp_path, "is not a journal of cti-mqtt")

    async def stands(self, folder: Path, why: str) -> None:
        """Nothing is written or read, and nothing touched, until a person puts another file there."""
        path = file_in(folder)
        content = path.read_bytes()
        async with opened(folder) as bench:
            for _ in range(2):
                assert bench.journal.problem.startswith(f"{path}: {why}")
                with pytest.raises(StorageError, match=why):
                    await bench.add(1)
                with pytest.raises(StorageError, match=why):
                    await bench.waiting()
                await bench.journal.tidy()
                await asyncio.sleep(1.1)  # it has tried again
            assert path.read_bytes() == content
            assert os.listdir(folder) == [path.name]  # noqa: PTH208  # nothing beside it, and nothing moved
            path.unlink()
            await written_again(bench.journal)
            await bench.add(1)

    async def test_numbers_of_a_file_that_was_removed_are_not_given_again(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            numbers = await bench.add(1, 3)
            await asyncio.sleep(1.1)
            file_in(tmp_path).unlink()
            with pytest.raises(StorageError, match="removed or replaced"):
                await bench.add(4)
            await written_again(bench.journal)
            assert (await bench.add(4))[0] > numbers[-1]
            assert bench.journal.waiting == 1


class TestKilled:
    @pytest.mark.parametrize("after", [1, 200, 1000])
    async def test_what_was_committed_is_there(self, tmp_path: Path, after: int) -> None:
        process = child(tmp_path, "write")
        assert process.stdout is not None
        seqs = [await asyncio.to_thread(process.stdout.readline) for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        rest, errors = await asyncio.to_thread(process.communicate, timeout=50)
        assert process.returncode == -signal.SIGKILL
        assert errors == ""
        # The first may be the end of a line whose beginning `readline` holds back, the last one may be cut off.
        seqs += [line for line in rest.splitlines(keepends=True)[1:] if line.endswith("\n")]
        committed = {int(line) for line in seqs}
        async with opened(tmp_path, boot=OTHER, patience_s=30) as bench:
            assert bench.journal.problem == ""
            assert committed <= set(await bench.kept())
            waiting = await bench.waiting()
            assert waiting == sorted(waiting)
            assert {seq for seq in committed if seq % 3} <= set(waiting)
            assert bench.journal.waiting == len(waiting)
            await bench.add(1)
