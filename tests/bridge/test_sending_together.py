"""Packets that go to the socket together are the bytes that paho would have sent one after the other."""

import asyncio
import random
from typing import Any, TypeVar

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion, _ConnectionState
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cti_mqtt.bridge.mqtt.outgoing import publish
from cti_mqtt.bridge.mqtt.reading import ReadingClient
from cti_mqtt.bridge.mqtt.session import Session
from cti_mqtt.bridge.mqtt.writing import CHUNK, Bundle, Info
from cti_mqtt.bridge.outbox import Message

C = TypeVar("C", bound=Client)


class GrudgingSocket:
    """Takes a part of what it is given, or nothing at all just now."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.taken = bytearray()
        self.calls = 0

    def send(self, data: bytes) -> int:
        self.calls += 1
        if self._rng.random() < 0.2:
            raise BlockingIOError
        size = self._rng.choice([1, 10, len(data), len(data)])
        self.taken += data[:size]
        return min(size, len(data))

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


def connected(client: C, sock: Any) -> C:
    client._sock = sock
    client._state = _ConnectionState.MQTT_CS_CONNECTED
    client.on_socket_register_write = lambda *_: None
    return client


def messages(seed: int) -> list[Message]:
    rng = random.Random(seed)
    expiries = [None, 60]
    return [
        Message(
            f"a/{number}", rng.randbytes(rng.choice([0, 10, 1000, CHUNK])), number % 2, expiry_s=rng.choice(expiries)
        )
        for number in range(60)
    ]


def say(client: Client, message: Message, protocol_5: bool) -> Info:
    """Publish as the bridge does, or as paho would by itself."""
    if isinstance(client, ReadingClient):
        if not message.qos:
            client._mid_generate()  # paho spends one, though nobody sees it
        return publish(client, message, protocol_5=protocol_5)
    return client.publish(
        message.topic, message.payload, message.qos, properties=expiring(message.expiry_s, protocol_5)
    )


def expiring(expiry_s: int | None, protocol_5: bool) -> Properties | None:
    if expiry_s is None or not protocol_5:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = expiry_s
    return properties


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311], ids=str)
def test_the_same_bytes(protocol: MQTTProtocolVersion, seed: int) -> None:
    arguments: dict[str, Any] = {"callback_api_version": CallbackAPIVersion.VERSION2, "protocol": protocol}
    plain, together = GrudgingSocket(seed), GrudgingSocket(seed + 1)
    for client in (connected(Client(**arguments), plain), connected(ReadingClient(**arguments), together)):
        client._max_inflight_messages = 0  # any number
        rng = random.Random(seed)
        infos = []
        for message in messages(seed):
            infos.append((message, say(client, message, protocol == MQTTProtocolVersion.MQTTv5)))
            if rng.random() < 0.2:
                client.loop_write()
        while client.want_write():
            client.loop_write()
        assert all(info.is_published() for message, info in infos if message.qos == 0)
        assert not any(info.is_published() for message, info in infos if message.qos)
    assert plain.taken == together.taken
    assert together.calls < plain.calls


async def test_states_take_no_room_of_what_must_arrive() -> None:
    loop = asyncio.get_running_loop()
    session = Session(loop.create_future(), loop.create_future(), loop.create_future())
    state = Message("a/state", bytes(4300), 0, retain=True)
    while session.has_room(state):
        session.hand_over(Bundle(), state)
    assert session.unwritten_bytes > 16_000_000
    assert session.has_room(Message("a/readings", b"x"))


async def test_a_state_does_not_overtake_the_clearing_of_its_topic() -> None:
    loop = asyncio.get_running_loop()
    session = Session(loop.create_future(), loop.create_future(), loop.create_future())
    client = connected(
        ReadingClient(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5), GrudgingSocket(1)
    )
    clear, state = Message("a/state", b"", retain=True), Message("a/state", b"1", 0, retain=True)
    info = publish(client, clear, protocol_5=True)
    session.hand_over(info, clear)
    assert [session.in_order(each).qos for each in (state, state._replace(topic="b/state"))] == [1, 0]
    session.settle_offer(info.mid, None)
    assert session.in_order(state) is state


def test_a_client_of_no_use_any_more_keeps_nothing() -> None:
    client = connected(
        ReadingClient(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5), GrudgingSocket(1)
    )
    for qos in (0, 1):
        publish(client, Message("a", bytes(CHUNK), qos), protocol_5=True)
    client.let_go()
    assert not client.want_write()
    assert not client._out_messages


def test_an_expiry_is_packed_as_paho_packs_it() -> None:
    sock = GrudgingSocket(1)
    client = connected(ReadingClient(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5), sock)
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = 60
    for _ in range(2):
        publish(client, Message("a", b"b", 0, expiry_s=60), protocol_5=True)
        while client.want_write():
            client.loop_write()
    packed = properties.pack()  # type: ignore[no-untyped-call]
    assert bytes(sock.taken) == (bytes([0x30, 2 + 1 + len(packed) + 1, 0, 1]) + b"a" + packed + b"b") * 2
