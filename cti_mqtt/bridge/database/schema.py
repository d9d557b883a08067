"""What makes a database one of ours, and how an older one becomes one of today."""

import sqlite3
from dataclasses import dataclass

from cti_mqtt.errors import StorageError

PROBE = "CREATE TABLE probe(number INTEGER PRIMARY KEY, count INTEGER NOT NULL)"
"""For `touch`: every first version of a schema has it."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one kind of database.

    Attributes:
        name: what people call it.
        steps: statements; those at place n lead from version n to n + 1, so an empty database becomes what an old one
            becomes. A step that was released is never changed.
        application_id: tells one kind from another; 0: none.
    """

    name: str
    steps: tuple[tuple[str, ...], ...]
    application_id: int = 0

    @property
    def version(self) -> int:
        """Today's; PRAGMA user_version."""
        return len(self.steps)

    def version_of(self, connection: sqlite3.Connection) -> int:
        """The version of a database; 0: it is empty.

        Raises:
            StorageError: it is newer than this program, or somebody else's.
            sqlite3.Error: it cannot be read.
        """
        version = _pragma(connection, "user_version")
        empty = version <= 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if empty:
            return 0
        if version <= 0 or _pragma(connection, "application_id") != self.application_id:
            raise StorageError("is not a database of cti-mqtt" if version <= 0 else f"is not a {self.name} of cti-mqtt")
        if version > self.version:
            raise StorageError(f"has schema {version}; this version of cti-mqtt knows none above {self.version}")
        return version

    def prepare(self, connection: sqlite3.Connection) -> int:
        """Bring a database to today's version, all or nothing; or else find out whether it can be written.

        Returns:
            the version that it had.

        Raises:
            StorageError: as for `version_of`; nothing was changed.
            sqlite3.Error: it cannot be read or written.
        """
        connection.execute("BEGIN IMMEDIATE")
        before = self.version_of(connection)
        if before < self.version:
            for step in self.steps[before:]:
                for statement in step:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {self.application_id}")
            connection.execute(f"PRAGMA user_version = {self.version}")
        connection.execute("COMMIT")
        return before


def touch(connection: sqlite3.Connection) -> None:
    """Write something that means nothing."""
    connection.execute("INSERT INTO probe VALUES (1, 1) ON CONFLICT(number) DO UPDATE SET count = count + 1")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
