"""How old rows are, whatever the time of day says."""

import sqlite3

from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.journal import polls


class JournalTime:
    """The time of a journal: it goes on from the newest stamp that stands in the file, while a bridge runs.

    So the time in which none ran does not count, and a clock that is wrong, or is put right, makes nothing older: the
    time of day only says where an empty file begins. Used in the writer's thread only.

    Args:
        clock: what time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._began = 0.0
        self._began_s = 0.0

    def now(self, connection: sqlite3.Connection) -> float:
        """For this file; in seconds, about those since 1970."""
        now_s = self._clock.monotonic()
        if connection is not self._connection:  # the file may be another one
            newest = polls.newest(connection)
            self._began = self._clock.now().timestamp() if newest is None else newest
            self._connection, self._began_s = connection, now_s
        return self._began + now_s - self._began_s
