"""Files over the file port, on a real socket."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.cti.messages.files import (
    CHUNK_BYTES,
    BrowseRequest,
    DeleteRequest,
    DownloadFeedback,
    DownloadRequest,
    EntryType,
    NewFolderRequest,
    NewOrDeleteRequest,
    UploadFeedback,
    UploadRequest,
)
from cti_mqtt.cti.messages.service import UnknownCommandFeedback
from cti_mqtt.cti.messages.session import LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StopRequest
from cti_mqtt.cti.results import UploadResult
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.simulator import (
    ADMIN,
    ChunkFault,
    Document,
    ForcedResult,
    ManualClock,
    SimulatedCycler,
    SimulatedServer,
    TextStyle,
    User,
)

from .conftest import LOGIN, READ_ALL, Client, Connect, Serve, start_test, until

LARGE = bytes(range(251)) * 4500  # 1 129 500 bytes: three chunks
STAMP = 45_000.5
Open = Callable[..., Awaitable[Client]]


@pytest.fixture
def files(serve: Serve, connect: Connect) -> Open:
    """A client on the file port of a new server with these faults."""

    async def open_client(**faults: Any) -> Client:
        return await connect(await serve(**faults), files=True)

    return open_client


def chunks(path: str, data: bytes, *, base: int = 0, stamp: float = STAMP, size: int = CHUNK_BYTES) -> list[Any]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    return [
        UploadRequest(path, len(piece), len(pieces), index + base, stamp, md5(piece).digest(), piece)
        for index, piece in enumerate(pieces)
    ]


async def upload(client: Client, *parts: UploadRequest) -> list[UploadResult]:
    results = []
    for part in parts:
        (feedback,) = await client.ask(part)
        assert isinstance(feedback, UploadFeedback)
        answer = feedback.read(part.time)
        assert answer is not None
        assert answer[0] == part.index
        results.append(answer[1])
    return results


async def download(client: Client, path: str, stamp: float = STAMP) -> list[DownloadFeedback]:
    (first,) = await client.ask(DownloadRequest(path, stamp))
    return [first, *[event.message for event in await client.events(max(first.packages - 1, 0))]]


async def names(client: Client, path: str) -> list[str]:
    (feedback,) = await client.ask(BrowseRequest(path))
    return [entry.name for entry in feedback.entries]


def root(server: SimulatedServer) -> Path:
    assert server.files is not None
    return server.files


# --- the ordinary ---


async def test_what_lies_there_at_first(files: Open) -> None:
    client = await files()
    assert await names(client, "") == ["CANBMS Config", "Simulation", "SMB Config", "Support", "Work"]
    (work,) = await client.ask(BrowseRequest("Work"))
    assert work.result.reason == "schedule_directory"
    assert [entry.name for entry in work.entries] == [
        *("CCCV.sdx", "ClosedLoop.sdx", "Discharge.sdx", "Formation.sdx", "Pause.sdx", "Rest.sdx")
    ]
    assert all(entry.type == EntryType.FILE and entry.size > 0 and entry.modified for entry in work.entries)
    assert (await client.ask(BrowseRequest("Support")))[0].result.reason == "directory"
    assert (await client.ask(BrowseRequest("..")))[0].result == 3


async def test_the_file_port_wants_a_login(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(), files=True, login=False)
    client.send(BrowseRequest("Work"), DownloadRequest("Work\\CCCV.sdx", STAMP), *chunks("Work\\a.sdx", b"x"))
    assert await client.silent()


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("data", [b"", b"short", LARGE, LARGE[: 2 * CHUNK_BYTES]], ids=len)
async def test_up_and_down_again(files: Open, data: bytes, base: int) -> None:
    client = await files(first_index=base)
    parts = chunks("Work\\big.sdx", data, base=base)
    assert await upload(client, *parts) == [UploadResult.OK] * len(parts)
    feedbacks = await download(client, "work/big.sdx")
    assert b"".join(feedback.data for feedback in feedbacks) == data
    assert [feedback.index for feedback in feedbacks] == list(range(base, len(parts) + base))
    for feedback in feedbacks:
        assert (feedback.result, feedback.time, feedback.packages) == (1, STAMP, len(parts))
        assert feedback.md5 == md5(feedback.data).digest()


async def test_chunks_in_any_order_and_size_in_one_write(files: Open) -> None:
    client = await files()
    parts = chunks("Support\\a.txt", LARGE, size=100_000)[::-1]
    client.send(*parts)
    assert [event.message.read(STAMP)[1] for event in await client.events(len(parts))] == [1] * 12
    assert b"".join(feedback.data for feedback in await download(client, "Support\\a.txt")) == LARGE


async def test_readings_go_on_while_files_travel(serve: Serve, connect: Connect) -> None:
    server = await serve(chunk_delay_s=1000.0)
    client, reader = await connect(server, files=True), await connect(server)
    client.send(DownloadRequest("Work\\CCCV.sdx", STAMP))
    assert len(await reader.ask(READ_ALL, count=4)) == 4


async def test_folders_and_deletions(files: Open) -> None:
    client = await files()

    async def result(request: Any) -> str:
        return str((await client.ask(request))[0].result.reason)

    assert await result(NewFolderRequest("Work\\new")) == "created"
    assert await result(NewFolderRequest("Work\\new")) == "create_failed"
    assert await result(NewFolderRequest("new")) == "no_folders_allowed_here"
    assert await upload(client, *chunks("Work\\new\\a.can", b"x")) == [1]
    assert await result(DeleteRequest("Work\\new")) == "delete_failed"
    assert await result(DeleteRequest("Work\\new\\a.can")) == "deleted"
    assert await result(DeleteRequest("Work\\new\\a.can")) == "does_not_exist"
    assert await result(NewOrDeleteRequest(0, "Work\\new")) == "deleted"
    assert await result(NewOrDeleteRequest(1, "Work\\newer")) == "created"
    assert await result(NewOrDeleteRequest(2, "Work\\newest")) == "create_failed"
    assert "newer" in await names(client, "Work")


# --- what is refused ---


@pytest.mark.parametrize(
    "change",
    [
        {"path": "..\\a.sdx"},
        {"path": "Work\\..\\..\\a.sdx"},
        {"path": "C:\\a.sdx"},
        {"path": "/tmp/a.sdx"},
        {"path": "Work\\a.exe"},
        {"path": "Work"},
        {"path": "Work\\nix\\a.sdx"},
        {"length": 4},
        {"packages": 0},
        {"packages": 1 << 20},
        {"index": 2},
        {"data": bytes(CHUNK_BYTES + 1), "length": CHUNK_BYTES + 1},
    ],
    ids=str,
)
async def test_uploads_that_fail(files: Open, change: dict[str, Any]) -> None:
    client = await files()
    (good,) = chunks("Work\\a.sdx", b"short")
    assert await upload(client, replace(good, **change)) == [UploadResult.FAILED]
    assert "a.sdx" not in await names(client, "Work")


@pytest.mark.parametrize("path", ["Work", "Work\\nix.sdx", "..\\secret.txt", "C:\\x.txt", "Work\\..\\Work\\CCCV.sdx"])
async def test_downloads_that_fail(files: Open, path: str) -> None:
    (feedback,) = await download(await files(), path)
    assert (feedback.result.reason, feedback.time, feedback.data) == ("failed", STAMP, b"")


async def test_what_is_too_large(serve: Serve, connect: Connect) -> None:
    server = await serve(largest_file_bytes=10)
    client = await connect(server, files=True)
    (feedback,) = await download(client, "Work\\CCCV.sdx")
    assert (feedback.result.reason, feedback.packages) == ("too_large", 0)
    assert await upload(client, *chunks("Work\\a.txt", b"0123456789")) == [1]
    assert await upload(client, *chunks("Work\\b.txt", b"0123456789a", size=10)) == [1, 2]
    assert "b.txt" not in await names(client, "Work")


async def test_users_who_may_only_look(serve: Serve, connect: Connect, clock: ManualClock) -> None:
    cycler = SimulatedCycler(1, clock=clock, users=[ADMIN, User("guest", "g", may_control=False)])
    client = await connect(await serve(cycler), files=True, login=False)
    await client.ask(LoginRequest("guest", "g"))
    assert await upload(client, *chunks("Work\\a.sdx", b"x")) == [2]
    assert (await client.ask(NewFolderRequest("Work\\new")))[0].result.reason == "create_failed"
    assert (await client.ask(DeleteRequest("Work\\CCCV.sdx")))[0].result.reason == "delete_failed"
    assert (await download(client, "Work\\CCCV.sdx"))[0].result == 1


# --- schedules ---


async def test_a_schedule_in_use_stays(serve: Serve, connect: Connect) -> None:
    server = await serve()
    control, client = await connect(server), await connect(server, files=True)
    await start_test(control, "CCCV.sdx")
    before = (root(server) / "Work" / "CCCV.sdx").read_bytes()
    assert await upload(client, *chunks("Work\\cccv.SDX", b"x")) == [UploadResult.FILE_IN_USE]
    assert (await client.ask(DeleteRequest("work/CCCV.sdx")))[0].result.reason == "in_use"
    assert await upload(client, *chunks("Support\\CCCV.sdx", b"x"), *chunks("Work\\Rest.sdx", b"x")) == [1, 1]
    assert (root(server) / "Work" / "CCCV.sdx").read_bytes() == before
    await control.ask(StopRequest(0))
    assert (await client.ask(DeleteRequest("Work\\CCCV.sdx")))[0].result.reason == "deleted"
    (feedback,) = await control.ask(AssignRequest(1, False, "CCCV.sdx"))
    assert feedback.result.reason == "schedule_not_found"


async def test_a_copy_of_a_schedule_behaves_like_it(serve: Serve, connect: Connect, clock: ManualClock) -> None:
    server = await serve()
    control, client = await connect(server), await connect(server, files=True)
    (original,) = await download(client, "Work\\Pause.sdx")
    assert b"Wait, Pause" in original.data
    await upload(client, *chunks("Work\\copy.SDX", original.data), *chunks("Work\\other.sdx", b"\x00\xff?"))
    await upload(client, *chunks("Support\\elsewhere.sdx", original.data), *chunks("Work\\no.txt", original.data))
    await start_test(control, "copy.SDX", 0)
    await start_test(control, "other.sdx", 1)
    for name in ("elsewhere.sdx", "no.txt"):
        assert (await control.ask(AssignRequest(2, False, name)))[0].result.reason == "schedule_not_found"
    clock.advance(20.0)
    records = [feedback.records[0] for feedback in await control.ask(READ_ALL, count=4)]
    assert [(record.schedule, record.status.text) for record in records[:2]] == [
        *(("copy.SDX", "Pause"), ("other.sdx", "Rest"))
    ]


async def test_a_directory_of_ones_own(connect: Connect, clock: ManualClock, tmp_path: Path) -> None:
    (tmp_path / "Work").mkdir()
    (tmp_path / "Work" / "mine.sdx").write_bytes(b"something")
    (tmp_path / "Work" / "CCCV.sdx").write_bytes(b"something else")
    cycler = SimulatedCycler(2, clock=clock)
    async with SimulatedServer(cycler, files=tmp_path) as server:
        assert server.files == tmp_path
        control = await connect(server)
        for channel, name in enumerate(("mine.sdx", "CCCV.sdx")):
            await start_test(control, name, channel)
        clock.advance(100.0)
        assert [cycler.channel(index).status.text for index in range(2)] == ["Rest", "Rest"]
    assert (tmp_path / "Work" / "CCCV.sdx").read_bytes() == b"something else"
    assert (tmp_path / "Work" / "Formation.sdx").exists()


async def test_the_temporary_directory_goes(cycler: SimulatedCycler) -> None:
    async with SimulatedServer(cycler) as server:
        where = root(server)
        assert (where / "SMB Config").is_dir()
        await server.unplug()
        await server.replug()
        assert root(server) == where
        second = SimulatedServer(cycler, port=server.port)
        with pytest.raises(OSError, match=r".+"):
            await second.__aenter__()
        assert not root(second).exists()
    assert not where.exists()


# --- half a transfer ---


async def test_only_chunks_of_one_stamp_make_a_file(files: Open) -> None:
    client = await files()
    path = "Work\\a.sdx"
    early, late = chunks(path, LARGE, stamp=1.0), chunks(path, LARGE[::-1], stamp=2.0)
    assert await upload(client, early[0], early[1], late[2], late[0]) == [1, 1, 1, 1]
    assert "a.sdx" not in await names(client, "Work")
    assert await upload(client, late[1]) == [1]
    assert b"".join(feedback.data for feedback in await download(client, path)) == LARGE[::-1]


async def test_indices_that_do_not_fit_make_no_file(files: Open) -> None:
    client = await files()
    first, second, third = chunks("Work\\a.sdx", LARGE)
    assert await upload(client, first, replace(second, index=3), third) == [1, 1, 1]
    assert "a.sdx" not in await names(client, "Work")
    assert await upload(client, second) == [1]  # four indices for three chunks
    assert "a.sdx" not in await names(client, "Work")


async def test_a_chunk_that_comes_again_counts_once(files: Open) -> None:
    client = await files()
    first, second, third = chunks("Work\\a.sdx", LARGE)
    assert await upload(client, first, first, second, third) == [1] * 4
    assert b"".join(feedback.data for feedback in await download(client, "Work\\a.sdx")) == LARGE


async def test_a_damaged_chunk_is_refused_and_may_come_again(files: Open) -> None:
    client = await files()
    first, second, third = chunks("Work\\a.sdx", LARGE)
    damaged = replace(second, data=bytes(len(second.data)))
    assert await upload(client, first, damaged, third, second) == [1, 3, 1, 1]
    assert b"".join(feedback.data for feedback in await download(client, "Work\\a.sdx")) == LARGE


async def test_uploads_without_end_push_each_other_out(files: Open) -> None:
    client = await files()
    uploads = [chunks(f"Work\\{number}.sdx", b"ab", size=1) for number in range(9)]
    for first, _ in uploads:
        assert await upload(client, first) == [1]
    for _, second in uploads[1:] + uploads[:1]:
        assert await upload(client, second) == [1]
    found = await names(client, "Work")
    assert [f"{number}.sdx" in found for number in range(9)] == [False] + [True] * 8


async def test_a_cut_upload_leaves_nothing(serve: Serve, connect: Connect) -> None:
    server = await serve()
    before = sorted(root(server).rglob("*"))
    client = await connect(server, files=True)
    first, second, third = chunks("Work\\a.sdx", LARGE)
    assert await upload(client, first, second) == [1, 1]
    frame = pack_message(third)
    client.send(frame[: len(frame) // 2])
    await client.writer.drain()
    client.writer.close()
    await until(lambda: server.connection_count == 0)
    assert sorted(root(server).rglob("*")) == before
    again = await connect(server, files=True)
    assert await upload(again, third) == [1]
    assert sorted(root(server).rglob("*")) == before


async def test_a_file_that_cannot_be_written(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve()
    client = await connect(server, files=True)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    assert await upload(client, *chunks("Work\\a.sdx", b"x")) == [UploadResult.FAILED]
    assert "a.sdx" not in await names(client, "Work")
    assert not list((root(server) / "Work").glob(".*"))


async def test_an_upload_meanwhile_does_not_mix_with_a_download(serve: Serve, connect: Connect) -> None:
    server = await serve()
    reader, writer = await connect(server, files=True), await connect(server, files=True)
    large = bytes(40 * CHUNK_BYTES)  # more than the sockets hold
    (root(server) / "Work" / "a.txt").write_bytes(large)
    (first,) = await reader.ask(DownloadRequest("Work\\a.txt", STAMP))
    assert await upload(writer, *chunks("Work\\a.txt", b"new")) == [1]
    rest = await reader.events(first.packages - 1)
    assert first.data + b"".join(event.message.data for event in rest) == large


# --- faults ---


def counted(times: int | None, count: int = 3) -> Iterator[bool]:
    return iter([times is None or attempt < times for attempt in range(count)])


@pytest.mark.parametrize("times", [None, 1])
async def test_a_wrong_md5(files: Open, times: int | None) -> None:
    client = await files(bad_md5=ChunkFault(2, times))
    parts = chunks("Work\\a.sdx", LARGE)
    assert await upload(client, parts[0]) == [1]
    struck = counted(times, 2)
    assert await upload(client, parts[1], parts[1]) == [3 if next(struck) else 1 for _ in range(2)]


@pytest.mark.parametrize("times", [None, 1])
async def test_a_wrong_md5_in_a_download(serve: Serve, connect: Connect, times: int | None) -> None:
    server = await serve(bad_md5=ChunkFault(2, times))
    (root(server) / "Support" / "a.bin").write_bytes(LARGE)
    client = await connect(server, files=True)
    for struck in counted(times):
        feedbacks = await download(client, "Support\\a.bin")
        good = [feedback.md5 == md5(feedback.data).digest() for feedback in feedbacks]
        assert good == [True, not struck, True]
        assert b"".join(feedback.data for feedback in feedbacks) == LARGE


async def test_a_cut_in_the_middle_of_a_download(serve: Serve, connect: Connect) -> None:
    server = await serve(cut_chunk=ChunkFault(2, 1))
    (root(server) / "Support" / "a.bin").write_bytes(LARGE)
    client = await connect(server, files=True)
    client.send(DownloadRequest("Support\\a.bin", STAMP))
    frame = CHUNK_BYTES + 22 + 4 + 8 + 4 + 4 + 16 + 8
    assert len(await client.ended()) == frame + frame // 2
    again = await connect(server, files=True)
    assert len(await download(again, "Support\\a.bin")) == 3


async def test_a_cut_in_the_middle_of_an_upload(serve: Serve, connect: Connect) -> None:
    server = await serve(cut_chunk=ChunkFault(2, 1))
    client = await connect(server, files=True)
    first, second, third = chunks("Work\\a.sdx", LARGE)
    assert await upload(client, first) == [1]
    client.send(second)
    assert len(await client.ended()) == 21
    again = await connect(server, files=True)
    assert await upload(again, first, second, third) == [1, 1, 1]


async def test_delayed_chunks(serve: Serve, connect: Connect) -> None:
    server = await serve()
    slow, quick = await connect(server, files=True), await connect(server, files=True)
    server.faults = replace(server.faults, chunk_delay_s=1000.0)
    slow.send(DownloadRequest("Work\\CCCV.sdx", STAMP))
    assert await names(quick, "Work")  # no chunk, no delay
    slow.writer.close()
    await until(lambda: server.connection_count == 1)
    quick.send(*chunks("Work\\a.sdx", b"x"))
    await until((root(server) / "Work" / "a.sdx").exists)
    await server.unplug()
    assert server.connection_count == 0


async def test_all_chunks_come_though_late(serve: Serve, connect: Connect) -> None:
    server = await serve(chunk_delay_s=0.01, delay_s=0.01, record_delay_s=0.01)
    (root(server) / "Support" / "a.bin").write_bytes(LARGE)
    client = await connect(server, files=True)
    assert len(await download(client, "Support\\a.bin")) == 3


async def test_the_result_of_an_upload_comes_first_in_v45(files: Open) -> None:
    client = await files(upload_feedback=Document.V45)
    assert await upload(client, *chunks("Work\\a.sdx", LARGE)) == [1, 1, 1]
    assert client.received_bytes[-42:][20:24] == b"\1\0\0\0"


async def test_newer_servers_say_4_to_what_is_no_directory(files: Open) -> None:
    assert (await (await files(newer_browse=True)).ask(BrowseRequest("nix")))[0].result == 4


async def test_names_are_dirty_too(files: Open) -> None:
    client = await files(text=TextStyle.STALE)
    assert await names(client, "Support") == []
    assert (await names(client, "Work"))[0] == "CCCV.sdx"
    assert "stale".encode("utf-16-le") in client.received_bytes


FILE_COMMANDS: dict[str, Any] = {
    "browse": BrowseRequest("Work"),
    "download": DownloadRequest("Work\\CCCV.sdx", STAMP),
    "upload": chunks("Work\\a.sdx", b"x")[0],
    "new_folder": NewFolderRequest("Work\\new"),
    "delete": DeleteRequest("Work\\Rest.sdx"),
    "new_or_delete": NewOrDeleteRequest(0, "Work\\Rest.sdx"),
}


@pytest.mark.parametrize("command", FILE_COMMANDS)
async def test_forced_unknown_dropped_and_muted(serve: Serve, connect: Connect, command: str) -> None:
    server = await serve(results=(ForcedResult(command, 2, times=1),))
    client, request = await connect(server, files=True), FILE_COMMANDS[command]
    before = await names(client, "Work") if command != "browse" else None
    (forced,) = await client.ask(request)
    if isinstance(forced, UploadFeedback):
        assert forced.read(STAMP) == (0, 2)
    else:
        assert forced.result == 2
    server.faults = replace(server.faults, results=(), unknown=frozenset({command}))
    (unknown,) = await client.ask(request)
    assert isinstance(unknown, UnknownCommandFeedback)
    server.faults = replace(server.faults, unknown=frozenset(), drop=frozenset({command}))
    client.send(request)
    assert await client.silent()
    server.faults = replace(server.faults, drop=frozenset())
    if before is not None:
        assert await names(client, "Work") == before
    server.faults = replace(server.faults, mute=frozenset({command}))
    client.send(request)
    assert await client.silent()
    *_, muted = server.recorder.commands(command)
    assert (muted["answered"], len(muted["results"])) == (False, 1)


async def test_cut_after_some_frames(serve: Serve, connect: Connect) -> None:
    server = await serve(cut_after_frames=2)
    (root(server) / "Support" / "a.bin").write_bytes(LARGE)
    client = await connect(server, files=True)
    client.send(DownloadRequest("Support\\a.bin", STAMP))
    frame = CHUNK_BYTES + 66
    assert len(await client.ended()) == frame + frame // 2


async def test_order_among_other_requests(files: Open) -> None:
    client = await files()
    answers = await client.ask(LOGIN, BrowseRequest("Work"), StopRequest(0), DeleteRequest("nix"), LOGIN, count=5)
    assert [type(answer).__name__ for answer in answers] == [
        *("LoginFeedback", "BrowseFeedback", "UnknownCommandFeedback", "DeleteFeedback", "LoginFeedback")
    ]


# --- the record ---


async def test_files_are_recorded_without_their_bytes(serve: Serve, connect: Connect) -> None:
    server = await serve()
    client = await connect(server, files=True)
    data = b"not in the record"
    await upload(client, *chunks("Work\\a.sdx", data))
    await download(client, "Work\\a.sdx")
    await names(client, "Work")
    await client.ask(DeleteRequest("Work\\a.sdx"))
    _, up, down, browsed, deleted = server.recorder.entries
    digest = md5(data).hexdigest()
    assert up["arguments"] == {
        "path": "Work\\a.sdx",
        "length": 17,
        "packages": 1,
        "index": 0,
        "time": STAMP,
        "md5": digest,
        "data": {"length": 17, "md5": digest},
    }
    assert (up["port"], up["results"]) == ("files", [{"code": 1, "reason": "ok"}])
    assert down["results"] == [{"code": 1, "reason": "ok", "packages": 1}]
    assert browsed["results"] == [{"code": 2, "reason": "schedule_directory", "entries": 7}]
    assert deleted["results"] == [{"code": 2, "reason": "deleted"}]
