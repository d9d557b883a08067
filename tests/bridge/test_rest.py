"""The verbs beyond start and stop: resume, continue, jump, message, schedules; many variables in one packet."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cti_mqtt.simulator import Faults, ForcedResult
from tests.support.brokers import AMQTT, MOSQUITTO, MOSQUITTO_5, BrokerKind, broker_of_kind
from tests.support.rig import Rig, rig

KIND = MOSQUITTO_5 if MOSQUITTO else AMQTT


async def started(it: Rig, channel: int, schedule: str) -> str:
    """A channel with a running test; its target."""
    await it.ready()
    target = f"arbin1/channel/{channel}"
    result = await it.observer.ask(target, "start", {"test_name": "T", "schedule": schedule})
    assert result["outcome"] == "succeeded", result
    return target


class TestOneChannel:
    async def test_resume(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, simulator={"speed": 50.0}) as it:
            target = await started(it, 3, "CCCV.sdx")
            await it.observer.wait(f"{target}/state", lambda heard: heard.json["step"] == 2)
            await it.observer.ask(target, "stop")
            result = await it.observer.ask(target, "resume")
            assert (result["outcome"], result["code"], result["verified"]) == ("succeeded", 0, True)
            assert result["message"] == "resumed, channel went Idle -> Charge"
            again = await it.observer.ask(target, "resume")
            assert (again["outcome"], again["reason"]) == ("failed", "running_or_unsafe")

    async def test_pause_and_continue(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, simulator={"speed": 4.0}) as it:
            target = await started(it, 3, "Pause.sdx")
            await it.observer.wait(f"{target}/state", lambda heard: heard.json["status"] == "Pause")
            result = await it.observer.ask(target, "continue")
            assert (result["outcome"], result["verified"]) == ("succeeded", True)
            assert result["status_before"] == "Pause"
            assert result["status_after"] != "Pause"
            again = await it.observer.ask(target, "continue")
            assert (again["outcome"], again["reason"]) == ("failed", "running")

    async def test_jump_to_the_step_that_the_reading_then_shows(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            target = await started(it, 3, "CCCV.sdx")
            result = await it.observer.ask(target, "jump", {"step": 2})
            assert (result["outcome"], result["verified"]) == ("succeeded", True)
            assert "step 1 -> 2" in result["message"]
            assert it.asked("jump")[0]["arguments"]["step"] == 1  # from 0 on the wire
            await it.observer.wait(f"{target}/state", lambda heard: heard.json["step"] == 2)

    async def test_a_jump_past_the_end_ends_the_test_and_says_so(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            target = await started(it, 3, "CCCV.sdx")
            result = await it.observer.ask(target, "jump", {"step": 50})
            assert (result["outcome"], result["verified"], result["status_after"]) == ("succeeded", True, "Finished")
            assert result["message"].startswith("jumped past the last step, so the test ended")
            await it.observer.wait(f"{target}/event", lambda heard: heard.json["type"] == "test_finished")
            idle = await it.observer.ask(target, "jump", {"step": 1})
            assert (idle["outcome"], idle["reason"]) == ("failed", "not_running")

    @pytest.mark.parametrize("body", [{}, {"step": 0}, {"step": "2"}, {"step": 1.5}, {"step": -1}])
    async def test_a_step_that_is_none(self, body: dict[str, object], tmp_path: Path) -> None:
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol) as it:
            await it.ready()
            result = await it.observer.ask("arbin1/channel/3", "jump", body)
            assert (result["outcome"], result["reason"]) == ("refused", "malformed")
            assert it.asked("jump") == []


class TestManyChannels:
    async def test_all_that_are_stopped_are_resumed_with_one_request(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, channels=4) as it:
            await it.ready()
            await it.observer.ask("arbin1", "start", {"channels": "all", "test_name": "T", "schedule": "CCCV.sdx"})
            await it.observer.ask("arbin1", "stop", {"channels": "all"})
            result = await it.observer.ask("arbin1", "resume", {"channels": "all"})
            assert result["channels"] == dict.fromkeys("1234", "succeeded")
            assert [each["arguments"]["channel"] for each in it.asked("resume")] == [None]

    async def test_continue_and_jump(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, channels=4, simulator={"speed": 4.0}) as it:
            await it.ready()
            await it.observer.ask("arbin1", "start", {"channels": [1, 2], "test_name": "T", "schedule": "Pause.sdx"})
            for channel in (1, 2):
                await it.observer.wait(f"arbin1/channel/{channel}/state", lambda heard: heard.json["status"] == "Pause")
            result = await it.observer.ask("arbin1", "continue", {"channels": [1, 2, 3]})
            assert result["channels"] == {"1": "succeeded", "2": "succeeded", "3": "failed"}
            assert len(it.asked("continue")) == 1
            result = await it.observer.ask("arbin1", "jump", {"channels": [1, 2], "step": 50})
            assert result["channels"] == {"1": "succeeded", "2": "succeeded"}

    async def test_32_channels_on_each_of_4_cyclers(self, tmp_path: Path) -> None:
        """One message a cycler: one start request each on the wire, a result for each channel and each cycler."""
        names = tuple(f"arbin{number}" for number in range(1, 5))
        async with (
            broker_of_kind(KIND, tmp_path) as port,
            rig(port, KIND.protocol, channels=32, cyclers=names, cycler={"poll_interval_s": 0.5}) as it,
        ):
            for name in names:
                await it.ready(name)
                assigned = await it.observer.ask(name, "assign", {"channels": "all", "schedule": "CCCV.sdx"})
                assert assigned["outcome"] == "succeeded"
            for name in names:
                it.observer.say(f"{name}/command/start", {"id": "lot", "channels": "all", "test_name": "lot"})
            for name in names:
                summary = await it.observer.wait(f"{name}/result", lambda heard: heard.json["id"] == "lot")
                assert summary.json["outcome"] == "succeeded"
                assert len(it.asked("start", cycler=name)) == 1
            results = [
                heard.json
                for heard in it.observer.heard
                if "/channel/" in heard.topic and heard.topic.endswith("/result") and heard.json["id"] == "lot"
            ]
            assert len(results) == 128
            assert {(result["outcome"], result["verified"]) for result in results} == {("succeeded", True)}
            assert len({(result["cycler"], result["channel"]) for result in results}) == 128


class TestManyVariables:
    async def test_one_packet_for_all(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, channels=4) as it:
            await it.ready()
            body = {"channels": "all", "test_name": "T", "schedule": "ClosedLoop.sdx"}
            await it.observer.ask("arbin1", "start", body)
            values = {"values": {"1": 1.0, "2": 7.0}, "per_channel": {"3": {"1": 1.5}}}
            result = await it.observer.ask("arbin1", "set_mv", {"channels": "all", **values})
            assert result["channels"] == dict.fromkeys("1234", "succeeded")
            assert len(it.asked("update_meta_variables")) == 1
            assert it.asked("set_meta_variable") == []
            await it.observer.wait("arbin1/channel/3/state", lambda heard: heard.json["current_a"] == 1.5)
            await it.observer.wait("arbin1/channel/4/mv", lambda heard: heard.json == {"1": 1.0, "2": 7.0})

    @pytest.mark.parametrize("values", [{"1": 2.0}, {"1": 2.0, "2": 3.0}])
    async def test_values_for_some_of_all_channels(self, values: dict[str, float], tmp_path: Path) -> None:
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol, channels=4) as it:
            await started(it, 2, "ClosedLoop.sdx")
            body = {"channels": "all", "per_channel": {"2": values}}
            result = await it.observer.ask("arbin1", "set_mv", body)
            assert result["channels"] == {"1": "refused", "2": "succeeded", "3": "refused", "4": "refused"}
            assert (result["outcome"], result["reason"]) == ("refused", "malformed")

    async def test_one_variable_of_one_channel_is_a_single_write(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, channels=4) as it:
            target = await started(it, 2, "ClosedLoop.sdx")
            await it.observer.ask(target, "set_mv", {"values": {"1": 1.0}})
            assert (len(it.asked("set_meta_variable")), it.asked("update_meta_variables")) == (1, [])

    async def test_more_than_160_values_are_split(self, tmp_path: Path) -> None:
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol, channels=16) as it:
            await it.ready()
            body = {"channels": "all", "test_name": "T", "schedule": "ClosedLoop.sdx"}
            await it.observer.ask("arbin1", "start", body)
            values = {str(index): 0.5 for index in range(1, 16)}  # 16 channels x 15 variables
            result = await it.observer.ask("arbin1", "set_mv", {"channels": "all", "values": values})
            assert set(result["channels"].values()) == {"succeeded"}, result
            assert len(it.asked("update_meta_variables")) == 2

    async def test_a_server_that_knows_single_writes_only(self, port: int, kind: BrokerKind) -> None:
        faults = Faults(unknown=frozenset({"update_meta_variables"}))
        async with rig(port, kind.protocol, channels=4, faults=faults) as it:
            target = await started(it, 2, "ClosedLoop.sdx")
            for _ in range(2):
                result = await it.observer.ask(target, "set_mv", {"values": {"1": 1.0, "2": 2.0}})
                assert result["outcome"] == "succeeded"
            assert len(it.asked("update_meta_variables")) == 1
            assert len(it.asked("set_meta_variable")) == 4

    async def test_some_run_and_some_do_not(self, tmp_path: Path) -> None:
        from cti_mqtt.simulator import UpdateAnswer

        faults = Faults(advanced_answer=UpdateAnswer.CHANNEL)
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol, faults=faults) as it:
            await started(it, 2, "ClosedLoop.sdx")
            result = await it.observer.ask("arbin1", "set_mv", {"channels": [1, 2], "values": {"1": 1.0}})
            assert result["channels"] == {"1": "failed", "2": "succeeded"}
            assert result["reason"] == "not_running"


class TestTheCyclerAsAWhole:
    async def test_message(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            result = await it.observer.ask("arbin1", "message", {"text": "Cell 7 is warm"})
            assert (result["outcome"], result["channel"], result["code"]) == ("succeeded", None, 0)
            assert "channels" not in result
            (asked,) = it.asked("send_message")
            assert asked["arguments"]["message"].endswith("<-->Cell 7 is warm")

    async def test_a_message_that_is_not_shown(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, faults=Faults(results=(ForcedResult("send_message", 0),))) as it:
            await it.ready()
            result = await it.observer.ask("arbin1", "message", {"text": "x"})
            assert (result["outcome"], result["reason"]) == ("failed", "not_shown")

    @pytest.mark.parametrize(
        "body", [{}, {"text": ""}, {"text": 5}, {"text": "x" * 2000}, {"text": "x", "channels": [1]}]
    )
    async def test_messages_that_are_none(self, body: dict[str, object], tmp_path: Path) -> None:
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol) as it:
            await it.ready()
            result = await it.observer.ask("arbin1", "message", body)
            assert (result["outcome"], result["reason"]) == ("refused", "malformed")

    async def test_schedules(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            result = await it.observer.ask("arbin1", "schedules")
            assert (result["outcome"], result["message"]) == ("succeeded", "6 schedules")
            listed = await it.observer.wait("arbin1/schedules")
            assert listed.json == [
                *("CCCV.sdx", "ClosedLoop.sdx", "Discharge.sdx"),
                *("Formation.sdx", "Pause.sdx", "Rest.sdx"),
            ]

    async def test_schedules_that_the_cycler_does_not_show(self, tmp_path: Path) -> None:
        faults = Faults(results=(ForcedResult("browse", 3),))
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol, faults=faults) as it:
            await it.ready()
            result = await it.observer.ask("arbin1", "schedules")
            assert (result["outcome"], result["code"], result["reason"]) == ("failed", 3, "invalid")

    async def test_an_expectation_belongs_to_a_channel(self, tmp_path: Path) -> None:
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol) as it:
            await it.ready()
            result = await it.observer.ask("arbin1", "message", {"text": "x", "expect": {"status": "Idle"}})
            assert (result["outcome"], result["reason"]) == ("refused", "malformed")

    @pytest.mark.parametrize("verb", ["message", "schedules"])
    async def test_they_are_no_commands_to_a_channel(self, verb: str, tmp_path: Path) -> None:
        async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol) as it:
            await it.ready()
            result = await it.observer.ask("arbin1/channel/1", verb, {"text": "x"})
            assert (result["outcome"], result["reason"]) == ("refused", "unknown_command")


class TestMits7:
    async def test_the_values_that_the_channel_holds_are_sent_back(self, tmp_path: Path) -> None:
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(broker_of_kind(KIND, tmp_path))
            it = await stack.enter_async_context(rig(port, KIND.protocol, simulator={"version": 0}))
            await it.ready()
            target = "arbin1/channel/2"
            refused = await it.observer.ask(target, "assign", {"schedule": "CCCV.sdx"})
            assert (refused["reason"], "capacity_ah" in refused["message"]) == ("malformed", True)
            first = {"schedule": "CCCV.sdx", "capacity_ah": 2.5, "values": {"1": 1.5, "16": 3.0}}
            assert (await it.observer.ask(target, "assign", first))["outcome"] == "succeeded"
            second = {"schedule": "Rest.sdx", "capacity_ah": 2.5, "values": {"2": 7.0}}
            assert (await it.observer.ask(target, "assign", second))["outcome"] == "succeeded"
            sent = it.asked("assign")[-1]["arguments"]["meta_variables"]
            assert (sent[0], sent[1], sent[15]) == (1.5, 7.0, 3.0)

    async def test_what_cannot_be_read_is_not_overwritten(self, tmp_path: Path) -> None:
        faults = Faults(unknown=frozenset({"get_start_data"}))
        async with (
            broker_of_kind(KIND, tmp_path) as port,
            rig(port, KIND.protocol, faults=faults, simulator={"version": 0}) as it,
        ):
            await it.ready()
            body = {"schedule": "CCCV.sdx", "capacity_ah": 2.5}
            result = await it.observer.ask("arbin1/channel/2", "assign", body)
            assert (result["outcome"], it.asked("assign")) == ("refused", [])
            body["values"] = {str(index): 0.0 for index in range(1, 17)}
            assert (await it.observer.ask("arbin1/channel/2", "assign", body))["outcome"] == "succeeded"
