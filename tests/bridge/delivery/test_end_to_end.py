"""Readings reach the broker once its way is open again: a bridge, a simulated cycler, a real broker behind a proxy."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from cti_mqtt.bridge.bridge import Bridge
from tests.support.brokers import (
    ALL_KINDS,
    HOST,
    MOSQUITTO_5,
    MOSQUITTO_311,
    BrokerKind,
    broker_of_kind,
    needs_mosquitto,
)
from tests.support.observer import Observer
from tests.support.proxy import Pass, Proxy, Stall
from tests.support.rig import QUICK, Rig, quick_backoff, rig, settings

QUICK_BACKFILL = {"backfill_per_s": 500}


@pytest.fixture(params=ALL_KINDS)
def kind(request: pytest.FixtureRequest) -> BrokerKind:
    value = request.param
    assert isinstance(value, BrokerKind)
    return value


@asynccontextmanager
async def behind_proxy(kind: BrokerKind, folder: Path, **top: Any) -> AsyncIterator[tuple[Rig, Proxy]]:
    """A bridge that reaches its broker through a proxy; the observer reaches it directly."""
    top.setdefault("journal", QUICK_BACKFILL)
    async with (
        broker_of_kind(kind, folder) as port,
        Proxy(HOST, port) as proxy,
        rig(port, kind.protocol, mqtt={"port": proxy.port, **top.pop("mqtt", {})}, **top) as it,
    ):
        await it.ready()
        yield it, proxy


def polls(observer: Observer, leaf: str) -> list[dict[str, Any]]:
    return [heard.json for heard in observer.on(f"arbin1/{leaf}")]


def seqs(bodies: Iterable[dict[str, Any]], boot: str) -> list[int]:
    return [body["seq"] for body in bodies if body["boot"] == boot]


def everything(observer: Observer, boot: str) -> set[int]:
    return {*seqs(polls(observer, "readings"), boot), *seqs(polls(observer, "backfill"), boot)}


def complete(observer: Observer, boot: str, up_to: int) -> bool:
    """Whether every poll of a run was heard, up to a number."""
    return set(range(1, up_to + 1)) <= everything(observer, boot)


def taken(it: Rig) -> int:
    """How many polls the bridge has taken."""
    return it.bridge._stations["arbin1"].book.polls


async def until_taken(it: Rig, more: int) -> int:
    goal = taken(it) + more
    async with asyncio.timeout(15):
        while taken(it) < goal:  # noqa: ASYNC110  # nobody announces a poll while the broker is away
            await asyncio.sleep(0.02)
    return goal


async def test_the_broker_was_away(kind: BrokerKind, tmp_path: Path) -> None:
    async with behind_proxy(kind, tmp_path) as (it, proxy):
        boot = it.bridge._boot
        await proxy.refuse()
        proxy.cut()
        away = await until_taken(it, 12)
        await proxy.accept()
        await it.observer.until(
            lambda: complete(it.observer, boot, away) and max(seqs(polls(it.observer, "readings"), boot)) > away,
            timeout_s=40.0,
            what="every poll, and live ones again",
        )
        late = [body for body in polls(it.observer, "backfill") if body["boot"] == boot]
        assert len(late) >= 10
        assert all(body["historical"] is True for body in late)
        assert seqs(late, boot) == sorted(seqs(late, boot)), "oldest first"
        assert [body["ts"] for body in late] == sorted(body["ts"] for body in late)
        assert all(len(body["channels"]) == 16 for body in late)
        live = [body for body in polls(it.observer, "readings") if body["boot"] == boot]
        assert all("historical" not in body for body in live)
        assert late[-1]["ts"] < live[-1]["ts"]
        counts = Counter((body["boot"], body["seq"]) for body in late)
        assert max(counts.values()) == 1
        await it.observer.wait_last("bridge/health", lambda heard: heard.json["queue"] == 0 and heard.json["healthy"])


async def test_a_connection_that_hangs(kind: BrokerKind, tmp_path: Path) -> None:
    """What was written to the socket, and never acknowledged, comes again."""
    async with behind_proxy(kind, tmp_path, mqtt={"keepalive_s": 1}) as (it, proxy):
        boot = it.bridge._boot
        proxy.both(Stall())
        away = await until_taken(it, 10)
        proxy.cut()
        proxy.both(Pass())
        await it.observer.until(lambda: complete(it.observer, boot, away + 3), 40.0, "every poll")


async def test_an_earlier_run_could_not_deliver(kind: BrokerKind, tmp_path: Path) -> None:
    """The bridge ends while the broker is away; the next one delivers what the first one took."""
    data_dir = tmp_path / "data"
    async with broker_of_kind(kind, tmp_path) as port, Proxy(HOST, port) as proxy:  # noqa: SIM117  # two lines of one
        async with rig(port, kind.protocol, mqtt={"port": proxy.port}, data_dir=data_dir) as it:
            await it.ready()
            boot = it.bridge._boot
            await proxy.refuse()
            proxy.cut()
            away = await until_taken(it, 8)
            it.stop.set()
            await it.observer.wait("bridge/availability", lambda heard: heard.payload == b"offline")
            await _unlocked(data_dir)
            await proxy.accept()
            configured = settings(port, kind.protocol, it.servers, data_dir=data_dir)
            stop, bridge = asyncio.Event(), Bridge(configured, backoff=quick_backoff, timing=QUICK)
            task = asyncio.create_task(bridge.run(stop), name="the next bridge")
            try:
                await it.observer.until(lambda: complete(it.observer, boot, away), what="every poll of the first run")
                assert any(body["boot"] == bridge._boot for body in polls(it.observer, "readings"))
            finally:
                stop.set()
                await task


async def _unlocked(data_dir: Path) -> None:
    def wait() -> None:
        with FileLock(data_dir / "lock").acquire(10):
            pass

    await asyncio.to_thread(wait)


@needs_mosquitto
async def test_without_a_journal_memory_bridges_the_gap(tmp_path: Path) -> None:
    async with behind_proxy(MOSQUITTO_5, tmp_path, journal={"enabled": False, **QUICK_BACKFILL}) as (it, proxy):
        boot = it.bridge._boot
        await proxy.refuse()
        proxy.cut()
        away = await until_taken(it, 6)
        await proxy.accept()
        await it.observer.until(lambda: complete(it.observer, boot, away + 2), what="every poll")


def make_small(it: Rig) -> None:
    """Room for a few polls only, wherever they wait."""
    post = it.bridge._post
    post._waiting._max_bytes = 50_000
    if post._journal is not None:
        post._journal._bounds = post._journal._bounds.model_copy(update={"max_bytes": 6000})


@needs_mosquitto
@pytest.mark.parametrize("enabled", [True, False], ids=["journal", "memory"])
async def test_what_is_too_much_is_named(tmp_path: Path, *, enabled: bool) -> None:
    """Together, what was heard and what the events name as lost is everything."""
    async with behind_proxy(MOSQUITTO_5, tmp_path, journal={"enabled": enabled, **QUICK_BACKFILL}) as (it, proxy):
        boot = it.bridge._boot
        make_small(it)
        await proxy.refuse()
        proxy.cut()
        away = await until_taken(it, 25)
        await proxy.accept()

        def all_accounted_for() -> bool:
            named = {
                seq
                for heard in it.observer.on("arbin1/event")
                if heard.json["type"] == "gap"
                for seq in range(heard.json["after"]["from_seq"], heard.json["after"]["to_seq"] + 1)
            }
            return bool(named) and set(range(1, away + 1)) <= everything(it.observer, boot) | named

        await it.observer.until(all_accounted_for, what="every poll, or a gap that names it")

        def the_figures_agree() -> bool:
            health = it.observer.last("bridge/health")
            return health is not None and 0 < health.json["dropped"] == sum(
                heard.json["after"]["polls"]
                for heard in it.observer.on("arbin1/event")
                if heard.json["type"] == "gap" and heard.json["after"]["boot"] == boot
            )

        await it.observer.until(the_figures_agree, what="as many dropped as the events name")


@needs_mosquitto
async def test_a_poll_in_parts(tmp_path: Path) -> None:
    async with behind_proxy(MOSQUITTO_5, tmp_path, publish={"max_bytes": 4000}) as (it, proxy):
        boot = it.bridge._boot
        await proxy.refuse()
        proxy.cut()
        away = await until_taken(it, 4)
        await proxy.accept()
        await it.observer.until(lambda: complete(it.observer, boot, away + 1), what="every poll")
        late = polls(it.observer, "backfill")
        parts = sorted((body["part"], body["parts"]) for body in late if body["seq"] == away)
        assert parts == [(number, parts[0][1]) for number in range(1, parts[0][1] + 1)]
        channels = [reading["channel"] for body in late if body["seq"] == away for reading in body["channels"]]
        assert sorted(channels) == list(range(1, 17))


@needs_mosquitto
async def test_a_broker_that_drops_us_over_large_readings(tmp_path: Path) -> None:
    """It says nothing of a limit: the readings become smaller, and commands are heard again."""
    async with broker_of_kind(MOSQUITTO_311, tmp_path, extra="max_packet_size 6000") as port:  # noqa: SIM117  # two lines of one
        async with rig(port, "3.1.1", publish={"state": False}) as it:
            await it.observer.wait("arbin1/readings", timeout_s=30)
            told = await it.observer.wait("arbin1/event", lambda heard: heard.json["type"] == "publish_refused")
            assert "publish.max_bytes" in told.json["message"]
            await it.observer.wait("arbin1/readings", lambda heard: heard.json["part"] > 1)
            await it.observer.until_last("bridge/availability", b"online")
            assert (await it.observer.ask("arbin1/channel/1", "stop"))["reason"] == "not_running"


@needs_mosquitto
class TestTheDisk:
    async def test_somebody_else_holds_it(self, tmp_path: Path) -> None:
        """The journal cannot be written: readings flow on, the health message says so, and it mends itself."""
        async with behind_proxy(MOSQUITTO_5, tmp_path, data_dir=tmp_path / "data") as (it, proxy):
            boot = it.bridge._boot
            with closing(sqlite3.connect(tmp_path / "data" / "journal.sqlite3", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                begun = await until_taken(it, 3)
                await it.observer.until(lambda: complete(it.observer, boot, begun), what="live readings")
                told = await it.observer.wait(
                    "bridge/health", lambda heard: any("journal" in reason for reason in heard.json["reasons"])
                )
                assert told.json["healthy"] is False
                await proxy.refuse()
                proxy.cut()
                away = await until_taken(it, 6)
                await proxy.accept()
                await it.observer.until(lambda: complete(it.observer, boot, away + 2), what="every poll, from memory")
                other.execute("ROLLBACK")
            count = len(it.observer.heard)
            await it.observer.until(
                lambda: any(
                    heard.topic == "cti/bridge/health" and heard.json["healthy"] for heard in it.observer.heard[count:]
                ),
                what="healthy again",
            )

    async def test_it_is_back_before_the_broker_is(self, tmp_path: Path) -> None:
        """What waited in memory gets on disk, and from there to the broker, in order."""
        async with behind_proxy(MOSQUITTO_5, tmp_path, data_dir=tmp_path / "data") as (it, proxy):
            boot = it.bridge._boot
            await proxy.refuse()
            proxy.cut()
            with closing(sqlite3.connect(tmp_path / "data" / "journal.sqlite3", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await until_taken(it, 6)
                async with asyncio.timeout(15):
                    while not len(it.bridge._post._waiting):  # noqa: ASYNC110  # nobody announces it
                        await asyncio.sleep(0.02)
                other.execute("ROLLBACK")
            away = await until_taken(it, 5)
            await proxy.accept()
            await it.observer.until(lambda: complete(it.observer, boot, away + 1), what="every poll")


@needs_mosquitto
class TestReplay:
    async def test_a_range(self, tmp_path: Path) -> None:
        async with behind_proxy(MOSQUITTO_5, tmp_path) as (it, _):
            boot = it.bridge._boot
            await it.observer.until(lambda: complete(it.observer, boot, 6), what="some polls")
            assert min(seqs(polls(it.observer, "readings"), boot)) == 1
            result = await it.observer.ask("arbin1", "replay", {"boot": boot, "from_seq": 2, "to_seq": 5})
            assert (result["outcome"], result["reason"], result["channel"]) == ("succeeded", "ok", None)
            again = polls(it.observer, "backfill")[-4:]
            assert seqs(again, boot) == [2, 3, 4, 5]
            live = {body["seq"]: body for body in polls(it.observer, "readings")}
            for body in again:
                assert body == {**live[body["seq"]], "historical": True}

    async def test_a_repeat_sends_nothing(self, tmp_path: Path) -> None:
        async with behind_proxy(MOSQUITTO_5, tmp_path) as (it, _):
            boot = it.bridge._boot
            await it.observer.until(lambda: complete(it.observer, boot, 3), what="some polls")
            order = {"id": "r1", "boot": boot, "from_seq": 1, "to_seq": 2}
            first = await it.observer.ask("arbin1", "replay", order)
            it.observer.forget()
            again = await it.observer.ask("arbin1", "replay", order)
            assert again == {**first, "duplicate": True}
            assert polls(it.observer, "backfill") == []

    async def test_not_everything_is_kept(self, tmp_path: Path) -> None:
        async with behind_proxy(MOSQUITTO_5, tmp_path) as (it, _):
            boot = it.bridge._boot
            await it.observer.until(lambda: complete(it.observer, boot, 3), what="some polls")
            result = await it.observer.ask("arbin1", "replay", {"boot": "feedfeedfeedfeed", "from_seq": 1, "to_seq": 9})
            assert (result["outcome"], result["reason"]) == ("failed", "not_kept")
            assert "1 to 9 are not kept" in result["message"]
            assert f"of boot {boot}" in result["message"]

    async def test_the_cycler_is_away(self, tmp_path: Path) -> None:
        async with behind_proxy(MOSQUITTO_5, tmp_path) as (it, _):
            boot = it.bridge._boot
            await it.observer.until(lambda: complete(it.observer, boot, 3), what="some polls")
            await it.server.unplug()
            await it.observer.until_last("arbin1/availability", b"offline")
            result = await it.observer.ask("arbin1", "replay", {"boot": boot, "from_seq": 1, "to_seq": 2})
            assert result["outcome"] == "succeeded"

    @pytest.mark.parametrize(
        ("body", "word"),
        [
            ({}, "boot"),
            ({"boot": "b", "from_seq": 3, "to_seq": 2}, "before"),
            ({"boot": "b", "from_seq": 0, "to_seq": 2}, "from_seq"),
            ({"boot": "b", "from_seq": 1, "to_seq": 2, "channels": [1]}, "channels"),
            ({"boot": "b", "from_seq": 1, "to_seq": 2, "speed": 9}, "speed"),
        ],
    )
    async def test_malformed(self, tmp_path: Path, body: dict[str, Any], word: str) -> None:
        async with behind_proxy(MOSQUITTO_5, tmp_path) as (it, _):
            result = await it.observer.ask("arbin1", "replay", body)
            assert (result["outcome"], result["reason"]) == ("refused", "malformed")
            assert word in result["message"]

    async def test_too_much_at_once(self, tmp_path: Path) -> None:
        async with behind_proxy(MOSQUITTO_5, tmp_path) as (it, _):
            result = await it.observer.ask("arbin1", "replay", {"boot": "b", "from_seq": 1, "to_seq": 10_001})
            assert (result["outcome"], result["reason"]) == ("refused", "limit")

    async def test_no_journal(self, tmp_path: Path) -> None:
        async with behind_proxy(MOSQUITTO_5, tmp_path, journal={"enabled": False}) as (it, _):
            result = await it.observer.ask("arbin1", "replay", {"boot": "b", "from_seq": 1, "to_seq": 2})
            assert (result["outcome"], result["reason"]) == ("failed", "not_kept")
