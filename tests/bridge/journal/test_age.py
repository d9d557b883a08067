"""What becomes too old, and what does not although the time of day says so."""

from pathlib import Path

import pytest

from cti_mqtt.bridge.journal.age import Age
from cti_mqtt.bridge.journal.polls import WHY_OLD
from tests.bridge.journal.samples import BOOT, DAY_S, Bench, HandClock, opened

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


class TestAge:
    def test_marks_are_few(self) -> None:
        age = Age(0, 0.0, 0.0, 7 * DAY_S)
        for second in range(0, int(8 * DAY_S), 60):
            age.note(second, float(second))
            age.bound(0.0, float(second))
        assert len(age._marks) < 600
        assert 0 < DAY_S - age.bound(0.0, 8 * DAY_S).up_to < 7 * DAY_S / 400

    def test_another_file_begins_anew(self) -> None:
        age = Age(1000, 0.0, 0.0, 100.0)
        age.note(2000, 50.0)
        age.note(5, 90.0)
        assert age.bound(0.0, 160.0).up_to == 0
        age.note(9, 161.0)
        assert age.bound(0.0, 191.0).up_to == 5
        assert age.bound(0.0, 262.0).up_to == 9

    def test_an_empty_one_after_a_while(self) -> None:
        age = Age(10, 5.0, 0.0, 100.0)
        assert age.bound(1e9, 50.0).covers(10, -50.0)
        assert not age.bound(1e9, 50.0).covers(10, -40.0)
        assert age.bound(1e9, 101.0).covers(10, 1e12)
        assert not age.bound(1e9, 101.0).covers(11, -1e12)
