"""Alarms: raised, kept, cleared; across restarts of bridge and broker."""

from pathlib import Path

import pytest

from cti_mqtt.simulator import NO_FAULTS, Faults
from tests.bridge.bench import Bench, bench, forced, until
from tests.support.brokers import needs_mosquitto
from tests.support.observer import Heard

pytestmark = needs_mosquitto

ALARM = "arbin1/channel/1/alarm/stop_failed"
SHORT = {"stop_timeout_s": 0.5}


def raised(heard: Heard) -> bool:
    return bool(heard.payload)


async def failed_stop(it: Bench) -> Heard:
    """A channel that runs on although it was told to stop; the alarm."""
    await it.start(1)
    it.server.faults = forced("stop=0x11")
    it.say_stop(1, "failing")
    return await it.observer.wait(ALARM, raised)


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_an_alarm_is_retained_until_a_poll_shows_that_it_is_over(protocol: object, tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT, protocol=protocol) as it, it.running():
        first = await failed_stop(it)
        assert first.json["state"] == "active"
        assert (await it.retained())[ALARM] == first.payload
        it.channel(1).stop()  # somebody at the console
        await it.observer.until_last(ALARM, b"")
        assert ALARM not in await it.retained()
        assert (await it.event(1, "alarm_cleared"))["message"] == "stop_failed: the channel shows Idle"


async def test_raised_again_it_keeps_its_time(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it, it.running():
        first = await failed_stop(it)
        await it.observer.ask("arbin1/channel/1", "stop")
        await it.observer.ask("arbin1/channel/1", "stop")
        assert {heard.json["raised_at"] for heard in it.observer.on(ALARM) if heard.payload} == {
            first.json["raised_at"]
        }
        assert it.events(1).count("alarm_raised") == 1


async def test_a_later_start_clears_it(tmp_path: Path) -> None:
    """The cycler shows Charge whatever happens, so no poll can clear it."""
    async with bench(tmp_path, control={**SHORT, "verify_timeout_s": 0.2}) as it, it.running():
        await failed_stop(it)
        it.server.faults = Faults(statuses={0: 2}, results=forced("stop=0x11").results)
        it.channel(1).stop()
        result = await it.observer.ask("arbin1/channel/1", "start", {"test_name": "U"})
        assert result["outcome"] == "succeeded"
        await it.observer.until_last(ALARM, b"")
        assert "a later start" in (await it.event(1, "alarm_cleared"))["message"]


async def test_it_survives_a_restart_of_the_bridge(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it:
        async with it.running():
            first = await failed_stop(it)
        before = len(it.observer.heard)
        async with it.running():
            assert (await it.retained())[ALARM] == first.payload
            since = [heard.payload for heard in it.observer.heard[before:] if heard.topic == f"cti/{ALARM}"]
            assert set(since) == {first.payload}, "never taken away in between"
            it.server.faults = NO_FAULTS
            assert (await it.observer.ask("arbin1/channel/1", "stop"))["outcome"] == "succeeded"
            await it.observer.until_last(ALARM, b"")
        async with it.running():
            assert ALARM not in await it.retained()


async def test_over_while_the_bridge_was_away(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it:
        async with it.running():
            await failed_stop(it)
        it.channel(1).stop()
        async with it.running():
            await it.observer.until_last(ALARM, b"")
            await it.event(1, "alarm_cleared")


async def test_what_was_cleared_without_the_broker_is_taken_away_there_later(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it, it.running():
        await failed_stop(it)
        assert ALARM in await it.retained()
        await it.broker.stop()
        it.channel(1).stop()
        await until(lambda: not it.alarms.stands("arbin1", 1, "stop_failed"))
        await it.broker.start()
        await it.until_not_retained(ALARM)


async def test_an_earlier_bridge_without_its_data_leaves_nothing_that_looks_alive(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it:
        for leaf in ("alarm/stop_failed", "alarm/lease_expired", "lease"):
            it.observer.say(f"arbin1/channel/2/{leaf}", {"name": "old"}, retain=True)
        async with it.running():
            for leaf in ("alarm/stop_failed", "alarm/lease_expired", "lease"):
                await it.observer.until_last(f"arbin1/channel/2/{leaf}", b"")


async def test_alarms_are_on_record(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it, it.running():
        await failed_stop(it)
        it.channel(1).stop()
        await it.event(1, "alarm_cleared")
        assert it.bridge is not None
        assert [row.name for row in await it.bridge._store.alarms()] == []
        await it.bridge._commander.settle()
        assert it.audited("alarm_raised", "alarm_cleared") == ["alarm_raised", "alarm_cleared"]
