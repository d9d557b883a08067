"""What must outlive the process, in one SQLite file."""

from cti_mqtt.bridge.store.records import (
    AlarmRow,
    CommandKey,
    KnownCommand,
    LeaseRow,
    Newest,
    ReceivedCommand,
    StoredResult,
)
from cti_mqtt.bridge.store.store import Store

__all__ = [
    "AlarmRow",
    "CommandKey",
    "KnownCommand",
    "LeaseRow",
    "Newest",
    "ReceivedCommand",
    "Store",
    "StoredResult",
]
