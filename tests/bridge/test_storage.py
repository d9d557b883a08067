"""What cannot be put on record is not sent, a stop excepted; and what was said of an id stays said."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.store.schema import FILE_NAME
from cti_mqtt.errors import StorageError
from cti_mqtt.simulator import Faults
from tests.bridge.store.test_group_commit import stalled
from tests.bridge.test_once import CHANNEL, MOVING, START, Runs, is_repeat, nothing_more, results, told
from tests.support.brokers import MOSQUITTO_5, BrokerKind, broker_of_kind, needs_mosquitto
from tests.support.observer import Observer
from tests.support.rig import Rig, rig

pytestmark = needs_mosquitto

KIND: BrokerKind = MOSQUITTO_5
SET = {"id": "v1", "values": {"1": 1.5}}


def store_of(it: Rig) -> Store:
    return it.bridge._store


@asynccontextmanager
async def running_channel(folder: Path, **options: Any) -> AsyncIterator[Rig]:
    """A bridge on a cycler whose channel 3 runs a test."""
    async with broker_of_kind(KIND, folder) as port, rig(port, KIND.protocol, **options) as it:
        await it.ready()
        assert (await told(it.observer, CHANNEL, "start", {**START, "id": "begin"}))["outcome"] == "succeeded"
        it.extra["port"] = port
        yield it


def pages(it: Rig, most: int) -> "asyncio.Future[Any]":
    """Let the file grow to so many pages at the most."""

    def limit(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {most}").fetchall()

    return store_of(it)._database.submit(limit)


def fill(connection: sqlite3.Connection) -> None:
    """One command and one entry of the audit, as small as can be."""
    connection.execute(
        "INSERT INTO command(cycler, channel, verb, id, digest, received_at, channels, request, keep, finished) "
        "VALUES ('', 1, '', hex(randomblob(4)), '', '', '[]', '', 0, 1)"
    )


async def full(it: Rig) -> None:
    """From now on nothing is written: the last free places are taken."""
    await pages(it, 1)
    entry = dict.fromkeys("ts received_at who what cycler channel id before after outcome message".split())
    with contextlib.suppress(StorageError):
        while True:
            await store_of(it)._database.submit(fill)
    with contextlib.suppress(StorageError):
        while True:
            await store_of(it).audit([entry])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the database."""
    with closing(sqlite3.connect(path / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


async def healthy(observer: Observer, yes: bool) -> list[str]:
    """Until health says so from now on; its reasons."""
    before = len(observer.on("bridge/health"))

    def look() -> list[Any]:
        return [heard.json for heard in observer.on("bridge/health")[before:] if heard.json["healthy"] is yes]

    bodies = await observer.until(look, 20, f"healthy: {yes}")
    reasons = bodies[0]["reasons"]
    assert isinstance(reasons, list)
    return reasons


COMMANDS: list[tuple[str, str, dict[str, Any]]] = [
    (CHANNEL, "set_mv", {"values": {"1": 1.5}}),
    (CHANNEL, "jump", {"step": 2}),
    (CHANNEL, "continue", {}),
    (CHANNEL, "release", {}),
    ("arbin1/channel/4", "start", {"test_name": "U", "schedule": "CCCV.sdx"}),
    ("arbin1/channel/4", "assign", {"schedule": "CCCV.sdx"}),
    ("arbin1/channel/4", "resume", {}),
    ("arbin1", "message", {"text": "hello"}),
    ("arbin1", "schedules", {}),
]


class TestFullDisk:
    async def test_everything_but_a_stop_is_refused_until_it_is_back(self, tmp_path: Path) -> None:
        async with running_channel(tmp_path) as it:
            await full(it)
            asked = len(it.asked(*MOVING, "send_message"))
            for number, (target, verb, body) in enumerate(COMMANDS):
                result = await told(it.observer, target, verb, {"id": f"c{number}", **body})
                assert (result["outcome"], result["reason"]) == ("refused", "storage"), verb
                assert "full" in result["message"]
            many = await told(it.observer, "arbin1", "set_mv", {"id": "m", "channels": [3, 4], "values": {"1": 1.0}})
            assert (many["reason"], many["channels"]) == ("storage", {"3": "refused", "4": "refused"})
            (reason,) = await healthy(it.observer, False)
            assert reason.startswith("storage: ")
            assert "full" in reason
            stopped = await told(it.observer, CHANNEL, "stop", {"id": "halt"})
            assert (stopped["outcome"], stopped["verified"]) == ("succeeded", True)
            assert len(it.asked(*MOVING, "send_message")) == asked
            await pages(it, 2**30)
            await healthy(it.observer, True)
            for number, (target, verb, _) in enumerate(COMMANDS):
                assert len(results(it.observer, target, f"c{number}")) == 1, verb
            assert len(results(it.observer, CHANNEL, "halt")) == 1
            again = await told(it.observer, "arbin1/channel/4", "start", {"id": "after", **COMMANDS[4][2]})
            assert again["outcome"] == "succeeded"

    async def test_what_was_said_is_said_again_though_it_could_not_be_written(self, tmp_path: Path) -> None:
        """The command got on record, its result did not; the disk comes back, and so does the sender."""
        async with running_channel(tmp_path, data_dir=tmp_path / "data") as it:
            many = {"id": "m1", "channels": [3, 4, 99], "values": {"1": 1.0}}
            it.server.faults = Faults(delays_s={"set_meta_variable": 0.5, "update_meta_variables": 0.5, "assign": 0.5})
            it.observer.say("arbin1/command/set_mv", many)
            it.observer.say("arbin1/channel/5/command/start", START)
            await it.observer.wait("arbin1/channel/99/result")
            await full(it)
            (first,) = await it.observer.until(lambda: results(it.observer, "arbin1/channel/5", "s1"))
            assert first["outcome"] == "succeeded"  # published all the same
            (summary,) = await it.observer.until(lambda: results(it.observer, "arbin1", "m1"))
            before = [results(it.observer, f"arbin1/channel/{n}", "m1")[0] for n in (3, 4, 99)]
            await pages(it, 2**30)
            await healthy(it.observer, True)
            assert is_repeat(await told(it.observer, "arbin1/channel/5", "start", START), first)
            assert is_repeat(await told(it.observer, "arbin1", "set_mv", many), summary)
            for number, each in zip((3, 4, 99), before, strict=True):
                assert is_repeat(results(it.observer, f"arbin1/channel/{number}", "m1")[-1], each)
            assert len(it.asked("start")) == 2
            runs = Runs(it, it.extra["port"], KIND.protocol, tmp_path / "data")
            await runs.end()
            async with runs.again():  # by now it has been written
                assert is_repeat(await told(it.observer, "arbin1/channel/5", "start", START), first)
                assert is_repeat(await told(it.observer, "arbin1", "set_mv", many), summary)
                for number, each in zip((3, 4, 99), before, strict=True):
                    assert is_repeat(results(it.observer, f"arbin1/channel/{number}", "m1")[-1], each)


class TestStalledDisk:
    async def test_an_answer_after_its_patience_executes_nothing(self, tmp_path: Path) -> None:
        async with running_channel(tmp_path) as it:
            with stalled(store_of(it)):
                first = await told(it.observer, "arbin1/channel/5", "start", START)
                assert (first["outcome"], first["reason"]) == ("refused", "storage")
                second = await told(it.observer, "arbin1/channel/5", "start", START)
                assert second["reason"] == "storage"
                many = {"id": "m1", "channels": [3, 4], "values": {"1": 1.0}}
                summary = await told(it.observer, "arbin1", "set_mv", many)
                assert summary["reason"] == "storage"
                (reason,) = await healthy(it.observer, False)
                assert "did not answer within" in reason
                stopped = await told(it.observer, CHANNEL, "stop", {"id": "halt"})
                assert stopped["outcome"] == "succeeded"
            await healthy(it.observer, True)
            again = await told(it.observer, "arbin1/channel/5", "start", START)
            assert is_repeat(again, first)  # it got on record, too late to be carried out
            assert is_repeat(await told(it.observer, "arbin1", "set_mv", many), summary)
            assert len(results(it.observer, CHANNEL, "halt")) == 1
            assert len(it.asked("start")) == 1
            assert it.asked("set_meta_variable") == []

    async def test_a_repeat_that_nobody_could_look_up_changes_nothing(self, tmp_path: Path) -> None:
        async with running_channel(tmp_path) as it:
            first = await told(it.observer, CHANNEL, "set_mv", SET)
            it.server.faults = Faults(delays_s={"assign": 4.0})
            it.observer.say("arbin1/channel/5/command/start", START)
            await it.observer.until(lambda: len(it.asked("assign")) >= 1)
            await asyncio.sleep(0.2)
            with stalled(store_of(it)):
                refused = await told(it.observer, CHANNEL, "set_mv", SET)
                assert (refused["reason"], refused["duplicate"]) == ("storage", False)
                it.observer.say("arbin1/channel/5/command/start", START)  # unfinished: this run knows it all the same
                await it.observer.until(lambda: len(results(it.observer, "arbin1/channel/5", "s1")) == 2)
                done, repeat = results(it.observer, "arbin1/channel/5", "s1")
                assert done["outcome"] == "succeeded"
                assert is_repeat(repeat, done)
            await healthy(it.observer, True)
            before = len(results(it.observer, CHANNEL, "v1"))
            assert is_repeat(await told(it.observer, CHANNEL, "set_mv", SET), first)
            await nothing_more(it)
            assert len(results(it.observer, CHANNEL, "v1")) == before + 1  # the first one, and it alone
            assert is_repeat(await told(it.observer, "arbin1/channel/5", "start", START), done)
            assert len(it.asked("set_meta_variable")) == 2  # the other is this test's own last word
            assert len(it.asked("start")) == 2


class TestRestart:
    async def test_a_store_that_cannot_be_read_at_first(self, tmp_path: Path) -> None:
        """A stop that is heard before what was unfinished can be read is not left over from anywhere."""
        data_dir = tmp_path / "data"
        async with running_channel(tmp_path, data_dir=data_dir) as it:
            runs = Runs(it, it.extra["port"], KIND.protocol, data_dir)
            await runs.end()
            it.server.faults = Faults(drop=frozenset({"stop"}))
            with contextlib.ExitStack() as lock:
                lock.enter_context(locked(data_dir))
                async with runs.again(stop_timeout_s=6):
                    await healthy(it.observer, False)
                    refused = await told(it.observer, CHANNEL, "set_mv", SET)
                    assert refused["reason"] == "storage"
                    lock.close()
                    await healthy(it.observer, True)
                    it.observer.say(f"{CHANNEL}/command/stop", {"id": "halt"})
                    await asyncio.sleep(3)  # what was unfinished is read again every two seconds
                    it.server.faults = Faults()
                    await it.observer.until(lambda: results(it.observer, CHANNEL, "halt"))
                    await nothing_more(it)
                    (stopped,) = results(it.observer, CHANNEL, "halt")
                    assert (stopped["outcome"], stopped["verified"]) == ("succeeded", True)

    async def test_what_was_unfinished_is_answered_once(self, tmp_path: Path) -> None:
        """The sender asks for it just when the bridge finds it by itself."""
        data_dir, left = tmp_path / "data", tmp_path / "left"
        async with running_channel(tmp_path, data_dir=data_dir, cycler={"timeout_s": 20}) as it:
            runs = Runs(it, it.extra["port"], KIND.protocol, data_dir)
            it.server.faults = Faults(mute=frozenset({"assign"}))
            target = "arbin1/channel/5"
            it.observer.say(f"{target}/command/start", START)
            await it.observer.until(lambda: len(it.asked("assign")) == 2)
            await asyncio.to_thread(shutil.copytree, data_dir, left)
            await runs.end()
            it.server.faults = Faults()
            with contextlib.ExitStack() as lock:
                lock.enter_context(locked(left))
                async with runs.again(left):
                    assert (await told(it.observer, target, "start", START))["reason"] == "storage"
                    lock.close()
                    for _ in range(60):
                        await told(it.observer, target, "start", START)
                        await asyncio.sleep(0.05)
                    found = [each for each in results(it.observer, target, "s1") if each["reason"] != "storage"]
                    assert {(each["outcome"], each["reason"]) for each in found} == {("unknown", "restarted")}
                    assert [each["duplicate"] for each in found].count(False) == 1
                    assert it.asked("start") == it.asked("start")[:1]
