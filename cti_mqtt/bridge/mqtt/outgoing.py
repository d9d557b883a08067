"""Our own way into paho: a client that is set up, connected, and given messages."""

import socket
from functools import lru_cache
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cti_mqtt.bridge.mqtt.reading import LONGEST_COMMAND, ReadingClient
from cti_mqtt.bridge.mqtt.session import MOST_IN_PAHO
from cti_mqtt.bridge.mqtt.writing import Info
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.config import Mqtt, missing_files

PACKET_OVERHEAD = 64  # fixed header, packet id and properties, generously


def make_client(settings: Mqtt, will: Message | None, *, hears_commands: bool, timeout_s: float) -> ReadingClient:
    """A client for one connection.

    Raises:
        ValueError: a file that the configuration names is missing.
        ssl.SSLError, OSError: it cannot be used.
    """
    client = ReadingClient(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if settings.protocol == 5 else True,
        protocol=MQTTProtocolVersion.MQTTv5 if settings.protocol == 5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.connect_timeout = timeout_s
    client.max_queued_messages = MOST_IN_PAHO  # it is asked before; this is the last of two bounds
    client.longest = LONGEST_COMMAND if hears_commands else None
    if settings.username is not None:
        password = settings.password.get_secret_value() if settings.password else None
        client.username_pw_set(settings.username, password)
    if problems := missing_files(settings):
        raise ValueError("; ".join(problems))
    if settings.tls is not None:
        files = {key: None if value is None else str(value) for key, value in settings.tls}
        client.tls_set(files["ca_file"], files["cert_file"], files["key_file"])
    if will:
        client.will_set(will.topic, will.payload, will.qos, will.retain)
    client.on_socket_open = _send_at_once
    return client


def connect(client: Client, settings: Mqtt) -> None:
    """Open the connection and say who we are; the broker keeps nothing for us while we are away. Blocking.

    Raises:
        OSError, ssl.SSLError, ValueError: nobody is there, or not whom we wanted.
    """
    if settings.protocol != 5:
        client.connect(settings.host, settings.port, settings.keepalive_s)
        return
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=True, properties=properties)


def publish(client: ReadingClient, message: Message, *, protocol_5: bool) -> Info:
    """Give a message to paho, which sends it when it can."""
    properties = _properties(message.expiry_s, message.correlation) if protocol_5 else None
    if message.qos:
        return client.publish(message.topic, message.payload, message.qos, message.retain, properties=properties)
    packed = properties.pack() if properties else b""
    return client.publish_unconfirmed(message.topic, message.payload, retain=message.retain, properties=packed)


def packet_size(message: Message) -> int:
    """How large its packet is at most, in bytes."""
    return len(message.payload) + len(message.topic.encode()) + len(message.correlation or b"") + PACKET_OVERHEAD


class _PackedOnce(Properties):
    """Properties that do not change any more: all readings have the same, and to make and pack them takes 18 us."""

    _packed = b""

    def pack(self) -> bytes:
        """As bytes."""
        if not self._packed:
            object.__setattr__(self, "_packed", bytes(super().pack()))  # type: ignore[no-untyped-call]
        return self._packed


@lru_cache(maxsize=64)
def _properties(expiry_s: int | None, correlation: bytes | None) -> _PackedOnce:
    properties = _PackedOnce(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties


def _send_at_once(client: Client, userdata: object, sock: Any) -> None:
    """A result must not wait for the broker to acknowledge what went before it (Nagle's algorithm: 40 ms)."""
    del client, userdata
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
