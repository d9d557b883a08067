"""SQLite files, each written by one thread: what the store and the journal stand on."""

from cti_mqtt.bridge.database.database import Database
from cti_mqtt.bridge.database.schema import PROBE, Schema, touch

__all__ = ["PROBE", "Database", "Schema", "touch"]
