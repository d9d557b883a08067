"""`cti-mqtt files` as its users meet it: real processes, a simulated cycler, exit statuses."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cti_mqtt.simulator import Faults, SimulatedServer
from cti_mqtt.simulator.faults import ChunkFault
from tests.client.scripted import names
from tests.support.brokers import HOST, free_port
from tests.support.processes import finished, program
from tests.support.rig import PASSWORD, simulated

CONTENT = random.Random(1).randbytes(2_000_000)
NONE = Faults()


def write_config(folder: Path, port: int, *names: str) -> Path:
    path = folder / "config.yaml"
    cycler = f"{{host: {HOST}, file_port: {port}, username: admin, password: {PASSWORD}, timeout_s: 5}}"
    path.write_text("cyclers:\n" + "".join(f"  {name}: {cycler}\n" for name in names or ("arbin1",)))
    return path


@asynccontextmanager
async def cycler(folder: Path, faults: Faults = NONE, *names: str) -> AsyncIterator[tuple[SimulatedServer, str]]:
    """A simulated cycler, and the configuration that knows it."""
    async with simulated(2, faults) as server:
        yield server, str(write_config(folder, server.file_port, *names))


async def files(*arguments: str) -> tuple[int, str]:
    """Exit status and output; never a traceback, never the password."""
    status, output = await finished("files", *arguments)
    assert "Traceback" not in output
    assert PASSWORD not in output
    return status, output


class TestDone:
    async def test_there_and_back_again(self, tmp_path: Path) -> None:
        source, back = tmp_path / "a.sdx", tmp_path / "back"
        source.write_bytes(CONTENT)
        back.mkdir()
        async with cycler(tmp_path) as (server, config):
            assert server.files is not None
            sent = "Work\\a.sdx: 2000000 bytes\n"
            assert await files("put", str(source), "work/", "-c", config) == (0, sent)
            assert (server.files / "Work/a.sdx").read_bytes() == CONTENT
            status, _ = await files("get", "Work/a.sdx", str(back), "-c", config, "--cycler", "arbin1")
            assert status == 0
        assert (back / "a.sdx").read_bytes() == CONTENT

    async def test_folders_and_listings(self, tmp_path: Path) -> None:
        async with cycler(tmp_path) as (server, config):
            assert server.files is not None
            assert await files("mkdir", "Work/New", "-c", config) == (0, "Work/New: made\n")
            (server.files / "Work/New/a.sdx").write_bytes(CONTENT)
            status, output = await files("ls", "Work/New", "-c", config)
            assert (status, output.split()[0], output.split()[-1]) == (0, "2000000", "a.sdx")
            assert await files("rm", "Work/New/a.sdx", "-c", config) == (0, "Work/New/a.sdx: deleted\n")
            assert await files("rm", "Work/New", "-c", config) == (0, "Work/New: deleted\n")
            status, output = await files("ls", "-c", config)
            assert (status, len(output.splitlines())) == (0, 5)
            assert "Work/\n" in output

    async def test_put_under_another_name_and_into_a_directory_without_a_slash(self, tmp_path: Path) -> None:
        source = tmp_path / "a.sdx"
        source.write_bytes(b"x")
        async with cycler(tmp_path) as (server, config):
            assert server.files is not None
            assert (await files("put", str(source), "Work/b.sdx", "-c", config))[0] == 0
            assert (await files("put", str(source), "SMB Config", "-c", config))[0] == 0
            assert (server.files / "Work/b.sdx").read_bytes() == b"x"
            assert (server.files / "SMB Config/a.sdx").read_bytes() == b"x"

    async def test_get_never_replaces_a_file_unless_told(self, tmp_path: Path) -> None:
        target = tmp_path / "CCCV.sdx"
        target.write_bytes(b"mine")
        async with cycler(tmp_path) as (server, config):
            for where in (str(target), str(tmp_path)):
                status, output = await files("get", "Work/CCCV.sdx", where, "-c", config)
                assert status == 1
                assert "--force" in output
            assert target.read_bytes() == b"mine"
            status, _ = await files("get", "Work/CCCV.sdx", str(target), "-c", config, "--force")
            assert status == 0
            assert server.files is not None
            assert target.read_bytes() == (server.files / "Work/CCCV.sdx").read_bytes()

    async def test_without_a_place_it_comes_into_the_present_directory(self, tmp_path: Path) -> None:
        here = tmp_path / "here"
        here.mkdir()
        root = str(Path(__file__).parents[2])
        async with (
            cycler(tmp_path) as (_, config),
            program("files", "get", "Work/CCCV.sdx", "-c", config, cwd=here, environment={"PYTHONPATH": root}) as it,
        ):
            assert await it.process.wait() == 0
        assert [path.name for path in here.iterdir()] == ["CCCV.sdx"]


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("ls", "Work/None"), "arbin1: Work\\None: no such directory"),
            (("ls", ".."), "'..'"),
            (("ls", "Windows"), "'Windows' is not in Simulation, Work"),
            (("get", "Work/None.sdx", "{tmp}"), "arbin1: Work\\None.sdx: the cycler says: failed"),
            (("get", "../config.yaml", "{tmp}"), "'../config.yaml'"),
            (("get", "Work", "{tmp}"), "'Work' is a directory"),
            (("get", "Work/CCCV.sdx", "{tmp}/none/a.sdx"), "there is no directory"),
            (("put", "{tmp}/config.yaml", "Work/"), "only .sdx"),
            (("put", "{tmp}/config.yaml", "../a.sdx"), "'../a.sdx'"),
            (("rm", "Work/None.sdx"), "does not exist"),
            (("rm", "C:/Work/CCCV.sdx"), "'C:/Work/CCCV.sdx'"),
            (("mkdir", "Work"), "'Work' is a directory"),
            (("mkdir", "Work/CCCV.sdx"), "create failed"),
        ],
    )
    async def test_one_clear_line_and_status_1(self, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
        async with cycler(tmp_path) as (_, config):
            status, output = await files(*(part.replace("{tmp}", str(tmp_path)) for part in arguments), "-c", config)
        assert status == 1
        assert said in output
        assert len(output.splitlines()) == 1
        assert names(tmp_path) == {"config.yaml"}

    async def test_nobody_there(self, tmp_path: Path) -> None:
        config = str(write_config(tmp_path, free_port()))
        status, output = await files("ls", "-c", config)
        assert (status, output.startswith("arbin1: cannot connect")) == (1, True)

    async def test_a_cut_in_the_middle(self, tmp_path: Path) -> None:
        async with cycler(tmp_path, Faults(cut_chunk=ChunkFault(3))) as (server, config):
            assert server.files is not None
            (server.files / "Work/a.sdx").write_bytes(CONTENT)
            status, output = await files("get", "Work/a.sdx", str(tmp_path), "-c", config)
        assert status == 1
        assert "the connection ended" in output
        assert names(tmp_path) == {"config.yaml"}


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("ls", "-c", "{config}"), "--cycler"),
            (("ls", "-c", "{config}", "--cycler", "arbin3"), "arbin1, arbin2"),
            (("ls", "-c", "none.yaml"), "cannot be read"),
            (("ls",), "--config"),
            (("put", "none.sdx", "Work/", "-c", "{config}", "--cycler", "arbin1"), "none.sdx"),
            (("copy",), "copy"),
        ],
    )
    async def test_wrong_usage_is_status_2(self, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
        config = str(write_config(tmp_path, 1, "arbin1", "arbin2"))
        status, output = await files(*(part.replace("{config}", config) for part in arguments))
        assert status == 2
        assert said in output

    @pytest.mark.parametrize("command", ["ls", "get", "put", "rm", "mkdir"])
    async def test_each_has_help_with_an_example(self, command: str) -> None:
        status, output = await files(command, "--help")
        assert status == 0
        assert f"Example: cti-mqtt files {command}" in output

    async def test_one_of_several_cyclers(self, tmp_path: Path) -> None:
        async with cycler(tmp_path, NONE, "arbin1", "arbin2") as (_, config):
            assert (await files("ls", "Work", "-c", config, "--cycler", "arbin2"))[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and terminals")
class TestTerminal:
    async def test_a_progress_bar(self, tmp_path: Path) -> None:
        source = tmp_path / "a.sdx"
        source.write_bytes(CONTENT)
        async with cycler(tmp_path, Faults(chunk_delay_s=0.1)) as (_, config):
            arguments = ("-m", "cti_mqtt", "files", "put", str(source), "Work/", "-c", config)
            main, terminal = os.openpty()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=terminal,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            )
            os.close(terminal)
            shown = await asyncio.to_thread(read_all, main)
            out, _ = await process.communicate()
        assert process.returncode == 0
        assert out == b"Work\\a.sdx: 2000000 bytes\n"
        assert "2.0/2.0 MB" in shown
        assert "a.sdx" in shown

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    async def test_an_end_in_the_middle_leaves_nothing(self, tmp_path: Path, number: signal.Signals) -> None:
        async with cycler(tmp_path, Faults(chunk_delay_s=0.3)) as (server, config):
            assert server.files is not None
            (server.files / "Work/a.sdx").write_bytes(5 * CONTENT)
            async with program("files", "get", "Work/a.sdx", str(tmp_path), "-c", config) as it:
                async with asyncio.timeout(20):
                    while not server.recorder.commands("download"):  # noqa: ASYNC110  # looked at from outside
                        await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)
                assert await it.end(number) != 0
                assert "Traceback" not in it.output
        assert names(tmp_path) == {"config.yaml"}


def read_all(terminal: int) -> str:
    """What a terminal shows until nobody writes to it any more."""
    shown = b""
    try:
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    except OSError:
        pass  # how Linux says that the other side is closed
    os.close(terminal)
    return shown.decode("utf-8", "replace")
