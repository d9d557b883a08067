"""The dead man's variable: until when the schedule itself may go on without a word from the bridge."""

import asyncio
from pathlib import Path

import pytest

from tests.bridge.bench import Bench, bench, until
from tests.support.brokers import needs_mosquitto

pytestmark = needs_mosquitto

CHANNEL = "arbin1/channel/1"
CONTROL = {"deadman_mv": 16}


def left_s(it: Bench, number: int = 1) -> float:
    """How long the schedule goes on, by the watchdog's value."""
    run = it.channel(number).run
    assert run is not None
    return it.variable(number, 16) - run.test_time_s


async def test_every_grant_and_renewal_writes_it_with_the_values(tmp_path: Path) -> None:
    async with bench(tmp_path, control=CONTROL) as it, it.running():
        await it.start(1, values={"1": 0.5}, lease={"ttl_s": 20, "on_expiry": "stop"})
        assert 18.5 < left_s(it) < 20.5
        assert it.variable(1, 1) == 0.5
        for ttl_s in (30, 10):
            lease = {"ttl_s": ttl_s, "on_expiry": "stop"}
            known = len(it.asked("update_meta_variables"))
            identity = it.observer.last(f"{CHANNEL}/lease")
            assert identity is not None
            body = {"values": {"1": 0.6}, "lease": lease, "lease_id": identity.json["lease_id"]}
            result = await it.observer.ask(CHANNEL, "set_mv", body)
            assert result["outcome"] == "succeeded"
            assert ttl_s - 1 < left_s(it) < ttl_s + 0.5
            (update,) = it.asked("update_meta_variables")[known:]
            written = {entry["index"] for entry in update["arguments"]["updates"]["entries"]}
            assert written == {1, 16}
        assert it.asked("set_meta_variable") == []


async def test_a_write_that_renews_nothing_leaves_it_alone(tmp_path: Path) -> None:
    async with bench(tmp_path, control=CONTROL) as it, it.running():
        await it.start(1)
        assert (await it.observer.ask(CHANNEL, "set_mv", {"values": {"1": 0.5}}))["outcome"] == "succeeded"
        assert it.written(1, 16) == []


@pytest.mark.parametrize(
    "body",
    [
        {"values": {"16": 100.0}},
        {"values": {"1": 0.5}, "lease": {"ttl_s": 5, "on_expiry": {"set_mv": {"16": 100.0}}}},
    ],
)
async def test_only_the_bridge_writes_it(body: dict[str, object], tmp_path: Path) -> None:
    async with bench(tmp_path, control=CONTROL) as it, it.running():
        await it.start(1)
        result = await it.observer.ask(CHANNEL, "set_mv", body)
        assert (result["outcome"], result["reason"]) == ("refused", "limit")
        assert "dead man" in result["message"]
        assert it.written(1, 16) == []
        assert it.written(1, 1) == []


async def test_many_channels_each_by_its_own_test_time(tmp_path: Path) -> None:
    async with bench(tmp_path, control=CONTROL) as it, it.running():
        await it.start(1)
        await asyncio.sleep(2.0)
        await it.start(2)
        body = {"channels": [1, 2], "values": {"1": 0.5}, "lease": {"ttl_s": 20, "on_expiry": "stop"}}
        result = await it.observer.ask("arbin1", "set_mv", body)
        assert result["outcome"] == "succeeded"
        assert it.variable(1, 16) - it.variable(2, 16) > 1.5
        assert 18.5 < left_s(it, 1) < 20.5
        assert 18.5 < left_s(it, 2) < 20.5


async def test_the_schedule_ends_by_itself_when_the_bridge_has_gone(tmp_path: Path) -> None:
    async with bench(tmp_path, control=CONTROL) as it:
        async with it.running():
            lease = {"ttl_s": 2, "on_expiry": "alarm"}
            await it.start(1, values={"1": 0.5}, lease=lease)
        assert it.channel(1).active
        await until(lambda: not it.channel(1).active, 4)
        assert it.channel(1).run is not None
        assert it.channel(1).run.exit_condition.endswith("MV_UD16")  # type: ignore[union-attr]
        assert it.asked("stop") == []
