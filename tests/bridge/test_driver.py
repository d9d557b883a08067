"""The client at the socket: brokers that do not read, die, or send what cannot be read."""

import asyncio
import contextlib
import logging
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import properties
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

from cti_mqtt.bridge.mqtt import driver as driver_module
from cti_mqtt.bridge.mqtt import link as link_module
from cti_mqtt.bridge.mqtt.reading import LONGEST_COMMAND, ReadingClient
from cti_mqtt.bridge.mqtt.session import Subscription
from cti_mqtt.bridge.mqtt.writing import CHUNK
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.client import Backoff
from cti_mqtt.config import Mqtt, Tls
from tests.support.brokers import (
    HOST,
    MOSQUITTO_5,
    MOSQUITTO_311,
    BrokerKind,
    Mosquitto,
    broker_of_kind,
    free_port,
    needs_mosquitto,
)
from tests.support.observer import Observer
from tests.support.rig import rig
from tests.support.scripted import DISCONNECT, Driven, Linked, ScriptedBroker, publish, text, until

BOTH = pytest.mark.parametrize("protocol", [5, "3.1.1"])
BOM = "\ufeff"
COMMANDS = [Subscription("c/#", commands=True)]


# --- writing ---


@pytest.mark.parametrize("start", [True, False], ids=["while driven", "before it was driven"])
async def test_what_a_slow_broker_does_not_take_now_it_gets_later(start: bool) -> None:
    async with ScriptedBroker.running("3.1.1") as broker:
        if start:
            async with Driven.connected(broker.port) as it:
                await _slowly(broker, it)
        else:
            async with Driven.connected(broker.port, start=False) as it:
                await _slowly(broker, it)


async def _slowly(broker: ScriptedBroker, it: Driven) -> None:
    broker.reading.clear()
    sent = [bytes([number]) * 200_000 for number in range(60)]
    for payload in sent:
        assert it.client.publish("t", payload).rc == MQTTErrorCode.MQTT_ERR_SUCCESS
    if it.driver._fd is None:
        it.driver.start()
    it.driver.write()
    assert it.client.want_write()  # more than fits between the two
    broker.reading.set()
    await until(lambda: len(broker.packets) >= len(sent), 30)
    assert [body[3:] for _, body in broker.packets] == sent
    await until(lambda: not it.client.want_write())
    assert it.stumbles == []


@BOTH
async def test_it_parts_in_time_from_a_broker_that_does_not_read(protocol: object) -> None:
    async with ScriptedBroker.running(protocol) as broker:
        async with Linked.running(broker.port, protocol) as it:
            broker.reading.clear()
            for _ in range(100):
                it.link.publish(Message("t", b"x" * 200_000))
            assert it.link._client is not None
            assert it.link._client.want_write()
            assert it.link._session is not None
            driver = it.link._session.driver
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5
        assert driver is not None
        assert driver.closed.is_set()


@BOTH
async def test_it_says_goodbye(protocol: object) -> None:
    async with ScriptedBroker.running(protocol) as broker:
        async with Linked.running(broker.port, protocol):
            pass
        await until(lambda: broker.packets and broker.packets[-1][0] == DISCONNECT)


# --- reading ---


def _server_context(folder: Path) -> ssl.SSLContext:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"),
            *("-subj", "/CN=broker", "-addext", f"subjectAltName=IP:{HOST}"),
        ],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_many_messages_in_one_record_of_tls_are_all_heard(tmp_path: Path) -> None:
    context = await asyncio.to_thread(_server_context, tmp_path)
    sent = [b"%d" % number for number in range(1000)]  # 9 kB; a record holds 16
    async with (
        ScriptedBroker.running("3.1.1", context) as broker,
        Driven.connected(broker.port, tls=tmp_path / "cert.pem") as it,
    ):
        assert broker.writer is not None
        broker.writer.write(b"".join(map(publish, sent)))
        await until(lambda: len(it.heard) == len(sent))
        assert it.heard == sent


@needs_mosquitto
async def test_many_messages_over_tls(tmp_path: Path) -> None:
    await asyncio.to_thread(_server_context, tmp_path)
    (tmp_path / "key.pem").chmod(0o644)
    tls_port = free_port()
    listener = f"listener {tls_port} {HOST}\ncertfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem\n"
    plain = Mosquitto(tmp_path, "max_queued_messages 0", listener + "allow_anonymous true")
    await plain.start()
    try:
        async with (
            Linked.running(
                tls_port, 5, {"tls": Tls(ca_file=tmp_path / "cert.pem")}, subscriptions=[Subscription("cti/many")]
            ) as it,
            Observer.connect(plain.port, 5) as observer,
        ):
            for number in range(3000):
                observer.say("many", b"%d" % number)
            await until(lambda: len(it.heard) == 3000, 30)
            assert [int(each.payload) for each in it.heard] == list(range(3000))
            assert it.losses == []
    finally:
        await plain.stop()


@BOTH
async def test_of_a_command_that_is_too_long_only_the_beginning_is_kept(protocol: object) -> None:
    long = b'{"id": "long"' + b" " * 20_000_000
    async with ScriptedBroker.running(protocol) as broker:
        broker.greeting = publish(long, protocol=protocol) + publish(b"next", protocol=protocol)
        async with Linked.running(broker.port, protocol, commands=COMMANDS) as it:
            await until(lambda: len(it.heard) == 2)
            assert LONGEST_COMMAND <= len(it.heard[0].payload) <= LONGEST_COMMAND + CHUNK
            assert it.heard[0].payload.startswith(b'{"id": "long"')
            assert it.heard[1].payload == b"next"
        async with Linked.running(broker.port, protocol) as it:  # a mere reader wants all of it
            await until(lambda: len(it.heard) == 2)
            assert it.heard[0].payload == long
            assert it.losses == []


def test_what_was_cut_is_long_even_if_little_of_it_is_payload() -> None:
    topic_and_properties = (
        text(b"c/" + b"x" * 60_000) + b"\xc0\xc5\x0f" + (b"\x26" + text(b"k") + text(b"v" * 60_000)) * 4
    )
    assert len(topic_and_properties) > LONGEST_COMMAND
    client = ReadingClient(CallbackAPIVersion.VERSION2)
    client.longest = LONGEST_COMMAND
    client._in_packet["remaining_length"] = LONGEST_COMMAND + 9
    client._in_packet["packet"] = bytearray(LONGEST_COMMAND)
    assert len(client.payload_of(b"12")) == LONGEST_COMMAND
    client._in_packet["remaining_length"] = LONGEST_COMMAND
    assert client.payload_of(b"12") == b"12"


@needs_mosquitto
@pytest.mark.parametrize("kind", [pytest.param(kind, id=str(kind)) for kind in (MOSQUITTO_5, MOSQUITTO_311)])
async def test_commands_that_are_too_long_stand_in_nobodys_way(kind: BrokerKind, tmp_path: Path) -> None:
    """With a maximum packet size in CONNECT Mosquitto 2.0.11 delivers nothing more after twenty."""
    async with broker_of_kind(kind, tmp_path) as port, rig(port, kind.protocol) as it:
        await it.ready()
        started = await it.observer.ask("arbin1/channel/1", "start", {"test_name": "T", "schedule": "ClosedLoop.sdx"})
        assert started["outcome"] == "succeeded"
        for _ in range(30):
            it.observer.say("arbin1/channel/1/command/set_mv", b" " * 400_000)
        it.observer.say("arbin1/channel/1/command/stop", b" " * 5_000_000)  # any payload means stop
        result = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["command"] == "stop", 30)
        assert result.json["outcome"] == "succeeded"
        await it.observer.until(lambda: len(_refused(it.observer)) == 30)
        assert not [heard for heard in it.observer.on("bridge/availability") if heard.payload == b"offline"]


def _refused(observer: Observer) -> list[str]:
    results = [heard.json for heard in observer.on("arbin1/channel/1/result")]
    return [each["message"] for each in results if each["reason"] == "malformed" and "too many" in each["message"]]


# --- what cannot be read ---


@needs_mosquitto
async def test_a_byte_order_mark_in_a_property_is_a_character(tmp_path: Path) -> None:
    async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5) as it:
        await it.ready()
        result = await it.observer.ask(
            "arbin1/channel/1",
            "assign",
            {"schedule": "CCCV.sdx"},
            ContentType="\ufefftext",
            UserProperty=("\ufeff", "x"),
        )
        assert result["outcome"] == "succeeded"
        states = [heard.json["type"] for heard in it.observer.on("bridge/event")]
        assert states.count("broker_connected") == 1


def test_other_objections_to_a_string_stand() -> None:
    read: Any = properties.readUTF
    bom = BOM.encode()
    assert read(text(bom + b"a") + b"rest", 99) == (f"{BOM}a", 6)
    assert read(text(b"a"), 3) == ("a", 3)
    for wrong, length in [
        (text(bom + b"\0"), 6),
        (text(bom), 4),
        (b"\0", 1),
        (b"\0\x09abc", 99),
        (b"\0\x09" + bom, 99),
    ]:
        with pytest.raises(MalformedPacket):
            read(wrong, length)


NUL = b"\x03" + text(b"a\0")  # a content type that paho refuses


def _stumble(*_: object) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("raised", [False, True], ids=["refused", "raised"])
async def test_after_what_cannot_be_read_it_connects_again_at_once(
    raised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "LASTED_S", 0.2)
    backoff = Backoff(shortest_s=60.0, longest_s=120.0)
    async with ScriptedBroker.running(5) as broker, Linked.running(broker.port, 5, backoff=backoff) as it:
        for number in range(1, 6):
            await until(lambda least=number: broker.connections == least and it.link.connected)  # type: ignore[misc]
            await asyncio.sleep(0.3)  # it has lasted
            assert broker.writer is not None
            assert it.link._client is not None
            if raised:
                it.link._client.on_message = _stumble
            broker.writer.write(publish(b"", protocol=5, properties=b"" if raised else NUL))
            await until(lambda least=number: broker.connections > least)  # type: ignore[misc]
        assert it.taken == []  # a series, but not one of another client's
        assert it.losses[0].endswith("the client stumbled: RuntimeError('a bug')" if raised else "Protocol error")


async def test_a_broker_that_begins_with_it_is_not_asked_at_once() -> None:
    backoff = Backoff(shortest_s=60.0, longest_s=120.0)
    async with ScriptedBroker.running(5) as broker:
        broker.greeting = publish(b"", protocol=5, properties=NUL)
        it = Linked(Mqtt(port=broker.port), backoff=backoff)
        task = asyncio.create_task(it.link.run())
        await until(lambda: it.losses)
        await asyncio.sleep(0.5)
        assert broker.connections == 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_message_that_we_stumble_over_does_not_keep_the_next_away(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedBroker.running(5) as broker:
        early = publish(b"bug", protocol=5) + publish(b"good", protocol=5)
        broker.before_suback = early
        async with Linked.running(broker.port, 5, subscriptions=[Subscription("c/#")]) as it:
            await until(lambda: len(it.heard) == 2)
            assert broker.writer is not None
            broker.writer.write(early)
            await until(lambda: len(it.heard) == 4)
            assert it.losses == []
    assert sum(bool(record.exc_info) for record in caplog.records) == 2


# --- the end of a connection ---


@pytest.mark.parametrize("step", ["loop_misc", "loop_read", "loop_write"])
async def test_what_paho_raises_ends_the_connection(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "MISC_S", 0.05)

    async with ScriptedBroker.running("3.1.1") as broker, Driven.connected(broker.port) as it:
        monkeypatch.setattr(it.client, step, _stumble)
        assert broker.writer is not None
        broker.writer.write(publish(b"x"))
        it.driver.write()
        await asyncio.wait_for(it.driver.closed.wait(), 5)
        assert it.stumbles == ["the client stumbled: RuntimeError('a bug')"]
        monkeypatch.undo()


async def test_a_callback_that_raises_ends_the_connection() -> None:
    async with ScriptedBroker.running("3.1.1") as broker, Driven.connected(broker.port) as it:
        it.client.on_message = lambda *_: 1 / 0  # type: ignore[assignment]
        assert broker.writer is not None
        broker.writer.write(publish(b"x"))
        await asyncio.wait_for(it.driver.closed.wait(), 5)
        assert it.client.socket() is None
        assert len(it.stumbles) == 1
        assert "ZeroDivisionError" in it.stumbles[0]


@BOTH
async def test_without_an_answer_to_the_commands_subscription_the_connection_is_worth_nothing(
    protocol: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "CONNECT_TIMEOUT_S", 0.5)
    async with ScriptedBroker.running(protocol) as broker:
        broker.before_suback = None
        confirmed: list[bool] = []
        options: dict[str, Any] = {"commands": COMMANDS, "on_commands": lambda: confirmed.append(True)}
        async with Linked.running(broker.port, protocol, **options) as it:
            it.link.hear_commands(True)
            await until(lambda: it.losses)
            assert "did not answer a subscription" in it.losses[0]
            broker.before_suback = b""
            await until(lambda: confirmed)


@BOTH
async def test_an_answer_in_time_is_not_taken_for_none(protocol: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "CONNECT_TIMEOUT_S", 0.5)
    async with (
        ScriptedBroker.running(protocol) as broker,
        Linked.running(broker.port, protocol, commands=COMMANDS) as it,
    ):
        it.link.hear_commands(True)
        await until(lambda: broker.packets)
        await asyncio.sleep(0.8)
        assert it.losses == []


@needs_mosquitto
@BOTH
async def test_keep_alive_notices_a_broker_that_hangs(
    protocol: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto = Mosquitto(tmp_path)
    await mosquitto.start()
    assert mosquitto._process is not None
    try:
        async with Linked.running(mosquitto.port, protocol, {"keepalive_s": 1}) as it:
            mosquitto._process.send_signal(signal.SIGSTOP)
            with caplog.at_level(logging.WARNING):
                await until(lambda: it.losses, 15)
            assert "Keep alive timeout" in it.losses[0]
            mosquitto._process.send_signal(signal.SIGCONT)
            await until(lambda: it.link.connected, 20)
    finally:
        mosquitto._process.send_signal(signal.SIGCONT)
        await mosquitto.stop()
