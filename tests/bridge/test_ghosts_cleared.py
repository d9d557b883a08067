"""Ghosts on real brokers: after a restart with less, a kill, another base topic, beside an elder bridge."""

import asyncio
import json
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.store import Store
from cti_mqtt.simulator import SimulatedServer
from tests.bridge.bench import until
from tests.support.brokers import MOSQUITTO_5, MOSQUITTO_311, BrokerKind, broker_of_kind, needs_mosquitto
from tests.support.observer import Observer
from tests.support.processes import Program, program
from tests.support.rig import PASSWORD, Rig, rig, settings, simulated

MOSQUITTOS = [
    pytest.param(MOSQUITTO_5, id=str(MOSQUITTO_5), marks=needs_mosquitto),
    pytest.param(MOSQUITTO_311, id=str(MOSQUITTO_311), marks=needs_mosquitto),
]


async def _retained(port: int, protocol: object, base: str = "cti") -> dict[str, bytes]:
    """What a newcomer is given, by topic without the base."""
    async with Observer.connect(port, protocol, base) as newcomer:
        newcomer.say("marker", b"1")
        await newcomer.wait("marker")
        return {heard.topic.removeprefix(f"{base}/"): heard.payload for heard in newcomer.heard if heard.retain}


async def _all_there(it: Rig, cyclers: Collection[str], channels: int) -> None:
    for cycler in cyclers:
        await it.observer.wait(f"{cycler}/channel/{channels}/state")
        await it.observer.wait(f"{cycler}/channel/{channels}/mv")
    await it.observer.wait("bridge/availability", lambda heard: heard.payload == b"online")


def _cleared(observer: Observer) -> set[str]:
    """What somebody took back while the observer was there, with the base."""
    return {heard.topic for heard in observer.heard if not heard.retain and not heard.payload}


async def _listed(data_dir: Path) -> set[str]:
    store = Store(data_dir)
    await store.open()
    try:
        return set(await store.retained_topics())
    finally:
        await store.close()


@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_after_a_restart_with_less_all_ghosts_go_and_nothing_else(kind: BrokerKind, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with broker_of_kind(kind, tmp_path) as port:
        three = ("arbin1", "arbin2", "arbin3")
        async with rig(port, kind.protocol, cyclers=three, data_dir=data_dir) as it:
            await _all_there(it, three, 16)
        before = await _retained(port, kind.protocol)
        async with Observer.connect(port, kind.protocol) as other:  # not ours, so not on the list
            other.say("arbin3/channel/3/note", b"mine", retain=True)
            other.say("arbin1/channel/99/state", b"mine", retain=True)
            await other.wait("arbin1/channel/99/state")
        foreign = {"arbin3/channel/3/note", "arbin1/channel/99/state"}
        two = ("arbin1", "arbin2")
        kept = {
            topic
            for topic in before
            if not topic.startswith("arbin3/") and ("/channel/" not in topic or int(topic.split("/")[2]) <= 8)
        }
        async with rig(port, kind.protocol, cyclers=two, channels=8, data_dir=data_dir) as it:
            await _all_there(it, two, 8)
            await until(lambda: not it.bridge._ghosts._pending and it.bridge._ghosts._loaded)
            assert set(await _retained(port, kind.protocol)) == kept | foreign
            ghosts = {f"cti/{topic}" for topic in set(before) - kept}
            await it.observer.until(lambda: _cleared(it.observer) >= ghosts, what="the last of the clears")
            assert not _cleared(it.observer) & {f"cti/{topic}" for topic in kept | foreign}
        assert {topic.removeprefix("cti/") for topic in await _listed(data_dir)} == kept
        assert await _retained(port, kind.protocol) != {}


class _Runs:
    """Bridges as processes, on cyclers that stay."""

    def __init__(self, folder: Path, port: int, protocol: object) -> None:
        self.data_dir = folder / "data"
        self._file = folder / "bridge.yaml"
        self._port = port
        self._protocol = protocol

    def start(self, servers: dict[str, SimulatedServer]) -> AbstractAsyncContextManager[Program]:
        """A bridge for these cyclers; killed at the end."""
        configured = settings(self._port, self._protocol, servers, {"control": {}}, data_dir=self.data_dir)
        body = configured.model_dump(mode="json", include={"data_dir", "health_interval_s", "mqtt", "cyclers"})
        for cycler in body["cyclers"].values():
            cycler["password"] = PASSWORD
        self._file.write_text(json.dumps(body))
        return program("run", "-c", str(self._file))


@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_a_bridge_that_is_killed_while_it_clears_goes_on_when_it_is_back(
    kind: BrokerKind, tmp_path: Path
) -> None:
    async with (
        broker_of_kind(kind, tmp_path) as port,
        simulated(64) as first,
        simulated(64) as second,
        simulated(8) as smaller,
        Observer.connect(port, kind.protocol) as observer,
    ):
        runs = _Runs(tmp_path, port, kind.protocol)
        async with runs.start({"arbin1": first, "arbin2": second}):
            for cycler in ("arbin1", "arbin2"):
                await observer.wait(f"{cycler}/channel/64/state")
            await asyncio.sleep(1.0)  # what it published is on its list
        before = await _retained(port, kind.protocol)
        assert before["arbin2/availability"] == b"online"  # it had no time to say anything
        less = {"arbin1": smaller}
        async with runs.start(less):
            await observer.until(
                lambda: any(not heard.payload for heard in observer.heard if "arbin2/" in heard.topic), what="a clear"
            )
        async with runs.start(less):
            ghosts = {topic for topic in before if topic.startswith("arbin2/") or "channel/9" in topic}
            assert len(ghosts) > 100
            async with asyncio.timeout(20):
                while left := ghosts & set(await _retained(port, kind.protocol)):  # noqa: ASYNC110  # nobody announces it
                    await asyncio.sleep(0.2)
            assert not left
            await asyncio.sleep(1.0)
        after = await _retained(port, kind.protocol)
        assert {topic for topic in before if topic in after} == {
            topic
            for topic in before
            if topic.startswith("bridge/")
            or (topic.startswith("arbin1/") and ("/channel/" not in topic or int(topic.split("/")[2]) <= 8))
        }
        assert await _listed(runs.data_dir) == {f"cti/{topic}" for topic, payload in after.items() if payload}


@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_another_base_topic_and_no_states(kind: BrokerKind, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with broker_of_kind(kind, tmp_path) as port:
        async with rig(port, kind.protocol, channels=4, data_dir=data_dir) as it:
            await _all_there(it, ("arbin1",), 4)
        options: dict[str, Any] = {"channels": 4, "data_dir": data_dir, "mqtt": {"base_topic": "lab/cti"}}
        async with rig(port, kind.protocol, **options) as it:
            await _all_there(it, ("arbin1",), 4)
            await until(lambda: not it.bridge._ghosts._pending and it.bridge._ghosts._loaded)
            told = await it.observer.wait("bridge/event", lambda heard: heard.json["type"] == "ghosts_left")
            assert "retained topics under 'cti' are left" in told.json["message"]
        assert "arbin1/channel/4/state" in await _retained(port, kind.protocol)
        assert not [topic for topic in await _listed(data_dir) if topic.startswith("cti/")]
        assert "arbin1/channel/4/state" in await _retained(port, kind.protocol, "lab/cti")
        async with rig(port, kind.protocol, publish={"state": False}, **options) as it:
            await it.ready()
            await until(lambda: not it.bridge._ghosts._pending and it.bridge._ghosts._loaded)
            after = await _retained(port, kind.protocol, "lab/cti")
        assert "arbin1/channel/4/availability" in after
        assert not [topic for topic in after if topic.endswith("/state")]


@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_without_a_list_nothing_is_cleared(kind: BrokerKind, tmp_path: Path) -> None:
    """Another data directory is another bridge's memory."""
    async with broker_of_kind(kind, tmp_path) as port:
        for channels in (4, 2):
            async with rig(port, kind.protocol, channels=channels) as it:
                await _all_there(it, ("arbin1",), channels)
                await asyncio.sleep(0.6)
        assert "arbin1/channel/4/state" in await _retained(port, kind.protocol)


@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_a_cycler_is_dropped_while_it_runs(kind: BrokerKind, tmp_path: Path) -> None:
    """It says farewell first, and does not come back after a reconnection."""
    from cti_mqtt.bridge.mqtt.session import cut

    both = ("arbin1", "arbin2")
    async with broker_of_kind(kind, tmp_path) as port, rig(port, kind.protocol, cyclers=both, channels=4) as it:
        await _all_there(it, both, 4)
        station = await it.bridge._fleet.remove("arbin2")
        station.farewell()
        it.bridge._ghosts.drop_cycler("arbin2")
        await it.observer.until_last("arbin2/channel/4/state", b"")
        await until(lambda: not it.bridge._ghosts._pending)
        await it.observer.until_last("arbin2/availability", b"")
        said = [heard.payload for heard in it.observer.on("arbin2/availability")]
        assert said[-2:] == [b"offline", b""]
        client = it.bridge._link._client
        assert client is not None
        cut(client.socket())
        await it.observer.wait("bridge/availability", lambda heard: heard.payload == b"offline")
        await it.observer.until_last("bridge/availability", b"online")
        assert not [topic for topic in await _retained(port, kind.protocol) if topic.startswith("arbin2/")]


@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_beside_an_elder_bridge_nothing_is_cleared_until_it_has_gone(kind: BrokerKind, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    elder = {"boot": "e1de4", "started_at": "2020-01-01T00:00:00.000Z"}
    async with broker_of_kind(kind, tmp_path) as port:
        async with rig(port, kind.protocol, channels=4, data_dir=data_dir) as it:
            await _all_there(it, ("arbin1",), 4)
        async with rig(port, kind.protocol, channels=2, data_dir=data_dir, health_interval_s=0.5) as it:
            for _ in range(15):
                it.observer.say("bridge/health", elder)
                await asyncio.sleep(0.1)
            assert it.bridge._presence.standing_down
            assert "arbin1/channel/4/state" in await _retained(port, kind.protocol)
            await it.observer.until_last("arbin1/channel/4/state", b"")
