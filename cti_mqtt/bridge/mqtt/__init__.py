"""The connection to the broker; the only folder that knows paho."""

from cti_mqtt.bridge.mqtt.link import PACKET_OVERHEAD, MqttLink
from cti_mqtt.bridge.mqtt.session import Incoming, Subscription

__all__ = ["PACKET_OVERHEAD", "Incoming", "MqttLink", "Subscription"]
