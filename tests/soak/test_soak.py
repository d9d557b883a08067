"""A short cut of `make soak`, and its judge."""

import sys
from pathlib import Path

import pytest

from tests.soak.judge import GROWTH_FDS, GROWTH_MIB, MIB, Beats, Line, beats, line, problems
from tests.soak.soak import Plan, Soak
from tests.support.brokers import needs_mosquitto

FLAT = Line(50.0 * MIB, 50.0 * MIB, 0.0, 1.0)


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.timeout(150)
async def test_a_short_soak(tmp_path: Path) -> None:
    plan = Plan(
        seconds=15.0, cyclers=2, channels=16, interval_s=0.5, sample_s=0.5, warm_up_s=5.0, fault_every_s=(4.0, 5.0)
    )
    said: list[str] = []
    outcome = await Soak(plan, tmp_path, said.append).run()
    assert sum(outcome.faults.values()) >= 2
    assert said
    assert outcome.polls.answered > 30
    assert outcome.polls.unseen == 0
    assert outcome.fds.growth <= GROWTH_FDS + 1  # a connection may just be missing at the start
    assert outcome.memory.start > 10 * MIB


def test_a_slope_is_that_of_the_nearest_line() -> None:
    assert line([0, 1800, 3600], [10, 12, 14]) == Line(10, 14, 4.0, 1.0)
    assert line([0, 1800, 3600], [10, 40, 10]).slope_per_h == 0
    with pytest.raises(ValueError, match="two samples"):
        line([1.0], [1.0])


@pytest.mark.parametrize(
    ("times", "seen", "troubled", "expected"),
    [
        ([1, 2, 3], {1, 2, 3}, [], Beats(3)),
        ([1, 2, 2.9, 4.2], {1, 2, 3, 4}, [], Beats(4)),
        ([1, 2, 5, 6], {1, 2, 3, 4}, [], Beats(4, missed=2)),
        ([1, 2, 5, 6], {1, 2, 3, 4}, [(2.5, 4)], Beats(4, explained=2)),
        ([1, 2, 5, 6], {1, 2, 3, 4}, [(7, 8)], Beats(4, missed=2)),
        ([1, 2, 3], {1, 3}, [], Beats(3, unseen=1)),
        ([1, 2, 3], {1, 3}, [(1.5, 2.5)], Beats(3, cut=1)),
    ],
)
def test_beats(times: list[float], seen: set[int], troubled: list[tuple[float, float]], expected: Beats) -> None:
    assert beats(times, seen, 1.0, troubled) == expected


def test_all_is_well() -> None:
    assert problems(FLAT, Line(20, 21, 1.0, 1.0), Beats(57_600, missed=10, explained=50, cut=5)) == []


@pytest.mark.parametrize(
    ("memory", "fds", "polls", "problem"),
    [
        (Line(0, 0, (GROWTH_MIB + 2.1) * MIB, 1.0), Line(20, 20, 0, 1.0), Beats(1000), "memory grew by 6.1 MiB"),
        (FLAT, Line(20, 30, GROWTH_FDS + 1, 1.0), Beats(1000), "open files grew by 3.0"),
        (FLAT, Line(20, 20, 0, 1.0), Beats(1000, missed=1), "1 beats were missed"),
        (FLAT, Line(20, 20, 0, 1.0), Beats(1000, unseen=1), "1 polls were answered and never seen"),
    ],
)
def test_something_is_wrong(memory: Line, fds: Line, polls: Beats, problem: str) -> None:
    (found,) = problems(memory, fds, polls)
    assert problem in found
