"""The file is removed, replaced or damaged while polls wait in it: what was lost is told."""

import random
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from sqlite3 import Connection, connect

import pytest

from cti_mqtt.bridge.journal import Gap, ranges
from cti_mqtt.bridge.journal.polls import WHY_DAMAGED, WHY_REMOVED
from cti_mqtt.bridge.journal.ranges import Ranges
from cti_mqtt.errors import StorageError
from tests.bridge.journal.samples import BOOT, Bench, file_in, noticed, opened, removed, replaced, written_again

OTHER = "0123456789abcdef"


@pytest.fixture(params=[5000, 3])
def _portions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is surveyed in one go, or in many."""
    monkeypatch.setattr("cti_mqtt.bridge.journal.survey.PORTION", request.param)


async def gaps(bench: Bench) -> list[Gap]:
    await bench.told()
    return sorted(bench.gaps, key=lambda gap: (gap.boot != OTHER, gap.from_seq))


@pytest.mark.usefixtures("_portions")
class TestRemoved:
    async def test_what_waited_is_told(self, tmp_path: Path) -> None:
        async with opened(tmp_path, boot=OTHER) as bench:
            await bench.journal.delivered((await bench.add(1, 10))[:4])
        async with opened(tmp_path) as bench:
            await bench.journal.delivered((await bench.add(1, 20))[5:8])
            await bench.journal.tidy()
            await bench.journal.delivered((await bench.add(21, 25))[:5])
            await replaced(bench, tmp_path, Path("nowhere"))
            assert await gaps(bench) == [
                Gap("arbin1", OTHER, 5, 10, 6, WHY_REMOVED),
                Gap("arbin1", BOOT, 1, 5, 5, WHY_REMOVED),
                Gap("arbin1", BOOT, 9, 20, 12, WHY_REMOVED),
            ]
            assert (bench.journal.dropped, bench.journal.waiting) == (23, 0)
            await bench.add(26, 27)
            await bench.journal.tidy()
            assert (bench.journal.dropped, bench.journal.waiting) == (23, 2)

    async def test_what_was_delivered_when_it_could_not_be_marked_is_not_lost(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            numbers = await bench.add(1, 6)
            removed(tmp_path)
            with pytest.raises(StorageError):
                await bench.journal.delivered(numbers[:2])
            await written_again(bench.journal)
            await bench.journal.tidy()
            assert await gaps(bench) == [Gap("arbin1", BOOT, 3, 6, 4, WHY_REMOVED)]

    async def test_nor_is_what_is_there_again(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            await bench.add(1, 6)
            removed(tmp_path)
            await noticed(bench)
            await written_again(bench.journal)
            await bench.add(2, 3)  # by somebody who did not hear that they were written
            await bench.journal.close()
            assert await gaps(bench) == [
                Gap("arbin1", BOOT, 1, 1, 1, WHY_REMOVED), Gap("arbin1", BOOT, 4, 6, 3, WHY_REMOVED),
            ]  # fmt: skip

    async def test_an_older_copy_in_its_place(self, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        copy.mkdir()
        async with opened(tmp_path) as bench:
            numbers = await bench.add(1, 10)
            await bench.journal.tidy()
            with closing(connect(file_in(tmp_path))) as source, closing(connect(file_in(copy))) as target:
                source.backup(target)
            await bench.journal.delivered(numbers[:3])
            await bench.add(11, 14)
            await replaced(bench, tmp_path, copy)
            assert await gaps(bench) == [Gap("arbin1", BOOT, 11, 14, 4, WHY_REMOVED)]
            assert await bench.waiting() == list(range(1, 11))

    async def test_the_same_file_opened_anew(self, tmp_path: Path) -> None:
        def reopen(connection: Connection) -> None:
            bench.journal._database._file.close()

        async with opened(tmp_path) as bench:
            await bench.journal.delivered((await bench.add(1, 10))[2:5])
            with pytest.raises(StorageError):
                await bench.journal._database.submit(reopen)
            await written_again(bench.journal)
            await bench.journal.tidy()
            assert (await gaps(bench), bench.journal.dropped) == ([], 0)
            await replaced(bench, tmp_path, Path("nowhere"))
            assert await bench.told() == [("arbin1", 1, 2, 2), ("arbin1", 6, 10, 5)]

    async def test_what_was_given_up_is_told_once(self, tmp_path: Path) -> None:
        async with opened(tmp_path, max_age_s=60) as bench:
            await bench.add(1, 5)
            bench.clock.go(50)
            await bench.add(6, 10)
            bench.clock.go(20)
            await bench.journal.tidy()
            await replaced(bench, tmp_path, Path("nowhere"))
            assert await bench.told() == [("arbin1", 1, 5, 5), ("arbin1", 6, 10, 5)]
            assert bench.journal.dropped == 10


class TestDamaged:
    async def test_garbage_in_its_place(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            await bench.journal.delivered((await bench.add(1, 10))[:4])
            removed(tmp_path)
            file_in(tmp_path).write_bytes(b"garbage" * 5000)
            await noticed(bench)
            while not bench.journal.dropped:
                await bench.journal.tidy()
            assert await gaps(bench) == [Gap("arbin1", BOOT, 5, 10, 6, WHY_DAMAGED)]
            assert (bench.journal.dropped, bench.journal.waiting) == (6, 0)
            await bench.journal.tidy()
            removed(tmp_path)
            await written_again(bench.journal)
            await bench.add(11)
            await bench.journal.tidy()
            assert (bench.journal.dropped, bench.journal.waiting, len(await gaps(bench))) == (6, 1, 1)

    async def test_found_damaged_while_running_and_told_at_the_end(self, tmp_path: Path) -> None:
        def corrupt(connection: Connection) -> None:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET rootpage = 3000 WHERE name = 'undelivered'")
            connection.execute("PRAGMA writable_schema = RESET")

        async with opened(tmp_path) as bench:
            await bench.add(1, 10)
            await bench.journal._database.submit(corrupt)
            with pytest.raises(StorageError, match="is damaged"):
                await bench.add(11)
        assert await gaps(bench) == [Gap("arbin1", BOOT, 1, 10, 10, WHY_DAMAGED)]


class TestRanges:
    def test_like_a_set(self) -> None:
        dice, kept, found = random.Random(7), set[int](), Ranges()
        for _ in range(3000):
            first = dice.randrange(300)
            last = first + dice.choice([0, 0, 0, 5, 40])
            if dice.random() < 0.55:
                found.add("c", "b", first, last)
                kept |= set(range(first, last + 1))
            else:
                found.remove("c", "b", first, last)
                kept -= set(range(first, last + 1))
            parts = [(first, last) for _, _, first, last in found]
            assert kept == {seq for first, last in parts for seq in range(first, last + 1)}
            assert all(left[1] + 1 < right[0] for left, right in pairwise(parts))

    def test_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ranges, "MOST", 3)
        found = Ranges()
        for seq in (1, 10, 20, 22):
            found.add("c", "b", seq, seq)
        assert list(found) == [("c", "b", 1, 1), ("c", "b", 10, 10), ("c", "b", 20, 22)]
        found.add("c", "d", 5, 5)
        found.remove("c", "b", 0, 100)
        assert list(found) == [("c", "d", 5, 5)]
