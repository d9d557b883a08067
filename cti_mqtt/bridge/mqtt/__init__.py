"""The connection to the broker; the only folder that knows paho."""

from cti_mqtt.bridge.mqtt.link import PACKET_OVERHEAD, TAKEN_WAIT_S, TOO_LARGE, MqttLink
from cti_mqtt.bridge.mqtt.session import Incoming, Settled, Subscription

__all__ = ["PACKET_OVERHEAD", "TAKEN_WAIT_S", "TOO_LARGE", "Incoming", "MqttLink", "Settled", "Subscription"]
