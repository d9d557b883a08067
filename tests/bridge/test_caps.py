"""How many channels may run, what comes first, and that every command has one end in bounded time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.simulator import Faults, ForcedResult
from tests.bridge.test_once import results, told
from tests.support.brokers import MOSQUITTO_5, BrokerKind, broker_of_kind, needs_mosquitto
from tests.support.rig import CONTROL, Rig, rig

pytestmark = needs_mosquitto

KIND: BrokerKind = MOSQUITTO_5
START = {"test_name": "T", "schedule": "Rest.sdx"}


def on(channel: int) -> str:
    return f"arbin1/channel/{channel}"


@asynccontextmanager
async def bridge(folder: Path, *, control: Mapping[str, Any] | None = None, **cycler: Any) -> AsyncIterator[Rig]:
    """A cycler with 16 channels and a bridge that may do everything, within these bounds."""
    configured = {"control": {**CONTROL, **(control or {})}, **cycler}
    async with broker_of_kind(KIND, folder) as port, rig(port, KIND.protocol, cycler=configured) as it:
        await it.ready()
        yield it


async def shows(it: Rig, channel: int, *status: str) -> None:
    """Until the last state of a channel is one of these."""

    def look() -> bool:
        last = it.observer.last(f"{on(channel)}/state")
        return last is not None and last.json["status"] in status

    await it.observer.until(look, what=f"channel {channel}: {status}")


async def start(it: Rig, channel: int, **more: Any) -> str:
    result = await it.observer.ask(on(channel), "start", {**START, **more})
    return str(result["reason"])


async def just_polled(it: Rig) -> None:
    """Until a poll has come back: the next request is no poll."""
    before = len(it.observer.on("arbin1/readings"))
    await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) > before)


class TestMaxRunning:
    async def test_as_many_as_fit_run_and_each_end_makes_room(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 2}) as it:
            body = {"id": "m", "channels": [3, 1, 2, 5], **START}
            summary = await told(it.observer, "arbin1", "start", body)
            assert summary["channels"] == {"1": "succeeded", "2": "refused", "3": "succeeded", "5": "refused"}
            assert {results(it.observer, on(n), "m")[0]["reason"] for n in (2, 5)} == {"limit"}
            assert await start(it, 4) == "limit"
            await told(it.observer, on(1), "stop", {"id": "halt"})
            await shows(it, 1, "Idle")
            assert await start(it, 4) == "ok"
            assert await start(it, 5) == "limit"
            assert {channel for each in it.asked("start") for channel in each["arguments"]["channels"]} == {1, 3, 4}

    async def test_two_at_the_same_time_share_what_is_left(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 1}) as it:
            it.server.faults = Faults(delays_s={"assign": 0.3})
            for channel in (1, 2, 3):
                it.observer.say(f"{on(channel)}/command/start", {"id": f"s{channel}", **START})
            ends = [
                await it.observer.until(lambda channel=channel: results(it.observer, on(channel), f"s{channel}"))  # type: ignore[misc]
                for channel in (1, 2, 3)
            ]
            assert [each[0]["reason"] for each in ends] == ["ok", "limit", "limit"]

    async def test_paused_and_unknown_channels_count(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 2}) as it:
            it.server.faults = Faults(statuses={6: 99, 7: 13})
            await shows(it, 7, "Unknown 99")
            assert await start(it, 1) == "ok"
            assert await start(it, 2) == "limit"

    async def test_a_paused_channel_counts(self, tmp_path: Path) -> None:
        async with broker_of_kind(KIND, tmp_path) as port:
            capped = {"control": {**CONTROL, "max_running": 1}}
            async with rig(port, KIND.protocol, cycler=capped, simulator={"speed": 50.0}) as it:
                await it.ready()
                assert await start(it, 1, schedule="Pause.sdx") == "ok"
                await shows(it, 1, "Pause")
                assert await start(it, 2) == "limit"

    async def test_a_resume_counts(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 1}) as it:
            for channel in (1, 2):
                assert await start(it, channel) == "ok"
                await told(it.observer, on(channel), "stop", {"id": f"halt{channel}"})
                await shows(it, channel, "Idle", "Stop", "Stopped")
            assert (await it.observer.ask(on(1), "resume"))["reason"] == "ok"
            assert (await it.observer.ask(on(2), "resume"))["reason"] == "limit"
            assert await start(it, 2) == "limit"
            assert (await it.observer.ask("arbin1", "resume", {"channels": [2, 3]}))["reason"] == "limit"
            assert len(it.asked("resume")) == 1

    async def test_channels_that_were_never_seen_count(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 1}) as it:
            book = it.bridge._stations["arbin1"].book
            seen = book.latest
            book.latest = lambda channel: None if channel == 9 else seen(channel)  # type: ignore[method-assign]
            assert await start(it, 1) == "limit"

    async def test_a_start_that_fails_makes_room(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 1}) as it:
            assert await start(it, 1, schedule="nowhere.sdx") != "limit"
            it.server.faults = Faults(results=(ForcedResult("start", 0x11, times=1),))
            failed = await it.observer.ask(on(2), "start", START)
            assert failed["outcome"] == "failed"
            assert await start(it, 3) == "ok"

    async def test_one_of_unknown_outcome_counts_until_a_poll_shows_it(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 1}, timeout_s=0.3, poll_interval_s=2.5) as it:
            for channel in (1, 2):
                await it.observer.ask(on(channel), "assign", {"schedule": "Rest.sdx"})
            await just_polled(it)
            it.server.faults = Faults(mute=frozenset({"start"}))
            unknown = await it.observer.ask(on(1), "start", {"test_name": "T"})
            assert unknown["outcome"] == "unknown"
            reasons = {"not_connected"}
            while reasons == {"not_connected"}:
                reasons.add((await it.observer.ask(on(2), "start", {"test_name": "T"}))["reason"])
            assert reasons == {"not_connected", "limit"}
            assert len(it.asked("start")) == 1

    async def test_a_dry_run_tells_what_would_come_of_it(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_running": 2, "max_starts_per_min": 9}) as it:
            body = {"id": "m", "channels": [1, 2, 3], "dry_run": True, **START}
            summary = await told(it.observer, "arbin1", "start", body)
            assert summary["channels"] == {"1": "succeeded", "2": "succeeded", "3": "refused"}
            assert await start(it, 4) == "ok"  # a dry run takes nobody's place
            assert await start(it, 5) == "ok"
            assert {channel for each in it.asked("start") for channel in each["arguments"]["channels"]} == {4, 5}


class TestMaxStarts:
    async def test_rate(self, tmp_path: Path) -> None:
        async with bridge(tmp_path, control={"max_starts_per_min": 2}) as it:
            refused = await it.observer.ask(on(9), "start", {**START, "expect": {"running": True}})
            assert refused["reason"] == "expectation"  # never sent, so it does not count
            summary = await it.observer.ask("arbin1", "start", {"channels": [1, 2, 3], **START})
            assert summary["channels"] == {"1": "succeeded", "2": "succeeded", "3": "refused"}
            late = await it.observer.ask(on(4), "start", START)
            assert (late["reason"], late["outcome"]) == ("rate", "refused")
            assert "again in" in late["message"]
            assert (await it.observer.ask(on(4), "resume"))["reason"] == "rate"
            assert (await it.observer.ask(on(1), "set_mv", {"values": {"1": 1.0}}))["outcome"] == "succeeded"
            assert (await it.observer.ask(on(1), "stop"))["outcome"] == "succeeded"


# --- what comes first ---


class TestOrder:
    async def test_a_start_right_behind_a_stop(self, tmp_path: Path) -> None:
        """It is busy as long as the stop is not done; then it may start, and the stop does not end it."""
        async with bridge(tmp_path) as it:
            assert await start(it, 5) == "ok"
            it.server.faults = Faults(delays_s={"stop": 0.3})
            it.observer.say(f"{on(5)}/command/stop", {"id": "halt"})
            it.observer.say(f"{on(5)}/command/start", {"id": "again", **START})
            (again,) = await it.observer.until(lambda: results(it.observer, on(5), "again"))
            assert (again["outcome"], again["reason"]) == ("refused", "busy")
            (halt,) = await it.observer.until(lambda: results(it.observer, on(5), "halt"))
            assert (halt["outcome"], halt["verified"]) == ("succeeded", True)
            it.server.faults = Faults()
            assert await start(it, 5) == "ok"
            stops = len(it.asked("stop"))
            polls = len(it.observer.on("arbin1/readings"))
            await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) > polls + 12)
            assert len(it.asked("stop")) == stops
            await shows(it, 5, "Rest")

    @pytest.mark.parametrize("held", ["assign", "start"])
    async def test_a_stop_right_behind_a_start(self, tmp_path: Path, held: str) -> None:
        async with bridge(tmp_path) as it:
            it.server.faults = Faults(delays_s={held: 0.4})
            it.observer.say(f"{on(5)}/command/start", {"id": "go", **START, "values": {"1": 2.0}})
            await it.observer.until(lambda: it.asked("channels_info"))
            await asyncio.sleep(0.15)
            it.observer.say(f"{on(5)}/command/stop", {"id": "halt"})
            (went,) = await it.observer.until(lambda: results(it.observer, on(5), "go"))
            (halt,) = await it.observer.until(lambda: results(it.observer, on(5), "halt"))
            assert halt["outcome"] in {"succeeded", "failed"}  # the latter: it never ran
            if held == "assign":
                assert (went["outcome"], went["reason"], went["assigned"]) == ("failed", "superseded", True)
                assert it.asked("start") == []
            else:
                assert len(it.asked("start")) == 1
            await shows(it, 5, "Idle")
            assert it.asked("set_meta_variable") == []
            assert len(results(it.observer, on(5), "go")) == len(results(it.observer, on(5), "halt")) == 1

    async def test_writes_that_wait_when_a_stop_comes(self, tmp_path: Path) -> None:
        async with bridge(tmp_path) as it:
            await it.observer.ask("arbin1", "start", {"channels": [5, 6], **START})
            it.server.faults = Faults(delays_s={"set_meta_variable": 0.5})
            for number in range(4):
                it.observer.say(f"{on(5)}/command/set_mv", {"id": f"v{number}", "values": {f"{number + 1}": 1.0}})
            it.observer.say(f"{on(6)}/command/set_mv", {"id": "other", "values": {"9": 1.0}})
            await it.observer.until(lambda: it.observer.on("arbin1/readings"))
            await asyncio.sleep(0.2)
            it.observer.say(f"{on(5)}/command/stop", {"id": "halt"})
            ids = ("v0", "v1", "v2", "v3")
            ends = {
                identity: (await it.observer.until(lambda identity=identity: results(it.observer, on(5), identity)))[0]  # type: ignore[misc]
                for identity in ids
            }
            assert [ends[f"v{number}"]["reason"] for number in range(1, 4)] == ["superseded"] * 3
            assert ends["v0"]["outcome"] == "succeeded"  # it was on its way
            (other,) = await it.observer.until(lambda: results(it.observer, on(6), "other"))
            assert other["outcome"] == "succeeded"  # a stop of one channel is nothing to another
            behind = await it.observer.ask(on(5), "set_mv", {"values": {"5": 1.0}})
            assert behind["reason"] == "not_running"  # it came after the stop, and so does what it says
            sent = [each["command"] for each in it.asked("set_meta_variable", "update_meta_variables", "stop")]
            assert sent == ["set_meta_variable", "stop", "set_meta_variable", "set_meta_variable"]


# --- one outcome each, in bounded time ---

TIMEOUT_S = 0.3
INTERVAL_S = 0.5
COMMANDS: list[tuple[str, dict[str, Any], str]] = [
    ("assign", {"schedule": "CCCV.sdx"}, "assign"),
    ("start", {"test_name": "T"}, "start"),
    ("set_mv", {"values": {"1": 1.0}}, "set_meta_variable"),
    ("set_mv", {"values": {"1": 1.0, "2": 2.0}}, "update_meta_variables"),
    ("jump", {"step": 1}, "jump"),
    ("continue", {}, "continue"),
    ("resume", {}, "resume"),
    ("stop", {}, "stop"),
]
SILENCE = {
    "nothing": lambda command: Faults(drop=frozenset({command})),
    "done but not answered": lambda command: Faults(mute=frozenset({command})),
    "half a frame": lambda command: Faults(cut_after_frames=0),
    "the connection ends": lambda command: Faults(cut_after_requests=0),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("silence", SILENCE)
async def test_every_verb_has_one_end(tmp_path: Path, silence: str) -> None:
    control = {"verify_timeout_s": 0.5, "stop_timeout_s": 3}
    async with bridge(tmp_path, control=control, timeout_s=TIMEOUT_S, poll_interval_s=INTERVAL_S) as it:
        for number, (verb, body, command) in enumerate(COMMANDS):
            channel = number + 1
            if verb == "start":
                await it.observer.ask(on(channel), "assign", {"schedule": "Rest.sdx"})
            elif verb in {"set_mv", "jump", "stop"}:
                assert await start(it, channel) == "ok"
            await just_polled(it)
            it.server.faults = SILENCE[silence](command)
            if verb == "stop" and silence != "nothing":  # then it is pursued to its end
                asyncio.get_running_loop().call_later(2 * TIMEOUT_S, setattr, it.server, "faults", Faults())
            result = await told(it.observer, on(channel), verb, {"id": "c", **body})
            it.server.faults = Faults()
            if verb == "stop":
                assert (result["outcome"], silence == "nothing") in {("succeeded", False), ("unknown", True)}, result
            else:
                assert (result["outcome"], result["code"]) == ("unknown", None), (verb, result)
                assert result["reason"] in {"timeout", "connection_lost"}
                assert result["duration_ms"] < 1000 * (2 * TIMEOUT_S + 0.5), (verb, result)
                assert len(it.asked(command)) <= 1 + (verb == "assign")
            if result["outcome"] == "unknown":
                finding = await it.observer.wait(
                    f"{on(channel)}/event", lambda heard: heard.json["type"] == "command_finding"
                )
                assert finding.json["command_id"] == "c"
            await it.observer.until_last("arbin1/availability", b"online")
        for number in range(len(COMMANDS)):
            assert len(results(it.observer, on(number + 1), "c")) == 1
