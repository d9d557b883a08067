"""What paho makes of bytes from the broker, where that is not good enough for a client that must stay connected."""

from typing import Any

from paho.mqtt import properties
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.reasoncodes import ReasonCode

from cti_mqtt.bridge.mqtt.writing import CHUNK, PUBLISH, WritingClient

LONGEST_COMMAND = 256 * 1024  # of a packet, in bytes; four times as much as any command may have
FEFF = "\ufeff".encode()


class ReadingClient(WritingClient):
    """Keeps no more than the beginning of a message that is too long, and reads on behind it.

    A payload of 200 MB would cost five times as much memory. Not to be sent any is what CONNECT's maximum packet size
    is for, but after twenty that Mosquitto 2.0.11 kept back, it sent nothing more, no stop either.

    Attributes:
        longest: how much of a PUBLISH is kept, in bytes; None keeps all.
    """

    longest: int | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        """Called by paho: it asks for all that is missing of a packet, and appends what it gets to what it has."""
        packet = self._in_packet["packet"]
        if self.longest is not None and self._in_packet["command"] & 0xF0 == PUBLISH:
            del packet[self.longest :]
        return super()._sock_recv(min(bufsize, CHUNK))

    def limit_in_flight(self, most: int) -> None:
        """Inside `on_connect`: send no more messages at once than the broker takes before it acknowledges one.

        paho does not look at what CONNACK says of it, so the broker would hang up; paho's own setter is for the time
        before the connection only.
        """
        self._max_inflight_messages = most

    def payload_of(self, payload: bytes) -> bytes:
        """Inside `on_message`: the payload; of a message that was cut `longest` bytes at least, so that it is seen."""
        if self.longest is None or self._in_packet["remaining_length"] == len(self._in_packet["packet"]):
            return payload
        return payload.ljust(self.longest)


_paho_read_utf: Any = properties.readUTF


def _read_utf(buffer: bytes, maxlen: int) -> tuple[str, int]:
    """A string and how many bytes it took.

    paho calls U+FEFF in it a protocol error; it is a character like others (MQTT 5, 1.5.4). Its other objections stand.
    """
    length = int.from_bytes(buffer[:2], "big")
    body = bytes(buffer[2 : 2 + length])
    _, used = _paho_read_utf(bytes(buffer[:2]) + body.replace(FEFF, b"---"), maxlen)
    if len(body) < length:
        raise MalformedPacket("a string ends before its length")
    return body.decode(), used


# Without this, whoever may publish where we hear something could cut our connection, again and again.
properties.readUTF = _read_utf


def _unpack_reason(reason: ReasonCode, buffer: bytes | bytearray) -> int:
    """A reason, and how many bytes it took; any, though MQTT 5 does not list it for that packet.

    Mosquitto 2.0.11 answers a message beyond its message_size_limit with a PUBACK that says "Packet too large". For
    paho that is a protocol error, so the connection was lost, and, with the message published again, the next one.
    """
    reason.value = buffer[0]
    return 1


def _name_of_reason(reason: ReasonCode) -> str:
    names = reason.names.get(reason.value, {})
    listed = (name for name, packets in names.items() if reason.packetType in packets)
    return next(listed, next(iter(names), "Unknown reason"))


_reason_code: Any = ReasonCode
_reason_code.unpack, _reason_code.getName = _unpack_reason, _name_of_reason
