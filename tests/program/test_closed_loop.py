"""A closed-loop controller dies: real processes, ended with SIGKILL, and what the cycler's own record says of it."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.client import Credentials, Cycler, Endpoint
from cti_mqtt.cti.messages.channels import ChannelRecord
from tests.support.brokers import HOST, Mosquitto, needs_mosquitto
from tests.support.observer import Observer
from tests.support.processes import Program, program
from tests.support.programs import ROOT

pytestmark = [
    needs_mosquitto,
    pytest.mark.skipif(sys.platform == "win32", reason="these tests send POSIX signals"),
]

EXAMPLE = ROOT / "examples/closed_loop.py"
CHANNEL = "arbin1/channel/1"
LEASE_S = 3.0
LATE_S = 1.0  # the fallback is there within the lease and this


@asynccontextmanager
async def script(*arguments: str) -> AsyncIterator[Program]:
    """The controller, as a process of its own; killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", str(EXAMPLE), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    it = Program(process)
    reader = asyncio.create_task(it.read())
    try:
        yield it
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reader


@dataclass(frozen=True)
class Lab:
    """A simulated cycler as a process, a broker, and a folder with the bridge's configuration.

    Attributes:
        cti_port: of the cycler.
        observer: hears everything, as long as the broker is there.
    """

    folder: Path
    broker: Mosquitto
    cti_port: int
    observer: Observer

    # --- processes ---

    @asynccontextmanager
    async def bridge(self) -> AsyncIterator[Program]:
        """One on the same data directory each time; here when it has polled once."""
        async with program("run", "-c", str(self.folder / "config.yaml")) as it:
            await it.wait_for("logged in")
            yield it

    @asynccontextmanager
    async def controller(self, **options: float) -> AsyncIterator[Program]:
        """The example; here when it has written a current."""
        settings = {"current": 1.5, "interval": 1.0, "lease": LEASE_S, **options}
        words = [word for name, value in settings.items() for word in (f"--{name}", f"{value:g}")]
        port = str(self.broker.port)
        async with script("arbin1", "1", "closed-loop", "--host", HOST, "--port", port, *words) as it:
            await it.wait_for("-> 1.5 A  succeeded")
            yield it

    async def commands_are_heard(self) -> None:
        await self.observer.wait("bridge/availability", lambda heard: heard.payload == b"online", 30)

    # --- what the cycler says ---

    @property
    def record(self) -> list[dict[str, Any]]:
        """Every request that the cycler was sent."""
        *lines, _being_written = (self.folder / "record").read_text().split("\n")
        return [json.loads(line) for line in lines]

    def asked(self, command: str) -> list[dict[str, Any]]:
        return [entry for entry in self.record if entry["command"] == command]

    def written(self, index: int) -> list[tuple[float, float]]:
        """When a variable of channel 1 was written, and with what."""
        return [
            (moment(entry), each["value"])
            for entry in self.record
            for each in values(entry)
            if (each["channel"], each["index"]) == (1, index)
        ]

    async def look(self) -> ChannelRecord:
        """Channel 1, by a client that has nothing to do with the bridge."""
        where = Endpoint("look", HOST, self.cti_port)
        async with Cycler.connect(where, Credentials("admin", "admin")) as cycler:
            return (await cycler.read_channel(1))[1]

    async def fallback(self) -> float:
        """Until the current was taken away; how long after the last time that it was vouched for, in s."""
        await until(lambda: self.written(1)[-1][1] == 0.0)
        (last, value), (taken_away, _) = self.written(1)[-2:]
        assert value == 1.5
        assert (await self.look()).current == pytest.approx(0.0)
        return taken_away - last


def values(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a request writes into variables."""
    arguments: Mapping[str, Any] = entry["arguments"]
    if entry["command"] == "set_meta_variable":
        return [arguments]
    entries: list[Mapping[str, Any]] = arguments.get("updates", {}).get("entries", [])
    return entries


def moment(entry: Mapping[str, Any]) -> float:
    """When a request came, in s."""
    return datetime.fromisoformat(entry["time"]).timestamp()


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Until what the cycler's record says is so."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.05)


@asynccontextmanager
async def lab(folder: Path, *faults: str, **control: Any) -> AsyncIterator[Lab]:
    """Everything but bridge and controller."""
    record = str(folder / "record")
    simulate = ("simulate", "--port", "0", "--file-port", "0", "--channels", "4", "--record", record, *faults)
    broker = Mosquitto(folder)
    async with AsyncExitStack() as stack:
        await broker.start()
        stack.push_async_callback(broker.stop)
        cycler = await stack.enter_async_context(program(*simulate))
        port = int((await cycler.wait_for(r"simulated cycler: [\d.]+:(\d+)"))[1])
        configuration = {
            "data_dir": "data",
            "health_interval_s": 0.5,
            "mqtt": {"host": HOST, "port": broker.port, "protocol": 5},
            "cyclers": {
                "arbin1": {
                    "host": HOST,
                    "port": port,
                    "poll_interval_s": 0.2,
                    "control": {"enabled": True, "verbs": "all", "channels": "all", **control},
                }
            },
        }
        (folder / "config.yaml").write_text(json.dumps(configuration))  # JSON is YAML
        (folder / ".env").write_text("ARBIN_CTI_USERNAME=admin\nARBIN_CTI_PASSWORD=admin\n")
        observer = await stack.enter_async_context(Observer.connect(broker.port, 5))
        yield Lab(folder, broker, port, observer)


# --- while all is well ---


async def test_the_example_controls_and_stops(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, it.bridge():
        await it.commands_are_heard()
        async with it.controller() as controller:
            await controller.wait_for(r"-> 1\.5 A  succeeded[\s\S]*-> 1\.5 A  succeeded")
            assert (await it.look()).current == pytest.approx(1.5)
            assert await controller.end(signal.SIGINT) == 0
        assert "stop: succeeded: stopped, channel went Charge -> Idle" in controller.output
        assert "Traceback" not in controller.output
        await it.observer.until_last(f"{CHANNEL}/lease", b"")
        events = [heard.json["type"] for heard in it.observer.on(f"{CHANNEL}/event")]
        assert "lease_expired" not in events


async def test_the_example_says_that_it_may_not_start(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, it.bridge():
        await it.commands_are_heard()
        async with it.controller(), script("arbin1", "1", "T", "--port", str(it.broker.port)) as second:
            assert await asyncio.wait_for(second.process.wait(), 20) == 3
        assert "start: refused" in second.output


async def test_the_example_without_a_broker() -> None:
    async with script("arbin1", "1", "T", "--port", "1") as it:
        assert await asyncio.wait_for(it.process.wait(), 20) == 1
    assert "cannot connect to" in it.output


# --- the controller dies ---


async def test_with_everything_else_up(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, it.bridge():
        await it.commands_are_heard()
        async with it.controller() as controller:
            await controller.end(signal.SIGKILL)
            assert LEASE_S - 0.1 <= await it.fallback() < LEASE_S + LATE_S
        kinds = [heard.json["type"] for heard in it.observer.on(f"{CHANNEL}/event")]
        assert "lease_expired" in kinds


async def test_with_the_broker_down(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, it.bridge():
        await it.commands_are_heard()
        async with it.controller() as controller:
            await controller.end(signal.SIGKILL)
            await it.broker.stop()
            assert LEASE_S - 0.1 <= await it.fallback() < LEASE_S + LATE_S


async def test_with_the_broker_alone_gone(tmp_path: Path) -> None:
    """The controller lives, but what it says does not come: that is no renewal."""
    async with lab(tmp_path) as it, it.bridge():
        await it.commands_are_heard()
        async with it.controller():
            await it.broker.stop()
            assert LEASE_S - 0.1 <= await it.fallback() < LEASE_S + LATE_S


async def test_with_the_bridge_killed_and_started_again(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        async with it.bridge() as bridge:
            await it.commands_are_heard()
            async with it.controller() as controller:
                await controller.end(signal.SIGKILL)
                await bridge.end(signal.SIGKILL)
        async with it.bridge() as bridge:
            assert LEASE_S - 0.1 <= await it.fallback() < LEASE_S + LATE_S
            assert "lease taken up" in bridge.output


async def test_with_the_bridge_away_when_the_lease_ends(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        async with it.bridge() as bridge:
            await it.commands_are_heard()
            async with it.controller() as controller:
                await controller.end(signal.SIGKILL)
                await bridge.end(signal.SIGKILL)
        await asyncio.sleep(LEASE_S)
        assert it.written(1)[-1][1] == 1.5
        async with it.bridge():
            await until(lambda: it.written(1)[-1][1] == 0.0)
            assert it.written(1)[-1][0] - moment(it.asked("login")[-1]) < LATE_S  # at start-up, not some time later
            await it.fallback()


async def test_with_the_bridge_killed_for_good_the_schedule_ends_the_step(tmp_path: Path) -> None:
    async with lab(tmp_path, deadman_mv=16) as it:
        async with it.bridge() as bridge:
            await it.commands_are_heard()
            async with it.controller() as controller:
                await controller.end(signal.SIGKILL)
                await bridge.end(signal.SIGKILL)
        (last, limit_s), (_, value) = it.written(16)[-1], it.written(1)[-1]
        assert value == 1.5
        async with asyncio.timeout(LEASE_S + 10):
            while (record := await it.look()).status.text != "Finished":  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.1)
        assert record.exit_condition.endswith("MV_UD16")
        assert record.test_time == pytest.approx(limit_s, abs=0.05)
        started = moment(it.asked("start")[-1])
        assert started + record.test_time - last < LEASE_S + LATE_S
        assert it.asked("stop") == []


# --- a stop that is refused ---


async def test_refused_while_somebody_uses_the_monitor_window_a_stop_is_carried_through(tmp_path: Path) -> None:
    """For ten seconds; the controller goes on meanwhile, as long as the channel does."""
    async with lab(tmp_path, "--result", "stop=0x11:10s") as it, it.bridge():
        await it.commands_are_heard()
        async with it.controller() as controller:
            it.observer.say(f"{CHANNEL}/command/stop", {"id": "it"})
            heard = await it.observer.wait(f"{CHANNEL}/result", lambda heard: heard.json["id"] == "it", 25)
            result = heard.json
            assert (result["outcome"], result["verified"]) == ("succeeded", True)
            assert 9000 < result["duration_ms"] < 13_000
            stops = it.asked("stop")
            codes = [stop["results"][0]["code"] for stop in stops]
            assert codes == [0x11] * (len(codes) - 1) + [0]
            assert 10 <= len(codes) <= 12
            await controller.wait_for("the test is over: Idle")
            await it.observer.until_last(f"{CHANNEL}/lease", b"")
        assert [heard.payload for heard in it.observer.on(f"{CHANNEL}/alarm/stop_failed") if heard.payload] == []


async def test_a_stop_outlives_the_bridge_that_was_asked(tmp_path: Path) -> None:
    async with lab(tmp_path, "--result", "stop=0x11:4s") as it:
        async with it.bridge() as bridge:
            await it.commands_are_heard()
            async with it.controller():
                it.observer.say(f"{CHANNEL}/command/stop", {"id": "it"})
                await until(lambda: it.asked("stop"))
                await bridge.end(signal.SIGKILL)
        async with it.bridge():
            heard = await it.observer.wait(f"{CHANNEL}/result", lambda heard: heard.json["id"] == "it", 25)
            assert (heard.json["outcome"], heard.json["verified"]) == ("succeeded", True)
            assert (await it.look()).status.text == "Idle"
            results = [each for each in it.observer.on(f"{CHANNEL}/result") if each.json["id"] == "it"]
            assert len(results) == 1
