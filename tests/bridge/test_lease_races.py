"""What comes in between: leases and writes of several commands that are under way at the same time."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from cti_mqtt.simulator import Faults, ForcedResult
from tests.bridge.bench import Bench, bench, forced, until
from tests.support.brokers import needs_mosquitto

pytestmark = needs_mosquitto
CHANNEL = "arbin1/channel/1"
NOTHING = {"set_mv": {"1": 0.0}}


def lease(ttl_s: float = 2.0, on_expiry: Any = None) -> dict[str, Any]:
    return {"ttl_s": ttl_s, "on_expiry": on_expiry or NOTHING}


def write(it: Bench, command: str, value: float, user: str = "ann", **body: Any) -> None:
    it.observer.say(f"{CHANNEL}/command/set_mv/{user}", {"id": command, "values": {"1": value}, **body})


def values_on_the_wire(it: Bench) -> list[float]:
    return [round(value, 3) for _, value in it.written(1, 1)]


def make_readings_old(it: Bench) -> None:
    """An expectation has to wait for a poll."""
    it.station.book._heard_at[1] -= 10


class TestLease:
    async def test_one_that_was_renewed_outlives_the_command_that_asked_for_it(self, tmp_path: Path) -> None:
        async with bench(tmp_path) as it, it.running():
            await it.start(1, 2)
            for number in range(3):  # the line is busy, so that the first write has to wait, and is overtaken
                it.observer.say("arbin1/channel/2/command/set_mv", {"values": {"1": 0.1 * number}})
            write(it, "a", 0.5, lease=lease())
            write(it, "b", 0.6, lease=lease())
            second = await it.result(CHANNEL, "b")
            assert second["outcome"] == "succeeded"
            assert second["lease_id"]
            await it.event(1, "lease_expired")
            await until(lambda: it.variable(1, 1) == 0.0)

    async def test_a_failure_takes_nothing_from_a_start_that_vouched_meanwhile(self, tmp_path: Path) -> None:
        faults = Faults(delays_s={"set_meta_variable": 0.3}, results=(ForcedResult.parse("set_meta_variable=0x10:1x"),))
        async with bench(tmp_path) as it, it.running():
            await it.observer.ask(CHANNEL, "assign", {"schedule": "ClosedLoop.sdx"})
            it.server.faults = faults
            write(it, "a", 0.5, lease=lease())
            await until(lambda: it.asked("set_meta_variable"))
            it.observer.say(
                f"{CHANNEL}/command/start/ann",
                {"id": "s", "test_name": "T", "values": {"1": 0.6}, "lease": lease()},
            )
            assert (await it.result(CHANNEL, "a"))["outcome"] == "failed"
            assert (await it.result(CHANNEL, "s"))["outcome"] == "succeeded"
            await it.event(1, "lease_expired")
            await until(lambda: it.variable(1, 1) == 0.0)

    async def test_a_refused_renewal_renews_nothing(self, tmp_path: Path) -> None:
        async with bench(tmp_path) as it, it.running():
            await it.start(1)
            write(it, "a", 0.5, lease=lease(1.0))
            await it.result(CHANNEL, "a")
            it.server.faults = Faults(delays_s={"set_meta_variable": 0.5})
            granted = it.bridge and it.bridge._commander._desks["arbin1"].leases.running(1)
            assert granted
            write(it, "x", 0.1)  # keeps the line busy
            for number in range(3):
                write(it, f"r{number}", 0.2, ttl_s=0.05, lease=lease(60.0, "alarm"))
            for number in range(3):
                assert (await it.result(CHANNEL, f"r{number}"))["outcome"] == "refused"
            it.server.faults = Faults()
            await it.event(1, "lease_expired")
            await until(lambda: it.variable(1, 1) == 0.0)

    async def test_nobody_writes_under_somebody_elses_lease(self, tmp_path: Path) -> None:
        faults = Faults(delays_s={"channels_info": 0.5})
        async with bench(tmp_path, faults=faults, poll_interval_s=1.0) as it, it.running():
            await it.start(1)
            await until(lambda: it.station.book.good(1))
            make_readings_old(it)
            write(it, "b", 0.9, "bob", expect={"running": True})
            write(it, "a", 0.1, "ann", lease=lease(5.0, "alarm"))
            assert (await it.result(CHANNEL, "a"))["outcome"] == "succeeded"
            refused = await it.result(CHANNEL, "b")
            assert (refused["outcome"], refused["reason"]) in {("refused", "leased"), ("refused", "superseded")}
            assert values_on_the_wire(it) == [0.1]

    async def test_a_start_that_is_older_than_the_expiry_does_not_settle_it(self, tmp_path: Path) -> None:
        async with bench(tmp_path, faults=Faults(delays_s={"start": 1.2})) as it, it.running():
            await it.observer.ask(CHANNEL, "assign", {"schedule": "ClosedLoop.sdx"})
            it.server.faults = replace(it.server.faults, results=forced("set_meta_variable=0:1x").results)
            write(it, "a", 0.5, lease=lease(1.0))  # a lease on an idle channel, by a cycler that says yes
            assert (await it.result(CHANNEL, "a"))["outcome"] == "succeeded"
            await asyncio.sleep(0.4)
            it.observer.say(f"{CHANNEL}/command/start/ann", {"id": "s", "test_name": "T"})
            assert (await it.result(CHANNEL, "s"))["outcome"] == "succeeded"
            settled = await it.event(1, "lease_settled")
            assert "MV_UD1 = 0 written" in settled["message"] or "seen not running" in settled["message"]

    async def test_it_counts_from_the_cyclers_yes_not_from_when_that_was_seen(self, tmp_path: Path) -> None:
        async with bench(tmp_path, control={"verify_timeout_s": 4.0}) as it, it.running():
            await it.observer.ask(CHANNEL, "assign", {"schedule": "ClosedLoop.sdx"})
            it.server.faults = Faults(delays_s={"channels_info": 2.5})
            it.observer.say(f"{CHANNEL}/command/start/ann", {"id": "s", "test_name": "T", "lease": lease(0.5, "stop")})
            expired = await it.event(1, "lease_expired")
            assert not it.results("s"), expired  # its start was still being looked at


class TestOrderOfWrites:
    async def test_a_write_that_has_to_wait_for_its_lease_does_not_undo_a_later_one(self, tmp_path: Path) -> None:
        async with bench(tmp_path, channels=8) as it, it.running():
            for channel in range(1, 9):
                await it.start(channel)
                target = f"arbin1/channel/{channel}"
                first = {"id": f"a{channel}", "values": {"1": 0.5}, "lease": lease(5.0, "alarm")}
                it.observer.say(f"{target}/command/set_mv/ann", first)
                it.observer.say(f"{target}/command/set_mv/ann", {"id": f"b{channel}", "values": {"1": 0.625}})
                await it.result(target, f"a{channel}")
                assert (await it.result(target, f"b{channel}"))["outcome"] == "succeeded"
                assert it.variable(channel, 1) == 0.625

    async def test_nor_does_one_that_waits_for_its_expectation(self, tmp_path: Path) -> None:
        faults = Faults(delays_s={"channels_info": 0.3})
        async with bench(tmp_path, poll_interval_s=2.0, faults=faults) as it, it.running():
            await it.start(1)
            await until(lambda: it.station.book.good(1))
            make_readings_old(it)
            write(it, "a", 0.5, expect={"running": True})
            write(it, "b", 0.0)
            assert (await it.result(CHANNEL, "b"))["outcome"] == "succeeded"
            overtaken = await it.result(CHANNEL, "a")
            assert (overtaken["outcome"], overtaken["reason"]) == ("refused", "superseded")
            assert values_on_the_wire(it) == [0.0]

    async def test_nor_do_the_values_of_a_start(self, tmp_path: Path) -> None:
        async with bench(tmp_path, control={"verify_timeout_s": 6.0}) as it, it.running():
            await it.observer.ask(CHANNEL, "assign", {"schedule": "ClosedLoop.sdx"})
            it.server.faults = Faults(delays_s={"channels_info": 1.0})
            it.observer.say(f"{CHANNEL}/command/start", {"id": "s", "test_name": "T", "values": {"1": 0.6}})
            await until(lambda: it.channel(1).active)
            it.observer.say(f"{CHANNEL}/command/set_mv", {"id": "w", "values": {"1": 0.25}})
            assert (await it.result(CHANNEL, "w"))["outcome"] == "succeeded"
            started = await it.result(CHANNEL, "s")
            assert started["outcome"] == "succeeded"
            assert "later write" in started["message"]
            assert values_on_the_wire(it) == [0.25]

    async def test_a_start_that_was_in_time_is_not_left_half_done(self, tmp_path: Path) -> None:
        async with bench(tmp_path, faults=Faults(delays_s={"start": 0.9})) as it, it.running():
            await it.observer.ask(CHANNEL, "assign", {"schedule": "ClosedLoop.sdx"})
            order = {"test_name": "T", "values": {"1": 0.5}, "ttl_s": 0.8}
            result = await it.observer.ask(CHANNEL, "start", order)
            assert result["outcome"] == "succeeded"
            assert it.variable(1, 1) == 0.5
