"""What the journal keeps, gives back and forgets."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from cti_mqtt.bridge.journal import Gap, KeptPoll, Portion, Span
from cti_mqtt.bridge.journal.polls import WHY_FULL, WHY_UNREADABLE
from cti_mqtt.errors import StorageError
from tests.bridge.journal.samples import BOOT, FRAGMENTS, Bench, file_in, opened, poll, stalled

OTHER = "0123456789abcdef"
ONE_MB = 2**20


def damage(folder: Path, numbers: Sequence[int]) -> None:
    """What stands there is no longer what was put there."""
    with closing(sqlite3.connect(file_in(folder), timeout=10)) as connection, connection:
        connection.executemany("UPDATE poll SET body = x'00' WHERE number = ?", [(number,) for number in numbers])


async def all_portions(bench: Bench, limit: int, without: Sequence[int] = ()) -> list[KeptPoll]:
    found: list[KeptPoll] = []
    last: int | None = 0
    while last is not None:
        portion = await bench.journal.undelivered(last, limit, without)
        assert len(portion.polls) <= limit
        found += portion.polls
        last = portion.last
    return found


class TestPolls:
    async def test_a_life(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            first, second, third = await bench.add(1, 3)
            assert first < second < third
            assert await bench.journal.undelivered(0, 2) == Portion((poll(first, 1), poll(second, 2)), second)
            assert await bench.journal.undelivered(second, 2) == Portion((poll(third, 3),), third)
            assert await bench.journal.undelivered(third, 2) == Portion((), None)
            assert bench.journal.waiting == 3
            await bench.journal.delivered([first, third])
            assert bench.journal.waiting == 1
            assert await bench.journal.undelivered(0, 10) == Portion((poll(second, 2),), second)
            assert await bench.kept() == [1, 2, 3]
            assert await bench.journal.span("arbin1", BOOT, 2, 3, 1) == Portion((poll(second, 2),), 2)
            assert await bench.journal.span("arbin2", BOOT, 1, 3, 9) == Portion((), None)

    @pytest.mark.parametrize("fragments", [(), (b"{}",), (b"{}", b'{"a":"\xc3\xbc\\n"}')])
    async def test_fragments_come_back_as_they_were(self, tmp_path: Path, fragments: tuple[bytes, ...]) -> None:
        async with opened(tmp_path) as bench:
            await bench.journal.add("arbin1", 1, "then", fragments)
            (kept,) = (await bench.journal.undelivered(0, 1)).polls
            assert (kept.ts, kept.fragments) == ("then", fragments)

    @pytest.mark.parametrize("fragments", [(b"{\n}",), (b"", b"{}"), (b"",)])
    async def test_fragments_that_would_not_come_back(self, tmp_path: Path, fragments: tuple[bytes, ...]) -> None:
        async with opened(tmp_path) as bench:
            with pytest.raises(StorageError, match="cannot be stored"):
                await bench.journal.add("arbin1", 1, "then", fragments)
            assert await bench.waiting() == []
            assert bench.journal.problem == ""

    async def test_the_same_again_has_the_first_number(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            (first,) = await bench.add(1)
            await bench.add(2)
            assert await bench.add(1) == [first]
            await bench.journal.delivered([first])
            assert await bench.add(1) == [first]
            assert await bench.waiting() == [2]
            assert bench.journal.waiting == 1

    async def test_delivered_twice_or_never_there(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bench:
            (first, _) = await bench.add(1, 2)
            await bench.journal.delivered([first, first, 12345])
            await bench.journal.delivered([first])
            assert bench.journal.waiting == 1
            assert await bench.waiting() == [2]

    async def test_spans(self, tmp_path: Path) -> None:
        async with opened(tmp_path, boot=OTHER) as bench:
            await bench.add(5, 9)
        async with opened(tmp_path) as bench:
            await bench.add(1, 3)
            await bench.add(7, 8)
            await bench.add(1, 1, cycler="arbin2")
            assert await bench.journal.kept("arbin1") == (
                Span("arbin1", OTHER, 5, 9, 5), Span("arbin1", BOOT, 1, 8, 5),
            )  # fmt: skip
            assert await bench.journal.kept("arbin3") == ()

    async def test_a_later_process_finds_everything_and_numbers_go_on(self, tmp_path: Path) -> None:
        async with opened(tmp_path, boot=OTHER) as bench:
            numbers = await bench.add(1, 3)
            await bench.journal.delivered(numbers[2:])
        async with opened(tmp_path) as bench:
            assert bench.journal.waiting == 2
            assert 0 < bench.journal.filled < 0.01
            assert (await bench.add(1))[0] > numbers[-1]
            found = (await bench.journal.undelivered(0, 10)).polls
            assert [(kept.boot, kept.seq) for kept in found] == [(OTHER, 1), (OTHER, 2), (BOOT, 1)]

    async def test_numbers_are_not_given_again_where_everything_went(self, tmp_path: Path) -> None:
        async with opened(tmp_path, replay_window_s=0) as bench:
            numbers = await bench.add(1, 3)
            await bench.journal.delivered(numbers)
            bench.clock.go(10)
            await bench.journal.tidy()
            bench.clock.go(10)
            await bench.journal.tidy()
            assert await bench.kept() == []
            assert (await bench.add(4))[0] > numbers[-1]

    async def test_thousands_are_quick(self, tmp_path: Path) -> None:
        begun = time.monotonic()
        async with opened(tmp_path, patience_s=30) as bench:
            for first in range(1, 5000, 500):
                numbers = await bench.add(first, first + 499)
                await bench.journal.delivered(numbers[:250])
            assert bench.journal.waiting == 2500
            assert len(await all_portions(bench, 500)) == 2500
        assert time.monotonic() - begun < 20  # about one

    async def test_what_is_passed_over_is_not_read(self, tmp_path: Path) -> None:
        async with opened(tmp_path, patience_s=30) as bench:
            numbers = await bench.add(1, 300)
            damage(tmp_path, numbers[:200])
            assert (await bench.journal.undelivered(0, 20, numbers[:150])).polls == tuple(
                poll(numbers[seq - 1], seq) for seq in range(201, 221)
            )
            await bench.waiting()
            assert bench.journal.waiting == 250  # nothing is known of the others, since nobody looked at them
            assert [poll.number for poll in await all_portions(bench, 20, numbers[250:])] == numbers[200:250]
            assert await bench.journal.undelivered(0, 20, numbers) == Portion((), numbers[-1])

    async def test_a_portion_is_bounded_work_and_never_looks_like_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cti_mqtt.bridge.journal.polls.LOOKED_AT", 10)
        async with opened(tmp_path) as bench:
            numbers = await bench.add(1, 100)
            assert await bench.journal.undelivered(0, 20, numbers[:90]) == Portion((), numbers[9])
            found = await all_portions(bench, 20, numbers[5:93])
            assert [poll.seq for poll in found] == [*range(1, 6), *range(94, 101)]

    @pytest.mark.parametrize("limit", [20, 7])
    async def test_many_damaged_ones_in_a_row_are_not_the_end(self, tmp_path: Path, limit: int) -> None:
        async with opened(tmp_path) as bench:
            damage(tmp_path, (await bench.add(1, 60))[2:48])
            readable = [1, 2, *range(49, 61)]
            found: list[KeptPoll] = []
            last: int | None = 0
            while last is not None:
                found += (portion := await bench.journal.span("arbin1", BOOT, last + 1, 1000, limit)).polls
                last = portion.last
            assert [poll.seq for poll in found] == readable
            assert [poll.seq for poll in await all_portions(bench, limit)] == readable
            assert await bench.waiting() == readable
            assert await bench.told() == [("arbin1", 3, 48, 46)]

    async def test_a_record_that_cannot_be_read_holds_nobody_up(self, tmp_path: Path) -> None:
        async with opened(tmp_path, boot=OTHER) as bench:
            numbers = await bench.add(1, 3)
        damage(tmp_path, numbers[1:2])
        async with opened(tmp_path) as bench:
            assert await bench.waiting() == [1, 3]
            assert await bench.kept(boot=OTHER) == [1, 3]
            await bench.told()
            assert bench.gaps == [Gap("arbin1", OTHER, 2, 2, 1, WHY_UNREADABLE)]
            assert bench.journal.waiting == 2


class TestSize:
    async def test_delivered_ones_go_first_and_silently(self, tmp_path: Path) -> None:
        async with opened(tmp_path, max_bytes=ONE_MB) as bench:
            numbers = await bench.add(1, 100, size=10_000)
            await bench.journal.delivered(numbers[40:80])
            await bench.add(101, 130, size=10_000)
            kept = await bench.kept()
            assert set(range(1, 131)) - set(kept) == set(range(41, 41 + 130 - len(kept)))
            assert 100 < len(kept) < 105
            assert bench.journal.dropped == 0
            assert await bench.told() == []

    async def test_then_the_oldest_undelivered_ones_as_gaps(self, tmp_path: Path) -> None:
        async with opened(tmp_path, max_bytes=ONE_MB) as bench:
            numbers = await bench.add(1, 50, size=10_000)
            await bench.journal.delivered(numbers[20:22])
            for seq in range(51, 101):
                await bench.add(seq, size=10_000)
                await bench.add(seq, size=10_000, cycler="arbin2")
            kept, others = await bench.kept(), await bench.kept("arbin2")
            assert kept[-1] == others[-1] == 100
            assert (others[0], kept[0]) == (51, 47)
            assert 0.97 < bench.journal.filled <= 1
            assert bench.journal.dropped == 44
            assert await bench.told() == [("arbin1", 1, 20, 20), ("arbin1", 23, 46, 24)]
            assert {gap.why for gap in bench.gaps} == {WHY_FULL}

    async def test_a_burst_does_not_overrun(self, tmp_path: Path) -> None:
        most = 0

        def measure(connection: sqlite3.Connection) -> None:
            nonlocal most
            most = max(most, connection.execute("SELECT sum(length(body)) FROM poll").fetchone()[0])

        async with opened(tmp_path, patience_s=30, max_bytes=ONE_MB) as bench:
            with stalled(bench.journal):
                tasks = []
                for first in range(1, 401, 20):
                    tasks.append(asyncio.create_task(bench.add(first, first + 19, size=10_000)))
                    await asyncio.sleep(0)
                    bench.journal._database.submit(measure)
            await asyncio.gather(*tasks)
            assert 0.95 * ONE_MB < most <= 1.02 * ONE_MB
            kept = await bench.waiting()
            assert kept == list(range(401 - len(kept), 401))
            assert await bench.told() == [("arbin1", 1, 400 - len(kept), 400 - len(kept))]

    async def test_a_smaller_bound_than_before(self, tmp_path: Path) -> None:
        async with opened(tmp_path, boot=OTHER, patience_s=30) as bench:
            for first in range(1, 2000, 200):
                await bench.add(first, first + 199, size=1000)
        async with opened(tmp_path, max_bytes=ONE_MB) as bench:
            assert bench.journal.filled > 1
            await bench.journal.tidy()
            assert 0.99 < bench.journal.filled <= 1
            assert bench.journal.dropped == 2000 - bench.journal.waiting
            assert await bench.told() == [("arbin1", 1, bench.journal.dropped, bench.journal.dropped)]

    async def test_gaps_are_told_by_themselves(self, tmp_path: Path) -> None:
        async with opened(tmp_path, max_bytes=ONE_MB) as bench:
            await bench.add(1, 150, size=10_000)
            async with asyncio.timeout(10):
                while not bench.gaps:  # noqa: ASYNC110  # told a moment later
                    await asyncio.sleep(0.02)
            assert len(bench.gaps) == 1

    async def test_who_is_told_badly_harms_nobody(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with opened(tmp_path, max_bytes=ONE_MB) as bench:
            bench.journal._gaps._on_gap = lambda gap: 1 // 0  # type: ignore[assignment]
            await bench.add(1, 150, size=10_000)
            bench.journal._gaps.tell()
            assert "was not told" in caplog.text
            assert await bench.add(151)


async def test_not_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        pass
    for future in (bench.journal.add("arbin1", 1, "", FRAGMENTS), bench.journal.undelivered(0, 1)):
        with pytest.raises(StorageError, match="is not open"):
            await future


async def test_it_keeps_house_until_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.journal.journal.HOUSEKEEPING_S", 0.02)
    async with opened(tmp_path, max_age_s=60) as bench:
        await bench.add(1, 3)
        keeper = asyncio.create_task(bench.journal.run())
        await asyncio.sleep(0.1)
        bench.clock.go(61)
        async with asyncio.timeout(10):
            while bench.journal.dropped < 3:
                bench.clock.go(1)
                await asyncio.sleep(0.02)
        keeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeper
        assert await bench.told() == [("arbin1", 1, 3, 3)]
