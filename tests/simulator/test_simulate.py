"""`cti-mqtt simulate`, as a process and as a function."""

import asyncio
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cti_mqtt.cti.messages.channels import AuxOption, ChannelsInfoRequest
from cti_mqtt.cti.messages.service import SendMessageRequest
from cti_mqtt.cti.messages.session import LoginRequest
from cti_mqtt.cti.messages.tests import StopRequest
from cti_mqtt.simulator import (
    NO_FAULTS,
    AnswerStyle,
    ChecksumStyle,
    ChunkFault,
    Document,
    Faults,
    ForcedResult,
    TextStyle,
    UpdateAnswer,
)

from .conftest import Client

PROGRAM = "import typer; from cti_mqtt.cli.simulate import simulate; typer.run(simulate)"
STARTED = re.compile(r"simulated cycler: 127\.0\.0\.1:(\d+) \(files (\d+)\), (\d+) channels, user (\w+)\s*")

Simulate = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def simulate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulate]:
    processes: list[asyncio.subprocess.Process] = []
    temporary = str(tmp_path_factory.mktemp("temporary"))  # killed programs leave their files behind

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", PROGRAM, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "TMPDIR": temporary},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def started(process: asyncio.subprocess.Process) -> re.Match[str]:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    match = STARTED.fullmatch(line)
    if match is None:
        _, errors = await process.communicate()
        pytest.fail(f"{line!r}, {errors.decode()}")
    return match


async def connect(port: str) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", int(port)))


FREE = ("--port", "0", "--file-port", "0")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to end a process in order")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_quietly(simulate: Simulate, number: signal.Signals, tmp_path: Path) -> None:
    record = tmp_path / "asked.jsonl"
    process = await simulate(*FREE, "--channels", "3", "--record", str(record))
    port, file_port, channels, user = (await started(process)).groups()
    assert (channels, user) == ("3", "admin")
    assert port != file_port
    client = await connect(port)
    (login,) = await client.ask(LoginRequest("admin", "admin"))
    assert login.channel_count == 3
    assert json.loads(record.read_text())["command"] == "login"
    process.send_signal(number)
    output, errors = await process.communicate()
    assert (process.returncode, output, errors) == (0, b"", b"")
    client.writer.close()


async def test_switches_reach_the_server(simulate: Simulate) -> None:
    process = await simulate(
        *FREE,
        *("--channels", "2", "--username", "bob", "--password", "secret", "--viewer", "eve:pw"),
        *("--version-code", "0", "--bms", "2", "--smb", "1", "--speed", "1000", "--seed", "5"),
        *("--answer", "one", "--picture", "10", "--junk", "3", "--segment", "500", "--no-merge", "--text", "stale"),
        *("--checksum", "wrong", "--checksum-of", "stop", "--status", "1=99", "--nan", "2", "--comm-failure", "2"),
        *("--delay", "0.001", "--delay-readings", "0.002", "--delay-of", "stop=0.003", "--delay-record", "0.001"),
        *("--result", "stop=0x13:1x", "--unknown", "connect", "--mute", "assign", "--drop", "start"),
    )
    port, _, channels, user = (await started(process)).groups()
    assert (channels, user) == ("2", "bob")
    client = await connect(port)
    (guest,) = await client.ask(LoginRequest("eve", "pw"))
    assert (guest.version, guest.allow_control, len(guest.picture)) == (0, False, 10)
    (login,) = await client.ask(LoginRequest("bob", "secret"))
    assert login.allow_control
    client.send(StopRequest(1))
    (stop,) = await client.events(1)
    assert (stop.message.channel, stop.message.result.reason, stop.checksum.value) == (1, "not_connected", "wrong")
    (reading,) = await client.ask(ChannelsInfoRequest(aux_options=AuxOption.ALL))
    first, second = reading.records
    assert (first.status, len(first.extras.bms), len(first.extras.smb)) == (99, 2, 1)
    assert second.voltage != second.voltage
    assert (first.comm_failure, second.comm_failure) == (False, True)
    assert client.skipped
    client.writer.close()


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        ("", NO_FAULTS),
        ("--answer first-only", Faults(answer=AnswerStyle.FIRST_ONLY)),
        ("--checksum misplaced", Faults(checksum=ChecksumStyle.MISPLACED)),
        ("--checksum-of stop --checksum-of start", Faults(checksum_of=frozenset({"stop", "start"}))),
        ("--text broken", Faults(text=TextStyle.BROKEN)),
        ("--no-units", Faults(units=False)),
        ("--no-start-names-channel", Faults(start_names_channel=False)),
        ("--picture 5", Faults(picture_bytes=5)),
        ("--junk 5", Faults(junk_bytes=5)),
        ("--segment 5", Faults(segment_bytes=5)),
        ("--no-merge", Faults(merge=False)),
        ("--delay 0.5", Faults(delay_s=0.5)),
        ("--delay-readings 0.5", Faults(delays_s={"channels_info": 0.5})),
        ("--delay-of stop=0.5 --delay-of start=1", Faults(delays_s={"stop": 0.5, "start": 1.0})),
        ("--delay-record 0.5", Faults(record_delay_s=0.5)),
        ("--drop start --drop stop", Faults(drop=frozenset({"start", "stop"}))),
        ("--drop-every 3", Faults(drop_every=3)),
        ("--mute start", Faults(mute=frozenset({"start"}))),
        ("--first-of-segment", Faults(first_of_segment_only=True)),
        ("--unknown stop", Faults(unknown=frozenset({"stop"}))),
        ("--result stop=0x11:10s", Faults(results=(ForcedResult("stop", 0x11, duration_s=10.0),))),
        ("--status 3=99", Faults(statuses={2: 99})),
        ("--nan 1 --nan 2", Faults(nan=frozenset({0, 1}))),
        ("--infinity 1", Faults(infinite=frozenset({0}))),
        ("--comm-failure 4", Faults(comm_failures=frozenset({3}))),
        ("--cut-after-frames 2", Faults(cut_after_frames=2)),
        ("--cut-after-requests 0", Faults(cut_after_requests=0)),
        ("--advanced-answer channel", Faults(advanced_answer=UpdateAnswer.CHANNEL)),
        ("--advanced-limit v4.5", Faults(advanced_limit=Document.V45)),
        ("--calibration v4.5", Faults(calibration=Document.V45)),
        ("--upload-feedback v4.5", Faults(upload_feedback=Document.V45)),
        ("--newer-browse", Faults(newer_browse=True)),
        ("--first-index 1", Faults(first_index=1)),
        ("--largest-file 5", Faults(largest_file_bytes=5)),
        ("--bad-md5 2", Faults(bad_md5=ChunkFault(2))),
        ("--bad-md5 2:1x", Faults(bad_md5=ChunkFault(2, 1))),
        ("--cut-chunk 3:1x", Faults(cut_chunk=ChunkFault(3, 1))),
        ("--delay-chunk 0.5", Faults(chunk_delay_s=0.5)),
    ],
)
def test_each_switch_is_its_fault(arguments: str, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("cti_mqtt.cli.simulate")
    caught: list[Faults] = []
    monkeypatch.setattr(module, "_run", lambda *_, faults, **__: caught.append(faults))
    app = typer.Typer()
    app.command()(module.simulate)
    outcome = CliRunner().invoke(app, arguments.split())
    assert outcome.exit_code == 0, outcome.output
    assert caught == [faults]


def test_the_documented_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("cti_mqtt.cli.simulate")
    caught: dict[str, Any] = {}
    monkeypatch.setattr(module, "_run", lambda cycler, record, **where: caught.update(where, cycler=cycler))
    module.simulate()
    assert (caught["host"], caught["port"], caught["file_port"]) == ("127.0.0.1", 9031, 9032)
    assert (caught["username"], caught["cycler"].channel_count) == ("admin", 16)


@pytest.mark.parametrize(
    "arguments",
    [
        "--answer sideways",
        "--channels 0",
        "--channels 1025",
        "--port 70000",
        "--speed 0",
        "--viewer eve",
        "--result stop",
        "--result nix=1",
        "--status 3",
        "--status 0=99",
        "--delay-of stop=soon",
        "--delay -1",
        "--drop nix",
        "--nan 0",
        "--first-index 2",
        "--bad-md5 0",
        "--cut-chunk 1:2s",
        "--advanced-answer both",
    ],
)
async def test_bad_values_are_refused(simulate: Simulate, arguments: str) -> None:
    process = await simulate(*FREE, *arguments.split())
    output, errors = await process.communicate()
    assert process.returncode == 2, errors
    assert output == b""
    assert b"Traceback" not in errors
    assert b"Invalid value" in errors


async def test_a_taken_port_is_said_plainly(simulate: Simulate) -> None:
    port = (await started(await simulate(*FREE)))[1]
    second = await simulate("--port", port, "--file-port", "0")
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert errors.decode().startswith("cannot simulate a cycler: ")
    assert len(errors.splitlines()) == 1


async def test_a_message_is_shown_and_files_lie_where_they_should(simulate: Simulate, tmp_path: Path) -> None:
    process = await simulate(*FREE, "--files", str(tmp_path / "files"))
    port = (await started(process))[1]
    client = await connect(port)
    await client.ask(LoginRequest("admin", "admin"))
    (answer,) = await client.ask(SendMessageRequest("[now]<-->[\x1b[2J]"))
    assert answer.result == 1
    assert process.stdout is not None
    assert await process.stdout.readline() == b"message: '[now]<-->[\\x1b[2J]'\n"
    assert (tmp_path / "files" / "Work" / "CCCV.sdx").exists()
    client.writer.close()


async def test_files_that_cannot_be(simulate: Simulate, tmp_path: Path) -> None:
    (tmp_path / "Work").write_text("a file where a directory should be")
    process = await simulate(*FREE, "--files", str(tmp_path))
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.startswith(b"cannot simulate a cycler: ")


async def test_a_record_that_cannot_be_written(simulate: Simulate, tmp_path: Path) -> None:
    process = await simulate(*FREE, "--record", str(tmp_path / "none" / "asked.jsonl"))
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"asked.jsonl" in errors


async def test_help_names_every_switch(simulate: Simulate) -> None:
    process = await simulate("--help")
    output, _ = await process.communicate()
    assert process.returncode == 0
    for switch in ("--answer", "--record", "--result", "--cut-after-frames", "--first-of-segment", "Example"):
        assert switch.encode() in output
