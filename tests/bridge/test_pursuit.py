"""A stop is pursued until the channel is seen not running."""

import asyncio
import itertools
from pathlib import Path

import pytest

from cti_mqtt.bridge.verdict import Outcome, Verdict
from cti_mqtt.client import Cycler
from cti_mqtt.cti.results import StopResult
from cti_mqtt.simulator import NO_FAULTS, Faults, SimulatedClock, SimulatedCycler, SimulatedServer, User
from tests.bridge.bench import Bench, bench, forced, until
from tests.support.brokers import needs_mosquitto
from tests.support.rig import PASSWORD

pytestmark = needs_mosquitto

ALARM = "arbin1/channel/1/alarm/stop_failed"
SHORT = {"stop_timeout_s": 1.5}
LONG = {"stop_timeout_s": 20.0}


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def end(result: dict[str, object]) -> tuple[object, ...]:
    return result["outcome"], result["reason"], result["code"], result["verified"]


async def a_few_polls(it: Bench, count: int = 5) -> None:
    """Until so many more have come back."""
    book = it.station.book
    enough = book.polls + count
    await until(lambda: book.polls >= enough)


# --- carried through ---


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_a_refused_stop_is_sent_again_each_second_until_it_works(protocol: object, tmp_path: Path) -> None:
    async with bench(tmp_path, control=LONG, protocol=protocol) as it, it.running():
        await it.start(1)
        it.server.faults = forced("stop=0x11:2.5s")
        it.say_stop(1, "it")
        result = await it.result("arbin1/channel/1", "it")
        assert end(result) == ("succeeded", "ok", 0, True)
        assert result["message"] == "stopped, channel went Charge -> Idle"
        assert not it.channel(1).active
        times = it.stops_of(1)
        assert len(times) == 4
        assert min(gaps(times)) > 0.9
        await a_few_polls(it, 15)
        assert it.stops_of(1) == times, "nothing is sent after the channel was seen stopped"
        assert len(it.results("it")) == 1
        assert not it.observer.on(ALARM)[0].payload


async def test_an_unplugged_cycler_is_stopped_when_it_is_back(tmp_path: Path) -> None:
    async with bench(tmp_path, control=LONG) as it, it.running():
        await it.start(1)
        await it.server.unplug()
        await it.observer.until_last("arbin1/availability", b"offline")
        it.say_stop(1, "it")
        await asyncio.sleep(1.2)  # so that it was due more than once
        assert it.results("it") == []
        await it.server.replug()
        assert end(await it.result("arbin1/channel/1", "it")) == ("succeeded", "ok", 0, True)
        assert len(it.stops_of(1)) == 1
        assert len(it.results("it")) == 1


async def test_a_connection_that_is_cut_before_the_answer(tmp_path: Path) -> None:
    async with bench(tmp_path, control=LONG) as it, it.running():
        await it.start(1)
        it.server.faults = Faults(drop=frozenset({"stop"}))
        it.say_stop(1, "it")
        await until(lambda: it.stops_of(1))
        it.server.faults = NO_FAULTS
        it.server.disconnect_all()
        assert end(await it.result("arbin1/channel/1", "it")) == ("succeeded", "ok", 0, True)
        assert len(it.results("it")) == 1


async def test_done_but_not_answered_is_seen(tmp_path: Path) -> None:
    async with bench(tmp_path, faults=Faults(mute=frozenset({"stop"})), control=LONG) as it, it.running():
        await it.start(1)
        it.say_stop(1, "it")
        assert end(await it.result("arbin1/channel/1", "it")) == ("succeeded", "ok", 0, True)
        count = len(it.stops_of(1))
        assert count <= 2
        await a_few_polls(it, 15)
        assert len(it.stops_of(1)) == count


# --- given up ---


async def test_refused_for_good_it_fails_and_the_alarm_stands(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it, it.running():
        await it.start(1)
        it.server.faults = forced("stop=0x11")
        it.say_stop(1, "it")
        result = await it.result("arbin1/channel/1", "it")
        assert end(result) == ("failed", "monitor_window_in_use", 0x11, False)
        assert 1400 < result["duration_ms"] < 3000
        heard = await it.observer.wait(ALARM, lambda heard: heard.payload)
        body = heard.json
        assert list(body) == ["name", "severity", "raised_at", "value", "limit", "message", "state"]
        assert (body["name"], body["severity"], body["state"]) == ("stop_failed", "critical", "active")
        assert (body["value"], body["limit"]) == ("Charge", None)
        assert "not seen to stop within 1.5 s; the last answer" in body["message"]
        assert (await it.event(1, "alarm_raised"))["message"].startswith("stop_failed: ")
        count = len(it.stops_of(1))
        assert count == 2
        await a_few_polls(it, 15)
        assert len(it.stops_of(1)) == count, "given up"
        assert len(it.results("it")) == 1
        it.server.faults = NO_FAULTS
        it.say_stop(1, "again")
        assert end(await it.result("arbin1/channel/1", "again")) == ("succeeded", "ok", 0, True)
        await it.observer.until_last(ALARM, b"")
        await it.event(1, "alarm_cleared")


async def test_a_silent_server_leaves_it_unknown(tmp_path: Path) -> None:
    async with bench(tmp_path, faults=Faults(drop=frozenset({"stop"})), control=SHORT) as it, it.running():
        await it.start(1)
        it.say_stop(1, "it")
        assert end(await it.result("arbin1/channel/1", "it")) == ("unknown", "not_verified", None, False)
        await it.observer.wait(ALARM, lambda heard: heard.payload)
        assert len(it.results("it")) == 1


async def test_accepted_without_effect_is_no_success(tmp_path: Path) -> None:
    faults = Faults(statuses={0: 2})  # shows Charge, whatever happens
    async with bench(tmp_path, faults=faults, control=SHORT) as it, it.running():
        await it.start(2)
        it.channel(1).assign(it.server.cycler.schedules["Rest.sdx"])
        it.channel(1).start("T")
        it.say_stop(1, "it")
        result = await it.result("arbin1/channel/1", "it")
        assert end(result) == ("failed", "still_running", None, False)
        await it.observer.wait(ALARM, lambda heard: heard.payload)


async def test_accepted_and_not_looked_at_since_is_unknown(tmp_path: Path) -> None:
    """The last reading is a good one by its age, and shows Charge; but it was asked for before the stop."""
    async with bench(tmp_path, control=SHORT, poll_interval_s=30.0) as it, it.running():
        await it.start(1)
        it.server.faults = Faults(drop=frozenset({"channels_info"}))
        it.say_stop(1, "it")
        assert end(await it.result("arbin1/channel/1", "it")) == ("unknown", "not_verified", None, False)
        assert not it.channel(1).active


async def test_never_sent_within_the_time_it_is_refused_and_the_alarm_stands(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it, it.running():
        await it.start(1)
        await it.server.unplug()
        await it.observer.until_last("arbin1/availability", b"offline")
        it.say_stop(1, "it")
        assert end(await it.result("arbin1/channel/1", "it")) == ("refused", "not_connected", None, None)
        await it.observer.wait(ALARM, lambda heard: heard.payload)
        await it.server.replug()
        await a_few_polls(it, 5)
        assert it.stops_of(1) == []
        assert it.channel(1).active


async def test_sent_to_a_server_that_fell_silent_is_not_called_refused(tmp_path: Path) -> None:
    """The first sending met a connection that was going; the next one was heard and not answered."""
    async with bench(tmp_path, control={"stop_timeout_s": 2.5}) as it, it.running() as bridge:
        await it.start(1)
        it.server.faults = Faults(drop=frozenset({"stop"}))
        transport = it.station.cycler._connection._transport
        assert transport is not None
        told: list[Verdict] = []
        transport.close()  # the bridge learns of it a turn of its loop later
        bridge._commander._desks["arbin1"].pursuit.pursue([1], lambda channel, verdict: told.append(verdict))
        await until(lambda: told)
        assert told[0].outcome is Outcome.UNKNOWN, told
        assert it.stops_of(1)


# --- where nothing runs ---


async def test_an_idle_channel_is_answered_with_the_cyclers_word(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        result = await it.observer.ask("arbin1/channel/1", "stop")
        assert (result["outcome"], result["reason"], result["code"]) == ("failed", "not_running", 0x12)
        await a_few_polls(it, 15)
        assert len(it.stops_of(1)) == 1


async def test_all_channels_of_which_some_are_idle(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1, 3)
        result = await it.observer.ask("arbin1", "stop", {"channels": "all"})
        assert result["channels"] == {"1": "succeeded", "2": "failed", "3": "succeeded", "4": "failed"}
        assert [entry["arguments"]["all_channels"] for entry in it.asked("stop")] == [True]
        await a_few_polls(it, 15)
        assert len(it.asked("stop")) == 1


async def test_the_all_channels_flag_needs_every_permission(tmp_path: Path) -> None:
    async with bench(tmp_path, control={"channels": [1, 2, 3]}) as it, it.running():
        await it.start(1, 2, 3)
        it.channel(4).assign(it.server.cycler.schedules["Rest.sdx"])
        it.channel(4).start("theirs")
        it.observer.say("arbin1/command/stop", b"")
        await it.observer.wait("arbin1/result", lambda heard: heard.json["command"] == "stop")
        assert {entry["arguments"]["channel"] for entry in it.asked("stop")} == {1, 2, 3}
        assert [it.channel(number).active for number in (1, 2, 3, 4)] == [False, False, False, True]


async def test_a_cycler_that_comes_back_with_other_channels(tmp_path: Path) -> None:
    """As many as are to be stopped, but not the same: the all-channels flag would stop what nobody asked for."""
    async with bench(tmp_path, control=SHORT) as it, it.running() as bridge:
        await it.start(3, 4)
        await it.server.unplug()
        await it.observer.until_last("arbin1/availability", b"offline")
        it.observer.say("arbin1/command/stop", {"id": "it", "channels": [3, 4]})
        await until(lambda: bridge._commander._desks["arbin1"].pursuit.pursued(4))
        smaller = SimulatedCycler(2, clock=SimulatedClock(), users=[User("admin", PASSWORD, super_user=True)])
        for index in (0, 1):
            smaller.channel(index).assign(smaller.schedules["Rest.sdx"])
            smaller.channel(index).start("theirs")
        async with SimulatedServer(smaller, port=it.server.port) as server:
            result = await it.result("arbin1", "it")
            assert set(result["channels"].values()) == {"failed"}
            assert {entry["arguments"]["channel"] for entry in server.recorder.commands("stop")} == {3, 4}
            assert smaller.channel(0).active


async def test_128_channels(tmp_path: Path) -> None:
    """Refused once for all of them, then carried through; each has one result, and the cycler one more."""
    async with bench(tmp_path, channels=128, control=LONG, poll_interval_s=0.5) as it, it.running():
        await it.start(*range(1, 129))
        it.server.faults = forced("stop=0x11:1x")
        it.observer.say("arbin1/command/stop", {"id": "all", "channels": "all"})
        result = await it.result("arbin1", "all")
        assert result["outcome"] == "succeeded"
        assert set(result["channels"].values()) == {"succeeded"}
        assert len(it.asked("stop")) == 2
        assert len(it.results("all")) == 129
        assert not any(it.channel(number).active for number in range(1, 129))


# --- beside others ---


async def test_two_stops_at_once_are_both_answered_and_not_sent_twice_as_often(tmp_path: Path) -> None:
    async with bench(tmp_path, control=LONG) as it, it.running():
        await it.start(1)
        it.server.faults = forced("stop=0x11:2.5s")
        for command in ("one", "two"):
            it.say_stop(1, command)
            await asyncio.sleep(0.3)
        for command in ("one", "two"):
            assert end(await it.result("arbin1/channel/1", command)) == ("succeeded", "ok", 0, True)
            assert len(it.results(command)) == 1
        times = it.stops_of(1)
        assert len(times) <= 1 + 1 + 3
        assert min(gaps(times[1:])) > 0.9


async def test_a_shorter_wait_is_answered_while_a_longer_one_goes_on(tmp_path: Path) -> None:
    async with bench(tmp_path, control={"stop_timeout_s": 2.0}) as it, it.running():
        await it.start(1)
        it.server.faults = forced("stop=0x11:2.15s")
        it.say_stop(1, "early")
        await asyncio.sleep(1.3)
        it.say_stop(1, "late")
        assert (await it.result("arbin1/channel/1", "early"))["outcome"] == "failed"
        assert end(await it.result("arbin1/channel/1", "late")) == ("succeeded", "ok", 0, True)
        await it.observer.until_last(ALARM, b"")


async def test_meanwhile_the_channel_is_busy_for_everything_but_a_stop(tmp_path: Path) -> None:
    async with bench(tmp_path, control=LONG) as it, it.running():
        await it.start(1)
        it.server.faults = forced("stop=0x11:2s")
        it.say_stop(1, "it")
        await until(lambda: it.stops_of(1))
        for verb, body in (("start", {"test_name": "U"}), ("resume", {}), ("continue", {}), ("jump", {"step": 1})):
            result = await it.observer.ask("arbin1/channel/1", verb, body)
            assert (result["outcome"], result["reason"]) == ("refused", "busy"), result
        assert (await it.result("arbin1/channel/1", "it"))["outcome"] == "succeeded"
        after = await it.observer.ask("arbin1/channel/1", "start", {"test_name": "U"})
        assert after["outcome"] == "succeeded"


async def test_a_poll_that_was_asked_before_the_stop_proves_nothing(tmp_path: Path) -> None:
    """Idle when the poll is served, started at the console meanwhile; that poll comes back after the stop was asked."""
    async with bench(tmp_path, control=LONG, poll_interval_s=30.0) as it, it.running():
        it.server.faults = Faults(delays_s={"channels_info": 0.6}, results=forced("stop=0x11:1.5s").results)
        poll = asyncio.create_task(it.station.refresh())
        await asyncio.sleep(0.3)
        it.channel(1).assign(it.server.cycler.schedules["Rest.sdx"])
        it.channel(1).start("console")
        it.say_stop(1, "it")
        await poll
        result = await it.result("arbin1/channel/1", "it")
        assert result["outcome"] == "succeeded"
        assert not it.channel(1).active


async def test_what_the_cycler_has_lost_contact_with_is_not_known_to_rest(tmp_path: Path) -> None:
    async with bench(tmp_path, control=SHORT) as it, it.running():
        await it.start(1)
        it.server.faults = Faults(
            comm_failures=frozenset({0}), statuses={0: 0}, results=forced("stop=0x11").results
        )  # fmt: skip
        await it.observer.wait("arbin1/channel/1/event", lambda heard: heard.json["type"] == "comm_lost")
        it.say_stop(1, "it")
        assert (await it.result("arbin1/channel/1", "it"))["outcome"] == "failed"
        await it.observer.wait(ALARM, lambda heard: heard.payload)
        await a_few_polls(it)
        last = it.observer.last(ALARM)
        assert last is not None
        assert last.payload, "a reading without contact does not end an alarm"
        assert it.channel(1).active


async def test_a_bug_in_sending_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, control=SHORT) as it, it.running():
        await it.start(1, 2)
        stop = Cycler.stop

        async def fails(cycler: Cycler, channel: int) -> StopResult:
            if channel == 1:
                raise KeyError(channel)
            return await stop(cycler, channel)

        monkeypatch.setattr(Cycler, "stop", fails)
        result = await it.observer.ask("arbin1", "stop", {"channels": [1, 2]})
        assert result["channels"] == {"1": "unknown", "2": "succeeded"}
        assert (await it.observer.ask("arbin1/channel/3", "stop"))["reason"] == "not_running"


async def test_a_stop_that_is_pursued_when_the_bridge_ends_is_answered(tmp_path: Path) -> None:
    async with bench(tmp_path, control=LONG) as it:
        async with it.running():
            await it.start(1)
            it.server.faults = forced("stop=0x11")
            it.say_stop(1, "it")
            await until(lambda: it.stops_of(1))
        assert (await it.result("arbin1/channel/1", "it"))["outcome"] in {"failed", "unknown"}
        assert len(it.results("it")) == 1
