"""The bridge killed at random moments: a short cut of `make faults`, which kills it 200 times."""

from pathlib import Path

import pytest

from tests.faults.crash import Moment, Plan, campaign
from tests.support.brokers import needs_mosquitto

LIMIT_S = 150.0


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_killed_at_random_moments(tmp_path: Path, protocol: object) -> None:
    figures = await campaign(tmp_path, Plan(6, 60, seed=1, protocol=protocol), worlds=2, limit_s=LIMIT_S)
    assert figures.kills.total() == 6
    assert set(figures.kills) <= set(Moment)
    assert figures.commands.total() == 60
    assert figures.executed["start"] > 0
    assert figures.duplicates > 0
    assert figures.messages > 2 * 60 - figures.commands["stop"]
