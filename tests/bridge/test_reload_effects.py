"""A changed configuration: what it does to a bridge that runs."""

import asyncio
from pathlib import Path

import pytest

from cti_mqtt.bridge.reload import Report
from cti_mqtt.simulator import Faults
from tests.bridge.bench import until
from tests.bridge.reload_rig import LIMITS, VOUCHED, another, audited, events, reload, reloaded, running, start
from tests.support.brokers import MOSQUITTO_5, broker_of_kind, needs_mosquitto
from tests.support.rig import CONTROL, rig, simulated


@needs_mosquitto
class TestLimits:
    async def test_they_count_from_the_next_write_on(self, tmp_path: Path) -> None:
        async with running(tmp_path, control={**CONTROL, "limits": LIMITS}) as it:
            await start(it)
            assert (await it.observer.ask("arbin1/channel/1", "set_mv", {"values": {"1": 4}}))["reason"] == "ok"
            report = await reload(it, arbin1={"control": {**CONTROL, "limits": {1: {"min": 0, "max": 3}}}})
            assert report.applied == ("cyclers.arbin1.control.limits.1.max: 5.0 -> 3.0",)
            refused = await it.observer.ask("arbin1/channel/1", "set_mv", {"values": {"1": 4}})
            assert (refused["outcome"], refused["reason"]) == ("refused", "limit")
            await reload(it, arbin1={"control": {**CONTROL, "limits": {1: {"max": 9}}}})
            assert (await it.observer.ask("arbin1/channel/1", "set_mv", {"values": {"1": 8}}))["reason"] == "ok"
            await reloaded(it, "limits.1.max: 5.0 -> 3.0")
            await it.observer.ask("arbin1/channel/1", "stop")

    async def test_also_for_what_waits_for_its_turn(self, tmp_path: Path) -> None:
        async with running(tmp_path, control={**CONTROL, "limits": LIMITS}) as it:
            await start(it)
            it.server.faults = Faults(delays_s={"set_meta_variable": 1.0})  # the others wait for the first
            for number in range(3):
                it.observer.say(
                    "arbin1/channel/1/command/set_mv", {"id": f"w{number}", "values": {"1": 4 + number / 10}}
                )
            await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["reason"] == "superseded")
            report = await reload(it, arbin1={"control": {**CONTROL, "limits": {1: {"min": 0, "max": 3}}}})
            assert report.applied
            last = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "w2")
            assert (last.json["outcome"], last.json["reason"]) == ("refused", "limit")
            assert "since a reload" in last.json["message"]
            assert it.servers["arbin1"].cycler.channel(0).meta_variables[0] == pytest.approx(4)
            await it.observer.ask("arbin1/channel/1", "stop")

    async def test_what_a_lease_will_write_all_the_same_is_named(self, tmp_path: Path) -> None:
        async with running(tmp_path, control={**CONTROL, "limits": LIMITS}) as it:
            await start(it, lease={"ttl_s": 60, "on_expiry": {"set_mv": {"1": 4}}})
            report = await reload(it, arbin1={"control": {**CONTROL, "limits": {1: {"max": 3}}}})
            assert any("the lease of channel 1 still ends with MV_UD1 = 4" in text for text in report.applied)
            await it.observer.ask("arbin1/channel/1", "stop")


@needs_mosquitto
class TestControl:
    async def test_permissions_change_and_are_published_and_on_record(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            await reload(it, arbin1={"control": {**CONTROL, "verbs": ["stop"], "max_running": 2}})
            refused = await it.observer.ask("arbin1/channel/1", "start", {"test_name": "T"})
            assert refused["reason"] == "not_allowed"
            await it.observer.wait("bridge/info", lambda heard: heard.json["control"]["arbin1"]["verbs"] == ["stop"])
            await reload(it, arbin1={"control": {**CONTROL, "max_running": 1}})
            await start(it, 1)
            refused = await it.observer.ask("arbin1/channel/2", "start", {"test_name": "T", "schedule": "Rest.sdx"})
            assert refused["reason"] == "limit"
            await it.observer.ask("arbin1/channel/1", "stop")
        entries = audited(tmp_path / "data", "control_changed")
        assert [entry["who"] for entry in entries] == ["file", "file"]
        assert entries[0]["before"] == {
            "cyclers.arbin1.control.verbs": "all",
            "cyclers.arbin1.control.max_running": None,
        }
        assert entries[1]["after"] == {"cyclers.arbin1.control.verbs": "all", "cyclers.arbin1.control.max_running": 1}

    async def test_what_waits_to_be_sent_is_held_to_what_is_permitted_now(self, tmp_path: Path) -> None:
        async with running(tmp_path, control=CONTROL) as it:
            await start(it)
            station = it.bridge._stations["arbin1"]
            it.server.faults = Faults(delays_s={"set_meta_variable": 1.0})  # the others wait for the first
            for number in range(2):
                it.observer.say("arbin1/channel/1/command/set_mv", {"id": f"w{number}", "values": {"1": number}})
            await until(lambda: station.writer._queue)
            await reload(it, arbin1={"control": {**CONTROL, "verbs": ["stop"]}})
            last = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "w1")
            assert (last.json["outcome"], last.json["reason"]) == ("refused", "not_allowed")
            await it.observer.ask("arbin1/channel/1", "stop")


@needs_mosquitto
class TestInterval:
    async def test_a_shorter_one_counts_at_once(self, tmp_path: Path) -> None:
        async with running(tmp_path, poll_interval_s=600.0) as it:
            assert it.bridge._stations["arbin1"].book.polls <= 2
            await reload(it, arbin1={"poll_interval_s": 0.1})
            await it.observer.wait("arbin1/readings", lambda heard: heard.json["seq"] >= 6)
            assert it.bridge._stations["arbin1"].book.good(1) is not None
            state = it.observer.last("arbin1/channel/1/state")
            assert state is not None
            assert state.json["quality"] == "good"

    async def test_a_longer_one_too(self, tmp_path: Path) -> None:
        async with running(tmp_path, poll_interval_s=0.1) as it:
            await reload(it, arbin1={"poll_interval_s": 600.0})
            station = it.bridge._stations["arbin1"]
            await until(lambda: it.observer.on("arbin1/channel/1/state")[-1].expiry_s == 6000)
            polls = station.book.polls
            await asyncio.sleep(0.6)
            assert station.book.polls <= polls + 1
            assert it.observer.on("arbin1/channel/1/availability")[-1].payload == b"online"

    async def test_other_additional_values(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            await it.observer.wait("arbin1/readings", lambda heard: "temperature" in heard.json["channels"][0]["aux"])
            await reload(it, arbin1={"aux": ()})
            await it.observer.until(lambda: it.observer.on("arbin1/readings")[-1].json["channels"][0]["aux"] == {})


@needs_mosquitto
class TestCyclers:
    async def test_one_comes_and_goes_while_another_keeps_its_beat(self, tmp_path: Path) -> None:
        async with running(tmp_path, "arbin1") as it, simulated(2) as second:
            new = another(it, second)
            assert (await reload(it, arbin2=new)).applied == ("cyclers.arbin2 is added",)
            await it.observer.wait("arbin2/readings", lambda heard: heard.json["seq"] >= 3)
            await it.observer.wait("bridge/info", lambda heard: heard.json["cyclers"] == ["arbin1", "arbin2"])
            await it.observer.wait("bridge/health", lambda heard: "arbin2" in heard.json["cyclers"])
            assert (await it.observer.ask("arbin2/channel/1", "stop"))["reason"] == "not_running"
            assert (await reload(it, arbin2=None)).applied == ("cyclers.arbin2 is removed",)
            await it.observer.until_last("arbin2/availability", b"offline")
            await it.observer.until_last("arbin2/channel/1/state", b"")
            last_seq = it.observer.on("arbin2/readings")[-1].json["seq"]
            await until(lambda: second.connection_count == 0)
            it.observer.say("arbin2/channel/1/command/stop", {"id": "gone"})
            gone = await it.observer.wait("bridge/result", lambda heard: heard.json["id"] == "gone")
            assert gone.json["reason"] == "unknown_cycler"
            await it.observer.until(lambda: it.observer.on("bridge/info")[-1].json["cyclers"] == ["arbin1"])
            await reload(it, arbin2=new)
            again = await it.observer.wait("arbin2/readings", lambda heard: heard.json["seq"] > last_seq)
            assert again.json["seq"] == last_seq + 1
            assert (await it.observer.ask("arbin2/channel/1", "stop"))["reason"] == "not_running"
            numbers = [heard.json["seq"] for heard in it.observer.on("arbin1/readings")]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(it.asked("login")) == 1
            assert not [heard for heard in it.observer.on("arbin1/event") if heard.json["type"] == "disconnected"]

    async def test_a_lease_keeps_it(self, tmp_path: Path) -> None:
        async with running(tmp_path, "arbin1", "arbin2") as it:
            started = await start(it, **VOUCHED)
            same = it.bridge._reloader.settings.cyclers["arbin1"].model_dump()
            report = await reload(it, arbin1=None, renamed=same)
            assert report.held == (
                "arbin1 is not removed yet (a lease of channel 1 is not over)",
                "renamed is not added yet (arbin1, which runs, has its address)",
            )
            told = [f"configuration: {text}" for text in report.held]
            await it.observer.until(lambda: it.observer.on("bridge/health")[-1].json["reasons"] == told)
            refused = await it.observer.ask("arbin1/channel/1", "release", {"lease_id": started["lease_id"]})
            assert refused["reason"] == "not_allowed"
            refused = await it.observer.ask("arbin1/channel/2", "start", {"test_name": "T", "schedule": "Rest.sdx"})
            assert refused["reason"] == "not_allowed"
            await it.observer.until(
                lambda: it.observer.on("bridge/info")[-1].json["control"]["arbin1"]["verbs"] == ["stop"]
            )
            assert (await it.observer.ask("arbin1/channel/1", "stop"))["outcome"] == "succeeded"
            await reloaded(it, "file, later: applied: cyclers.arbin1 is removed; cyclers.renamed is added")
            await it.observer.wait("renamed/readings")
            await it.observer.until(lambda: it.observer.on("bridge/health")[-1].json["reasons"] == [])
            await it.observer.until(lambda: it.observer.on("bridge/info")[-1].json["cyclers"] == ["arbin2", "renamed"])
            assert len(events(it, "reloaded")) == 2

    async def test_one_that_is_wanted_after_all_takes_commands_again(self, tmp_path: Path) -> None:
        async with running(tmp_path, "arbin1", "arbin2") as it:
            started = await start(it, **VOUCHED)
            before = it.bridge._reloader.settings.cyclers["arbin1"].model_dump()
            assert (await reload(it, arbin1=None)).held
            report = await reload(it, arbin1=before)
            assert report == Report(('cyclers.arbin1.control.verbs: ["stop"] -> "all"',))
            released = await it.observer.ask("arbin1/channel/1", "release", {"lease_id": started["lease_id"]})
            assert released["outcome"] == "succeeded"
            await asyncio.sleep(2.5)
            assert "arbin1" in it.bridge._stations
            await it.observer.ask("arbin1/channel/1", "stop")

    async def test_a_pursued_stop_keeps_it(self, tmp_path: Path) -> None:
        async with running(tmp_path, "arbin1", "arbin2") as it:
            await start(it)
            desk = it.bridge._commander.desks["arbin1"]
            desk.pursuit.insist(1, lambda how: None)
            report = await reload(it, arbin1=None)
            assert report.held == ("arbin1 is not removed yet (a stop of channel 1 is pursued)",)
            await until(lambda: not desk.pursuit.channels)
            assert (await reload(it, arbin1=None)).held == ()

    async def test_leases_on_record_of_one_that_comes_back_are_taken_up(self, tmp_path: Path) -> None:
        """Removed while the bridge did not run, and added by a reload."""
        async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, simulated(4) as other:
            async with rig(port, 5, channels=4, data_dir=tmp_path / "data") as it:
                await it.ready()
                await start(it, **VOUCHED)
                old = it.bridge._reloader.settings.cyclers["arbin1"].model_dump()
            async with rig(port, 5, channels=4, cyclers=("arbin2",), data_dir=tmp_path / "data") as it:
                await it.ready("arbin2")
                await reload(it, arbin1={**old, "port": other.port, "file_port": other.file_port})
                await it.observer.wait("arbin1/readings")
                assert await until(lambda: it.bridge._commander.desks["arbin1"].leases.running(1))
                report = await reload(it, arbin1=None)
                assert "a lease of channel 1 is not over" in report.held[0]

    async def test_a_command_on_its_way_keeps_it(self, tmp_path: Path) -> None:
        async with running(tmp_path, "arbin1", "arbin2") as it:
            it.server.faults = Faults(delays_s={"start": 1.0})
            body = {"id": "s", "test_name": "T", "schedule": "ClosedLoop.sdx"}
            it.observer.say("arbin1/channel/1/command/start", body)
            desk = it.bridge._commander.desks["arbin1"]
            await until(lambda: it.asked("start"))
            assert desk.unfinished
            report = await reload(it, arbin1=None)
            assert report.held == ("arbin1 is not removed yet (a command is not finished)",)
            result = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "s")
            assert result.json["outcome"] == "succeeded"

    async def test_nothing_differs(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            for _ in range(3):
                assert await reload(it) == Report()
            it.bridge.reload_failed(["a mistake"], "file")
            await reload(it)
            await reloaded(it, "file: nothing differs")  # else it would seem that the file is still wrong
            assert len(events(it, "reloaded")) == 1
