"""Not against each other: a second bridge, a false `offline`, a taken client id, stored commands without a flag."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.mqtt.takeover import PERHAPS_TAKEN, TAKEN
from tests.support.brokers import (
    HOST,
    MOSQUITTO_5,
    MOSQUITTO_311,
    BrokerKind,
    broker_of_kind,
    needs_mosquitto,
)
from tests.support.observer import Heard, Observer
from tests.support.rig import QUICK, Rig, quick_backoff, rig, settings

INTERVAL_S = 0.6  # so that a busy machine is not taken for a silent bridge
LONG_S = 1.0  # the same, where a single mistake counts; beyond, a bridge is less regular
ELDER = {"boot": "e1de4", "started_at": "2020-01-01T00:00:00.000Z"}
MOSQUITTOS = [
    pytest.param(MOSQUITTO_5, id=str(MOSQUITTO_5), marks=needs_mosquitto),
    pytest.param(MOSQUITTO_311, id=str(MOSQUITTO_311), marks=needs_mosquitto),
]


@asynccontextmanager
async def second_bridge(it: Rig, port: int, kind: BrokerKind, interval_s: float = INTERVAL_S) -> AsyncIterator[Bridge]:
    """Another bridge, the younger one, for the same cycler, on the same base topic, with a client id of its own."""
    with TemporaryDirectory(prefix="cti-mqtt-second-") as data_dir:
        second = settings(
            port,
            kind.protocol,
            it.servers,
            mqtt={"client_id": "second"},
            health_interval_s=interval_s,
            data_dir=data_dir,
        )
        stop = asyncio.Event()
        bridge = Bridge(second, backoff=quick_backoff, timing=QUICK)
        task = asyncio.create_task(bridge.run(stop), name="second bridge")
        try:
            yield bridge
        finally:
            stop.set()
            await task


def events(it: Rig, kind: str) -> list[str]:
    return [heard.json["message"] for heard in it.observer.on("bridge/event") if heard.json["type"] == kind]


async def event(it: Rig, kind: str) -> str:
    """The message of the first event of a type."""
    await it.observer.until(lambda: events(it, kind), 20, kind)
    return events(it, kind)[0]


async def some_polls(it: Rig, number: int = 6) -> None:
    """A while, in which whatever was under way has come."""
    seen = len(it.observer.on("arbin1/readings"))
    await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) > seen + number)


def payloads(it: Rig, topic: str) -> list[bytes]:
    return [heard.payload for heard in it.observer.on(topic)]


async def starts_once(it: Rig, name: str) -> None:
    """A start is heard by one bridge only."""
    before = len(it.asked("start"))
    body = {"test_name": name, "schedule": "CCCV.sdx"}
    started = await it.observer.ask("arbin1/channel/1", "start", body)
    assert started["outcome"] == "succeeded"
    await some_polls(it)
    results = [heard.json for heard in it.observer.on("arbin1/channel/1/result")]
    assert [each["outcome"] for each in results if each["id"] == started["id"]] == ["succeeded"]
    assert len(it.asked("start")) == before + 1


class TestSecondBridge:
    async def test_the_younger_stands_down_and_takes_over_when_the_elder_goes(
        self, port: int, kind: BrokerKind, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with rig(port, kind.protocol, health_interval_s=LONG_S) as it:
            await it.ready()
            async with second_bridge(it, port, kind, LONG_S) as second:
                told = await event(it, "second_bridge")
                assert repr(it.bridge._boot) in told
                assert "end one of the two" in told
                assert told in caplog.text
                await it.observer.wait(
                    "bridge/health",
                    lambda heard: (
                        heard.json["boot"] == second._boot
                        and any("commands are not heard" in each for each in heard.json["reasons"])
                    ),
                )
                assert not second.ready.is_set()
                await starts_once(it, "elder")
                assert await it.observer.ask("arbin1/channel/1", "stop")
                it.stop.set()
                assert repr(it.bridge._boot) in await event(it, "second_bridge_gone")
                await asyncio.wait_for(second.ready.wait(), 10)
                await it.observer.until_last("bridge/availability", b"online")
                await starts_once(it, "younger")
                await it.observer.wait(
                    "bridge/health",
                    lambda heard: heard.json["boot"] == second._boot and heard.json["healthy"],
                )
            assert payloads(it, "bridge/availability")[-1] == b"offline"
            assert len(events(it, "second_bridge")) == len(events(it, "second_bridge_gone")) == 1

    async def test_one_that_stands_down_leaves_without_a_word(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, health_interval_s=INTERVAL_S) as it:
            await it.ready()
            async with second_bridge(it, port, kind):
                await event(it, "second_bridge")
                await it.observer.until_last("arbin1/availability", b"online")
                await it.observer.until_last("arbin1/channel/16/availability", b"online")
            await some_polls(it)
            assert set(payloads(it, "bridge/availability")) == {b"online"}
            assert payloads(it, "arbin1/availability")[-1] == b"online"
            assert payloads(it, "arbin1/channel/16/availability")[-1] == b"online"
            await starts_once(it, "still here")

    async def test_of_two_that_command_the_younger_stops(self, port: int, kind: BrokerKind) -> None:
        """The elder was away from the broker while this one started; a plain client plays it."""
        async with rig(port, kind.protocol, health_interval_s=INTERVAL_S) as it:
            await it.ready()
            it.observer.say("bridge/health", ELDER, retain=True)
            assert "'e1de4'" in await event(it, "second_bridge")
            it.observer.say("arbin1/channel/1/command/start", {"test_name": "T", "schedule": "CCCV.sdx"})
            it.observer.say("bridge/health", ELDER, retain=True)
            await some_polls(it)
            assert it.asked("start") == []
            assert it.observer.on("arbin1/channel/1/result") == []
            await event(it, "second_bridge_gone")
            await it.observer.until(lambda: len(it.observer.on("bridge/availability")) == 2)
            assert payloads(it, "bridge/availability") == [b"online", b"online"]
            await starts_once(it, "again")

    async def test_at_the_same_time_the_boot_decides(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, health_interval_s=INTERVAL_S) as it:
            await it.ready()
            started_at = (await it.observer.wait("bridge/info")).json["started_at"]
            it.observer.say("bridge/health", {"boot": "~", "started_at": started_at})
            it.observer.say("bridge/health", b"\xff{")
            await starts_once(it, "the larger boot is the younger")
            assert events(it, "second_bridge") == []
            it.observer.say("bridge/health", {"boot": "!", "started_at": started_at})
            await event(it, "second_bridge")

    async def test_a_stored_message_is_no_rival(self, port: int, kind: BrokerKind) -> None:
        """What was left behind by an earlier run that was killed."""
        async with Observer.connect(port, kind.protocol) as before:
            before.say("bridge/health", ELDER, retain=True)
            await before.wait("bridge/health")
        async with rig(port, kind.protocol, health_interval_s=INTERVAL_S) as it:
            await it.ready()
            await starts_once(it, "alone")
            assert events(it, "second_bridge") == []

    async def test_on_311_a_stored_message_may_come_without_its_flag(self, port: int, kind: BrokerKind) -> None:
        timing = replace(QUICK, listen_extra_s=1.5, settle_s=1.0)
        async with rig(port, kind.protocol, timing=timing) as it:
            await event(it, "broker_connected")
            it.observer.say("bridge/health", ELDER)  # as such a broker would send it, at once
            if kind.protocol == 5:
                await event(it, "second_bridge")
                return
            await it.ready()
            assert events(it, "second_bridge") == []

    async def test_nothing_is_heard_while_it_listens(self, port: int, kind: BrokerKind) -> None:
        timing = replace(QUICK, listen_extra_s=1.5)
        async with rig(port, kind.protocol, timing=timing) as it:
            await it.observer.wait("arbin1/readings")
            it.observer.say("arbin1/channel/1/command/start", {"test_name": "T", "schedule": "CCCV.sdx"})
            await some_polls(it, 3)
            assert it.observer.on("bridge/availability") == []
            assert not it.bridge.ready.is_set()
            await it.ready()
            await some_polls(it)
            assert it.asked("start") == []
            assert it.observer.on("arbin1/channel/1/result") == []
            await starts_once(it, "now")

    async def test_who_never_said_online_does_not_say_offline(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol, timing=replace(QUICK, listen_extra_s=60.0)) as it:
            await it.observer.wait("arbin1/readings")
            it.stop.set()
            await it.observer.until_last("arbin1/availability", b"offline")
            async with Observer.connect(port, kind.protocol) as newcomer:
                await newcomer.wait("bridge/info")
                newcomer.say("marker")
                await newcomer.wait("marker")
                assert newcomer.on("bridge/availability") == it.observer.on("bridge/availability") == []


class TestAvailability:
    async def test_a_false_offline_is_corrected_once_a_second(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            for _ in range(20):
                it.observer.say("bridge/availability", b"offline", retain=True)
            await it.observer.until(lambda: payloads(it, "bridge/availability").count(b"offline") == 20)
            await it.observer.until_last("bridge/availability", b"online")
            assert payloads(it, "bridge/availability").count(b"online") <= 3
            async with Observer.connect(port, kind.protocol) as newcomer:
                assert (await newcomer.wait("bridge/availability")).payload == b"online"

    @pytest.mark.parametrize("kind", MOSQUITTOS)
    async def test_so_is_the_will_of_a_second_bridge(self, kind: BrokerKind, tmp_path: Path) -> None:
        from cti_mqtt.bridge.mqtt.session import cut

        async with (
            broker_of_kind(kind, tmp_path) as port,
            rig(port, kind.protocol, health_interval_s=INTERVAL_S) as it,
        ):
            await it.ready()
            async with second_bridge(it, port, kind) as second:
                await event(it, "second_bridge")
                client = second._link._client
                assert client is not None
                cut(client.socket())
                await it.observer.wait("bridge/availability", lambda heard: heard.payload == b"offline")
                await it.observer.until_last("bridge/availability", b"online")


@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_after_a_reconnection_commands_are_heard_before_it_says_so(kind: BrokerKind, tmp_path: Path) -> None:
    """Without listening again, though listening would take long."""
    from cti_mqtt.bridge.mqtt.session import cut

    async with broker_of_kind(kind, tmp_path) as port, rig(port, kind.protocol, health_interval_s=4) as it:
        await it.ready()
        client = it.bridge._link._client
        assert client is not None
        began = asyncio.get_running_loop().time()
        cut(client.socket())
        await it.observer.wait("bridge/availability", lambda heard: heard.payload == b"offline")
        await it.observer.until_last("bridge/availability", b"online")
        assert asyncio.get_running_loop().time() - began < 4
        await starts_once(it, "here again")


def intrude(port: int, protocol: object) -> Client:
    """Another client with the bridge's client id; connected."""
    five = protocol == 5
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id="bridge-under-test",
        protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.connect(HOST, port, 60)
    client.loop_start()
    return client


async def _intrusion(port: int, protocol: object) -> None:
    client = await asyncio.to_thread(intrude, port, protocol)
    async with asyncio.timeout(10):
        while not client.is_connected():  # noqa: ASYNC110  # a thread has no event
            await asyncio.sleep(0.01)
    client.disconnect()
    await asyncio.to_thread(client.loop_stop)


def _connections(it: Rig) -> int:
    return len(events(it, "broker_connected"))


class Proxy:
    """Stands between a bridge and a broker, and can say what some brokers do when a client id is taken."""

    TAKEN_OVER = b"\xe0\x02\x8e\x00"  # DISCONNECT, session taken over, no properties

    def __init__(self, broker_port: int) -> None:
        self.connections = 0
        self._broker_port = broker_port
        self._to_bridge: asyncio.StreamWriter | None = None

    @classmethod
    @asynccontextmanager
    async def before(cls, broker_port: int) -> AsyncIterator[tuple["Proxy", int]]:
        """A proxy and its port."""
        proxy = cls(broker_port)
        server = await asyncio.start_server(proxy._serve, HOST, 0)
        try:
            yield proxy, server.sockets[0].getsockname()[1]
        finally:
            server.close()

    def take_over(self) -> None:
        """What the broker would do."""
        assert self._to_bridge is not None
        self._to_bridge.write(self.TAKEN_OVER)
        self._to_bridge.close()

    async def _serve(self, from_bridge: asyncio.StreamReader, to_bridge: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._to_bridge = to_bridge
        from_broker, to_broker = await asyncio.open_connection(HOST, self._broker_port)
        await asyncio.gather(self._pass_on(from_bridge, to_broker), self._pass_on(from_broker, to_bridge))

    @staticmethod
    async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
        target.close()


@needs_mosquitto
class TestClientIdTaken:
    async def test_on_5_the_broker_says_so(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        timing = replace(QUICK, taken_wait_s=(3.0, 3.5))
        async with (
            broker_of_kind(MOSQUITTO_5, tmp_path) as port,
            Proxy.before(port) as (proxy, proxy_port),
            rig(port, 5, timing=timing, mqtt={"port": proxy_port}) as it,
        ):
            await it.ready()
            loop = asyncio.get_running_loop()
            began = loop.time()
            proxy.take_over()
            assert await event(it, "client_id_taken") == TAKEN
            assert loop.time() - began >= 3.0  # it does not fight
            assert proxy.connections == 2
            assert any(record.levelno == logging.ERROR and TAKEN in record.getMessage() for record in caplog.records)
            health = await it.observer.wait("bridge/health", lambda heard: TAKEN in heard.json["reasons"])
            assert not health.json["healthy"]
            await it.observer.until_last("bridge/availability", b"online")
            await starts_once(it, "after all")

    @pytest.mark.parametrize("kind", MOSQUITTOS)
    async def test_a_real_taking(self, kind: BrokerKind, tmp_path: Path) -> None:
        """A series where the broker does not say why; a Mosquitto that does says it the first time."""
        async with broker_of_kind(kind, tmp_path) as port, rig(port, kind.protocol) as it:
            await it.ready()
            for number in range(1, 5):
                await it.observer.until(lambda least=number: _connections(it) >= least, 20)  # type: ignore[misc]
                if number < 4:
                    assert PERHAPS_TAKEN not in events(it, "client_id_taken")
                await _intrusion(port, kind.protocol)
            await it.observer.until(lambda: _connections(it) >= 5, 20)
            told = events(it, "client_id_taken")
            assert told == [PERHAPS_TAKEN] or (kind.protocol == 5 and set(told) == {TAKEN})


class TestTheFirstMomentsAfterSubscribing:
    async def test_on_311_all_but_a_stop_is_refused(self, port: int, kind: BrokerKind) -> None:
        timing = replace(QUICK, settle_s=1.5)
        async with rig(port, kind.protocol, timing=timing) as it:
            first = await _first_result(it, "assign", {"schedule": "CCCV.sdx"})
            if kind.protocol == 5:
                assert first["outcome"] == "succeeded"
                return
            assert (first["outcome"], first["reason"]) == ("refused", "retained")
            assert "send it again once bridge/availability says online" in first["message"]
            assert (await _first_result(it, "stop", {}))["reason"] == "not_running"  # the cycler was asked
            assert it.observer.on("bridge/availability") == []
            assert not it.bridge.ready.is_set()
            await it.ready()
            assert (await it.observer.ask("arbin1/channel/1", "assign", {"schedule": "CCCV.sdx"}))["outcome"] == (
                "succeeded"
            )
            sent = [heard.json for heard in it.observer.on("arbin1/channel/1/command/assign")]
            assert all("id" in each for each in sent)  # nothing was cleared: there was no flag


async def _first_result(it: Rig, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a command again and again until somebody hears it."""

    def results() -> list[Heard]:
        return [heard for heard in it.observer.on("arbin1/channel/1/result") if heard.json["command"] == verb]

    async with asyncio.timeout(10):
        for number in range(1000):
            if results():
                break
            it.observer.say(f"arbin1/channel/1/command/{verb}", {"id": f"{verb}{number}", **body})
            await asyncio.sleep(0.05)
    first = results()[0].json
    assert isinstance(first, dict)
    return first
