"""The connection to the broker; the only folder that knows paho."""

from cti_mqtt.bridge.mqtt.link import TAKEN_WAIT_S, TOO_LARGE, MqttLink
from cti_mqtt.bridge.mqtt.outgoing import PACKET_OVERHEAD
from cti_mqtt.bridge.mqtt.session import LOST, SUSPECT, Incoming, Settled, Subscription

__all__ = [
    "LOST",
    "PACKET_OVERHEAD",
    "SUSPECT",
    "TAKEN_WAIT_S",
    "TOO_LARGE",
    "Incoming",
    "MqttLink",
    "Settled",
    "Subscription",
]
