"""Readings under fire: a short cut of `make faults`, which kills bridge and broker 50 times each."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.readings.campaigns import BY_NAME, Plan, carry_out
from tests.support.brokers import needs_mosquitto

LIMIT_S = 150.0
SHORT = {"broker": (5, 2), "bridge": ("3.1.1", 3), "both": ("3.1.1", 2), "outage": (5, 1), "defaults": (5, 1)}
LINKS = {"broker-link": (5, 3), "cycler-link": (5, 3), "broker-link-corrupt": (5, 1)}


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("name", [*SHORT, *LINKS])
async def test_no_reading_is_lost(tmp_path: Path, name: str) -> None:
    protocol, kills = (SHORT | LINKS)[name]
    campaign = BY_NAME[name]
    plan = Plan(round(kills / campaign.share), seed=1, protocol=protocol, outage_s=3.0, fault_s=1.5)
    async with asyncio.timeout(LIMIT_S):
        figures = await carry_out(campaign, plan, tmp_path)
    assert figures.bridge_kills + figures.broker_kills + figures.faults >= kills
    assert figures.answered > 20
    assert figures.live > 0
    assert figures.brokers == figures.closed
    if name == "outage":
        assert figures.late > 0
    if name == "both":  # who is away himself takes few polls that could come late
        assert figures.late + figures.duplicates > 0
    if name == "defaults":
        assert figures.brokers > 0
