"""A changed configuration: what it means for a bridge that runs."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from cti_mqtt.bridge.bus import Bus, CyclerState, Health, Item
from cti_mqtt.bridge.desks import Branch
from cti_mqtt.bridge.reload import LONGEST_TEXT, Report, compare, for_farewell, shortened, switches_off
from cti_mqtt.config import Config, Control

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
            ("publish.dead_bands", {"voltage_v": 1}),
            ("publish.heartbeat_s", 5),
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

    def test_another_dead_mans_variable_holds_all_of_control(self) -> None:
        """What may be written depends on which variable that is: never something of both."""
        running = changed(("cyclers.a.control.deadman_mv", 2))
        wanted = changed(
            ("cyclers.a.control.deadman_mv", 3),
            ("cyclers.a.control.limits.2.max", 1),
            ("cyclers.a.control.channels", [1, 2]),
        )
        plan = compare(running, wanted)
        assert plan.restart == (
            "cyclers.a.control.deadman_mv",
            "cyclers.a.control (belongs to the new deadman_mv)",
        )
        assert plan.changed == ()
        wanted = changed(("cyclers.a.control.deadman_mv", 3), ("cyclers.a.control.limits", {}))
        assert compare(changed(), wanted).changed == ()

    @pytest.mark.parametrize(("key", "value"), [("host", "192.0.2.99"), ("port", 9), ("username", "other")])
    def test_control_of_another_machine_does_not_count_on_this_one(self, key: str, value: Any) -> None:
        wanted = changed(
            (f"cyclers.b.{key}", value),
            ("cyclers.b.control", {"enabled": True, "verbs": "all", "channels": "all"}),
            ("cyclers.b.poll_interval_s", 2),
        )
        plan = compare(changed(), wanted)
        assert plan.restart == (f"cyclers.b.{key}", "cyclers.b.control (belongs to the new address)")
        (change,) = plan.changed
        assert not change.settings.control.enabled
        assert list(map(str, change.changes)) == ["cyclers.b.poll_interval_s: 1.0 -> 2.0"]

    def test_control_without_a_memory_waits_for_it(self) -> None:
        running = changed(("data_dir", None), ("cyclers.a.control", None))
        new = {**BASE["cyclers"]["a"], "host": "192.0.2.4"}
        plan = compare(running, changed(("cyclers.c", new)))
        assert [text.split()[0] for text in plan.restart] == ["data_dir", "cyclers.a.control", "cyclers.c"]
        assert (plan.changed, plan.added) == ((), {})

    def test_no_secret_is_told(self) -> None:
        new = {**BASE["cyclers"]["a"], "host": "192.0.2.4", "password": "m0st-secret-too"}
        wanted = changed(("cyclers.c", new), ("cyclers.a.password", "m0re"), ("mqtt.password", "m0re"))
        plan = compare(changed(), wanted)
        told = "".join(plan.restart) + "".join(str(each) for change in plan.changed for each in change.changes)
        assert "m0" not in told + repr(plan)

    def test_in_words(self) -> None:
        assert str(Report()) == "nothing differs"
        report = Report(("x",), ("y", "z"), ("mqtt.port",))
        assert (
            str(report) == "applied: x. not applied yet, it is tried again by itself: y; z. needs a restart: mqtt.port"
        )
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

    def test_what_is_about_to_go_takes_stops_at_most(self) -> None:
        everything = Control.model_validate({"enabled": True, "verbs": "all", "channels": [1]})
        assert for_farewell(everything, stops=True) == everything.model_copy(update={"verbs": ("stop",)})
        assert for_farewell(everything, stops=False).verbs == ()
        assert for_farewell(Control(enabled=True, verbs=("start",)), stops=True).verbs == ()
        assert for_farewell(Control(), stops=True) == Control()


def test_a_branch_hears_of_its_cycler_until_it_is_closed() -> None:
    trunk_heard: list[Item] = []
    heard: list[Item] = []
    trunk = Bus()
    branch = Branch(trunk, "a")
    trunk.subscribe(trunk_heard.append)
    branch.subscribe(heard.append)
    mine, other = CyclerState("a", online=True, info=None), CyclerState("b", online=True, info=None)
    nobodys = Health({"n": 1})
    for item in (mine, other, nobodys):
        branch.publish(item)
    branch.close()
    trunk.publish(mine)
    assert heard == [mine]
    assert trunk_heard == [mine, other, nobodys, mine]


def test_whoever_leaves_the_stream_hears_no_more_also_in_the_middle_of_an_item() -> None:
    heard: list[str] = []
    bus = Bus()

    def first(_: Item) -> None:
        heard.append("first")
        leave()

    leave = bus.subscribe(first)
    bus.subscribe(lambda _: heard.append("second"))
    for number in range(2):
        bus.publish(Health({"n": number}))
    leave()
    assert heard == ["first", "second", "second"]
    Branch(bus, "a").close()
    assert len(bus._subscribers) == 1
