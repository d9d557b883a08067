"""A command with an id is executed once: repeats, conflicts, restarts in order and without."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.clock import stamp
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.simulator import Faults
from tests.support.brokers import MOSQUITTO_5, BrokerKind, broker_of_kind, needs_mosquitto
from tests.support.observer import Heard, Observer
from tests.support.rig import CONTROL, QUICK, Rig, quick_backoff, rig, settings

CHANNEL = "arbin1/channel/3"
START = {"id": "s1", "test_name": "T", "schedule": "CCCV.sdx"}
MOVING = ("assign", "start", "set_meta_variable", "update_meta_variables", "resume", "continue", "jump")


def results(observer: Observer, target: str, identity: str) -> list[dict[str, Any]]:
    """Every result with this id on a target's topic."""
    return [heard.json for heard in observer.on(f"{target}/result") if heard.json["id"] == identity]


async def told(observer: Observer, target: str, verb: str, body: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """Send a command, perhaps once more; the result that comes then."""
    before = len(results(observer, target, body["id"]))
    observer.say(f"{target}/command/{verb}", body, **properties)
    found = await observer.until(lambda: results(observer, target, body["id"])[before:], what=f"{verb} {body['id']}")
    assert isinstance(found[0], dict)
    return found[0]


async def nothing_more(it: Rig) -> None:
    """Until whatever was said before has had its time: a command that comes last has been answered."""
    await it.observer.ask("arbin1/channel/16", "set_mv", {"values": {"16": 1.0}})


def is_repeat(result: dict[str, Any], first: dict[str, Any]) -> bool:
    """The first result once more, and it says so."""
    return first["duplicate"] is False and result == {**first, "duplicate": True}


class TestRepeat:
    async def test_the_first_result_and_no_second_start(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            first = await told(it.observer, CHANNEL, "start", START)
            assert first["outcome"] == "succeeded"
            for _ in range(3):
                assert is_repeat(await told(it.observer, CHANNEL, "start", START), first)
            written = {"id": "v1", "values": {"1": 1.5}}
            value = await told(it.observer, CHANNEL, "set_mv", written)
            assert is_repeat(await told(it.observer, CHANNEL, "set_mv", written), value)
            await nothing_more(it)
            assert [each["command"] for each in it.asked(*MOVING)][:-1] == ["assign", "start", "set_meta_variable"]

    async def test_while_the_first_is_under_way(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            it.server.faults = Faults(delays_s={"assign": 0.5})
            for _ in range(4):
                it.observer.say(f"{CHANNEL}/command/start", START)
            await it.observer.until(lambda: len(results(it.observer, CHANNEL, "s1")) == 4)
            first, *repeats = results(it.observer, CHANNEL, "s1")
            assert first["outcome"] == "succeeded"
            assert all(is_repeat(repeat, first) for repeat in repeats)
            assert len(it.asked("assign")) == len(it.asked("start")) == 1

    async def test_a_refused_or_failed_one_is_repeated_as_well(self, port: int, kind: BrokerKind) -> None:
        """Else it would be carried out the second time, when nobody wants it any more."""
        async with rig(port, kind.protocol) as it:
            await it.ready()
            picky = {"id": "e1", "values": {"1": 1.0}, "expect": {"running": True}}
            refused = await told(it.observer, CHANNEL, "set_mv", picky)
            assert refused["reason"] == "expectation"
            unassigned = {"id": "f1", "test_name": "T", "schedule": "nowhere.sdx"}
            failed = await told(it.observer, CHANNEL, "start", unassigned)
            assert failed["outcome"] == "failed"
            await told(it.observer, CHANNEL, "start", START)
            assert is_repeat(await told(it.observer, CHANNEL, "set_mv", picky), refused)
            assert is_repeat(await told(it.observer, CHANNEL, "start", unassigned), failed)
            assert it.asked("set_meta_variable") == []

    async def test_only_the_sending_times_may_differ(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            await told(it.observer, CHANNEL, "start", START)
            body = {"id": "v1", "values": {"1": 1.5, "2": 2.0}}
            first = await told(it.observer, CHANNEL, "set_mv", {**body, "issued_at": stamp(datetime.now(UTC))})
            assert first["outcome"] == "succeeded"
            asked = len(it.asked(*MOVING))
            now = stamp(datetime.now(UTC))
            same: list[dict[str, Any]] = [
                {**body, "issued_at": now},
                {**body, "ttl_s": 5},
                {**body, "issued_at": now, "ttl_s": 7.5},
                {"values": {"2": 2.0, "1": 1.5}, "id": "v1"},
            ]
            for again in same:
                assert is_repeat(await told(it.observer, CHANNEL, "set_mv", again), first)
            for other in ({"values": {"1": 1.5}}, {"expect": {"running": False}}, {"dry_run": True}):
                conflict = await told(it.observer, CHANNEL, "set_mv", {**body, **dict[str, Any](other)})
                assert (conflict["outcome"], conflict["reason"]) == ("refused", "id_conflict")
                assert conflict["duplicate"] is False
            assert is_repeat(await told(it.observer, CHANNEL, "set_mv", body), first)  # a conflict leaves no trace
            assert len(it.asked(*MOVING)) == asked

    async def test_elsewhere_it_is_another_command(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, cyclers=("arbin1", "arbin2")) as it:
            await it.ready()
            await it.ready("arbin2")
            body = {"id": "same", "schedule": "CCCV.sdx"}
            targets = [CHANNEL, "arbin1/channel/4", "arbin2/channel/3"]
            found = [await told(it.observer, target, "assign", body) for target in targets]
            found.append(await told(it.observer, "arbin1", "assign", {**body, "channels": [3]}))
            found.append(await told(it.observer, CHANNEL, "start", {"id": "same", "test_name": "T"}))
            assert {(each["outcome"], each["duplicate"]) for each in found} == {("succeeded", False)}
            assert len(it.asked(*MOVING)) == 4
            assert len(it.asked(*MOVING, cycler="arbin2")) == 1

    async def test_a_stop_is_never_one(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            for number in range(2):
                await told(it.observer, CHANNEL, "start", {**START, "id": f"s{number}"})
                stopped = await told(it.observer, CHANNEL, "stop", {"id": "halt"})
                assert (stopped["outcome"], stopped["duplicate"]) == ("succeeded", False)
            assert len(it.asked("stop")) == 2
            everything = [await told(it.observer, "arbin1", "stop", {"id": "halt", "channels": [3]}) for _ in range(2)]
            assert [each["duplicate"] for each in everything] == [False, False]
            assert len(it.asked("stop")) == 4

    async def test_without_an_id_there_are_no_repeats(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            for _ in range(3):
                it.observer.say(f"{CHANNEL}/command/set_mv", {"values": {"1": 1.5}})
                it.observer.say(f"{CHANNEL}/command/mv/2", b"2.5")
            await it.observer.until(lambda: len(it.observer.on(f"{CHANNEL}/result")) == 6)
            bodies = [heard.json for heard in it.observer.on(f"{CHANNEL}/result")]
            assert len({body["id"] for body in bodies}) == 6
            assert {body["duplicate"] for body in bodies} == {False}

    async def test_too_late_or_unplugged_it_is_answered_all_the_same(self, port: int, kind: BrokerKind) -> None:
        """It was carried out: whoever asks again after a loss must not read that it was not."""
        async with rig(port, kind.protocol) as it:
            await it.ready()
            first = await told(it.observer, CHANNEL, "start", START)
            several = {"id": "m1", "channels": [5, 6], "values": {"1": 1.0}}
            summary = await told(it.observer, "arbin1", "set_mv", several)
            asked = len(it.asked(*MOVING))
            old = {"issued_at": stamp(datetime.now(UTC) - timedelta(hours=1))}
            ahead = {"issued_at": stamp(datetime.now(UTC) + timedelta(hours=1))}
            for times in (old, ahead):
                assert is_repeat(await told(it.observer, CHANNEL, "start", {**START, **times}), first)
                assert is_repeat(await told(it.observer, "arbin1", "set_mv", {**several, **times}), summary)
            fresh = await told(it.observer, CHANNEL, "start", {**START, "id": "new", **old})
            assert (fresh["reason"], fresh["duplicate"]) == ("expired", False)
            fresh = await told(it.observer, "arbin1", "set_mv", {**several, "id": "new", **old})
            assert (fresh["reason"], fresh["channels"]) == ("expired", {"5": "refused", "6": "refused"})
            await it.server.unplug()
            await it.observer.until_last("arbin1/availability", b"offline")
            assert is_repeat(await told(it.observer, CHANNEL, "start", START), first)
            assert is_repeat(await told(it.observer, "arbin1", "set_mv", several), summary)
            assert len(it.asked(*MOVING)) == asked


class TestManyChannels:
    @pytest.mark.parametrize("channels", [[2, 4, 99], "all"], ids=str)
    async def test_every_result_comes_again(self, port: int, kind: BrokerKind, channels: object) -> None:
        async with rig(port, kind.protocol, channels=6) as it:
            await it.ready()
            body = {"id": "m1", "channels": channels, "values": {"1": 1.5}}
            summary = await told(it.observer, "arbin1", "set_mv", body)
            asked = len(it.asked(*MOVING))
            numbers = list(map(int, summary["channels"]))
            assert len(numbers) == (3 if isinstance(channels, list) else 6)
            firsts = {n: results(it.observer, f"arbin1/channel/{n}", "m1")[0] for n in numbers}
            assert is_repeat(await told(it.observer, "arbin1", "set_mv", body), summary)
            for number in numbers:
                first, again = results(it.observer, f"arbin1/channel/{number}", "m1")
                assert first == firsts[number]
                assert is_repeat(again, first)
            assert len(it.asked(*MOVING)) == asked


@needs_mosquitto
async def test_the_repeat_is_answered_on_its_own_response_topic(tmp_path: Path) -> None:
    async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5) as it:
        await it.ready()

        def replies(topic: str) -> list[Heard]:
            return [heard for heard in it.observer.heard if heard.topic == topic]

        await told(it.observer, CHANNEL, "start", START, ResponseTopic="reply/one", CorrelationData=b"1")
        await told(it.observer, CHANNEL, "start", START, ResponseTopic="reply/two", CorrelationData=b"2")
        await it.observer.until(lambda: replies("reply/one") and replies("reply/two"))
        (one,), (two,) = replies("reply/one"), replies("reply/two")
        assert (one.correlation, two.correlation) == (b"1", b"2")
        assert is_repeat(two.json, one.json)
        several = {"id": "m", "channels": [5, 6], "values": {"1": 1.0}}
        for number in ("3", "4"):
            await told(it.observer, "arbin1", "set_mv", several, ResponseTopic=f"reply/{number}")
            await it.observer.until(partial(replies, f"reply/{number}"))
        assert is_repeat(replies("reply/4")[0].json, replies("reply/3")[0].json)
        assert len(replies("reply/4")) == 1  # the summary alone


# --- across restarts ---


class Runs:
    """Bridges one after the other, on the same cycler, broker and data directory."""

    def __init__(self, it: Rig, port: int, protocol: object, data_dir: Path) -> None:
        self.it = it
        self._port = port
        self._protocol = protocol
        self.data_dir = data_dir

    async def end(self) -> None:
        """The rig's own bridge ends in order."""
        self.it.stop.set()
        await self.it.observer.until_last("bridge/availability", b"offline")
        await asyncio.to_thread(self._wait_unlocked)

    def _wait_unlocked(self) -> None:
        """Until the data directory is free; a lock belongs to its thread, which also has to give it back."""
        with FileLock(self.data_dir / "lock").acquire(10):
            pass

    @asynccontextmanager
    async def again(
        self, data_dir: Path | None = None, prepare: Callable[[Bridge], None] = lambda _: None, **control: Any
    ) -> AsyncIterator[None]:
        """Another bridge; what was heard before is forgotten, and it is there."""
        self.it.observer.forget()
        cycler = {"control": {**CONTROL, **control}}
        configured = settings(self._port, self._protocol, self.it.servers, cycler, data_dir=data_dir or self.data_dir)
        stop, bridge = asyncio.Event(), Bridge(configured, backoff=quick_backoff, timing=QUICK)
        prepare(bridge)
        task = asyncio.create_task(bridge.run(stop), name="the next bridge")
        try:
            await self.it.ready()
            yield
        finally:
            stop.set()
            await task


class TestRestart:
    async def test_in_order(self, port: int, kind: BrokerKind, tmp_path: Path) -> None:
        data_dir = tmp_path / "data"
        async with rig(port, kind.protocol, data_dir=data_dir) as it:
            runs = Runs(it, port, kind.protocol, data_dir)
            await it.ready()
            first = await told(it.observer, CHANNEL, "start", START)
            several = {"id": "m1", "channels": [5, 6, 99], "values": {"1": 1.0}}
            summary = await told(it.observer, "arbin1", "set_mv", several)
            await runs.end()
            asked = len(it.asked(*MOVING))
            async with runs.again():
                assert is_repeat(await told(it.observer, CHANNEL, "start", START), first)
                assert is_repeat(await told(it.observer, "arbin1", "set_mv", several), summary)
                assert len(results(it.observer, "arbin1/channel/99", "m1")) == 1
                other = {**START, "test_name": "U"}
                assert (await told(it.observer, CHANNEL, "start", other))["reason"] == "id_conflict"
                assert len(it.asked(*MOVING)) == asked

    async def test_what_came_at_the_very_end_is_answered(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            for number in range(20):
                body = json.dumps({"id": f"i{number}", "values": {"1": number}}).encode()
                it.bridge._hear(Incoming("cti/arbin1/channel/1/command/set_mv", body, retain=False))
            it.stop.set()
            await it.observer.until_last("bridge/availability", b"offline")
            found = [heard.json for heard in it.observer.on("arbin1/channel/1/result")]
            assert sorted(each["id"] for each in found) == sorted(f"i{number}" for number in range(20))

    async def test_abandoned_in_the_middle(self, port: int, kind: BrokerKind, tmp_path: Path) -> None:
        """What is on disk while the server withholds its answer is what a killed bridge leaves."""
        data_dir, left = tmp_path / "data", tmp_path / "left"
        async with rig(port, kind.protocol, data_dir=data_dir, cycler={"timeout_s": 20}) as it:
            runs = Runs(it, port, kind.protocol, data_dir)
            await it.ready()
            it.server.faults = Faults(mute=frozenset({"assign", "update_meta_variables", "set_meta_variable"}))
            many = {"id": "m1", "channels": [5, 99, 6], "values": {"1": 1.0}}
            it.observer.say(f"{CHANNEL}/command/start", START)
            it.observer.say("arbin1/command/set_mv", many)
            await it.observer.wait("arbin1/channel/99/result")
            await it.observer.until(lambda: it.asked("assign") and len(it.asked(*MOVING)) >= 2)
            await asyncio.to_thread(shutil.copytree, data_dir, left)
            await runs.end()
            it.server.faults = Faults()
            asked = len(it.asked(*MOVING))
            async with runs.again(left):
                (first,) = await it.observer.until(lambda: results(it.observer, CHANNEL, "s1"))
                assert (first["outcome"], first["reason"]) == ("unknown", "restarted")
                assert (first["id"], first["command"], first["channel"]) == ("s1", "start", 3)
                (summary,) = await it.observer.until(lambda: results(it.observer, "arbin1", "m1"))
                assert summary["channels"] == {"5": "unknown", "6": "unknown", "99": "refused"}
                finding = await it.observer.wait(
                    f"{CHANNEL}/event", lambda heard: heard.json["type"] == "command_finding"
                )
                assert finding.json["command_id"] == "s1"
                assert is_repeat(await told(it.observer, CHANNEL, "start", START), first)
                assert is_repeat(await told(it.observer, "arbin1", "set_mv", many), summary)
                (stranger,) = results(it.observer, "arbin1/channel/99", "m1")
                assert (stranger["reason"], stranger["duplicate"]) == ("unknown_channel", True)
                assert len(it.asked(*MOVING)) == asked

    async def test_the_bridge_cancelled_in_the_middle(self, port: int, kind: BrokerKind, tmp_path: Path) -> None:
        data_dir = tmp_path / "data"
        async with rig(port, kind.protocol, data_dir=data_dir, cycler={"timeout_s": 20}) as it:
            runs = Runs(it, port, kind.protocol, data_dir)
            await it.ready()
            it.server.faults = Faults(mute=frozenset({"assign"}))
            it.observer.say(f"{CHANNEL}/command/start", START)
            await it.observer.until(lambda: it.asked("assign"))
            await runs.end()
            it.server.faults = Faults()
            (first,) = await it.observer.until(lambda: results(it.observer, CHANNEL, "s1"))
            assert (first["outcome"], first["reason"]) == ("unknown", "shutdown")
            async with runs.again():
                assert is_repeat(await told(it.observer, CHANNEL, "start", START), first)
                assert len(it.asked("assign")) == 1
                assert it.asked("start") == []

    @pytest.mark.parametrize("stop_timeout_s", [30, 0.01], ids=["young", "old"])
    async def test_a_stop_that_was_pursued(
        self, port: int, kind: BrokerKind, tmp_path: Path, stop_timeout_s: float
    ) -> None:
        data_dir, left = tmp_path / "data", tmp_path / "left"
        async with rig(port, kind.protocol, data_dir=data_dir, cycler={"timeout_s": 20}) as it:
            runs = Runs(it, port, kind.protocol, data_dir)
            await it.ready()
            await told(it.observer, CHANNEL, "start", START)
            it.server.faults = Faults(drop=frozenset({"stop"}))
            it.observer.say(f"{CHANNEL}/command/stop", {"id": "halt"})
            async with asyncio.timeout(15):
                while not await it.bridge._store.unfinished():  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # until it is lost on its way
            await asyncio.to_thread(shutil.copytree, data_dir, left)
            await runs.end()
            it.server.faults = Faults()
            stops = len(it.asked("stop"))
            async with runs.again(left, stop_timeout_s=stop_timeout_s):
                (result,) = await it.observer.until(lambda: results(it.observer, CHANNEL, "halt"))
                if stop_timeout_s == 30:
                    assert (result["outcome"], result["verified"]) == ("succeeded", True)
                    assert len(it.asked("stop")) == stops + 1
                    await it.observer.wait_last(f"{CHANNEL}/state", lambda heard: heard.json["status"] == "Idle")
                else:
                    assert (result["outcome"], result["reason"]) == ("unknown", "restarted")
                    assert len(it.asked("stop")) == stops
                    await it.observer.wait(
                        f"{CHANNEL}/event",
                        lambda heard: (heard.json["type"], heard.json["command_id"]) == ("command_finding", "halt"),
                    )
                await nothing_more(it)
                assert len(results(it.observer, CHANNEL, "halt")) == 1


@needs_mosquitto
async def test_a_repeat_that_comes_while_what_was_unfinished_is_read(tmp_path: Path) -> None:
    """It is found twice, and answered once."""
    data_dir, left, slow = tmp_path / "data", tmp_path / "left", {"timeout_s": 20}
    async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5, data_dir=data_dir, cycler=slow) as it:
        runs = Runs(it, port, 5, data_dir)
        await it.ready()
        it.server.faults = Faults(mute=frozenset({"assign"}))
        it.observer.say(f"{CHANNEL}/command/start", START)
        await it.observer.until(lambda: it.asked("assign"))
        await asyncio.to_thread(shutil.copytree, data_dir, left)
        await runs.end()
        it.server.faults, payload = Faults(), json.dumps(START).encode()

        def prepare(bridge: Bridge) -> None:
            read = bridge._store.unfinished

            def read_and_hear() -> Any:
                found = read()
                bridge._commander.hear(Incoming(f"cti/{CHANNEL}/command/start", payload, retain=False))
                return found

            bridge._store.unfinished = read_and_hear  # type: ignore[method-assign]

        async with runs.again(left, prepare):
            await it.observer.until(lambda: len(results(it.observer, CHANNEL, "s1")) >= 2)
            await nothing_more(it)
            first, again = results(it.observer, CHANNEL, "s1")
            assert first["reason"] == "restarted"
            assert is_repeat(again, first)
            assert is_repeat(await told(it.observer, CHANNEL, "start", START), first)
            assert len(results(it.observer, CHANNEL, "s1")) == 3
