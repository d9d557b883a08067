"""What paho makes of messages on their way to the broker, where that costs more than all the rest.

All of it is for readings: one message for each channel of each poll. For one of QoS 0 paho makes a condition variable
that nobody waits for and an answer that no broker gave, and hands it to the socket by itself.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

CHUNK = 64 * 1024  # of the socket, in bytes
PUBLISH = 0x30  # and 1 where it is retained


class Info(Protocol):
    """What becomes of a message, of what paho calls `MQTTMessageInfo`."""

    mid: int
    rc: MQTTErrorCode

    def is_published(self) -> bool:
        """Whether nothing is left to be done about it."""
        ...


class Bundle:
    """Messages of QoS 0 that go to the socket in one piece; for paho it is one."""

    mid = 0
    rc = MQTTErrorCode.MQTT_ERR_SUCCESS

    def __init__(self) -> None:
        self._sent = False

    def is_published(self) -> bool:
        """Whether the socket has them."""
        return self._sent

    def _set_as_published(self) -> None:
        """Called by paho."""
        self._sent = True


class _NotSent(Bundle):
    rc = MQTTErrorCode.MQTT_ERR_NO_CONN


class WritingClient(Client):
    """Sends all that waits together; says what became of a message only where the broker does.

    Attributes:
        on_acknowledged: called like paho's `on_publish`, for messages of QoS 1.
    """

    on_acknowledged: Callable[[Client, Any, int, ReasonCode, Properties], None] | None = None
    _sent_ahead = 0  # bytes of packets that paho has not come to yet

    def publish_unconfirmed(self, topic: str, payload: bytes, *, retain: bool, properties: bytes) -> Info:
        """Publish at QoS 0.

        Args:
            topic: one that can be published to.
            payload: as it is.
            retain: whether the broker keeps it.
            properties: packed; empty with MQTT 3.1.1.
        """
        if self._sock is None:
            return _NotSent()
        name = topic.encode()
        size = _variable_length(2 + len(name) + len(properties) + len(payload))
        head = bytes((PUBLISH | retain,)) + size + len(name).to_bytes(2, "big")
        packet = b"".join((head, name, properties, payload))
        last = self._out_packet[-1] if self._out_packet else None
        if last is None or not isinstance(last["info"], Bundle) or len(last["packet"]) >= CHUNK:
            info = Bundle()
            self._packet_queue(PUBLISH, bytearray(packet), info.mid, 0, info)  # type: ignore[arg-type]
            return info
        last["packet"] += packet
        last["to_process"] += len(packet)
        return last["info"]

    def let_go(self) -> None:
        """When the connection is over, keep nothing of what waited.

        paho, its callbacks and what drives it know each other, so it may be long until the client itself is taken away.
        """
        self._out_packet.clear()
        self._out_messages.clear()

    def _sock_send(self, buf: bytes | bytearray) -> int:
        """Called by paho for the first packet that waits: those behind it go with it, and are there when it asks."""
        if not self._sent_ahead:
            together = bytearray(buf)
            for packet in self._out_packet:
                if len(together) >= CHUNK:
                    break
                together += packet["packet"][packet["pos"] :]
            self._sent_ahead = super()._sock_send(together)
        sent = min(self._sent_ahead, len(buf))
        self._sent_ahead -= sent
        return sent

    def _do_on_publish(self, mid: int, reason_code: ReasonCode, properties: Properties) -> MQTTErrorCode:
        """Called by paho when a message was acknowledged."""
        if self.on_acknowledged:
            with self._in_callback_mutex:
                self.on_acknowledged(self, None, mid, reason_code, properties)
        return super()._do_on_publish(mid, reason_code, properties)


@lru_cache(maxsize=4096)
def _variable_length(size: int) -> bytes:
    """A length as MQTT has it: seven bits a byte, the lowest first."""
    head = bytearray()
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*head, size))
