"""The program as its users meet it: real processes, real signals, exit statuses."""

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.brokers import AMQTT, HOST, MOSQUITTO_5, broker_of_kind, free_port, needs_mosquitto, wait_listening
from tests.support.observer import Observer
from tests.support.processes import Program, finished, program
from tests.support.rig import PASSWORD, simulated

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these tests send POSIX signals")

FIVE_MISTAKES = """
mqtt: {prot: 1883, port: 99999}
cyclers:
  Arbin1: {host: 192.0.2.1}
  arbin2: {host: 192.0.2.2, poll_interval_s: fast, control: {verbs: [start, stopp]}}
"""


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[Program, int]]:
    port = free_port()
    async with program("demo", "--mqtt-port", str(port), "--cti-port", "0", "--channels", "4", "--speed", "20") as it:
        await it.wait_for("Ctrl-C ends everything")
        await wait_listening(port)
        yield it, port


class TestDemo:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_it_shows_readings_takes_the_command_it_prints_and_ends(self, number: signal.Signals) -> None:
        async with demo() as (it, port), Observer.connect(port, "3.1.1") as observer:
            assert f"mosquitto_sub -h 127.0.0.1 -p {port} -t 'cti/#' -v" in it.output
            await observer.wait("arbin1/channel/4/state")
            printed = await it.wait_for(r"-m '(\{.*?\})'")
            observer.say("arbin1/channel/1/command/start", json.loads(printed[1]))
            result = await observer.wait("arbin1/channel/1/result")
            assert (result.json["outcome"], result.json["verified"]) == ("succeeded", True)
            assert await it.end(number) == 0
            assert "Traceback" not in it.output
            assert "rror" not in it.output

    async def test_a_port_in_use_is_said_plainly(self) -> None:
        async with broker_of_kind(AMQTT, Path()) as port:
            status, output = await finished("demo", "--mqtt-port", str(port), "--cti-port", "0")
            assert status == 1
            assert "--mqtt-port 0" in output
            assert "Traceback" not in output


class TestSend:
    async def test_outcomes_are_exit_statuses(self) -> None:
        async with demo() as (_, port):
            where = ("--mqtt-port", str(port))
            start = ("send", "arbin1/1", "start", "test_name=42", "schedule=CCCV.sdx", *where)
            status, output = await finished(*start)
            assert (status, json.loads(output)["outcome"]) == (0, "succeeded")
            status, output = await finished(*start)
            assert (status, json.loads(output)["reason"]) == (4, "running")
            status, output = await finished("send", "arbin1/9", "stop", *where)
            assert (status, json.loads(output)["reason"]) == (3, "unknown_channel")
            status, output = await finished("send", "nobody", "stop", *where)
            assert (status, json.loads(output)["reason"]) == (3, "unknown_cycler")
            status, output = await finished("send", "arbin1", "stop", "channels=[1]", *where)
            assert (status, json.loads(output)["channels"]) == (0, {"1": "succeeded"})
            status, output = await finished("send", "arbin1/1", "stop", "--base-topic", "x", "--timeout", "1", *where)
            assert status == 6
            assert "no answer" in output

    @pytest.mark.parametrize(
        "arguments",
        [
            ("arbin1/", "stop"),
            ("arbin1/+", "stop"),
            ("arbin1/1", "start", "test_name"),
            ("arbin1/1", "start", "--json", "["),
            ("arbin1/1", "start", "--json", "7"),
            ("arbin1/1", "start", "test_name=T", "--json", "{}"),
            ("arbin1/1", "stop", "--mqtt-port", "0"),
            ("arbin1/1", "stop", "--protocol", "4"),
        ],
    )
    async def test_wrong_usage(self, arguments: tuple[str, ...]) -> None:
        status, output = await finished("send", *arguments)
        assert status == 2
        assert "Traceback" not in output

    async def test_no_broker(self) -> None:
        status, output = await finished("send", "arbin1/1", "stop", "--mqtt-port", str(free_port()), "--timeout", "1")
        assert status == 6
        assert "cannot connect to the broker" in output


class TestWatch:
    async def test_once(self) -> None:
        async with demo() as (_, port):
            await finished(
                "send", "arbin1/1", "start", "test_name=T[/]7", "schedule=CCCV.sdx", "--mqtt-port", str(port)
            )
            status, output = await finished("watch", "--once", "--mqtt-port", str(port))
            assert status == 0
            assert "arbin1" in output
            assert "T[/]7" in output
            assert "25.0" in output

    async def test_live_until_interrupted(self) -> None:
        async with demo() as (_, port), program("watch", "--mqtt-port", str(port)) as it:
            await it.wait_for("watching")
            assert await it.end(signal.SIGINT) == 0
            assert "Traceback" not in it.output


def write_config(folder: Path, broker_port: int, cti_port: int, **cycler: object) -> Path:
    path = folder / "config.yaml"
    settings = {
        "data_dir": "data",
        "health_interval_s": 0.5,
        "mqtt": {"host": HOST, "port": broker_port, "protocol": "3.1.1"},
        "cyclers": {"arbin1": {"host": HOST, "port": cti_port, "poll_interval_s": 0.2, **cycler}},
    }
    path.write_text(json.dumps(settings))  # JSON is YAML
    (folder / ".env").write_text(f"ARBIN_CTI_USERNAME=admin\nARBIN_CTI_PASSWORD={PASSWORD}\n")
    return path


class TestCheck:
    async def test_five_mistakes_are_named_with_their_paths(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(FIVE_MISTAKES)
        environment = {"ARBIN_CTI_USERNAME": "u", "ARBIN_CTI_PASSWORD": "p"}
        status, output = await finished("check", "-c", str(path), environment=environment)
        assert status == 2
        for where in (
            "mqtt.prot",
            "mqtt.port",
            "cyclers.Arbin1",
            "cyclers.arbin2.poll_interval_s",
            "cyclers.arbin2.control.verbs.1",
        ):
            assert f"  {where}: " in output
        assert "5 problem(s)" in output
        status, output = await finished("run", "-c", str(path), environment=environment)
        assert status == 2
        assert "5 problem(s)" in output

    async def test_connect(self, tmp_path: Path) -> None:
        async with broker_of_kind(AMQTT, tmp_path) as port, simulated(4) as server:
            path = write_config(tmp_path, port, server.port, file_port=server.file_port)
            status, output = await finished("check", "-c", str(path), "--connect")
            assert status == 0, output
            assert "4 channels, 4 readings, control allowed" in output
            assert "broker" in output
            await server.unplug()
            status, output = await finished("check", "-c", str(path), "--connect")
            assert status == 1
            assert "FAIL arbin1" in output
        status, output = await finished("check", "-c", str(path), "--connect")
        assert status == 1
        assert "FAIL broker" in output


class TestRun:
    async def test_passwords_appear_in_no_log_at_any_level(self, tmp_path: Path) -> None:
        async with broker_of_kind(AMQTT, tmp_path) as port, simulated(4) as server:
            path = write_config(
                tmp_path, port, server.port, control={"enabled": True, "verbs": "all", "channels": "all"}
            )
            for log_format in ("text", "json"):
                async with (
                    program("run", "-c", str(path), "--log-level", "debug", "--log-format", log_format) as it,
                    Observer.connect(port, "3.1.1") as observer,
                ):
                    await observer.wait("arbin1/readings")
                    await observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
                    await observer.ask("arbin1/channel/1", "assign", {"schedule": "CCCV.sdx"})
                    server.disconnect_all()
                    await it.wait_for("closed the connection")
                    assert await it.end() == 0
                assert "Traceback" not in it.output
                assert PASSWORD not in it.output
                assert PASSWORD not in "".join(map(repr, observer.heard))
                if log_format == "json":
                    lines = [json.loads(line) for line in it.lines]
                    assert {"ts", "level", "logger", "message"} <= set(lines[0])
            assert PASSWORD not in json.dumps(server.recorder.entries if server.recorder else [])

    async def test_a_wrong_password_is_said_and_survived(self, tmp_path: Path) -> None:
        async with broker_of_kind(AMQTT, tmp_path) as port, simulated(4) as server:
            path = write_config(tmp_path, port, server.port)
            (tmp_path / ".env").write_text("ARBIN_CTI_USERNAME=admin\nARBIN_CTI_PASSWORD=nOt-this-one\n")
            async with program("run", "-c", str(path)) as it, Observer.connect(port, "3.1.1") as observer:
                event = await observer.wait("arbin1/event", lambda heard: heard.json["type"] == "login_refused")
                assert "check user name and password" in event.json["message"]
                await observer.wait("bridge/health", lambda heard: heard.json["reasons"] == ["arbin1: not connected"])
                last = await observer.until(lambda: observer.last("arbin1/availability"))
                assert last.payload == b"offline"
                assert it.process.returncode is None
                assert await it.end() == 0
                assert "nOt-this-one" not in it.output

    async def test_a_data_directory_belongs_to_one_process(self, tmp_path: Path) -> None:
        async with broker_of_kind(AMQTT, tmp_path) as port, simulated(4) as server:
            path = write_config(tmp_path, port, server.port)
            path.write_text(json.dumps({**json.loads(path.read_text()), "data_dir": "state"}))
            async with program("run", "-c", str(path)) as it:
                await it.wait_for("logged in")
                status, output = await finished("run", "-c", str(path))
                assert status == 2
                assert "in use by another" in output
                assert "Traceback" not in output
                assert await it.end() == 0

    @needs_mosquitto
    async def test_killed_the_broker_says_so(self, tmp_path: Path) -> None:
        async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, simulated(4) as server:
            path = write_config(tmp_path, port, server.port)
            async with program("run", "-c", str(path)) as it, Observer.connect(port, 5) as observer:
                await observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
                await it.end(signal.SIGKILL)
                await observer.wait("bridge/availability", lambda heard: heard.payload == b"offline")


class TestHelp:
    @pytest.mark.parametrize("command", ["run", "demo", "simulate", "check", "watch", "send", "health"])
    async def test_each_has_an_example(self, command: str) -> None:
        status, output = await finished(command, "--help")
        assert status == 0
        assert f"Example: cti-mqtt {command}" in " ".join(output.replace("│", " ").split())

    async def test_an_unknown_option_is_an_error(self) -> None:
        status, _ = await finished("run", "--nonsense")
        assert status == 2
