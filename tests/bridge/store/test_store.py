"""What the store keeps, in memory and in a file, and what a later process finds."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cti_mqtt.bridge.store import AlarmRow, KnownCommand, LeaseRow, Newest, Store, StoredResult
from cti_mqtt.bridge.store.audit import verify
from cti_mqtt.bridge.store.ledger import FORGET_CHUNK
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.bridge.store.space import Space
from cti_mqtt.errors import StorageError
from tests.bridge.store.samples import RECEIVED_AT, command, entry, file_in, opened

LEASE = LeaseRow(
    "arbin1", 7, "l1", "ann", "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:10.678Z", 5.0,
    '{"set_mv":{"1":0.0}}', "running",
)  # fmt: skip
ALARM = AlarmRow("arbin1", 7, "stop_failed", '{"name":"stop_failed"}')
RESULT, SUMMARY = StoredResult(7, '{"outcome":"succeeded"}'), StoredResult(None, '{"channel":null}')


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "file" else None


class TestCommands:
    @pytest.mark.parametrize("channel", [7, None])
    @pytest.mark.parametrize("durable", [True, False])
    async def test_a_life(self, folder: Path | None, channel: int | None, durable: bool) -> None:
        sent = command(channel=channel)
        async with opened(folder) as store:
            assert await store.find(sent.key) is None
            assert await store.receive(sent, durable=durable) is None
            assert await store.receive(sent, durable=durable) == KnownCommand(sent, (), finished=False)
            await store.answer(sent.key, [RESULT], finished=False)
            assert await store.unfinished() == (KnownCommand(sent, (RESULT,), finished=False),)
            await store.answer(sent.key, [SUMMARY], finished=True, audit=[entry()], durable=durable)
            assert await store.find(sent.key) == KnownCommand(sent, (RESULT, SUMMARY), finished=True)
            assert await store.unfinished() == ()

    @pytest.mark.parametrize(
        "change", [{"cycler": "arbin2"}, {"channel": 8}, {"channel": None}, {"verb": "jump"}, {"id": "b"}]
    )
    async def test_another_key_is_another_command(self, folder: Path | None, change: dict[str, object]) -> None:
        sent = command()
        other = replace(sent, key=replace(sent.key, **change))  # type: ignore[arg-type]  # a table
        async with opened(folder) as store:
            assert await store.receive(sent, durable=False) is None
            assert await store.receive(other, durable=False) is None

    async def test_what_is_known_counts_not_what_comes(self, folder: Path | None) -> None:
        first, second = command(request="1"), replace(command(request="2"), digest="another", user=None)
        async with opened(folder) as store:
            await store.receive(first, durable=False)
            assert await store.receive(second, durable=False) == KnownCommand(first, (), finished=False)

    async def test_an_id_of_the_bridge_is_forgotten_when_finished(self, folder: Path | None) -> None:
        sent = command(keep=False)
        async with opened(folder) as store:
            await store.receive(sent, durable=False)
            await store.answer(sent.key, [RESULT], finished=False)
            assert await store.find(sent.key) == KnownCommand(sent, (RESULT,), finished=False)
            await store.answer(sent.key, [SUMMARY], finished=True)
            assert await store.find(sent.key) is None

    async def test_an_unknown_command_only_enters_the_audit(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            await store.answer(command().key, [RESULT], finished=True, audit=[entry()])
            assert await store.find(command().key) is None
        with read_audit(file_in(tmp_path)) as reader:
            assert reader.last_seq() == 1

    @pytest.mark.parametrize(
        "request_", ["", "\0", "\ud800", "ü\N{GRINNING FACE}", "x" * 1_000_000, "'; DROP TABLE command"]
    )
    async def test_any_payload(self, folder: Path | None, request_: str) -> None:
        async with opened(folder) as store:
            assert await store.receive(command(request=request_), durable=False) is None
            known = await store.find(command().key)
            assert known
            assert known.command.request == request_.replace("\ud800", "?")

    async def test_unfinished_oldest_first(self, folder: Path | None) -> None:
        async with opened(folder) as store:
            for id_ in "cab":
                store.receive(command(id_), durable=False)
            await store.answer(command("a").key, [], finished=True)
            assert [each.command.key.id for each in await store.unfinished()] == ["c", "b"]

    async def test_forget(self, folder: Path | None) -> None:
        days = [f"2026-01-0{day}T00:00:00.000Z" for day in range(1, 6)]
        async with opened(folder) as store:
            for day in days:
                store.receive(command(day, received_at=day), durable=False)
                if day != days[1]:
                    store.answer(command(day).key, [RESULT], finished=True)
            newest = await store.newest()
            assert newest == Newest(5, days[4])
            assert await store.forget(1, days[3]) == 1
            assert await store.forget(newest.number, days[3]) == 1
            assert await store.forget(newest.number, days[3]) == 0
            left = [day for day in days if await store.find(command(day).key)]
            assert left == [days[1], days[3], days[4]]

    async def test_the_newest_is_not_forgotten_so_that_its_number_is_not_given_again(self, folder: Path | None) -> None:
        async with opened(folder) as store:
            assert await store.newest() == Newest(0, None)
            for id_ in "abc":
                store.receive(command(id_), durable=False)
                store.answer(command(id_).key, [RESULT], finished=True)
            store.receive(command("own", keep=False), durable=False)
            assert await store.newest() == Newest(3, RECEIVED_AT)
            assert await store.forget(99) == 2
            assert await store.forget(99) == 0
            assert await store.find(command("c").key)
            assert len(await store.unfinished()) == 1

    async def test_an_unreadable_list_of_channels_does_not_hide_the_others(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            for id_ in "abc":
                await store.receive(command(id_), durable=False)
            with closing(sqlite3.connect(file_in(tmp_path))) as meddler, meddler:
                meddler.execute("UPDATE command SET channels = '[7' WHERE id = 'a'")
                meddler.execute("UPDATE command SET request = CAST(x'ff7b' AS TEXT) WHERE id = 'b'")
            found = await store.unfinished()
            assert [each.command.channels for each in found] == [(), (7,), (7,)]
            assert found[1].command.request == "\ufffd{"

    async def test_room_on_the_disk(self, folder: Path | None) -> None:
        async with opened(folder) as store:
            space = await store.space()
            assert (space is None) == (folder is None)
            assert space is None or 0 < space.free <= space.total

    def test_what_is_little_room(self) -> None:
        assert Space(50 * 10**9, 10**12).objection == ""
        assert Space(49 * 10**9, 10**12).objection == "the disk with data_dir has 49000 MB free (4.9%)"
        assert Space(200 * 10**6, 10**9).objection == ""
        assert Space(199 * 10**6, 10**9).objection == "the disk with data_dir has 199 MB free (19.9%)"

    async def test_forgetting_is_bounded(self, folder: Path | None) -> None:
        async with opened(folder) as store:
            for number in range(FORGET_CHUNK + 5):
                store.receive(command(f"{number}"), durable=False)
                store.answer(command(f"{number}").key, [RESULT], finished=True)
            assert [await store.forget(9999, "2027") for _ in range(3)] == [FORGET_CHUNK, 4, 0]


class TestStanding:
    async def test_leases(self, folder: Path | None) -> None:
        other = replace(LEASE, channel=8, holder=None)
        renewed = replace(LEASE, lease_id="l2", state="expired")
        async with opened(folder) as store:
            store.put_lease(LEASE)
            store.put_lease(other, durable=True)
            assert await store.leases() == (LEASE, other)
            store.put_lease(renewed)
            store.drop_lease("arbin1", 7, "l1")
            assert await store.leases() == (renewed, other)
            store.drop_lease("arbin1", 7, "l2")
            assert await store.leases() == (other,)

    async def test_alarms(self, folder: Path | None) -> None:
        other, changed = replace(ALARM, name="other"), replace(ALARM, body="{}")
        async with opened(folder) as store:
            for alarm in (ALARM, other, changed):
                store.put_alarm(alarm)
            assert await store.alarms() == (other, changed)
            store.drop_alarm("arbin1", 7, "other")
            store.drop_alarm("arbin1", 8, "stop_failed")
            assert await store.alarms() == (changed,)


class TestFile:
    async def test_a_later_process_finds_everything(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            store.receive(command(), durable=True)
            store.answer(command().key, [RESULT], finished=False, audit=[entry("a"), entry("b")])
            store.put_lease(LEASE)
            store.put_alarm(ALARM)
        async with opened(tmp_path) as store:
            assert await store.unfinished() == (KnownCommand(command(), (RESULT,), finished=False),)
            assert await store.leases() == (LEASE,)
            assert await store.alarms() == (ALARM,)
            await store.audit([entry("c")])
        with read_audit(file_in(tmp_path)) as reader:
            assert verify(reader.rows(), reader.last_seq()) is None
            assert reader.last_seq() == 3

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM audit",
            "UPDATE audit SET entry = '{}' WHERE seq = 1",
            "INSERT OR REPLACE INTO audit VALUES (1, '{}', 'x')",
            "REPLACE INTO audit VALUES (2, '{}', 'x')",
        ],
    )
    async def test_the_audit_is_append_only(self, tmp_path: Path, statement: str) -> None:
        async with opened(tmp_path) as store:
            await store.audit([entry("a"), entry("b")])
        connection = sqlite3.connect(file_in(tmp_path))
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
        connection.close()

    async def test_entries_are_taken_as_they_were(self, tmp_path: Path) -> None:
        mutable = entry("before")
        async with opened(tmp_path) as store:
            written = store.audit([mutable])
            mutable["what"] = "after"
            await written
        with read_audit(file_in(tmp_path)) as reader:
            assert '"what":"before"' in next(reader.rows()).entry


async def test_not_open() -> None:
    store = Store(None)
    with pytest.raises(StorageError, match="is not open"):
        await store.leases()
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(StorageError, match="is not open"):
        await store.leases()


async def test_closing_writes_what_is_queued(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        futures = [store.receive(command(f"{number}"), durable=False) for number in range(500)]
    assert await asyncio.gather(*futures) == [None] * 500
    async with opened(tmp_path) as store:
        assert len(await store.unfinished()) == 500


class TestRetainedTopics:
    async def test_they_come_and_go(self, folder: Path | None) -> None:
        async with opened(folder) as store:
            assert await store.retained_topics() == ()
            await store.note_retained(["cti/b", "cti/a"], ["cti/unknown"])
            await store.note_retained({"cti/c", "cti/a"}, {"cti/b"})
            assert await store.retained_topics() == ("cti/a", "cti/c")
            await store.note_retained(["cti/c"], ["cti/c", "cti/a"])
            assert await store.retained_topics() == ("cti/c",)

    async def test_thousands(self, folder: Path | None) -> None:
        topics = [f"cti/arbin1/channel/{number}/state" for number in range(5000)]
        async with opened(folder) as store:
            await store.note_retained(topics, [])
            assert len(await store.retained_topics()) == 5000
            await store.note_retained([], topics[1:])
            assert await store.retained_topics() == (topics[0],)
