"""Stops that meet starts, a bridge that ends, and a flood of other commands."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.answers import Command
from cti_mqtt.bridge.bus import Item, Result
from cti_mqtt.bridge.desk import Desk
from cti_mqtt.bridge.examination import Plan
from cti_mqtt.bridge.pursuit import StopPursuit
from cti_mqtt.bridge.verdict import Verdict
from cti_mqtt.simulator import NO_FAULTS, Faults, ForcedResult
from tests.bridge.bench import Bench, bench, forced, until
from tests.bridge.store.test_group_commit import stalled
from tests.support.brokers import needs_mosquitto

pytestmark = needs_mosquitto

CHANNEL = "arbin1/channel/1"


def desk(it: Bench) -> Desk:
    assert it.bridge is not None
    return it.bridge._commander._desks["arbin1"]


# --- beside starts ---


async def test_a_stop_outlives_a_start_that_is_older_than_it(tmp_path: Path) -> None:
    """A lease's stop, a start, a user's stop, in this order; the start is accepted last."""
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        it.server.faults = Faults(
            delays_s={"start": 1.0}, results=(ForcedResult.parse("stop=0x11:3s"), ForcedResult.parse("start=0"))
        )
        desk(it).pursuit.insist(1, lambda how: None)
        it.observer.say(f"{CHANNEL}/command/start", {"id": "start", "test_name": "T2"})
        await until(lambda: it.asked("start")[1:])
        it.say_stop(1, "stop")
        assert (await it.result(CHANNEL, "start"))["outcome"] == "succeeded"
        result = await it.result(CHANNEL, "stop")
        assert (result["outcome"], result["verified"]) == ("succeeded", True)
        assert not it.channel(1).active


async def test_after_a_start_of_unknown_outcome_rest_proves_nothing_for_a_while(tmp_path: Path) -> None:
    """The server gets to the start a while after the stop: it is stopped again, and only then is the stop done."""
    async with bench(tmp_path, control={"stop_timeout_s": 3.0}, timeout_s=0.5) as it, it.running():
        await it.observer.ask(CHANNEL, "assign", {"schedule": "CCCV.sdx"})
        it.server.faults = Faults(drop=frozenset({"start"}))
        it.observer.say(f"{CHANNEL}/command/start", {"id": "start", "test_name": "T"})
        assert (await it.result(CHANNEL, "start"))["outcome"] == "unknown"
        it.server.faults = NO_FAULTS
        it.say_stop(1, "stop")
        await until(lambda: it.stops_of(1))
        await asyncio.sleep(0.5)
        assert it.results("stop") == [], "the channel shows rest, but the start may still come"
        it.channel(1).start("T")  # and so it does
        result = await it.result(CHANNEL, "stop")
        assert (result["outcome"], result["verified"]) == ("succeeded", True)
        assert not it.channel(1).active
        assert 2000 < result["duration_ms"] < 4500


async def test_a_stop_is_watched_beyond_its_time_where_a_start_may_still_come(tmp_path: Path) -> None:
    """The stop came while the start was on its way, so its time is over before the start can be given up."""
    async with bench(tmp_path, control={"stop_timeout_s": 1.5}, timeout_s=1.0) as it, it.running():
        await it.observer.ask(CHANNEL, "assign", {"schedule": "CCCV.sdx"})
        it.server.faults = Faults(drop=frozenset({"start"}))
        it.observer.say(f"{CHANNEL}/command/start", {"id": "start", "test_name": "T"})
        await until(lambda: it.asked("start"))
        it.say_stop(1, "stop")
        result = await it.result(CHANNEL, "stop")
        assert (result["outcome"], result["reason"], result["verified"]) == ("unknown", "not_verified", False)
        assert "may still come" in result["message"]
        assert it.alarms.stands("arbin1", 1, "stop_failed")
        it.channel(1).start("T")
        await until(lambda: not desk(it).pursuit.pursued(1))
        assert not it.channel(1).active
        assert not it.alarms.stands("arbin1", 1, "stop_failed")


# --- the bridge ends ---


async def test_a_stop_that_is_heard_while_the_bridge_ends_is_sent(tmp_path: Path) -> None:
    """A disk that stalls makes the end long."""
    async with bench(tmp_path) as it:
        async with it.running() as bridge:
            await it.start(1)
            hold = stalled(bridge._store)
            await asyncio.to_thread(hold.__enter__)
            settling, wait_for_record = asyncio.Event(), bridge._commander.settle

            async def settle() -> None:
                settling.set()
                await wait_for_record()

            bridge._commander.settle = settle  # type: ignore[method-assign]

            async def later() -> None:
                await settling.wait()
                it.say_stop(1, "stop")
                it.observer.say(f"{CHANNEL}/command/set_mv", {"id": "write", "values": {"1": 0.5}})
                await it.result(CHANNEL, "stop")
                hold.__exit__(None, None, None)

            said = asyncio.create_task(later())
        await said
        assert not it.channel(1).active
        assert [(each["outcome"], each["verified"]) for each in it.results("stop")] == [("succeeded", True)]
        written = await it.result(CHANNEL, "write")
        assert (written["outcome"], written["reason"]) == ("refused", "not_connected")
        assert written["message"] == "the bridge is ending; nothing was sent"
        assert it.asked("set_meta_variable") == []


async def test_every_stop_that_is_heard_is_answered_and_finished_on_record(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        async with it.running() as bridge:
            await it.start(1)
            heard: list[str] = []
            hear = bridge._commander._take_stop

            def note(command: Command, plan: Plan) -> None:
                heard.append(command.id)
                hear(command, plan)

            bridge._commander._take_stop = note  # type: ignore[method-assign]

            async def pound() -> None:
                for number in range(100_000):
                    it.say_stop(1, f"stop-{number}")
                    await asyncio.sleep(0.001)

            pounding = asyncio.create_task(pound())
            await until(lambda: len(heard) > 50)
        pounding.cancel()
        for name in heard:
            await it.result(CHANNEL, name)
        async with it.running() as bridge:
            assert await bridge._store.unfinished() == ()


async def test_a_stop_that_cannot_work_any_more_keeps_the_bridge_for_a_second(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        async with it.running():
            await it.start(1)
            it.server.faults = forced("stop=0x11")
            it.say_stop(1, "stop")
            await until(lambda: it.stops_of(1))
            began_s = time.monotonic()
        assert 0.8 < time.monotonic() - began_s < 4
        assert (await it.result(CHANNEL, "stop"))["outcome"] == "failed"


# --- bugs ---


async def test_the_loop_of_the_stops_is_started_again_after_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        answer_overdue, bugs = StopPursuit._answer_overdue, [KeyError("bug")]

        def fails_once(pursuit: StopPursuit) -> None:
            if bugs:
                raise bugs.pop()
            answer_overdue(pursuit)

        monkeypatch.setattr(StopPursuit, "_answer_overdue", fails_once)
        it.server.faults = forced("stop=0x11:0.2s")
        with caplog.at_level(logging.ERROR):
            result = await it.observer.ask(CHANNEL, "stop")
        assert (result["outcome"], bugs) == ("succeeded", [])
        assert "unexpected error, starting again" in caplog.text


async def test_an_answer_that_fails_costs_no_other_its_answer(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        told: list[Verdict] = []

        def fails(channel: int, verdict: Verdict) -> None:
            raise KeyError(channel)

        desk(it).pursuit.pursue([1], fails)
        desk(it).pursuit.pursue([1], lambda channel, verdict: told.append(verdict))
        await until(lambda: told)
        assert told[0].verified


# --- many ---


async def test_a_flood_of_writes_to_all_channels_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """What is too much is refused with one result; these are more than a broker queues for an observer."""
    async with bench(tmp_path, channels=128, poll_interval_s=1.0) as it, it.running() as bridge:
        await it.start(*range(1, 129))
        said: dict[str, dict[str, Any]] = {}

        def note(item: Item) -> None:
            if isinstance(item, Result) and item.channel_text is None:
                said[item.body["id"]] = dict(item.body)

        bridge.bus.subscribe(note)
        for number in range(200):
            it.observer.say("arbin1/command/set_mv", {"id": f"w{number}", "channels": "all", "values": {"1": 0.5}})
        it.say_stop(1, "stop")
        began_s = time.monotonic()
        await until(lambda: it.asked("stop"))
        assert time.monotonic() - began_s < 6
        await until(lambda: len(said) == 200, 30)
        busy = [result for result in said.values() if result["reason"] == "busy"]
        assert 100 < len(busy) < 190
        assert all(result["channels"] == {} for result in busy), "one refusal, not one for each channel"
        assert (desk(it).waiting, desk(it).unfinished) == (0, 0)
        assert not it.channel(1).active


async def test_old_wishes_do_not_make_new_ones_slow(tmp_path: Path) -> None:
    """Each turn looks at the oldest only."""
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        await it.server.unplug()
        await it.observer.until_last("arbin1/availability", b"offline")
        pursuit = desk(it).pursuit
        for _ in range(20_000):
            pursuit.pursue([1], lambda channel, verdict: None)
        began_s = time.process_time()
        for _ in range(1000):
            pursuit._answer_overdue()
            pursuit._pause_s()
        assert time.process_time() - began_s < 0.5


@pytest.mark.parametrize("verb", ["resume", "continue"])
async def test_a_stop_of_one_channel_leaves_the_others_of_a_group(verb: str, tmp_path: Path) -> None:
    """The stop is heard after the checks and before the request goes out."""
    async with bench(tmp_path) as it, it.running() as bridge:
        await it.start(1, 2, 3, 4)
        heard = bridge._commander._take

        def take(command: Command, plan: Plan) -> None:
            heard(command, plan)
            if command.topic.verb == verb:
                desk(it).stop_heard([2])

        bridge._commander._take = take  # type: ignore[method-assign]
        it.observer.say(f"arbin1/command/{verb}", {"id": "group", "channels": "all"})
        result = await it.result("arbin1", "group", 30)
        assert result["channels"]["2"] == "refused"
        two = await it.result("arbin1/channel/2", "group")
        assert (two["reason"], two["message"]) == ("superseded", "a stop of channel 2 came first")
        for number in (1, 3, 4):
            other = await it.result(f"arbin1/channel/{number}", "group")
            assert other["reason"] != "superseded", "it has nothing to do with that stop"
