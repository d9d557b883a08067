"""`cti-mqtt run` follows its configuration: at SIGHUP, and when the file changes."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.cli.reloads import ConfigWatch, aside, follow
from cti_mqtt.config import Config, load, read_content
from cti_mqtt.errors import ConfigurationError
from tests.program.test_program import write_config
from tests.support.brokers import AMQTT, broker_of_kind
from tests.support.observer import Observer
from tests.support.processes import Program, program
from tests.support.rig import CONTROL, PASSWORD, simulated

posix = pytest.mark.skipif(sys.platform == "win32", reason="these tests send POSIX signals")

SMALLEST = "cyclers: {arbin1: {host: 192.0.2.1, username: u, password: p}}"


# --- looking at the file ---


class TestWatch:
    def test_a_change_is_taken_when_it_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text("a")
        watch = ConfigWatch(path)
        assert not watch.changed()
        path.write_text("half")
        assert not watch.changed()
        path.write_text("half and the other half")
        assert not watch.changed()
        assert watch.changed()
        assert not watch.changed()

    def test_what_was_undone_is_no_change(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text("a")
        watch = ConfigWatch(path)
        path.write_text("b")
        assert not watch.changed()
        path.write_text("a")
        assert [bool(watch.changed()) for _ in range(3)] == [False, False, False]

    def test_the_secrets_beside_it_count(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text("a")
        watch = ConfigWatch(path)
        (tmp_path / ".env").write_text("MQTT_PASSWORD=x")
        assert [bool(watch.changed()) for _ in range(3)] == [False, True, False]

    def test_a_file_that_is_gone_is_told_once(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text("a")
        watch = ConfigWatch(path)
        path.unlink()
        with pytest.raises(ConfigurationError, match="cannot be read"):
            watch.changed()
        assert [bool(watch.changed()) for _ in range(3)] == [False, False, False]
        path.write_text("a")
        assert [bool(watch.changed()) for _ in range(3)] == [False, False, False]
        path.write_text("b")
        assert [bool(watch.changed()) for _ in range(3)] == [False, True, False]

    def test_what_a_signal_read_is_not_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text("a")
        watch = ConfigWatch(path)
        path.write_text("b")
        assert watch.take().text == b"b"
        assert [bool(watch.changed()) for _ in range(3)] == [False, False, False]

    def test_what_is_read_is_what_two_looks_showed(self, tmp_path: Path) -> None:
        """Not what somebody has cut the file to meanwhile: it would have fewer limits."""
        path = tmp_path / "config.yaml"
        whole = SMALLEST.replace("password: p", "password: p, control: {limits: {1: {max: 1}}}")
        path.write_text(SMALLEST)
        watch = ConfigWatch(path)
        path.write_text(whole)
        assert not watch.changed()
        content = watch.changed()
        assert content is not None
        path.write_text(SMALLEST)
        (tmp_path / ".env").write_text("ARBIN_CTI_USERNAME=other")
        cycler = load(path, {}, content).cyclers["arbin1"]
        assert cycler.control.limits[1].max == 1
        assert cycler.username == "u"
        assert load(path, {}, read_content(path)).cyclers["arbin1"].username == "other"
        assert [bool(watch.changed()) for _ in range(3)] == [False, True, False]

    def test_a_signal_waits_until_the_file_has_come_to_rest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "config.yaml"
        path.write_text("a")
        watch = ConfigWatch(path)
        writes = iter(["half", "half and", "whole", "whole"])
        monkeypatch.setattr("time.sleep", lambda _: path.write_text(next(writes)))
        assert watch.take().text == b"whole"
        monkeypatch.setattr("time.sleep", lambda _: path.write_text(path.read_text() + "x"))
        with pytest.raises(ConfigurationError, match="all the time"):
            watch.take()

    def test_one_that_never_was_there_is_no_error_yet(self, tmp_path: Path) -> None:
        assert ConfigWatch(tmp_path / "config.yaml").taken is None


class Bridge:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.fails = False

    async def reload(self, wanted: Config, who: str) -> None:
        self.told.append((who, wanted.cyclers["arbin1"].host))
        if self.fails:
            raise RuntimeError("a bug")

    def reload_failed(self, problems: list[str], who: str) -> None:
        self.told.append((who, problems))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.told) < count:  # noqa: ASYNC110  # a test looks from outside
                await asyncio.sleep(0.01)


class TestFollowing:
    async def test_the_file_and_the_signal_and_a_bug(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(SMALLEST)
        bridge, asked = Bridge(), asyncio.Event()
        task = asyncio.create_task(follow(bridge, path, ConfigWatch(path), asked, look_s=0.02))
        try:
            bridge.fails = True
            path.write_text(SMALLEST.replace("192.0.2.1", "192.0.2.2"))
            await bridge.until(2)
            asked.set()
            await bridge.until(4)
            bridge.fails = False
            path.write_text("cyclers: {}")
            await bridge.until(5)
            path.unlink()
            await bridge.until(6)
            await asyncio.sleep(0.2)
            asked.set()
            await bridge.until(7)
        finally:
            task.cancel()
            await asyncio.wait([task])
        a_bug = ["an unexpected error (RuntimeError); the log has it"]
        assert bridge.told[:2] == [("file", "192.0.2.2"), ("file", a_bug)]
        assert bridge.told[2:4] == [("SIGHUP", "192.0.2.2"), ("SIGHUP", a_bug)]
        assert [who for who, _ in bridge.told[4:]] == ["file", "file", "SIGHUP"]
        assert "cyclers" in str(bridge.told[4][1])
        assert "cannot be read" in str(bridge.told[5][1])

    async def test_a_look_that_hangs_keeps_nobody_from_ending(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await aside(lambda: time.sleep(0.3))
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 / 0)
        assert await aside(lambda: 7) == 7


# --- the program ---


@dataclass
class Running:
    """A bridge as a process."""

    it: Program
    observer: Observer
    path: Path

    def write(self, poll_interval_s: float = 0.2, **other: Any) -> None:
        """The file with other settings for arbin1."""
        body = json.loads(self.path.read_text())
        body["cyclers"]["arbin1"].update(poll_interval_s=poll_interval_s, **other)
        self.path.write_text(json.dumps(body))

    def hang_up(self) -> None:
        self.it.process.send_signal(signal.SIGHUP)

    async def event(self, kind: str, text: str) -> str:
        heard = await self.observer.wait(
            "bridge/event", lambda heard: heard.json["type"] == kind and text in heard.json["message"]
        )
        return str(heard.json["message"])

    def events(self, kind: str) -> list[str]:
        heard = (each.json for each in self.observer.on("bridge/event"))
        return [body["message"] for body in heard if body["type"] == kind]


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    async with broker_of_kind(AMQTT, folder) as port, simulated(4) as server:
        path = write_config(folder, port, server.port, file_port=server.file_port, control=CONTROL)
        async with (
            Observer.connect(port, "3.1.1") as observer,
            program("run", "-c", str(path)) as it,
        ):
            await observer.wait("arbin1/readings")
            await observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
            yield Running(it, observer, path)
            if it.process.returncode is None:
                assert await it.end() == 0
            assert "Traceback" not in it.output
            assert PASSWORD not in it.output


@posix
class TestSignal:
    async def test_limits_and_an_interval_and_what_needs_a_restart(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            it.write(0.1, timeout_s=3, control={**CONTROL, "limits": {"1": {"max": 1}}})
            it.hang_up()
            message = await it.event("reloaded", "SIGHUP: applied: ")
            assert "cyclers.arbin1.poll_interval_s: 0.2 -> 0.1" in message
            assert 'cyclers.arbin1.control.limits.1: none -> {"max": 1.0}' in message
            assert message.endswith("needs a restart: cyclers.arbin1.timeout_s")
            started = await it.observer.ask(
                "arbin1/channel/1", "start", {"test_name": "T", "schedule": "Rest.sdx", "values": {"1": 2}}
            )
            assert started["reason"] == "limit"
            numbers = [heard.json["seq"] for heard in it.observer.on("arbin1/readings")]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    async def test_an_invalid_file_changes_nothing_and_every_mistake_is_told(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            before = it.path.read_text()
            it.write(0.1, control={**CONTROL, "verbs": ["stopp"]}, prot=1)
            it.hang_up()
            message = await it.event("reload_failed", "SIGHUP: nothing changes")
            assert "cyclers.arbin1.control.verbs" in message
            assert "cyclers.arbin1.prot: unknown key" in message
            assert (await it.observer.ask("arbin1/channel/1", "stop"))["reason"] == "not_running"
            it.path.write_text(before)
            it.hang_up()
            await it.event("reloaded", "nothing differs")

    async def test_without_a_change_nothing_is_told(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            for _ in range(3):
                it.hang_up()
                await asyncio.sleep(0.3)
            it.write(0.1)
            it.hang_up()
            await it.event("reloaded", "poll_interval_s: 0.2 -> 0.1")
            assert len(it.events("reloaded")) == 1
            assert "configuration read again (SIGHUP): nothing differs" in it.it.output

    async def test_in_the_first_moments(self, tmp_path: Path) -> None:
        """Before the event loop runs, nobody listens; then it must not end the program."""
        path = tmp_path / "config.yaml"
        os.mkfifo(path)  # so the program is where it reads its configuration until somebody writes it
        async with program("run", "-c", str(path)) as it:
            with await asyncio.to_thread(path.open, "w") as file:
                it.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.3)
                assert it.process.returncode is None
                file.write("cyclers: {}")
            assert await it.process.wait() == 2

    async def test_the_file_is_gone(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            it.path.unlink()
            it.hang_up()
            assert "cannot be read" in await it.event("reload_failed", "SIGHUP")
            await it.observer.wait("arbin1/readings", lambda heard: heard.json["seq"] > 10)

    async def test_twice_quickly(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            it.write(0.1)
            it.hang_up()
            it.hang_up()
            await it.event("reloaded", "poll_interval_s: 0.2 -> 0.1")
            it.write(0.3)
            for _ in range(5):
                it.hang_up()
            await it.event("reloaded", "poll_interval_s: 0.1 -> 0.3")
            assert (await it.observer.ask("arbin1/channel/1", "stop"))["reason"] == "not_running"

    async def test_terminated_right_after_it(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            body = json.loads(it.path.read_text())
            body["cyclers"] = {"arbin2": {**body["cyclers"]["arbin1"], "poll_interval_s": 0.1}}
            it.path.write_text(json.dumps(body))
            it.hang_up()
            began = time.monotonic()
            assert await it.it.end() == 0
            assert time.monotonic() - began < 8
            await it.observer.until_last("bridge/availability", b"offline")


@posix
class TestFile:
    async def test_a_change_is_taken_by_itself(self, tmp_path: Path) -> None:
        async with running(tmp_path) as it:
            it.write(0.1)
            await it.event("reloaded", "file: applied: cyclers.arbin1.poll_interval_s: 0.2 -> 0.1")
            (tmp_path / ".env").write_text("ARBIN_CTI_USERNAME=admin\nARBIN_CTI_PASSWORD=an-0ther\n")
            await it.event("reloaded", "file: needs a restart: cyclers.arbin1.password")
            it.path.unlink()
            await it.event("reload_failed", "file: nothing changes")
            await asyncio.sleep(5)
            assert len(it.events("reload_failed")) == 1
            assert "an-0ther" not in it.it.output
