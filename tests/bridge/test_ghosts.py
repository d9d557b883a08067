"""Retained topics that nobody keeps up to date any more: which they are, and that they go, they alone."""

import asyncio
import logging
import re
import shlex
import subprocess
from asyncio import Future
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bus import CyclerState
from cti_mqtt.bridge.ghosts import Ghosts, base_of, is_foreign, is_ghost
from cti_mqtt.bridge.mqtt import LOST, Settled
from cti_mqtt.bridge.store import Store
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.errors import StorageError
from cti_mqtt.publishing import Publish
from tests.bridge.bench import until
from tests.support.brokers import HOST, MOSQUITTO_5, MOSQUITTO_311, BrokerKind, broker_of_kind, needs_mosquitto
from tests.support.observer import Observer
from tests.support.rig import Rig, rig

COUNTS = {"arbin1": 8, "arbin2": None}
MOSQUITTOS = [
    pytest.param(MOSQUITTO_5, id=str(MOSQUITTO_5), marks=needs_mosquitto),
    pytest.param(MOSQUITTO_311, id=str(MOSQUITTO_311), marks=needs_mosquitto),
]


@pytest.mark.parametrize(
    ("topic", "ghost"),
    [
        ("lab/cti/bridge/availability", False),
        ("lab/cti/bridge/info", False),
        ("lab/cti/bridge/whatever", False),
        ("lab/cti/arbin1/availability", False),
        ("lab/cti/arbin1/info", False),
        ("lab/cti/arbin1/schedules", False),
        ("lab/cti/arbin1/channel/1/availability", False),
        ("lab/cti/arbin1/channel/8/state", False),
        ("lab/cti/arbin1/channel/8/mv", False),
        ("lab/cti/arbin1/channel/8/lease", False),
        ("lab/cti/arbin1/channel/8/alarm/stop_failed", False),
        ("lab/cti/arbin2/channel/1024/state", False),  # how many it has is not known yet
        ("lab/cti/arbin1/channel/9/availability", True),
        ("lab/cti/arbin1/channel/9/alarm/stop_failed", True),
        ("lab/cti/arbin3/availability", True),
        ("lab/cti/arbin3/channel/1/state", True),
        ("lab/cti/arbin1/values", True),
        ("lab/cti/arbin1/channel/1/value/voltage_v", True),
        ("lab/cti/arbin1/channel/0/state", True),
    ],
)
def test_what_is_a_ghost(topic: str, ghost: bool) -> None:
    assert not is_foreign(topic, "lab/cti")
    assert is_ghost(topic, "lab/cti", COUNTS, Publish()) is ghost


@pytest.mark.parametrize(
    ("topic", "base"),
    [
        ("cti/bridge/availability", "cti"),
        ("lab/arbin1/info", "lab"),
        ("lab/cti/availability", "lab"),  # of a cycler that is called as the last level of our base topic
        ("lab/cti/channel/1/state", "lab"),
        ("lab/cti2/arbin1/info", "lab/cti2"),
        ("lab/cti/bridge/arbin1/info", "lab/cti/bridge"),
        ("lab/cti/arbin1/bridge/health", "lab/cti/arbin1"),  # below ours, and another one all the same
        ("lab/cti/arbin1/arbin1/info", "lab/cti/arbin1"),
        ("lab/cti/arbin1/channel/availability", "lab/cti/arbin1"),
        ("lab/cti/arbin1/channel/channel/1/state", "lab/cti/arbin1"),
        ("lab/cti/arbin1/arbin1/channel/1/alarm/stop_failed", "lab/cti/arbin1"),
        ("lab", "lab"),
    ],
)
def test_of_another_base_topic_nothing_is_a_ghost(topic: str, base: str) -> None:
    """Another bridge may answer for it."""
    assert is_foreign(topic, "lab/cti")
    assert not is_ghost(topic, "lab/cti", COUNTS, Publish())
    assert base_of(topic) == base


def test_states_are_ghosts_where_they_are_not_published() -> None:
    for leaf, ghost in [("state", True), ("availability", False), ("lease", False)]:
        assert is_ghost(f"cti/arbin1/channel/1/{leaf}", "cti", COUNTS, Publish(state=False)) is ghost


class Shelf:
    """A list that is kept in memory, and may fail."""

    def __init__(self, *topics: str) -> None:
        self.topics = set(topics)
        self.fails = 0

    def retained_topics(self) -> "Future[tuple[str, ...]]":
        return self._answer(tuple(self.topics))

    def note_retained(self, add: Collection[str], remove: Collection[str]) -> "Future[None]":
        if not self.fails:
            self.topics = (self.topics | set(add)) - set(remove)
        return self._answer(None)

    def _answer(self, value: Any) -> "Future[Any]":
        asked: Future[Any] = asyncio.get_running_loop().create_future()
        if self.fails:
            self.fails -= 1
            asked.set_exception(StorageError("the disk is full"))
        else:
            asked.set_result(value)
        return asked


class Haunted:
    """Ghosts without a broker: what is to be cleared waits here."""

    def __init__(self, shelf: Shelf, *cyclers: str) -> None:
        self.shelf = shelf
        self.open = self.may_clear = True
        self.asked: dict[str, Settled] = {}
        self.forgotten: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.ghosts = Ghosts(
            "cti",
            cyclers,
            Publish(),
            shelf,
            retract=self._retract,
            forget=self.forgotten.append,
            may_clear=lambda: self.may_clear,
            tell=lambda kind, text: self.told.append((kind, text)),
        )

    def _retract(self, topic: str, settled: Settled) -> bool:
        if self.open:
            assert topic not in self.asked
            self.asked[topic] = settled
        return self.open

    def settle(self, problem: str | None = None) -> None:
        asked, self.asked = self.asked, {}
        for settled in asked.values():
            settled(problem)

    async def asks_for(self, *topics: str) -> None:
        await until(lambda: set(self.asked) == set(topics))

    def logs_in(self, channels: int) -> None:
        info = LoginFeedback.__new__(LoginFeedback)
        object.__setattr__(info, "channel_count", channels)
        self.ghosts.follow(CyclerState("arbin1", online=True, info=info))

    @classmethod
    @asynccontextmanager
    async def running(cls, *cyclers: str, listed: Collection[str] = ()) -> AsyncIterator["Haunted"]:
        it = cls(Shelf(*listed), *cyclers)
        task = asyncio.create_task(it.ghosts.run())
        try:
            yield it
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _a_while() -> None:
    """So long that what should not happen would have."""
    await asyncio.sleep(0.6)


OLD = "cti/arbin9/info"


async def test_cleared_is_what_the_broker_has_acknowledged() -> None:
    async with Haunted.running("arbin1", listed=[OLD]) as it:
        await it.asks_for(OLD)
        assert it.shelf.topics == {OLD}
        it.settle(LOST)
        await it.asks_for(OLD)
        it.settle("Not authorized")
        await _a_while()
        assert it.asked == {}  # not again and again
        assert it.shelf.topics == {OLD}
        it.ghosts._not_before.clear()
        await it.asks_for(OLD)
        it.settle()
        await until(lambda: it.shelf.topics == set())
        await _a_while()
        assert it.asked == {}


async def test_who_has_no_say_clears_nothing() -> None:
    async with Haunted.running("arbin1", listed=[OLD]) as it:
        it.may_clear = False
        await _a_while()
        assert it.asked == {}
        it.ghosts.saw("cti/arbin1/info")
        await until(lambda: it.shelf.topics == {OLD, "cti/arbin1/info"})
        it.may_clear = True
        await it.asks_for(OLD)


async def test_channels_are_ghosts_only_once_the_cycler_has_said_how_many_it_has() -> None:
    ours = {f"cti/arbin1/channel/{number}/state" for number in (1, 8, 9, 16)}
    async with Haunted.running("arbin1", listed=ours) as it:
        await _a_while()
        assert it.asked == {}
        it.logs_in(0)  # that cannot be
        await _a_while()
        assert it.asked == {}
        it.logs_in(8)
        await it.asks_for("cti/arbin1/channel/9/state", "cti/arbin1/channel/16/state")


async def test_a_login_says_nothing_of_other_cyclers() -> None:
    """Also not of one whose id begins the same."""
    ours = {f"cti/{name}/channel/{number}/state" for name in ("arbin1", "arbin11") for number in (1, 9)}
    async with Haunted.running("arbin1", "arbin11", listed=[OLD, *ours]) as it:
        await it.asks_for(OLD)
        it.logs_in(8)
        await it.asks_for(OLD, "cti/arbin1/channel/9/state")
        it.settle()
        await until(lambda: it.shelf.topics == ours - {"cti/arbin1/channel/9/state"})


async def test_channels_that_go_while_it_runs_take_their_topics_with_them() -> None:
    async with Haunted.running("arbin1") as it:
        it.logs_in(2)
        for number in (1, 2):
            for leaf in ("state", "availability", "alarm/stop_failed", "lease"):
                it.ghosts.saw(f"cti/arbin1/channel/{number}/{leaf}")
        await until(lambda: len(it.shelf.topics) == 8)
        it.logs_in(1)
        gone = "cti/arbin1/channel/2/state", "cti/arbin1/channel/2/availability"  # alarm and lease stand
        await it.asks_for(*gone)
        it.settle()
        await until(lambda: len(it.shelf.topics) == 6)
        it.ghosts.saw(gone[0])  # a straggler
        await it.asks_for(gone[0])
        it.settle()
        it.logs_in(2)
        it.ghosts.saw(gone[0])
        await until(lambda: gone[0] in it.shelf.topics)
        await _a_while()
        assert it.asked == {}


async def test_what_this_run_publishes_is_never_cleared() -> None:
    """Another output may have other topics."""
    other = "homeassistant/sensor/arbin1/config"
    async with Haunted.running("arbin1", listed=[other]) as it:
        it.ghosts.saw(other)
        await _a_while()
        assert (it.asked, it.told, it.shelf.topics) == ({}, [], {other})


async def test_what_is_left_under_other_base_topics_is_named_once_and_off_the_list() -> None:
    left = {"old/bridge/info", "old/arbin1/channel/1/state", "cti/lab 1/arbin1/info"}
    async with Haunted.running("arbin1", listed=[*left, "cti/arbin1/info"]) as it:
        await until(lambda: it.shelf.topics == {"cti/arbin1/info"})
        it.ghosts.add_cycler("arbin2")  # everything is judged again
        await _a_while()
        assert it.asked == {}
        assert [kind for kind, _ in it.told] == ["ghosts_left", "ghosts_left"]
        texts = sorted(text for _, text in it.told)
        assert texts[0].startswith("1 retained topics under 'cti/lab 1' are left")
        assert "mosquitto_sub -t 'cti/lab 1/+/+' -t 'cti/lab 1/+/channel/#' --remove-retained" in texts[0]
        assert texts[1].startswith("2 retained topics under 'old' are left")
        it.ghosts.saw("old/bridge/info")  # whoever publishes it now
        await until(lambda: it.shelf.topics == {"cti/arbin1/info", "old/bridge/info"})


async def test_who_has_no_say_does_not_name_what_is_left_yet() -> None:
    async with Haunted.running("arbin1", listed=["old/bridge/info"]) as it:
        it.may_clear = False
        await _a_while()
        assert (it.told, it.shelf.topics) == ([], {"old/bridge/info"})
        it.may_clear = True
        await until(lambda: it.told and not it.shelf.topics)


async def test_what_is_published_while_it_is_cleared_stays_listed() -> None:
    topic = "cti/arbin2/info"
    async with Haunted.running("arbin1", listed=[topic]) as it:
        await it.asks_for(topic)
        it.ghosts.add_cycler("arbin2")
        it.ghosts.saw(topic)
        it.settle()
        await _a_while()
        assert (it.asked, it.shelf.topics) == ({}, {topic})


async def test_a_cycler_that_is_dropped_takes_its_topics_with_it_but_for_alarms() -> None:
    """An alarm that stands is about a cell: a person must see it."""
    async with Haunted.running("arbin1", "arbin2") as it:
        hers, alarm = (
            ["cti/arbin2/availability", "cti/arbin2/channel/1/state"],
            "cti/arbin2/channel/1/alarm/stop_failed",
        )
        for topic in [*hers, alarm, "cti/arbin1/availability"]:
            it.ghosts.saw(topic)
        it.ghosts.drop_cycler("arbin2")
        await it.asks_for(*hers)
        assert it.forgotten == []
        it.settle()
        await until(lambda: it.shelf.topics == {alarm, "cti/arbin1/availability"})


async def test_beside_an_elder_bridge_a_dropped_cycler_is_only_not_published_again() -> None:
    async with Haunted.running("arbin1", "arbin2") as it:
        it.may_clear = False
        it.ghosts.saw("cti/arbin2/availability")
        it.ghosts.drop_cycler("arbin2")
        assert it.forgotten == ["cti/arbin2/availability"]
        await _a_while()
        assert it.asked == {}


async def test_trouble_with_the_disk_costs_time_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.ghosts.AGAIN_S", 0.05)
    shelf = Shelf(OLD)
    shelf.fails = 3
    it = Haunted(shelf, "arbin1")
    it.ghosts.saw("cti/arbin1/info")
    task = asyncio.create_task(it.ghosts.run())
    await it.asks_for(OLD)
    shelf.fails = 1
    it.ghosts.saw("cti/arbin1/availability")
    it.settle()
    await until(lambda: shelf.topics == {"cti/arbin1/info", "cti/arbin1/availability"})
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert sum("the disk is full" in record.getMessage() for record in caplog.records) == 2  # not each time


async def test_many_are_cleared_some_at_a_time() -> None:
    async with Haunted.running("arbin1", listed=[f"cti/arbin9/channel/{n}/state" for n in range(1, 1001)]) as it:
        while it.shelf.topics:
            await until(lambda: it.asked or not it.shelf.topics)
            assert len(it.asked) <= 200
            it.settle()
            await asyncio.sleep(0)


# --- another base topic than before, on real brokers ---


async def _retained(port: int, protocol: object, base: str) -> dict[str, bytes]:
    """What a newcomer is given below a base topic, by the whole topic."""
    async with Observer.connect(port, protocol, base) as newcomer:
        newcomer.say("marker", b"1")
        await newcomer.wait("marker")
        return {heard.topic: heard.payload for heard in newcomer.heard if heard.retain}


async def _all_there(it: Rig) -> None:
    await it.ready()
    await it.observer.wait("arbin1/channel/4/mv")
    await it.observer.until_last("arbin1/channel/4/availability", b"online")
    await it.observer.until_last("bridge/availability", b"online")
    await asyncio.sleep(0.6)  # written down


async def _listed(data_dir: Path) -> set[str]:
    store = Store(data_dir)
    await store.open()
    try:
        return set(await store.retained_topics())
    finally:
        await store.close()


@pytest.mark.parametrize("kind", MOSQUITTOS)
@pytest.mark.parametrize(("old", "new"), [("cti", "lab1"), ("cti", "cti/lab1"), ("cti/lab1", "cti")])
async def test_a_bridge_that_lives_under_the_old_base_topic_is_left_alone(
    kind: BrokerKind, old: str, new: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mine = tmp_path / "mine"
    async with broker_of_kind(kind, tmp_path) as port:

        def bridge(base: str, client_id: str, data_dir: Path) -> Any:
            mqtt = {"base_topic": base, "client_id": client_id}
            return rig(port, kind.protocol, channels=4, data_dir=data_dir, mqtt=mqtt)

        async with bridge(old, "one", mine) as it:
            await _all_there(it)
        async with bridge(old, "two", tmp_path / "other") as living:
            await _all_there(living)
            before = await _retained(port, kind.protocol, old)
            living.observer.forget()
            async with bridge(new, "one", mine) as it:
                await _all_there(it)
                await until(lambda: it.bridge._ghosts._loaded and not it.bridge._ghosts._left)
                await until(lambda: not it.bridge._ghosts._to_remove)
                after = await _retained(port, kind.protocol, old)
                assert set(before) <= set(after)
                for leaf in ("bridge/availability", "arbin1/availability"):
                    assert after[f"{old}/{leaf}"] == b"online"
                assert after[f"{old}/arbin1/channel/4/availability"] in {b"online", b"stale"}  # on a busy machine
                assert not {heard.topic for heard in living.observer.heard if not heard.payload} & set(before)
        assert all(topic.startswith(f"{new}/") for topic in await _listed(mine))
        assert not await _listed(mine) & set(before)
        said = [each.getMessage() for each in caplog.records if "left from an earlier" in each.getMessage()]
        assert len(said) == 1
        assert f"retained topics under {old!r}" in said[0]
        await _as_advised(said[0], port)
        left = {**(await _retained(port, kind.protocol, "cti")), **(await _retained(port, kind.protocol, "lab1"))}
        assert set(left) == await _listed(mine)


async def _as_advised(message: str, port: int) -> None:
    """Run the command that a message names."""
    command = re.search(r"mosquitto_sub .* -W 5", message)
    assert command
    words = [*shlex.split(command[0].replace("-W 5", "-W 1")), "-h", HOST, "-p", str(port)]
    await asyncio.to_thread(subprocess.run, words, stdout=subprocess.DEVNULL, check=False, timeout=30)
