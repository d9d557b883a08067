"""paho as the measuring side uses it: MQTT 5, and each packet leaves at once."""

import socket
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


def plain_client() -> Client:
    """A client, not connected yet. Nagle's algorithm would let an answer wait for the ACK of the PUBACK before it."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_socket_open = _send_at_once
    return client


def _send_at_once(_client: Client, _data: Any, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
