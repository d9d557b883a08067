"""cti-mqtt: a bridge between Arbin battery cyclers and MQTT."""

__version__ = "0.1.0"
