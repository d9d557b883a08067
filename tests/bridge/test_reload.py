"""A changed configuration: what it means, and what it does to a bridge that runs."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bus import Bus, Health, Item
from cti_mqtt.bridge.desks import Branch
from cti_mqtt.bridge.reload import LONGEST_TEXT, Report, compare, shortened, switches_off
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.bridge.store.schema import FILE_NAME
from cti_mqtt.config import Config, Control
from cti_mqtt.simulator import Faults
from tests.bridge.bench import until
from tests.support.brokers import MOSQUITTO_5, broker_of_kind, needs_mosquitto
from tests.support.rig import CONTROL, Rig, rig, simulated

# --- what it means ---

BASE: dict[str, Any] = {
    "data_dir": "/var/lib/cti-mqtt",
    "mqtt": {"host": "192.0.2.1", "client_id": "c", "password": "m0st-secret"},
    "cyclers": {
        "a": {
            "host": "192.0.2.2",
            "username": "u",
            "password": "m0st-secret",
            "control": {"enabled": True, "verbs": ["start", "set_mv"], "channels": [1], "limits": {1: {"max": 5}}},
        },
        "b": {"host": "192.0.2.3", "username": "u", "password": "p"},
    },
}


def changed(*entries: tuple[str, Any], base: Mapping[str, Any] = BASE) -> Config:
    """The configuration with values set at dotted paths; None takes a key away."""
    body: dict[Any, Any] = copy.deepcopy(dict(base))
    for path, value in entries:
        *parents, last = path.split(".")
        section: dict[Any, Any] = body
        for key in parents:
            section = section.setdefault(int(key) if key.isdigit() else key, {})
        if value is None:
            section.pop(last)
        else:
            section[int(last) if last.isdigit() else last] = value
    return Config.model_validate(body)


class TestWhatDiffers:
    @pytest.mark.parametrize(
        ("path", "value", "said"),
        [
            ("poll_interval_s", 2.5, "cyclers.a.poll_interval_s: 1.0 -> 2.5"),
            ("aux", ["bms"], 'cyclers.a.aux: ["aux", "bms", "smb"] -> ["bms"]'),
            ("control.enabled", False, "cyclers.a.control.enabled: true -> false"),
            ("control.mode", "shadow", 'cyclers.a.control.mode: "on" -> "shadow"'),
            ("control.verbs", "all", 'cyclers.a.control.verbs: ["start", "set_mv"] -> "all"'),
            ("control.channels", [1, 2], "cyclers.a.control.channels: [1] -> [1, 2]"),
            ("control.require_user", True, "cyclers.a.control.require_user: false -> true"),
            ("control.max_age_s", 3, "cyclers.a.control.max_age_s: 10.0 -> 3.0"),
            ("control.verify_timeout_s", 9, "cyclers.a.control.verify_timeout_s: none -> 9.0"),
            ("control.stop_timeout_s", 9, "cyclers.a.control.stop_timeout_s: 30.0 -> 9.0"),
            ("control.max_running", 3, "cyclers.a.control.max_running: none -> 3"),
            ("control.max_starts_per_min", 3, "cyclers.a.control.max_starts_per_min: none -> 3"),
            ("control.limits.1.max", 3, "cyclers.a.control.limits.1.max: 5.0 -> 3.0"),
            ("control.limits.2", {"min": 1}, 'cyclers.a.control.limits.2: none -> {"min": 1.0}'),
            ("control.limits", {}, 'cyclers.a.control.limits.1: {"max": 5.0} -> none'),
        ],
    )
    def test_applied_while_it_runs(self, path: str, value: Any, said: str) -> None:
        wanted = changed((f"cyclers.a.{path}", value))
        plan = compare(changed(), wanted)
        assert (plan.restart, plan.added, plan.removed) == ((), {}, ())
        (change,) = plan.changed
        assert (change.name, change.settings) == ("a", wanted.cyclers["a"])
        assert list(map(str, change.changes)) == [said]
        assert change.control_changes == (change.changes if "control" in path else ())

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("data_dir", "/elsewhere"),
            ("health_interval_s", 3),
            ("mqtt.port", 1884),
            ("mqtt.base_topic", "lab"),
            ("mqtt.password", "an0ther"),
            ("mqtt.tls", {}),
            ("publish.state", False),
            ("journal.max_age_s", 5),
            ("http", {"port": 9100}),
            ("cyclers.a.host", "192.0.2.9"),
            ("cyclers.a.port", 1),
            ("cyclers.a.file_port", 1),
            ("cyclers.a.username", "other"),
            ("cyclers.a.password", "an0ther"),
            ("cyclers.a.timeout_s", 1),
            ("cyclers.a.checksum", "strict"),
            ("cyclers.a.pipelining", "off"),
            ("cyclers.a.control.deadman_mv", 7),
        ],
    )
    def test_needs_a_restart(self, path: str, value: Any) -> None:
        plan = compare(changed(), changed((path, value)))
        assert plan.restart == (path,)
        assert (plan.changed, plan.added, plan.removed) == ((), {}, ())

    def test_every_setting_has_its_place(self) -> None:
        """A new key is one or the other; whoever adds it decides here."""
        assert set(Config.model_fields) == set("data_dir health_interval_s mqtt cyclers publish journal http".split())
        assert set(type(changed().cyclers["a"]).model_fields) == set(
            "host port file_port username password poll_interval_s timeout_s checksum pipelining aux control".split()
        )

    def test_both_kinds_at_once(self) -> None:
        wanted = changed(("cyclers.a.host", "x"), ("cyclers.a.poll_interval_s", 2), ("cyclers.b.port", 2))
        plan = compare(changed(), wanted)
        assert plan.restart == ("cyclers.a.host", "cyclers.b.port")
        (change,) = plan.changed
        assert (change.settings.host, change.settings.poll_interval_s) == ("192.0.2.2", 2)

    def test_added_and_removed(self) -> None:
        new = {"host": "192.0.2.4", "username": "u", "password": "p"}
        plan = compare(changed(), changed(("cyclers.c", new), ("cyclers.b", None)))
        assert (list(plan.added or {}), plan.removed, plan.changed, plan.restart) == (["c"], ("b",), (), ())

    def test_the_dead_mans_variable_and_limits_that_hold_it(self) -> None:
        running = changed(("cyclers.a.control.deadman_mv", 2))
        wanted = changed(
            ("cyclers.a.control.deadman_mv", 3),
            ("cyclers.a.control.limits.2.max", 1),
            ("cyclers.a.control.max_age_s", 1),
        )
        plan = compare(running, wanted)
        assert [text.split()[0] for text in plan.restart] == [
            "cyclers.a.control.deadman_mv",
            "cyclers.a.control.limits",
        ]
        (change,) = plan.changed
        assert change.settings.control.limits == running.cyclers["a"].control.limits
        assert (change.settings.control.deadman_mv, change.settings.control.max_age_s) == (2, 1)

    def test_control_without_a_memory_waits_for_it(self) -> None:
        running = changed(("data_dir", None), ("cyclers.a.control", None))
        new = {**BASE["cyclers"]["a"], "host": "192.0.2.4"}
        plan = compare(running, changed(("cyclers.c", new)))
        assert [text.split()[0] for text in plan.restart] == ["data_dir", "cyclers.a.control", "cyclers.c"]
        assert (plan.changed, plan.added) == ((), {})

    def test_no_secret_is_told(self) -> None:
        new = {**BASE["cyclers"]["a"], "password": "m0st-secret-too"}
        wanted = changed(("cyclers.c", new), ("cyclers.a.password", "m0re"), ("mqtt.password", "m0re"))
        plan = compare(changed(), wanted)
        told = "".join(plan.restart) + "".join(str(each) for change in plan.changed for each in change.changes)
        assert "m0" not in told + repr(plan)

    def test_in_words(self) -> None:
        assert str(Report()) == "nothing differs"
        report = Report(("x",), ("y", "z"), ("mqtt.port",))
        assert str(report) == "applied: x. not applied, so reload again later: y; z. needs a restart: mqtt.port"
        assert len(shortened("x" * 99_999)) < LONGEST_TEXT + 100

    @pytest.mark.parametrize(
        ("before", "after", "off"),
        [
            ({"enabled": True}, {"enabled": False}, True),
            ({"enabled": True}, {"enabled": True, "mode": "shadow"}, True),
            ({"enabled": True}, {"enabled": True, "verbs": "all"}, False),
            ({"enabled": False}, {"enabled": True}, False),
            ({"enabled": True, "mode": "shadow"}, {"enabled": False}, False),
        ],
    )
    def test_switching_off(self, before: dict[str, Any], after: dict[str, Any], off: bool) -> None:
        assert switches_off(Control.model_validate(before), Control.model_validate(after)) is off


# --- what it does ---

LIMITS = {1: {"min": 0, "max": 5}}
VOUCHED: dict[str, Any] = {"lease": {"ttl_s": 60, "on_expiry": "stop"}}


@asynccontextmanager
async def running(folder: Path, *names: str, **cycler: Any) -> AsyncIterator[Rig]:
    """A bridge with these cyclers."""
    async with (
        broker_of_kind(MOSQUITTO_5, folder) as port,
        rig(port, 5, channels=4, cyclers=names or ("arbin1",), cycler=cycler or None, data_dir=folder / "data") as it,
    ):
        for name in names or ("arbin1",):
            await it.ready(name)
        await it.bridge._commander.taken_up(10)
        yield it


async def reload(it: Rig, **cyclers: Mapping[str, Any] | None) -> Report:
    """Reload with other settings for some cyclers; None: without it."""
    body = it.bridge._reloader.settings.model_dump()
    for name, other in cyclers.items():
        if other is None:
            del body["cyclers"][name]
        else:
            body["cyclers"][name] = {**body["cyclers"].get(name, {}), **other}
    return await it.bridge.reload(Config.model_validate(body), "file")


async def reloaded(it: Rig, text: str) -> None:
    """Until an event says so."""
    await it.observer.wait(
        "bridge/event", lambda heard: heard.json["type"] == "reloaded" and text in heard.json["message"]
    )


async def start(it: Rig, channel: int = 1, /, **body: Any) -> dict[str, Any]:
    result = await it.observer.ask(
        f"arbin1/channel/{channel}", "start", {"test_name": "T", "schedule": "ClosedLoop.sdx", **body}
    )
    assert result["outcome"] == "succeeded", result
    return result


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
            station = it.bridge._stations["arbin1"]
            it.server.faults = Faults(delays_s={"set_meta_variable": 0.5})  # the others wait for the first
            for number in range(3):
                it.observer.say(
                    "arbin1/channel/1/command/set_mv", {"id": f"w{number}", "values": {"1": 4 + number / 10}}
                )
            await until(lambda: station.writer._queue)
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
        entries = _audited(tmp_path / "data", "control_changed")
        assert [entry["who"] for entry in entries] == ["file", "file"]
        assert entries[0]["before"] == {
            "cyclers.arbin1.control.verbs": "all",
            "cyclers.arbin1.control.max_running": None,
        }
        assert entries[1]["after"] == {"cyclers.arbin1.control.verbs": "all", "cyclers.arbin1.control.max_running": 1}

    async def test_a_lease_keeps_it_switched_on_until_it_is_over(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            started = await start(it, **VOUCHED)
            other = {"control": {**CONTROL, "enabled": False}, "poll_interval_s": 0.2}
            report = await reload(it, arbin1=other)
            assert report.held == ("cyclers.arbin1.control is not switched off: a lease of channel 1 is not over",)
            assert report.applied == ("cyclers.arbin1.poll_interval_s: 0.1 -> 0.2",)
            await reloaded(it, "not applied, so reload again later: cyclers.arbin1.control is not switched off")
            await it.observer.ask("arbin1/channel/1", "release", {"lease_id": started["lease_id"]})
            report = await reload(it, arbin1=other)
            assert report.applied == ("cyclers.arbin1.control.enabled: true -> false",)
            assert (await it.observer.ask("arbin1/channel/1", "stop"))["reason"] == "not_allowed"

    async def test_what_waits_to_be_sent_is_held_to_what_is_permitted_now(self, tmp_path: Path) -> None:
        async with running(tmp_path, control=CONTROL) as it:
            await start(it)
            station = it.bridge._stations["arbin1"]
            it.server.faults = Faults(delays_s={"set_meta_variable": 0.5})  # the others wait for the first
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
            new = {
                "host": "127.0.0.1", "port": second.port, "file_port": second.file_port, "username": "admin",
                "password": it.bridge._reloader.settings.cyclers["arbin1"].password, "poll_interval_s": 0.1,
                "control": CONTROL,
            }  # fmt: skip
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
            report = await reload(it, arbin1=None, another=same)
            assert report.held == (
                "cyclers.arbin1 is not removed: a lease of channel 1 is not over",
                "cyclers.another is not added: cyclers.arbin1, which stays, has its address",
            )
            await it.observer.ask("arbin1/channel/1", "release", {"lease_id": started["lease_id"]})
            await it.observer.ask("arbin1/channel/1", "stop")
            report = await reload(it, arbin1=None)
            assert report.applied == ("cyclers.arbin1 is removed",)

    async def test_a_pursued_stop_keeps_it(self, tmp_path: Path) -> None:
        async with running(tmp_path, "arbin1", "arbin2") as it:
            await start(it)
            desk = it.bridge._commander.desks["arbin1"]
            desk.pursuit.insist(1, lambda how: None)
            report = await reload(it, arbin1=None)
            assert report.held == ("cyclers.arbin1 is not removed: a stop of channel 1 is pursued",)
            await until(lambda: not desk.pursuit.channels)
            assert (await reload(it, arbin1=None)).held == ()

    async def test_leases_on_record_of_one_that_comes_back_are_taken_up(self, tmp_path: Path) -> None:
        """Removed while the bridge did not run, and added by a reload."""
        async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, simulated(4) as another:
            async with rig(port, 5, channels=4, data_dir=tmp_path / "data") as it:
                await it.ready()
                await start(it, **VOUCHED)
                old = it.bridge._reloader.settings.cyclers["arbin1"].model_dump()
            async with rig(port, 5, channels=4, cyclers=("arbin2",), data_dir=tmp_path / "data") as it:
                await it.ready("arbin2")
                await reload(it, arbin1={**old, "port": another.port, "file_port": another.file_port})
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
            await until(lambda: desk.unfinished or desk.waiting)
            report = await reload(it, arbin1=None)
            assert report.held == ("cyclers.arbin1 is not removed: a command is not finished",)
            result = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "s")
            assert result.json["outcome"] == "succeeded"

    async def test_nothing_differs(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            assert await reload(it) == Report()
            await reloaded(it, "file: nothing differs")


def _audited(data_dir: Path, what: str) -> list[dict[str, Any]]:
    with read_audit(data_dir / FILE_NAME) as reader:
        entries = [json.loads(row.entry) for row in reader.rows()]
    return [entry for entry in entries if entry["what"] == what]


def test_a_branch_hears_until_it_is_closed() -> None:
    trunk_heard: list[Item] = []
    heard: list[Item] = []
    trunk = Bus()
    branch = Branch(trunk)
    trunk.subscribe(trunk_heard.append)
    branch.subscribe(heard.append)
    first, second = Health({"n": 1}), Health({"n": 2})
    branch.publish(first)
    branch.close()
    trunk.publish(second)
    assert (heard, trunk_heard) == ([first], [first, second])
