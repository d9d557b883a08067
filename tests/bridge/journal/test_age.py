"""What becomes too old, and what does not although the time of day says so."""

from pathlib import Path

import pytest

from cti_mqtt.bridge.journal.polls import WHY_OLD
from tests.bridge.journal.samples import BOOT, DAY_S, Bench, HandClock, opened, replaced

OTHER = "0123456789abcdef"
YEARS_S = 3 * 365 * DAY_S


async def hours(bench: Bench, count: float) -> None:
    """Time passes, with housekeeping in between."""
    for _ in range(int(count * 4)):
        bench.clock.go(900)
        await bench.journal.tidy()


async def test_undelivered_ones_are_given_up_with_a_gap(tmp_path: Path) -> None:
    async with opened(tmp_path, max_age_s=DAY_S) as bench:
        await bench.add(1, 3)
        await hours(bench, 12)
        await bench.add(4, 6)
        await hours(bench, 11.5)
        assert await bench.waiting() == [1, 2, 3, 4, 5, 6]
        await hours(bench, 1)
        assert await bench.waiting() == [4, 5, 6]
        assert (bench.journal.waiting, bench.journal.dropped) == (3, 3)
        assert await bench.told() == [("arbin1", 1, 3, 3)]
        assert bench.gaps[0].why == WHY_OLD


async def test_delivered_ones_go_silently_some_time_after_they_were_delivered(tmp_path: Path) -> None:
    async with opened(tmp_path, replay_window_s=3600) as bench:
        numbers = await bench.add(1, 4)
        await hours(bench, 5)
        await bench.journal.delivered(numbers[:2])
        await hours(bench, 0.75)
        assert await bench.kept() == [1, 2, 3, 4]
        await hours(bench, 1)
        assert await bench.kept() == [3, 4]
        assert bench.journal.dropped == 0
        assert await bench.told() == []


@pytest.mark.parametrize("jump_s", [YEARS_S, -YEARS_S])
async def test_a_clock_that_jumps_makes_nothing_of_this_run_older(tmp_path: Path, jump_s: float) -> None:
    async with opened(tmp_path, max_age_s=DAY_S) as bench:
        numbers = await bench.add(1, 4)
        await bench.journal.delivered(numbers[3:])
        await bench.journal.tidy()
        bench.clock.jump(jump_s)
        await hours(bench, 0.5)
        await bench.add(5)
        assert await bench.kept() == [1, 2, 3, 4, 5]
        assert await bench.waiting() == [1, 2, 3, 5]  # in the order in which they came, whatever their stamps say
        await hours(bench, 24)
        assert await bench.waiting() == [5]


@pytest.mark.parametrize("jump_s", [YEARS_S, -YEARS_S])
async def test_nor_anything_of_earlier_runs(tmp_path: Path, jump_s: float) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock, boot=OTHER) as bench:
        numbers = await bench.add(1, 4)
        await bench.journal.delivered(numbers[3:])
    clock.jump(jump_s)
    async with opened(tmp_path, clock, max_age_s=DAY_S) as bench:
        await bench.journal.tidy()
        await hours(bench, 0.5)
        assert await bench.kept(boot=OTHER) == [1, 2, 3, 4]
        await hours(bench, 24)
        assert await bench.kept(boot=OTHER) == []
        assert await bench.told() == [("arbin1", 1, 3, 3)]


@pytest.mark.parametrize("jump_s", [YEARS_S, -YEARS_S])
async def test_nor_does_a_jump_within_an_earlier_run(tmp_path: Path, jump_s: float) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock, boot=OTHER) as bench:
        await bench.add(1, 2)
        clock.jump(jump_s)
        clock.go(60)
        await bench.add(3, 4)
    async with opened(tmp_path, clock, max_age_s=DAY_S) as bench:
        await hours(bench, 0.5)
        assert await bench.kept(boot=OTHER) == [1, 2, 3, 4]
        await hours(bench, 24.5)
        assert await bench.waiting() == []


async def test_rows_of_earlier_runs_age_by_their_stamps(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock, boot=OTHER) as bench:
        await bench.add(1, 2)
        clock.go(12 * 3600)
        await bench.add(3, 4)
    async with opened(tmp_path, clock, max_age_s=DAY_S) as bench:
        await bench.add(1)
        await hours(bench, 11.5)
        assert await bench.waiting() == [1, 2, 3, 4, 1]
        await hours(bench, 1)
        assert await bench.waiting() == [3, 4, 1]
        await hours(bench, 12.5)
        assert await bench.kept(boot=OTHER) == await bench.kept(boot=BOOT) == []


@pytest.mark.parametrize("behind_s", [10 * DAY_S, -10 * DAY_S])
@pytest.mark.parametrize("put_right", [True, False])
async def test_a_clock_that_was_wrong_two_runs_ago(tmp_path: Path, behind_s: float, *, put_right: bool) -> None:
    clock = HandClock()
    clock.jump(-behind_s)
    async with opened(tmp_path, clock, boot="a") as bench:
        await bench.add(1, 10)
        clock.jump(behind_s if put_right else 0)
        clock.go(60)
        await bench.journal.tidy()
        await bench.add(11, 20)
    clock.jump(0 if put_right else behind_s)
    for boot in ("b", "c", "d"):
        async with opened(tmp_path, clock, boot=boot) as bench:
            await bench.add(1, 2)
            await hours(bench, 1)
            assert await bench.kept(boot="a") == list(range(1, 21))
            assert bench.journal.dropped == 0


async def test_only_the_time_in_which_a_bridge_ran_counts_over_many_runs(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock, boot=OTHER) as bench:
        await bench.add(1)
    for run in range(4):
        clock.go(100 * DAY_S)
        async with opened(tmp_path, clock, boot=f"{run}", max_age_s=DAY_S) as bench:
            await hours(bench, 5)
            await bench.add(1)  # by the stamp of this the next run knows how long this one lasted
            assert await bench.kept(boot=OTHER) == [1]
    async with opened(tmp_path, clock, max_age_s=DAY_S) as bench:
        await hours(bench, 5)
        assert await bench.kept(boot=OTHER) == []
        assert await bench.kept(boot="0") == [1]


async def test_a_file_with_another_time_takes_the_place_of_this_one(tmp_path: Path) -> None:
    clock = HandClock()
    (tmp_path / "old").mkdir()
    async with opened(tmp_path / "old", clock, boot=OTHER) as bench:
        await bench.add(1, 3)
    clock.jump(YEARS_S)
    async with opened(tmp_path, clock, max_age_s=DAY_S) as bench:
        await bench.add(1)
        await replaced(bench, tmp_path, tmp_path / "old")
        await hours(bench, 12)
        assert await bench.kept(boot=OTHER) == [1, 2, 3]
        await hours(bench, 13)
        assert await bench.kept(boot=OTHER) == []
