"""The bridge on real brokers: what a subscriber sees and what a commander gets."""

import asyncio
from dataclasses import replace

from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.simulator import Faults, ForcedResult
from tests.support.brokers import BrokerKind
from tests.support.rig import rig

READING_KEYS = (
    "channel quality status status_code test_name schedule barcode can_config smb_config cycle step step_label "
    "step_type step_and_cycle exit_condition comm_failure master_channel test_time_s step_time_s voltage_v current_a "
    "power_w charge_capacity_ah discharge_capacity_ah charge_energy_wh discharge_energy_wh internal_resistance_ohm "
    "dvdt_v_per_s acr_ohm aci_ohm aci_phase_deg aux bms smb"
).split()
RESULT_KEYS = (
    "id command cycler channel outcome code reason message verified status_before status_after duplicate user "
    "received_at completed_at duration_ms"
).split()


class TestPublished:
    async def test_readings_and_states(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            first = (await it.observer.wait("arbin1/readings")).json
            assert list(first) == ["ts", "boot", "seq", "channels"]
            assert [each["channel"] for each in first["channels"]] == list(range(1, 17))
            assert list(first["channels"][0]) == READING_KEYS
            assert first["channels"][6]["aux"]["temperature"] == [{"value": 25.0, "dt": 0.0}]
            state = (await it.observer.wait("arbin1/channel/7/state")).json
            assert list(state) == ["ts", "boot", "seq", *READING_KEYS]
            assert state["channel"] == 7
            assert state["boot"] == first["boot"]
            assert state["master_channel"] == 7
            assert (await it.observer.wait("arbin1/channel/7/availability")).payload in {b"offline", b"online"}
            await it.observer.wait("arbin1/channel/7/availability", lambda heard: heard.payload == b"online")
            assert (await it.observer.wait("arbin1/channel/7/mv")).json == {}

    async def test_each_poll_is_one_request_and_one_number(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) >= 5)
            numbers = [heard.json["seq"] for heard in it.observer.on("arbin1/readings")]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(it.asked("channels_info")) - len(numbers) in {0, 1, 2}

    async def test_what_the_bridge_says_of_itself(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            info = await it.observer.wait("bridge/info", lambda heard: heard.json["control"]["arbin1"]["channels"])
            assert list(info.json) == ["version", "contract", "started_at", "boot", "cyclers", "control"]
            assert info.json["cyclers"] == ["arbin1"]
            assert info.json["control"]["arbin1"] == {
                "enabled": True,
                "mode": "on",
                "verbs": "start stop resume continue jump assign set_mv release message schedules replay".split(),
                "channels": list(range(1, 17)),
            }
            health = (await it.observer.wait("bridge/health", lambda heard: heard.json["healthy"])).json
            assert list(health) == "ts boot started_at healthy reasons queue dropped cyclers".split()
            assert list(health["cyclers"]["arbin1"]) == (
                "connected last_poll_age_s poll_duration_ms polls errors reconnects".split()
            )
            cycler = (await it.observer.wait("arbin1/info")).json
            assert cycler["channels"] == 16
            assert cycler["server_version"] == "MITS Pro 8"
            assert cycler["allow_control"] is True
            assert cycler["address"] == f"127.0.0.1:{it.server.port}"

    async def test_it_ends_in_order(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            it.stop.set()
            for topic in ("arbin1/channel/1/availability", "arbin1/availability", "bridge/availability"):
                await it.observer.until_last(topic, b"offline")

    async def test_a_message_larger_than_allowed_is_split(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, publish={"max_bytes": 4000}) as it:
            await it.observer.until(lambda: it.observer.on("arbin1/readings"))
            parts = it.observer.on("arbin1/readings")[0].json["parts"]
            assert parts > 1
            await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) >= parts)
            poll = [heard for heard in it.observer.on("arbin1/readings") if heard.json["seq"] == 1]
            assert [heard.json["part"] for heard in poll] == list(range(1, parts + 1))
            assert [each["channel"] for heard in poll for each in heard.json["channels"]] == list(range(1, 17))
            assert max(len(heard.payload) for heard in poll) <= 4000


class TestCommands:
    async def test_the_life_of_a_test(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            target = "arbin1/channel/7"
            assigned = await it.observer.ask(target, "assign", {"schedule": "CCCV.sdx", "barcode": "B7"})
            assert (assigned["outcome"], assigned["code"], assigned["verified"]) == ("succeeded", 0, None)
            started = await it.observer.ask(target, "start", {"test_name": "T1"})
            assert list(started) == RESULT_KEYS
            assert (started["outcome"], started["code"], started["reason"]) == ("succeeded", 0, "ok")
            assert started["verified"] is True
            assert started["status_before"] == "Idle"
            assert started["status_after"] in {"Rest", "Charge"}
            assert (started["cycler"], started["channel"], started["duplicate"]) == ("arbin1", 7, False)
            again = await it.observer.ask(target, "start", {"test_name": "T1"})
            assert (again["outcome"], again["code"], again["reason"]) == ("failed", 0x12, "running_or_unsafe")
            written = await it.observer.ask(target, "set_mv", {"values": {"1": 2.5, "16": 1}})
            assert (written["outcome"], written["message"]) == ("succeeded", "MV_UD1 = 2.5; MV_UD16 = 1")
            await it.observer.wait(f"{target}/mv", lambda heard: heard.json == {"1": 2.5, "16": 1.0})
            stopped = await it.observer.ask(target, "stop")
            assert (stopped["outcome"], stopped["verified"]) == ("succeeded", True)
            assert stopped["status_after"] == "Idle"
            idle = await it.observer.ask(target, "set_mv", {"values": {"1": 2.5}})
            assert (idle["outcome"], idle["code"], idle["reason"]) == ("failed", 0x12, "not_running")
            stopped = await it.observer.ask(target, "stop")
            assert (stopped["outcome"], stopped["code"], stopped["reason"]) == ("failed", 0x12, "not_running")
            types = [heard.json["type"] for heard in it.observer.on(f"{target}/event")]
            assert types[:2] == ["status_changed", "test_started"]
            assert types[-2:] == ["status_changed", "test_finished"]

    async def test_start_with_schedule_and_values(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            body = {"test_name": "T2", "schedule": "ClosedLoop.sdx", "values": {"1": 1.5}}
            result = await it.observer.ask("arbin1/channel/3", "start", body)
            assert result["outcome"] == "succeeded"
            assert result["assigned"] is True
            await it.observer.wait("arbin1/channel/3/mv", lambda heard: heard.json == {"1": 1.5})
            await it.observer.wait("arbin1/channel/3/state", lambda heard: heard.json["current_a"] == 1.5)
            asked = [each["command"] for each in it.asked("assign", "start", "set_meta_variable")]
            assert asked == ["assign", "start", "set_meta_variable"]

    async def test_unknown_schedule_starts_nothing(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            result = await it.observer.ask("arbin1/channel/3", "start", {"test_name": "T", "schedule": "No.sdx"})
            assert (result["outcome"], result["reason"], result["assigned"]) == ("failed", "schedule_not_found", False)
            assert it.asked("start") == []

    async def test_a_start_that_fails_after_the_assignment_says_so(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, faults=Faults(results=(ForcedResult("start", 0x17),))) as it:
            await it.ready()
            result = await it.observer.ask("arbin1/channel/3", "start", {"test_name": "T", "schedule": "CCCV.sdx"})
            assert (result["outcome"], result["code"], result["reason"]) == ("failed", 0x17, "power_protected")
            assert result["assigned"] is True

    async def test_the_shortcut_for_a_variable(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            await it.observer.ask("arbin1/channel/2", "start", {"test_name": "T", "schedule": "ClosedLoop.sdx"})
            it.observer.say("arbin1/channel/2/command/mv/1", b"0.75")
            result = await it.observer.wait("arbin1/channel/2/result", lambda heard: heard.json["command"] == "set_mv")
            assert result.json["outcome"] == "succeeded"
            await it.observer.wait("arbin1/channel/2/state", lambda heard: heard.json["current_a"] == 0.75)
            it.observer.say("arbin1/channel/2/command/mv/1", b'{"value": 3}')
            await it.observer.wait("arbin1/channel/2/result", lambda heard: heard.json["reason"] == "malformed")

    async def test_an_empty_stop(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            await it.observer.ask("arbin1/channel/2", "start", {"test_name": "T", "schedule": "CCCV.sdx"})
            it.observer.say("arbin1/channel/2/command/stop", b"")
            result = await it.observer.wait("arbin1/channel/2/result", lambda heard: heard.json["command"] == "stop")
            assert result.json["outcome"] == "succeeded"

    async def test_a_user_level(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            it.observer.say("arbin1/channel/2/command/assign/alice", {"id": "a", "schedule": "CCCV.sdx"})
            result = await it.observer.wait("arbin1/channel/2/result", lambda heard: heard.json["id"] == "a")
            assert (result.json["user"], result.json["outcome"]) == ("alice", "succeeded")


class TestManyChannels:
    async def test_start_values_and_stop_of_all(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            body = {"channels": "all", "test_name": "lot", "schedule": "ClosedLoop.sdx"}
            result = await it.observer.ask("arbin1", "start", body)
            assert result["outcome"] == "succeeded"
            assert result["channel"] is None
            assert result["channels"] == {str(channel): "succeeded" for channel in range(1, 17)}
            assert len(it.asked("start")) == 1
            for channel in range(1, 17):
                own = it.observer.on(f"arbin1/channel/{channel}/result")
                assert [heard.json["id"] for heard in own] == [result["id"]]
            values = {"channels": [1, 2, 3], "values": {"1": 1.0}, "per_channel": {"2": {"1": 2.0, "2": 5.0}}}
            result = await it.observer.ask("arbin1", "set_mv", values)
            assert result["channels"] == {"1": "succeeded", "2": "succeeded", "3": "succeeded"}
            await it.observer.wait("arbin1/channel/2/mv", lambda heard: heard.json == {"1": 2.0, "2": 5.0})
            it.observer.say("arbin1/command/stop", b"")
            stopped = await it.observer.wait("arbin1/result", lambda heard: heard.json["command"] == "stop")
            assert set(stopped.json["channels"].values()) == {"succeeded"}
            assert [each["arguments"]["channel"] for each in it.asked("stop")] == [None]  # CTI's own all-channels flag

    async def test_some_succeed_and_some_do_not(self, port: int, kind: BrokerKind) -> None:
        control = {"enabled": True, "verbs": "all", "channels": [1, 2, 3]}
        async with rig(port, kind.protocol, cycler={"control": control}) as it:
            await it.ready()
            await it.observer.ask("arbin1", "assign", {"channels": [1], "schedule": "CCCV.sdx"})
            result = await it.observer.ask("arbin1", "start", {"channels": [1, 2, 7, 99], "test_name": "T"})
            assert result["channels"] == {"1": "succeeded", "2": "failed", "7": "refused", "99": "refused"}
            assert (result["outcome"], result["reason"]) == ("failed", "no_schedule_assigned")
            refused = await it.observer.wait("arbin1/channel/99/result")
            assert (refused.json["reason"], refused.json["channel"]) == ("unknown_channel", 99)
            assert (await it.observer.wait("arbin1/channel/7/result")).json["reason"] == "not_allowed"

    async def test_stop_of_the_permitted_does_not_use_the_flag(self, port: int, kind: BrokerKind) -> None:
        control = {"enabled": True, "verbs": "all", "channels": [1, 2]}
        async with rig(port, kind.protocol, cycler={"control": control}) as it:
            await it.ready()
            result = await it.observer.ask("arbin1", "stop", {"channels": "all"})
            assert set(result["channels"]) == {"1", "2"}
            assert sorted(each["arguments"]["channel"] for each in it.asked("stop")) == [1, 2]

    async def test_a_stop_with_a_typing_error_stops_nothing(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            payloads: list[dict[str, object]] = [{"channel": [1]}, {"channels": []}, {"channels": "all!"}, {}]
            for payload in [*payloads, {"channels": [1, 1]}]:
                result = await it.observer.ask("arbin1", "stop", payload)
                assert (result["outcome"], result["reason"]) == ("refused", "malformed")
            assert it.asked("stop") == []


class TestOneAfterTheOther:
    async def test_a_stop_right_behind_a_start_wins(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            target = "arbin1/channel/5"
            it.observer.say(f"{target}/command/start", {"id": "go", "test_name": "T", "schedule": "CCCV.sdx"})
            it.observer.say(f"{target}/command/stop", b"")
            result = await it.observer.wait(f"{target}/result", lambda heard: heard.json["id"] == "go")
            await it.observer.wait(f"{target}/result", lambda heard: heard.json["command"] == "stop")
            starts = [each["command"] for each in it.asked("start", "stop")]
            assert starts in (["stop"], ["start", "stop"])  # never a start behind the stop
            if starts == ["stop"]:
                assert result.json["reason"] == "superseded"
            polls = len(it.observer.on("arbin1/readings"))
            await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) > polls + 2)
            last = it.observer.last(f"{target}/state")
            assert last is not None
            assert last.json["status"] == "Idle"

    async def test_a_stop_while_an_expectation_is_looked_up(self, port: int, kind: BrokerKind) -> None:
        """The reading is old, so it is polled anew first; the stop comes in meanwhile."""
        async with rig(port, kind.protocol, cycler={"poll_interval_s": 0.2}) as it:
            await it.ready()
            target = "arbin1/channel/5"
            await it.observer.ask(target, "assign", {"schedule": "CCCV.sdx"})
            it.server.faults = Faults(delays_s={"channels_info": 1.0})
            await asyncio.sleep(0.6)  # until the last reading is too old
            body = {"id": "go", "test_name": "T", "expect": {"status": "Idle"}}
            it.observer.say(f"{target}/command/start", body)
            await asyncio.sleep(0.1)
            it.observer.say(f"{target}/command/stop", b"")
            result = await it.observer.wait(f"{target}/result", lambda heard: heard.json["id"] == "go")
            assert result.json["outcome"] == "refused"
            assert it.asked("start") == []

    async def test_an_assignment_does_not_come_between(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            target = "arbin1/channel/5"
            it.observer.say(f"{target}/command/start", {"id": "go", "test_name": "T", "schedule": "CCCV.sdx"})
            it.observer.say(f"{target}/command/assign", {"id": "other", "schedule": "Discharge.sdx"})
            await it.observer.wait(f"{target}/result", lambda heard: heard.json["id"] == "go")
            other = await it.observer.wait(f"{target}/result", lambda heard: heard.json["id"] == "other")
            assert other.json["reason"] in {"busy", "running"}
            await it.observer.wait(f"{target}/state", lambda heard: heard.json["test_name"] == "T")
            last = it.observer.last(f"{target}/state")
            assert last is not None
            assert last.json["schedule"] == "CCCV.sdx"

    async def test_a_name_that_does_not_fit_assigns_nothing(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            body = {"test_name": "x" * 72, "schedule": "CCCV.sdx"}
            result = await it.observer.ask("arbin1/channel/5", "start", body)
            assert (result["outcome"], result["reason"]) == ("refused", "malformed")
            assert "at most 71" in result["message"]
            assert it.asked("assign") == []

    async def test_each_command_has_a_result_also_at_the_end(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            for number in range(20):
                it.bridge._hear(Incoming("cti/arbin1/channel/1/command/stop", b'{"id": "i%d"}' % number, retain=False))
            it.stop.set()
            await it.observer.until(
                lambda: len({heard.json["id"] for heard in it.observer.on("arbin1/channel/1/result")}) == 20
            )


class TestUnknownOutcome:
    async def test_it_is_not_retried_and_the_next_poll_tells(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, cycler={"timeout_s": 0.5}) as it:
            await it.ready()
            await it.observer.ask("arbin1/channel/4", "assign", {"schedule": "CCCV.sdx"})
            it.server.faults = Faults(mute=frozenset({"start"}))
            result = await it.observer.ask("arbin1/channel/4", "start", {"test_name": "T"})
            assert (result["outcome"], result["code"], result["reason"]) == ("unknown", None, "timeout")
            event = await it.observer.wait(
                "arbin1/channel/4/event", lambda heard: heard.json["type"] == "command_finding"
            )
            assert event.json["command_id"] == result["id"]
            assert event.json["after"] in {"Rest", "Charge"}
            assert len(it.asked("start")) == 1
            assert len(it.asked("login")) == 2  # a late feedback would look like the next one's: a new session


class TestTrouble:
    async def test_unplugged_and_replugged(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            await it.server.unplug()
            await it.observer.until_last("arbin1/availability", b"offline")
            await it.observer.until_last("arbin1/channel/1/availability", b"offline")
            stale = await it.observer.wait("arbin1/channel/1/state", lambda heard: heard.json["quality"] == "stale")

            def last_of_channel_1() -> object:  # the very last answer may have come in part
                readings = [heard.json for heard in it.observer.on("arbin1/readings")]
                return [each["ts"] for each in readings if each["channels"][0]["channel"] == 1][-1]

            await it.observer.until(lambda: last_of_channel_1() == stale.json["ts"], what="not stamped anew")
            refused = await it.observer.ask("arbin1/channel/1", "start", {"test_name": "T"})
            assert (refused["outcome"], refused["reason"]) == ("refused", "not_connected")
            await it.observer.wait_last("bridge/health", lambda heard: "arbin1: not connected" in heard.json["reasons"])
            await it.server.replug()
            await it.observer.until_last("arbin1/channel/1/availability", b"online")
            await it.observer.wait("arbin1/event", lambda heard: heard.json["type"] == "reconnected")
            assert len(it.asked("login")) == 2

    async def test_one_cycler_failing_does_not_disturb_another(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, cyclers=("arbin1", "arbin2")) as it:
            await it.ready("arbin1")
            await it.ready("arbin2")
            await it.servers["arbin2"].unplug()
            seen = len(it.observer.on("arbin1/readings"))
            await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) >= seen + 5)
            numbers = [heard.json["seq"] for heard in it.observer.on("arbin1/readings")]
            assert numbers == list(range(1, len(numbers) + 1))
            await it.observer.wait_last("bridge/health", lambda heard: not heard.json["cyclers"]["arbin2"]["connected"])

    async def test_no_right_to_control(self, port: int, kind: BrokerKind) -> None:
        from cti_mqtt.simulator import ControlPolicy

        async with rig(port, kind.protocol, simulator={"control": ControlPolicy.REFUSED}) as it:
            await it.ready()
            result = await it.observer.ask("arbin1/channel/1", "assign", {"schedule": "CCCV.sdx"})
            assert (result["outcome"], result["reason"]) == ("refused", "no_control_right")
            await it.observer.wait("arbin1/event", lambda heard: heard.json["type"] == "control_refused")

    async def test_numbers_and_texts_that_are_none(self, port: int, kind: BrokerKind) -> None:
        faults = Faults(nan=frozenset({0}), infinite=frozenset({1}), statuses={2: 99}, picture_bytes=100_000)
        async with rig(port, kind.protocol, faults=faults) as it:
            await it.ready()
            assert (await it.observer.wait("arbin1/channel/1/state")).json["voltage_v"] is None
            assert (await it.observer.wait("arbin1/channel/2/state")).json["voltage_v"] is None
            third = (await it.observer.wait("arbin1/channel/3/state")).json
            assert (third["status"], third["status_code"]) == ("Unknown 99", 99)

    async def test_a_slow_poll_does_not_hold_up_a_stop(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, channels=128, cycler={"poll_interval_s": 1.0}) as it:
            await it.ready()
            await it.observer.ask("arbin1/channel/128", "start", {"test_name": "T", "schedule": "CCCV.sdx"})
            it.server.faults = replace(it.server.faults, delays_s={"channels_info": 6.0})
            polls = len(it.asked("channels_info"))
            async with asyncio.timeout(10):
                while len(it.asked("channels_info")) == polls:  # noqa: ASYNC110  # the simulator's record
                    await asyncio.sleep(0.01)
            it.observer.say("arbin1/channel/128/command/stop", b"")
            async with asyncio.timeout(5):
                while not it.asked("stop"):  # noqa: ASYNC110  # the simulator's record
                    await asyncio.sleep(0.01)
