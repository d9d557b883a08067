"""Telling the verdict on health to those who do not ask the broker: an HTTP port, and systemd."""

from cti_mqtt.bridge.monitoring.monitoring import Monitoring

__all__ = ["Monitoring"]
