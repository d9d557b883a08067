"""What a bridge makes of a record that was written elsewhere, otherwise or not well: it works, and says so."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.clock import stamp
from cti_mqtt.bridge.recovery import KEEP_IDS_S, MAX_REPEATS, Age
from cti_mqtt.bridge.store import Newest
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.bridge.store.schema import FILE_NAME
from cti_mqtt.bridge.store.space import Space
from cti_mqtt.simulator import Faults
from tests.bridge.bench import Bench, bench, until
from tests.bridge.store.test_group_commit import stalled
from tests.support.brokers import needs_mosquitto
from tests.support.rig import CONTROL, QUICK, quick_backoff, settings

pytestmark = needs_mosquitto

CHANNEL = "arbin1/channel/1"
ALARM = f"{CHANNEL}/alarm/lease_expired"
LONG_AGO = "2026-01-01T00:00:00.000Z"
LEASE = "INSERT INTO lease VALUES('arbin1', ?, ?, NULL, ?, ?, ?, ?, 'running')"
COMMAND = (
    "INSERT INTO command(cycler, channel, verb, id, digest, received_at, user, channels, request, keep) "
    "VALUES ('arbin1', ?, ?, ?, 'd', ?, NULL, ?, '{}', 1)"
)


def meddle(folder: Path, statement: str, *arguments: object) -> None:
    """What no bridge would write, into the record of one that does not run."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as meddler, meddler:
        meddler.execute(statement, arguments)


def lease(folder: Path, channel: object, on_expiry: str, ttl_s: object = 5, expires_at: str = LONG_AGO) -> None:
    meddle(folder, LEASE, channel, f"lease {channel}", LONG_AGO, expires_at, ttl_s, on_expiry)


@asynccontextmanager
async def left_running(folder: Path, **more: Any) -> AsyncIterator[Bench]:
    """Channel 1 runs with MV_UD1 = 0.5, and the bridge that did it has ended."""
    async with bench(folder, **more) as it:
        async with it.running():
            await it.start(1)
            await it.observer.ask(CHANNEL, "set_mv", {"values": {"1": 0.5}})
        yield it


async def rows(bridge: Bridge) -> int:
    return len(await bridge._store.leases())


# --- rows that cannot be read ---


@pytest.mark.parametrize(
    ("on_expiry", "ttl_s", "expires_at"),
    [
        ('{"set_mv": {"17": 1}}', 5, LONG_AGO),
        ('"stop"', 0, LONG_AGO),
        ("{", 5, LONG_AGO),
        ('{"set_mv": {"1": 0}}', "long", LONG_AGO),
        ('{"set_mv": {"1": 0}}', 5, "yesterday"),
        ('{"set_mv": {"1": 0}}', 5, "2999-01-01T00:00:00"),
    ],
)
async def test_a_lease_that_cannot_be_read_stops_its_channel(
    on_expiry: str, ttl_s: object, expires_at: str, tmp_path: Path
) -> None:
    async with left_running(tmp_path) as it:
        lease(it.data_dir, 1, on_expiry, ttl_s, expires_at)
        lease(it.data_dir, 2, '"alarm"')
        async with it.running() as bridge:
            raised = await it.event(1, "alarm_raised")  # the topic may be empty again before the broker is there
            assert "a lease is on record, but cannot be read: the channel is stopped" in raised["message"]
            await until(lambda: not it.channel(1).active)
            await it.event(1, "lease_settled")
            await it.event(2, "lease_settled")
            assert await rows(bridge) == 0
            await it.start(1)


async def test_a_lease_of_no_channel_is_left_out(tmp_path: Path) -> None:
    async with left_running(tmp_path) as it:
        lease(it.data_dir, "one", '"stop"')
        lease(it.data_dir, 1, '{"set_mv": {"1": 0}}')
        async with it.running():
            await until(lambda: it.variable(1, 1) == 0.0)
            assert it.channel(1).active


@pytest.mark.parametrize("body", ["{", "[]", '{"raised_at": 3}', "\x00"])
async def test_an_alarm_that_cannot_be_read_stands(body: str, tmp_path: Path) -> None:
    async with left_running(tmp_path) as it:
        meddle(it.data_dir, "INSERT INTO alarm VALUES('arbin1', 1, 'stop_failed', ?)", body)
        async with it.running():
            heard = await it.observer.wait(f"{CHANNEL}/alarm/stop_failed", lambda heard: heard.payload)
            assert heard.json["message"].endswith("cannot be read")
            assert (await it.observer.ask(CHANNEL, "stop"))["outcome"] == "succeeded"
            await it.observer.until_last(f"{CHANNEL}/alarm/stop_failed", b"")


@pytest.mark.parametrize(
    ("number", "received_at", "channels"),
    [(1, "bad", "[1]"), (1, LONG_AGO, "["), (-1, "bad", "[1, 2]"), (-1, LONG_AGO, "{}"), (-1, "2026-01-01", "null")],
)
async def test_a_command_that_cannot_be_read_is_unknown(
    number: int, received_at: str, channels: str, tmp_path: Path
) -> None:
    target = CHANNEL if number == 1 else "arbin1"
    async with left_running(tmp_path) as it:
        meddle(it.data_dir, COMMAND, number, "start", "q", received_at, channels)
        meddle(it.data_dir, COMMAND, 2, "start", "sound", LONG_AGO, "[2]")
        async with it.running() as bridge:
            for where, identity in ((target, "q"), ("arbin1/channel/2", "sound")):
                result = await it.result(where, identity)
                assert (result["outcome"], result["reason"]) == ("unknown", "restarted")
            await until(lambda: bridge._store.problem == "")
            assert await bridge._store.unfinished() == ()


async def test_a_result_that_cannot_be_read_is_not_sent_again(tmp_path: Path) -> None:
    async with left_running(tmp_path) as it:
        order = {"id": "s", "test_name": "T", "schedule": "CCCV.sdx"}
        async with it.running():
            assert (await it.observer.ask("arbin1/channel/2", "start", order))["outcome"] == "succeeded"
        meddle(it.data_dir, "UPDATE result SET body = '{' WHERE command IN (SELECT number FROM command WHERE id = 's')")
        async with it.running():
            it.observer.say("arbin1/channel/2/command/start", order)
            await until(lambda: len(it.results("s")) == 2)
            assert (it.results("s")[1]["outcome"], it.results("s")[1]["reason"]) == ("refused", "storage")
            assert len(it.asked("start")) == 2


# --- where the bridge must not act ---


@pytest.mark.parametrize("control", [{"mode": "shadow"}, {"enabled": False}])
@pytest.mark.parametrize("on_expiry", ['{"set_mv": {"1": 0}}', '"stop"'])
async def test_without_control_an_alarm_is_all(control: Mapping[str, Any], on_expiry: str, tmp_path: Path) -> None:
    async with left_running(tmp_path) as it:
        lease(it.data_dir, 1, on_expiry)
        meddle(it.data_dir, COMMAND, 1, "stop", "halt#1", stamp(datetime.now(UTC)), "[1]")
        it.control = control
        written = len(it.written(1, 1))
        async with it.running() as bridge:
            heard = await it.observer.wait(ALARM, lambda heard: heard.payload)
            assert "nothing is sent" in heard.json["message"]
            assert "nothing is sent" in (await it.event(1, "lease_expired"))["message"]
            assert "nothing was sent" in (await it.event(1, "lease_settled"))["message"]
            assert (await it.result(CHANNEL, "halt"))["reason"] == "restarted"
            await asyncio.sleep(0.5)
            assert (len(it.written(1, 1)), it.asked("stop"), it.channel(1).active) == (written, [], True)
            assert await rows(bridge) == 0
            it.channel(1).stop()
            await it.observer.until_last(ALARM, b"")


@pytest.mark.parametrize("on_expiry", ['{"set_mv": {"1": 0}}', '"stop"'])
async def test_a_channel_that_is_not_there_is_not_written_to(on_expiry: str, tmp_path: Path) -> None:
    async with left_running(tmp_path) as it:
        lease(it.data_dir, 20, on_expiry)
        async with it.running() as bridge:
            heard = await it.observer.wait("arbin1/channel/20/alarm/lease_expired", lambda heard: heard.payload)
            assert heard.json["message"].endswith("the cycler has no channel 20, but 4 channels")
            await it.event(20, "lease_settled")
            await asyncio.sleep(0.5)
            assert (it.asked("stop"), it.written(20, 1)) == ([], [])
            assert await rows(bridge) == 0


async def test_it_is_not_decided_before_the_channels_are_known(tmp_path: Path) -> None:
    async with left_running(tmp_path, control={"stop_timeout_s": 1.0}) as it:
        lease(it.data_dir, 1, '"stop"')
        lease(it.data_dir, 20, '"stop"')
        await it.server.unplug()
        async with it.running():
            heard = await it.observer.wait(ALARM, lambda heard: heard.payload)
            assert "is not reached" in heard.json["message"]
            assert "lease_settled" not in it.events(20)
            await it.server.replug()
            await it.event(20, "lease_settled")
            await until(lambda: not it.channel(1).active)
            await it.observer.until_last(ALARM, b"")
            assert {entry["arguments"]["channel"] for entry in it.asked("stop")} == {1}


@asynccontextmanager
async def second(it: Bench, folder: Path, ttl_s: float) -> AsyncIterator[Bridge]:
    """A younger bridge on the same base topic, with a lease on record that runs out in a while."""
    folder.mkdir()  # noqa: ASYNC240  # a test may
    with (
        closing(sqlite3.connect(it.data_dir / FILE_NAME)) as source,
        closing(sqlite3.connect(folder / FILE_NAME)) as copy,
    ):
        source.backup(copy)
    lease(folder, 1, '"stop"', ttl_s, stamp(datetime.now(UTC) + timedelta(seconds=ttl_s)))
    configured = settings(
        it.broker.port, 5, {"arbin1": it.server}, {"control": CONTROL}, data_dir=folder, mqtt={"client_id": "second"}
    )
    bridge = Bridge(configured, backoff=quick_backoff, timing=QUICK)
    stop = asyncio.Event()
    task = asyncio.create_task(bridge.run(stop), name="second bridge")
    try:
        await until(lambda: bridge._presence.standing_down)
        yield bridge
    finally:
        stop.set()
        await task


@pytest.mark.parametrize("comes_to_rest", [False, True])
async def test_beside_an_elder_bridge_it_waits(comes_to_rest: bool, tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        async with second(it, tmp_path / "second", 2.0) as younger:
            assert "an elder bridge" in (await it.event(1, "lease_held_back"))["message"]
            await asyncio.sleep(0.5)
            assert (it.asked("stop"), it.channel(1).active) == ([], True)
            if comes_to_rest:
                it.channel(1).stop()
                assert "does not run" in (await it.event(1, "lease_settled"))["message"]
                assert await rows(younger) == 0
                return
        # ended with the younger: it had stood by to its end


async def test_when_the_elder_bridge_is_gone_it_acts(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        elder = it.running()
        await elder.__aenter__()
        await it.start(1)
        async with second(it, tmp_path / "second", 2.0):
            await it.event(1, "lease_held_back")
            await elder.__aexit__(None, None, None)
            await until(lambda: not it.channel(1).active)
            await it.event(1, "lease_settled")


# --- clocks ---


async def test_a_stop_from_the_future_is_pursued(tmp_path: Path) -> None:
    async with left_running(tmp_path) as it:
        meddle(it.data_dir, COMMAND, 1, "stop", "halt#1", stamp(datetime.now(UTC) + timedelta(hours=1)), "[1]")
        async with it.running():
            assert (await it.result(CHANNEL, "halt"))["outcome"] == "succeeded"
            assert not it.channel(1).active


NOW = datetime(2026, 6, 15, tzinfo=UTC)
WEEK = timedelta(seconds=KEEP_IDS_S)


class TestAge:
    def test_of_earlier_runs_by_the_stamps(self) -> None:
        age = Age(Newest(9, stamp(NOW - timedelta(hours=1))))
        assert age.old(NOW, 0.0, Newest(12, stamp(NOW))) == [(9, stamp(NOW - timedelta(hours=1) - WEEK))]

    def test_a_clock_that_was_behind_does_not_make_them_older(self) -> None:
        behind = NOW - timedelta(days=30)
        age = Age(Newest(9, stamp(behind)))
        assert age.old(NOW, 600.0, Newest(12, stamp(NOW))) == [(9, stamp(behind - WEEK))]

    def test_nor_one_that_was_ahead(self) -> None:
        age = Age(Newest(9, stamp(NOW + timedelta(days=30))))
        assert age.old(NOW, 0.0, Newest(9, None)) == [(9, stamp(NOW - WEEK))]

    def test_of_this_run_by_the_clock_that_does_not_jump(self) -> None:
        age = Age(Newest(0, None))
        for hour in range(7 * 24):
            moment = NOW + timedelta(days=100 * (hour % 2))
            assert age.old(moment, 3600.0 * hour, Newest(hour + 1, stamp(moment))) == []
        assert age.old(NOW, KEEP_IDS_S + 1, Newest(500, stamp(NOW))) == [(1, None)]
        assert age.old(NOW, KEEP_IDS_S + 3601, Newest(500, stamp(NOW))) == [(2, None)]
        assert age.old(NOW, 2 * KEEP_IDS_S, Newest(500, stamp(NOW))) == [(168, None)]
        assert age.old(NOW, 3 * KEEP_IDS_S, Newest(500, stamp(NOW))) == [(500, None)]

    def test_an_empty_record_or_an_unreadable_stamp(self) -> None:
        assert Age(Newest(0, None)).old(NOW, 0.0, Newest(0, None)) == []
        assert Age(Newest(3, "bad")).old(NOW, 0.0, Newest(3, "bad")) == []


# --- repeats ---


async def test_a_repeat_waits_for_the_first_although_nothing_can_be_stored(tmp_path: Path) -> None:
    order = {"id": "s", "test_name": "T", "schedule": "CCCV.sdx"}
    async with bench(tmp_path, faults=Faults(delays_s={"start": 3.0})) as it, it.running() as bridge:
        it.observer.say(f"{CHANNEL}/command/start", order)
        await until(lambda: it.asked("start"))
        with stalled(bridge._store):
            it.observer.say(f"{CHANNEL}/command/start", order)
            it.observer.say(f"{CHANNEL}/command/start", {**order, "test_name": "other"})
            await until(lambda: len(it.results("s")) == 1)
            assert it.results("s")[0]["reason"] == "storage"
            await until(lambda: len(it.results("s")) == 3)
            it.observer.say(f"{CHANNEL}/command/start", order)
            await until(lambda: len(it.results("s")) == 4)
        assert [(each["outcome"], each["duplicate"]) for each in it.results("s")[1:]] == [
            ("succeeded", False), ("succeeded", True), ("succeeded", True),
        ]  # fmt: skip
        assert len(it.asked("start")) == 1


async def test_only_so_many_repeats_wait(tmp_path: Path) -> None:
    order = {"id": "s", "test_name": "T", "schedule": "CCCV.sdx"}
    async with bench(tmp_path, faults=Faults(delays_s={"start": 2.0})) as it, it.running():
        for _ in range(MAX_REPEATS + 6):
            it.observer.say(f"{CHANNEL}/command/start", order)
        await until(lambda: len(it.results("s")) == MAX_REPEATS + 6)
        reasons = [(each["reason"], each["duplicate"]) for each in it.results("s")]
        assert reasons[:5] == [("busy", False)] * 5
        assert reasons[5:] == [("ok", False)] + [("ok", True)] * MAX_REPEATS
        assert len(it.asked("start")) == 1


# --- room ---


async def test_what_a_command_to_the_cycler_said_is_on_record_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        async with it.running():
            order = {"id": "many", "channels": "all", "schedule": "CCCV.sdx"}
            assert (await it.observer.ask("arbin1", "assign", order))["outcome"] == "succeeded"
            await it.observer.ask(CHANNEL, "assign", {"id": "one", "schedule": "Rest.sdx"})
        with read_audit(it.data_dir / FILE_NAME) as reader:
            entries = [json.loads(row.entry) for row in reader.rows()]
        many = [(entry["channel"], entry.get("request")) for entry in entries if entry["id"] == "many"]
        assert many == [(1, None), (2, None), (3, None), (4, None), (None, json.dumps(order))]
        assert [json.loads(entry["request"])["schedule"] for entry in entries if entry["id"] == "one"] == ["Rest.sdx"]


async def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [Space(10**8, 10**12)]
    monkeypatch.setattr("cti_mqtt.bridge.store.store.space_of", lambda _: left[0])
    monkeypatch.setattr("cti_mqtt.bridge.health.SPACE_S", 0.2)
    why = (
        "storage: the disk with data_dir has 100 MB free (0.0%); when it is full, commands other than stop are refused"
    )
    async with bench(tmp_path) as it, it.running():
        heard = await it.observer.wait("bridge/health", lambda heard: why in heard.json["reasons"])
        assert heard.json["healthy"] is False
        left[0] = Space(10**11, 10**12)
        count = len(it.observer.heard)
        await it.observer.until(
            lambda: [
                each
                for each in it.observer.heard[count:]
                if each.topic == "cti/bridge/health" and why not in each.json["reasons"]
            ]
        )
