"""cti-mqtt: a bridge between Arbin battery cyclers and MQTT."""

import logging

__version__ = "0.1.0"

# What is logged goes where the program that uses this says, and nowhere unless it does.
logging.getLogger(__name__).addHandler(logging.NullHandler())
