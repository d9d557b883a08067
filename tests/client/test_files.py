"""The file client on the simulated cycler: real sockets, real files."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.client import Cycler
from cti_mqtt.client.files import FileClient
from cti_mqtt.client.session import Credentials, Endpoint
from cti_mqtt.cti.messages.files import EntryType, NewOrDelete
from cti_mqtt.cti.paths import DIRECTORIES
from cti_mqtt.cti.results import BrowseResult, DownloadResult, FileResult, UploadResult
from cti_mqtt.cti.stream import ChecksumPolicy
from cti_mqtt.errors import (
    ChecksumError,
    ConnectionLostError,
    FileRefusedError,
    FileTransferError,
    InvalidRequestError,
    UnsupportedCommandError,
)
from cti_mqtt.simulator import ChecksumStyle, Faults, ForcedResult, SimulatedServer, TextStyle
from cti_mqtt.simulator.faults import ChunkFault, Document
from tests.client.scripted import names
from tests.support.rig import PASSWORD, simulated

FIVE_MB = random.Random(5).randbytes(5_000_000)
CREDENTIALS = Credentials("admin", PASSWORD)


@asynccontextmanager
async def client_of(server: SimulatedServer, *, timeout_s: float = 5.0, **more: Any) -> AsyncIterator[FileClient]:
    endpoint = Endpoint("arbin1", server.host, server.file_port, timeout_s, **more)
    async with FileClient.connect(endpoint, CREDENTIALS) as client:
        yield client


@asynccontextmanager
async def files(faults: Faults | None = None, **more: Any) -> AsyncIterator[tuple[FileClient, SimulatedServer]]:
    """A client on a simulated cycler."""
    async with simulated(4, faults or Faults()) as server, client_of(server, **more) as client:
        yield client, server


def there(server: SimulatedServer, *parts: str) -> Path:
    """A file of the simulated cycler."""
    assert server.files is not None
    return server.files.joinpath(*parts)


class TestFiveMegabytes:
    async def test_up_and_down_identical_while_polling_goes_on(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source.sdx", tmp_path / "target.sdx"
        source.write_bytes(FIVE_MB)
        async with simulated(16, Faults(chunk_delay_s=0.12)) as server:
            endpoint = Endpoint("arbin1", server.host, server.port)
            async with client_of(server) as client, Cycler.connect(endpoint, CREDENTIALS) as cycler:
                polls: list[tuple[float, float]] = []
                polling = asyncio.create_task(poll_each_second(cycler, polls))
                began = asyncio.get_running_loop().time()
                assert await client.upload(source, "Work/Five.sdx") == len(FIVE_MB)
                assert await client.download("Work/Five.sdx", target) == len(FIVE_MB)
                took_s = asyncio.get_running_loop().time() - began
                polling.cancel()
                await asyncio.gather(polling, return_exceptions=True)
            assert there(server, "Work", "Five.sdx").read_bytes() == FIVE_MB
        assert target.read_bytes() == FIVE_MB
        assert names(tmp_path) == {"source.sdx", "target.sdx"}
        assert took_s > 2
        assert len(polls) >= int(took_s)
        assert max(late for late, _ in polls) < 0.5
        assert max(duration for _, duration in polls) < 0.5

    async def test_bytes_without_a_file(self) -> None:
        async with files() as (client, _):
            await client.upload_bytes(FIVE_MB, r"Simulation\Five.txt")
            assert await client.download_bytes("simulation/Five.txt") == FIVE_MB


async def poll_each_second(cycler: Cycler, polls: list[tuple[float, float]]) -> None:
    """How late each poll began and how long it took, in s."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        began = loop.time()
        assert len(await cycler.read_channels()) == 16
        polls.append((began - due, loop.time() - began))
        due += 1
        await asyncio.sleep(due - loop.time())


QUIRKS = {
    "first index 1": Faults(first_index=1),
    "v4.5 upload feedback": Faults(upload_feedback=Document.V45),
    "wrong MD5 once": Faults(bad_md5=ChunkFault(2, 1)),
    "misplaced checksums": Faults(checksum=ChecksumStyle.MISPLACED),
    "wrong checksums": Faults(checksum=ChecksumStyle.WRONG),
    "wrong checksums of files": Faults(checksum=ChecksumStyle.WRONG, checksum_of=frozenset({"upload", "download"})),
    "junk": Faults(junk_bytes=1000),
    "small segments": Faults(segment_bytes=1000),
    "stale texts": Faults(text=TextStyle.STALE),
}


class TestQuirks:
    @pytest.mark.parametrize("faults", QUIRKS.values(), ids=QUIRKS)
    async def test_what_comes_back_is_what_went_up(self, tmp_path: Path, faults: Faults) -> None:
        content = FIVE_MB[:1_200_000]
        async with files(faults) as (client, server):
            await client.upload_bytes(content, "Work/a.sdx")
            assert there(server, "Work", "a.sdx").read_bytes() == content
            server.faults = faults  # what happens once happens again
            await client.download("Work/a.sdx", tmp_path / "a.sdx")
        assert (tmp_path / "a.sdx").read_bytes() == content

    async def test_strict(self) -> None:
        async with files(checksum=ChecksumPolicy.STRICT) as (client, _):
            await client.upload_bytes(FIVE_MB, "Work/a.sdx")
            assert await client.download_bytes("Work/a.sdx") == FIVE_MB

    async def test_wrong_md5_always(self, tmp_path: Path) -> None:
        async with files() as (client, server):
            await client.upload_bytes(FIVE_MB, "Work/a.sdx")
            server.faults = Faults(bad_md5=ChunkFault(3))
            with pytest.raises(FileTransferError):
                await client.download("Work/a.sdx", tmp_path / "a.sdx")
            with pytest.raises(FileTransferError):
                await client.upload_bytes(FIVE_MB, "Work/b.sdx")
            assert names(tmp_path) == set()
            assert "b.sdx" not in names(there(server, "Work"))


class TestCut:
    @pytest.mark.parametrize("chunk", [1, 4, 10])
    async def test_in_the_middle_of_a_download(self, tmp_path: Path, chunk: int) -> None:
        async with files() as (client, server):
            await client.upload_bytes(FIVE_MB, "Work/a.sdx")
            server.faults = Faults(cut_chunk=ChunkFault(chunk))
            with pytest.raises(ConnectionLostError):
                await client.download("Work/a.sdx", tmp_path / "a.sdx")
        assert names(tmp_path) == set()

    @pytest.mark.parametrize("chunk", [1, 4, 10])
    async def test_in_the_middle_of_an_upload(self, chunk: int) -> None:
        async with files(Faults(cut_chunk=ChunkFault(chunk))) as (client, server):
            before = there(server, "Work", "Rest.sdx").read_bytes()
            with pytest.raises(ConnectionLostError):
                await client.upload_bytes(FIVE_MB, "Work/Rest.sdx")
            assert there(server, "Work", "Rest.sdx").read_bytes() == before
            assert all(name.endswith(".sdx") and name[0] != "." for name in names(there(server, "Work")))

    async def test_a_cable_that_is_pulled(self, tmp_path: Path) -> None:
        async with files(Faults(chunk_delay_s=0.05)) as (client, server):
            there(server, "Work", "a.sdx").write_bytes(FIVE_MB)
            with pytest.raises(ConnectionLostError):
                await client.download("Work/a.sdx", tmp_path / "a.sdx", lambda done, total: server.disconnect_all())
        assert names(tmp_path) == set()


class TestDirectories:
    async def test_what_a_client_may_see(self) -> None:
        async with files() as (client, _):
            root = await client.browse()
            assert {entry.name for entry in root.entries} == set(DIRECTORIES)
            assert all(entry.type == EntryType.DIRECTORY for entry in root.entries)
            work = await client.browse("work/")
            assert work.kind is BrowseResult.SCHEDULE_DIRECTORY
            (cccv,) = [entry for entry in work.entries if entry.name == "CCCV.sdx"]
            assert (cccv.type, cccv.size) == (EntryType.FILE, len(await client.download_bytes("Work/CCCV.sdx")))
            assert (await client.browse("Support")).kind is BrowseResult.DIRECTORY

    @pytest.mark.parametrize("newer", [False, True])
    async def test_no_such_directory(self, newer: bool) -> None:
        async with files(Faults(newer_browse=newer)) as (client, _):
            with pytest.raises(FileRefusedError, match=r"arbin1: Work\\None: no such directory") as error:
                await client.browse("Work/None")
            assert error.value.code == (BrowseResult.INVALID_NEWER if newer else BrowseResult.INVALID)

    @pytest.mark.parametrize("name", ["Cells", "v1.2"])
    async def test_folders_come_and_go(self, name: str) -> None:
        async with files() as (client, server):
            await client.make_folder(f"Work/{name}")
            await client.upload_bytes(b"text", f"Work/{name}/a.txt")
            assert there(server, "Work", name, "a.txt").read_bytes() == b"text"
            with pytest.raises(FileRefusedError) as error:
                await client.delete(f"Work/{name}")
            assert error.value.code == FileResult.DELETE_FAILED
            await client.delete(f"Work/{name}/a.txt")
            await client.delete(f"Work/{name}")
            assert name not in names(there(server, "Work"))

    async def test_the_deprecated_pair(self) -> None:
        async with files() as (client, server):
            await client.new_or_delete("Support/New", NewOrDelete.NEW)
            assert there(server, "Support", "New").is_dir()
            with pytest.raises(FileRefusedError) as error:
                await client.new_or_delete("Support/New", NewOrDelete.NEW)
            assert error.value.code == FileResult.CREATE_FAILED
            await client.new_or_delete("Support/New", NewOrDelete.DELETE)
            assert not there(server, "Support", "New").exists()

    async def test_the_cyclers_no_is_an_error_with_its_code(self) -> None:
        async with files() as (client, server):
            with pytest.raises(FileRefusedError, match="does not exist") as error:
                await client.delete("Work/None.sdx")
            assert error.value.code == FileResult.DOES_NOT_EXIST
            with pytest.raises(FileRefusedError) as error:
                await client.download_bytes("Work/None.sdx")
            assert error.value.code == DownloadResult.FAILED
            server.faults = Faults(results=(ForcedResult("delete", 7), ForcedResult("upload", 4)))
            with pytest.raises(FileRefusedError, match="in use") as error:
                await client.delete("Work/CCCV.sdx")
            assert error.value.code == FileResult.IN_USE
            with pytest.raises(FileRefusedError, match="file in use") as error:
                await client.upload_bytes(b"", "Work/CCCV.sdx")
            assert error.value.code == UploadResult.FILE_IN_USE

    async def test_a_damaged_answer_proves_nothing(self) -> None:
        async with files(Faults(checksum=ChecksumStyle.WRONG, checksum_of=frozenset({"delete"}))) as (client, _):
            with pytest.raises(ChecksumError):
                await client.delete("Work/CCCV.sdx")
            await client.make_folder("Work/New")

    async def test_a_cycler_without_files(self) -> None:
        async with files(Faults(unknown=frozenset({"browse"}))) as (client, _):
            with pytest.raises(UnsupportedCommandError):
                await client.browse()


OPERATIONS: dict[str, Callable[[FileClient, str], Awaitable[Any]]] = {
    "browse": lambda client, path: client.browse(path),
    "download": lambda client, path: client.download(path, Path("/nowhere/a.sdx")),
    "download_bytes": lambda client, path: client.download_bytes(path),
    "upload": lambda client, path: client.upload(Path("/nowhere/a.sdx"), path),
    "upload_bytes": lambda client, path: client.upload_bytes(b"", path),
    "make_folder": lambda client, path: client.make_folder(path),
    "delete": lambda client, path: client.delete(path),
    "new": lambda client, path: client.new_or_delete(path, NewOrDelete.NEW),
    "remove": lambda client, path: client.new_or_delete(path, NewOrDelete.DELETE),
}
OUTSIDE = ("../a.sdx", "Work/../../a.sdx", r"Work\..\a.sdx", "/Work/a.sdx", "C:/Work/a.sdx", r"\\pc\Work\a.sdx",
           "a.sdx", "Windows/a.sdx", "Work/a\0.sdx", "Work/" + 1024 * "a" + ".sdx")  # fmt: skip


class TestPaths:
    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
    async def test_what_leaves_the_directories_is_not_sent(
        self, operation: Callable[[FileClient, str], Awaitable[Any]]
    ) -> None:
        async with files() as (client, server):
            for path in OUTSIDE:
                with pytest.raises(InvalidRequestError):
                    await operation(client, path)
            assert {entry["command"] for entry in server.recorder.entries} == {"login"}

    @pytest.mark.parametrize("path", ["Work", "Work/", ""])
    async def test_the_directories_themselves_stay(self, path: str) -> None:
        async with files() as (client, server):
            for name in set(OPERATIONS) - {"browse"}:
                with pytest.raises(InvalidRequestError):
                    await OPERATIONS[name](client, path)
            assert {entry["command"] for entry in server.recorder.entries} == {"login"}

    async def test_extensions(self) -> None:
        async with files() as (client, server):
            there(server, "Work", "a.exe").write_bytes(b"exe")
            assert await client.download_bytes("Work/a.exe") == b"exe"
            for operation in ("upload_bytes", "delete", "remove"):
                with pytest.raises(InvalidRequestError, match=r"\.sdx"):
                    await OPERATIONS[operation](client, "Work/a.exe")
            assert {entry["command"] for entry in server.recorder.entries} == {"login", "download", "browse"}
