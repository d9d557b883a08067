"""A file that an earlier version left is brought to today's, with all that is in it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cti_mqtt.bridge.database import PROBE, Schema
from cti_mqtt.bridge.store.audit import verify
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.bridge.store.schema import SCHEMA
from cti_mqtt.errors import StorageError
from tests.bridge.store.samples import command, entry, file_in, opened

VERSION_1 = Path(__file__).with_name("version1.sql")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a store of version 1."""
    with closing(sqlite3.connect(file_in(tmp_path))) as connection:
        connection.executescript(VERSION_1.read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    return tmp_path


def tables(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


async def test_everything_is_still_there(old: Path) -> None:
    async with opened(old) as store:
        assert store.problem == ""
        kept, unfinished = await store.find(command("kept").key), await store.unfinished()
        assert kept is not None
        assert (kept.finished, len(kept.results)) == (True, 1)
        assert [known.command.key.id for known in unfinished] == ["open"]
        assert [lease.lease_id for lease in await store.leases()] == ["l1"]
        assert [alarm.name for alarm in await store.alarms()] == ["stop_failed"]
        await store.audit([entry("later")])
        await store.note_retained(["cti/arbin1/info"], [])
    async with opened(old) as store:
        assert await store.retained_topics() == ("cti/arbin1/info",)
    with read_audit(file_in(old)) as reader:
        assert verify(reader.rows(), reader.last_seq()) is None
        assert reader.last_seq() == 3


async def test_an_old_one_becomes_what_a_new_one_is(old: Path) -> None:
    new = old / "new"
    new.mkdir()
    for folder in (old, new):
        async with opened(folder) as store:
            assert store.problem == ""
    assert tables(file_in(old)) == tables(file_in(new))


def test_the_audit_of_an_old_one_is_read_and_not_changed(old: Path) -> None:
    before = file_in(old).read_bytes()
    with read_audit(file_in(old)) as reader:
        assert reader.last_seq() == 2
    assert file_in(old).read_bytes() == before


def test_all_steps_or_none() -> None:
    schema = Schema("store", (*SCHEMA.steps, ("CREATE TABLE more(x)", "CREATE TABLE alarm(x)")))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        assert SCHEMA.prepare(connection) == 0
        with pytest.raises(sqlite3.OperationalError, match="alarm already exists"):
            schema.prepare(connection)
        connection.execute("ROLLBACK")
        assert schema.version_of(connection) == SCHEMA.version
        assert SCHEMA.prepare(connection) == SCHEMA.version
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone() == (0,)


def test_one_kind_is_not_taken_for_another() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        Schema("first", ((PROBE,),), application_id=1).prepare(connection)
        for other in (Schema("other", ((PROBE,),), application_id=2), Schema("store", ((PROBE,),))):
            with pytest.raises(StorageError, match=f"is not a {other.name} of cti-mqtt"):
                other.version_of(connection)
