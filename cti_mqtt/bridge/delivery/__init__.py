"""Readings on their way to the broker: written ahead, sent, acknowledged; what could not be sent goes out later."""

from cti_mqtt.bridge.delivery.post import ReadingsPost
from cti_mqtt.bridge.delivery.replay import Replayer

__all__ = ["ReadingsPost", "Replayer"]
