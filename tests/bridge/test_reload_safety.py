"""A changed configuration never lets through what neither the old nor the new one permits, and never ends halfway."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.simulator import Faults
from tests.bridge.bench import forced, until
from tests.bridge.reload_rig import LIMITS, another, audited, events, reload, reloaded, running, start
from tests.support.brokers import needs_mosquitto
from tests.support.rig import CONTROL, simulated

pytestmark = needs_mosquitto

OFF = {**CONTROL, "enabled": False}
SHADOW = {**CONTROL, "mode": "shadow"}
A_START = {"test_name": "T", "schedule": "Rest.sdx"}


class TestNeitherOldNorNew:
    async def test_what_is_permitted_on_another_machine(self, tmp_path: Path) -> None:
        async with simulated(4) as other, running(tmp_path, control=OFF) as it:
            report = await reload(it, arbin1={"port": other.port, "control": CONTROL})
            assert report.restart == ("cyclers.arbin1.port", "cyclers.arbin1.control (belongs to the new address)")
            assert (await it.observer.ask("arbin1/channel/1", "start", A_START))["reason"] == "not_allowed"
            assert it.asked("start", "assign") == []

    async def test_a_lease_whose_end_is_beyond_the_new_limits_is_not_granted(self, tmp_path: Path) -> None:
        async with running(tmp_path, control={**CONTROL, "limits": LIMITS}) as it:
            await start(it)
            it.server.faults = Faults(delays_s={"set_meta_variable": 0.6})  # the second waits for the first
            it.observer.say("arbin1/channel/1/command/set_mv", {"id": "w0", "values": {"1": 1}})
            await until(lambda: it.asked("set_meta_variable"))
            lease = {"ttl_s": 2, "on_expiry": {"set_mv": {"1": 5}}}
            it.observer.say("arbin1/channel/1/command/set_mv", {"id": "w1", "values": {"1": 2}, "lease": lease})
            await until(lambda: it.bridge._stations["arbin1"].writer._queue)
            assert (await reload(it, arbin1={"control": {**CONTROL, "limits": {1: {"min": 0, "max": 3}}}})).applied
            result = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "w1")
            assert (result.json["outcome"], result.json["reason"]) == ("refused", "limit")
            assert "lease.on_expiry" in result.json["message"]
            assert it.bridge._commander.desks["arbin1"].leases.running(1) is None
            await it.observer.ask("arbin1/channel/1", "stop")

    async def test_two_cyclers_at_one_address(self, tmp_path: Path) -> None:
        """Also where the first one is to have another address, which needs a restart."""
        async with simulated(4) as other, running(tmp_path) as it:
            second = another(it, it.server)
            report = await reload(it, arbin1={"port": other.port}, arbin2=second)
            assert report.held == ("arbin2 is not added yet (arbin1, which runs, has its address)",)
            await asyncio.sleep(2.5)
            assert list(it.bridge._stations) == ["arbin1"]
            assert len(events(it, "reloaded")) == 1


class TestSwitchedOffWhileALeaseRuns:
    @pytest.mark.parametrize("off", [OFF, SHADOW], ids=["disabled", "shadow"])
    async def test_nothing_new_is_taken_and_what_was_agreed_is_done(self, tmp_path: Path, off: Any) -> None:
        async with running(tmp_path, control={**CONTROL, "limits": LIMITS}) as it:
            started = await start(it, lease={"ttl_s": 2, "on_expiry": "stop"})
            report = await reload(it, arbin1={"control": {**off, "limits": {1: {"max": 1}}}})
            assert report.held == ()
            assert any("the lease of channel 1 cannot be renewed any more" in text for text in report.applied)
            renewal = {"values": {"1": 1}, "lease": {"ttl_s": 60, "on_expiry": "stop", "lease_id": started["lease_id"]}}
            renewed = await it.observer.ask("arbin1/channel/1", "set_mv", renewal)
            started = await it.observer.ask("arbin1/channel/2", "start", A_START)
            for answer in (renewed, started):
                assert answer["reason"] == "not_allowed" or answer["message"].startswith("dry run")
            assert len(it.asked("start")) == 1
            assert not it.asked("stop")
            await until(lambda: it.asked("stop"))
            await it.observer.wait("arbin1/channel/1/event", lambda heard: heard.json["type"] == "lease_settled")
            events_there = [heard.json["type"] for heard in it.observer.on("arbin1/channel/1/event")]
            assert "alarm_raised" not in events_there
            assert it.bridge._commander.desks["arbin1"].authority.objection(1)  # it is over

    async def test_what_was_agreed_is_written(self, tmp_path: Path) -> None:
        async with running(tmp_path, control={**CONTROL, "limits": LIMITS}) as it:
            await start(it, lease={"ttl_s": 1.5, "on_expiry": {"set_mv": {"1": 4}}})
            report = await reload(it, arbin1={"control": {**OFF, "limits": {1: {"max": 1}}}})
            assert any("still ends with MV_UD1 = 4" in text for text in report.applied)
            channel = it.server.cycler.channel(0)
            await until(lambda: channel.meta_variables[0] == pytest.approx(4))

    async def test_a_stop_that_is_pursued_goes_on(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            await start(it)
            it.server.faults = forced("stop=0x11:2s")
            it.observer.say("arbin1/channel/1/command/stop", {"id": "s"})
            await until(lambda: it.asked("stop"))
            report = await reload(it, arbin1={"control": OFF})
            assert "the stop of channel 1 is still pursued" in report.applied
            result = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "s")
            assert (result.json["outcome"], result.json["verified"]) == ("succeeded", True)

    async def test_switched_on_and_off_again_nothing_is_left_of_the_first_time(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            await start(it, lease={"ttl_s": 60, "on_expiry": "stop"})
            authority = it.bridge._commander.desks["arbin1"].authority
            await reload(it, arbin1={"control": OFF})
            assert (authority.objection(1), bool(authority.objection(2))) == ("", True)
            await reload(it, arbin1={"control": CONTROL})
            await it.observer.ask("arbin1/channel/1", "stop")
            await reload(it, arbin1={"control": OFF})
            assert authority.objection(1)


class TestAnErrorInTheMiddle:
    """A bug here or elsewhere leaves the old state or the new one, is told, and is tried again."""

    async def test_of_a_removal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running(tmp_path, "arbin1", "arbin2") as it:
            with monkeypatch.context() as patched:
                patched.setattr(it.bridge._fleet, "remove", _fails)
                report = await reload(it, arbin2=None, arbin1={"poll_interval_s": 0.3})
                assert report.applied == ("cyclers.arbin1.poll_interval_s: 0.1 -> 0.3",)
                assert report.held == ("arbin2 is not removed yet (an unexpected error: RuntimeError('boom'))",)
                await reloaded(it, "arbin2 is not removed yet")
                assert (await it.observer.ask("arbin2/channel/1", "stop"))["reason"] == "not_running"
                assert (await it.observer.ask("arbin2/channel/1", "start", A_START))["reason"] == "not_allowed"
            await reloaded(it, "later: applied: cyclers.arbin2 is removed")
            assert list(it.bridge._stations) == list(it.bridge._commander.desks) == ["arbin1"]

    @pytest.mark.parametrize("where", ["commander", "fleet"])
    async def test_of_an_addition(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        async with simulated(2) as second, running(tmp_path) as it:
            part = it.bridge._commander if where == "commander" else it.bridge._fleet
            real = part.add

            def fails(station: Any) -> None:
                real(station)
                raise RuntimeError("boom")

            with monkeypatch.context() as patched:
                patched.setattr(part, "add", fails)
                report = await reload(it, arbin2=another(it, second))
                assert report.held == ("arbin2 is not added yet (an unexpected error: RuntimeError('boom'))",)
                assert list(it.bridge._stations) == list(it.bridge._commander.desks) == ["arbin1"]
                it.observer.say("arbin2/channel/1/command/stop", {"id": "early"})
                early = await it.observer.wait("bridge/result", lambda heard: heard.json["id"] == "early")
                assert early.json["reason"] == "unknown_cycler"
            await reloaded(it, "later: applied: cyclers.arbin2 is added")
            await it.observer.wait("arbin2/readings")
            assert (await it.observer.ask("arbin2/channel/1", "stop"))["reason"] == "not_running"
            assert len(audited(tmp_path / "data", "cycler_added")) == 1

    async def test_of_a_change(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running(tmp_path, "arbin1", "arbin2") as it:
            with monkeypatch.context() as patched:
                patched.setattr(it.bridge._stations["arbin1"], "apply", _fails_at_once)
                report = await reload(it, arbin1={"control": OFF}, arbin2={"poll_interval_s": 0.3})
                assert "cyclers.arbin2.poll_interval_s: 0.1 -> 0.3" in report.applied
                assert report.held == ("arbin1 is not changed yet (an unexpected error: RuntimeError('boom'))",)
            await reloaded(it, "later: applied: cyclers.arbin1.control.enabled: true -> false")


async def test_nothing_is_left_of_cyclers_that_came_and_went(tmp_path: Path) -> None:
    async with simulated(2) as second, running(tmp_path) as it:
        before = len(it.bridge.bus._subscribers), len(asyncio.all_tasks())
        new = another(it, second)
        for _ in range(50):
            assert (await reload(it, arbin2=new)).applied
            await until(lambda: not it.bridge._commander.desks.unfinished("arbin2"))
            assert (await reload(it, arbin2=None)).applied
        assert len(it.bridge.bus._subscribers) == before[0]
        assert await until(lambda: len(asyncio.all_tasks()) <= before[1] + 2)


async def test_an_alarm_outlives_its_cycler(tmp_path: Path) -> None:
    """A person must see it: it is named, it stays on record and on its topic."""
    async with running(tmp_path, "arbin1", "arbin2") as it:
        topic = "arbin2/channel/1/alarm/stop_failed"
        it.bridge._commander._alarms.raise_("arbin2", 1, "stop_failed", "a test", "Charge")
        it.server.faults = it.servers["arbin2"].faults = Faults(delays_s={"channels_info": 60})
        await it.observer.wait(topic)
        it.bridge._commander._alarms.raise_("arbin2", 1, "stop_failed", "a test", "Charge")
        old = it.bridge._reloader.settings.cyclers["arbin2"].model_dump()
        report = await reload(it, arbin2=None)
        assert "the alarm stop_failed of channel 1 of arbin2 still stands" in report.applied[1]
        await it.observer.until_last("arbin2/channel/1/state", b"")
        await asyncio.sleep(1)
        heard = it.observer.last(topic)
        assert heard is not None
        assert heard.json["message"] == "a test"
        assert [row.name for row in await it.bridge._store.alarms()] == ["stop_failed"]
        it.servers["arbin2"].faults = Faults()
        await reload(it, arbin2=old)
        await it.observer.until_last(topic, b"")
        assert await it.bridge._store.alarms() == ()


async def test_a_command_about_the_cycler_that_waits_for_its_record_counts(tmp_path: Path) -> None:
    async with running(tmp_path, "arbin1", "arbin2") as it:
        store, waiting = it.bridge._store, asyncio.get_running_loop().create_future()
        real = store.receive
        store.receive = lambda *_, **__: waiting  # type: ignore[method-assign]
        it.observer.say("arbin1/command/message", {"id": "m", "text": "hello"})
        desk = it.bridge._commander.desks["arbin1"]
        await until(lambda: desk.waiting)
        assert (await reload(it, arbin1=None)).held == ("arbin1 is not removed yet (a command is not finished)",)
        store.receive = real  # type: ignore[method-assign]
        waiting.set_result(None)
        await it.observer.wait("arbin1/result", lambda heard: heard.json["id"] == "m")
        assert desk.waiting == 0


async def _fails(*_: Any) -> None:
    raise RuntimeError("boom")


def _fails_at_once(*_: Any) -> None:
    raise RuntimeError("boom")
