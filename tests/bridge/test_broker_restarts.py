"""Our side of a real broker that restarts, and that does not take everything."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from cti_mqtt.bridge.mqtt import session as session_module
from cti_mqtt.bridge.mqtt.session import cut
from cti_mqtt.bridge.outbox import Message
from tests.bridge.test_takeover import events
from tests.support.brokers import MOSQUITTO_5, MOSQUITTO_311, BrokerKind, Mosquitto, broker_of_kind, needs_mosquitto
from tests.support.observer import Observer
from tests.support.rig import rig
from tests.support.scripted import Linked, until

MOSQUITTOS = [
    pytest.param(MOSQUITTO_5, id=str(MOSQUITTO_5), marks=needs_mosquitto),
    pytest.param(MOSQUITTO_311, id=str(MOSQUITTO_311), marks=needs_mosquitto),
]


@needs_mosquitto
async def test_ten_thousand_retained_topics_again_after_each_connection(tmp_path: Path) -> None:
    """Without keeping the event loop from its work, and without more in paho than it may hold."""
    count = 10_000
    broker = Mosquitto(tmp_path)
    await broker.start()
    try:
        async with Linked.running(broker.port, 5, {"keepalive_s": 60}) as it:
            for number in range(count):
                it.link.publish(Message(f"t/{number}", b"x" * 200, retain=True))
            await it.link.flush(60)
            client, link = it.link._client, it.link
            assert client is not None
            longest_s, most = 0.0, 0
            cut(client.socket())
            await until(lambda: not link.connected)
            before = time.thread_time()  # what others do with the machine does not count
            sent = 0
            while not (link.connected and link.queue == 0):
                await asyncio.sleep(0.001)
                now = time.thread_time()
                longest_s, before = max(longest_s, now - before), now
                if link._session:
                    most = max(most, link._session.in_paho())
                    sent = max(sent, link.queue)
            assert sent > count / 2
            assert most <= session_module.MAX_IN_PAHO
            assert longest_s < 0.5
    finally:
        await broker.stop()


@needs_mosquitto
async def test_on_311_a_retained_message_that_costs_each_connection_is_given_up(tmp_path: Path) -> None:
    """Mosquitto hangs up on a 3.1.1 client whose packet is too large."""
    told: list[tuple[str, str]] = []
    async with (
        broker_of_kind(MOSQUITTO_311, tmp_path, extra="max_packet_size 2000") as port,
        Linked.running(port, "3.1.1", on_fault=lambda kind, message: told.append((kind, message))) as it,
    ):
        it.link.publish(Message("good", b"x", retain=True))
        it.link.publish(Message("large", b"x" * 5000, retain=True))
        await until(lambda: any(kind == "messages_dropped" for kind, _ in told), 30)
        assert "it was for large" in dict(told)["messages_dropped"]
        await until(lambda: it.link.connected and it.link.queue == 0)
        assert list(it.link._outbox._retained) == ["good"]


@needs_mosquitto
@pytest.mark.parametrize("option", ["max_packet_size 2000", "message_size_limit 1000"])
async def test_what_mosquitto_does_not_take(option: str, tmp_path: Path) -> None:
    """16 channels make readings of more than that; in parts they fit where the broker says how much it takes."""
    async with (
        broker_of_kind(MOSQUITTO_5, tmp_path, extra=option) as port,
        rig(port, 5, channels=4, publish={"readings": False}) as it,
    ):
        await it.observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
        it.bridge._link.publish(Message("cti/arbin1/schedules", b"[" + b" " * 2500 + b"]", retain=True))
        kind = "message_too_large" if option.startswith("max_packet") else "publish_refused"
        await it.observer.until(lambda: events(it, kind), what=kind)
        assert "cti/arbin1/schedules" in events(it, kind)[0]
        await it.observer.wait(
            "bridge/health", lambda heard: any("cti/arbin1/schedules" in each for each in heard.json["reasons"])
        )
        assert len(events(it, "broker_connected")) <= 1


@pytest.mark.parametrize("persistence", [False, True])
@pytest.mark.parametrize("kind", MOSQUITTOS)
async def test_after_a_restart_of_the_broker_everything_retained_is_there_again(
    kind: BrokerKind, persistence: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extra = f"persistence true\npersistence_location {tmp_path}/" if persistence else ""
    broker = Mosquitto(tmp_path, extra)
    await broker.start()
    try:
        async with rig(broker.port, kind.protocol, channels=2) as it:
            await it.ready()
            await it.observer.wait("arbin1/channel/2/mv")
            with caplog.at_level(logging.WARNING):
                await broker.stop()
                await broker.start()
                await until(lambda: it.bridge._link.connected, 30)
            assert "lost the broker" in caplog.text
            async with Observer.connect(broker.port, kind.protocol) as newcomer:
                await newcomer.until_last("bridge/availability", b"online", 30)
                for topic in ("bridge/info", "arbin1/info", "arbin1/channel/2/mv", "arbin1/channel/2/state"):
                    await newcomer.wait(topic)
                await newcomer.until_last("arbin1/availability", b"online")
                await newcomer.until_last("arbin1/channel/2/availability", b"online")
                # Our own offline, said by somebody else, is put right after a reconnection, too.
                before = len(newcomer.heard)
                newcomer.say("bridge/availability", b"offline", retain=True)
                await newcomer.wait("bridge/availability", lambda heard: heard.payload == b"offline", after=before)
                await newcomer.until_last("bridge/availability", b"online")
    finally:
        await broker.stop()
