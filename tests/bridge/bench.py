"""A simulated cycler that outlives bridges and brokers: for what must go on, or be taken up, without them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cti_mqtt.bridge.alarms import AlarmBoard
from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.bridge.store.schema import FILE_NAME
from cti_mqtt.simulator import NO_FAULTS, Faults, ForcedResult, SimulatedServer
from cti_mqtt.simulator.channel import Channel
from tests.support.brokers import Mosquitto
from tests.support.observer import Heard, Observer
from tests.support.rig import CONTROL, QUICK, quick_backoff, settings, simulated

STATE = "stop", "start", "resume", "assign"
WRITES = "set_meta_variable", "update_meta_variables"


def forced(text: str) -> Faults:
    """A server that answers a command with a code, such as `stop=0x11:2s`."""
    return Faults(results=(ForcedResult.parse(text),))


async def until(condition: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """The first true value of something that nobody announces."""
    async with asyncio.timeout(timeout_s):
        while not (value := condition()):  # noqa: ASYNC110  # a test looks from outside
            await asyncio.sleep(0.01)
        return value


@dataclass
class Bench:
    """Broker, cycler and observer; bridges come and go.

    Attributes:
        control: what the cycler's `control` holds besides the permission for everything.
        cycler: what else it holds.
        bridge: the one that runs.
    """

    broker: Mosquitto
    server: SimulatedServer
    observer: Observer
    data_dir: Path
    protocol: object
    control: Mapping[str, Any]
    cycler: Mapping[str, Any]
    bridge: Bridge | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bridge]:
        """A bridge on the same data directory; here when it hears commands and has polled."""
        configured = settings(
            self.broker.port,
            self.protocol,
            {"arbin1": self.server},
            {"control": {**CONTROL, **self.control}, **self.cycler},
            data_dir=self.data_dir,
        )
        self.bridge = bridge = Bridge(configured, backoff=quick_backoff, timing=QUICK)
        stop = asyncio.Event()
        task = asyncio.create_task(bridge.run(stop), name="bridge under test")
        try:
            async with asyncio.timeout(15):
                await bridge.ready.wait()
            await until(lambda: self.station.book.polls > 0 or not self.server._listeners)
            yield bridge
        finally:
            stop.set()
            await task
            self.bridge = None

    @property
    def station(self) -> Station:
        assert self.bridge is not None
        return self.bridge._stations["arbin1"]

    def channel(self, number: int) -> Channel:
        """What is in the cycler, as it stands now."""
        return self.server.cycler.channel(number - 1)

    def variable(self, number: int, index: int) -> float:
        """MV_UD<index> of a channel."""
        return self.channel(number).meta_variables[index - 1]

    @property
    def alarms(self) -> AlarmBoard:
        assert self.bridge is not None
        return self.bridge._commander._alarms

    def audited(self, *kinds: str) -> list[str]:
        """The audit's entries of these kinds, in order."""
        with read_audit(self.data_dir / FILE_NAME) as reader:
            found = [json.loads(row.entry)["what"] for row in reader.rows()]
        return [what for what in found if what in kinds]

    # --- what the cycler was asked ---

    def asked(self, *commands: str) -> list[dict[str, Any]]:
        return self.server.recorder.commands(*commands)

    def stops_of(self, number: int) -> list[float]:
        """When each stop of a channel came, in s."""
        return [moment(entry) for entry in self.asked("stop") if entry["arguments"]["channel"] in {number, None}]

    def written(self, number: int, index: int) -> list[tuple[float, float]]:
        """When a variable of a channel was written and with what, refused or not."""
        return [
            (moment(entry), each["value"])
            for entry in self.asked(*WRITES)
            for each in _values(entry)
            if (each["channel"], each["index"]) == (number, index)
        ]

    # --- what is said ---

    async def start(self, *numbers: int, schedule: str = "ClosedLoop.sdx", **body: Any) -> dict[str, Any]:
        """Start a test on these channels; ClosedLoop.sdx runs without current, up to its watchdog."""
        order = {"test_name": "T", "schedule": schedule, **body}
        if len(numbers) == 1:
            result = await self.observer.ask(f"arbin1/channel/{numbers[0]}", "start", order)
        else:
            result = await self.observer.ask("arbin1", "start", {**order, "channels": list(numbers)})
        assert result["outcome"] == "succeeded", result
        return result

    def say_stop(self, number: int, command: str) -> None:
        self.observer.say(f"arbin1/channel/{number}/command/stop", {"id": command})

    async def result(self, target: str, command: str, timeout_s: float = 15.0) -> dict[str, Any]:
        """The result of a command with this id; `target` as in `arbin1/channel/7`."""
        heard = await self.observer.wait(f"{target}/result", lambda heard: heard.json["id"] == command, timeout_s)
        body: dict[str, Any] = heard.json
        return body

    def results(self, command: str) -> list[dict[str, Any]]:
        """Every result with this id, wherever it came."""
        heard = [heard.json for heard in self.observer.heard if heard.topic.endswith("/result")]
        return [body for body in heard if body["id"] == command]

    async def retained(self) -> dict[str, bytes]:
        """What a newcomer is given, by topic without the base."""
        async with Observer.connect(self.broker.port, self.protocol) as newcomer:
            await newcomer.wait("bridge/info")
            newcomer.say("marker", b"1")
            await newcomer.wait("marker")
            return {heard.topic.removeprefix("cti/"): heard.payload for heard in newcomer.heard if heard.retain}

    async def until_not_retained(self, topic: str) -> None:
        """Until the broker has nothing on a topic."""
        async with asyncio.timeout(15):
            while topic in await self.retained():  # noqa: ASYNC110  # and so here
                await asyncio.sleep(0.1)

    async def event(self, number: int, kind: str, count: int = 1) -> dict[str, Any]:
        """The so many'th event of a kind."""
        found = await self.observer.until(lambda: self._events(number, kind)[count - 1 :], what=f"event {kind}")
        body: dict[str, Any] = found[0].json
        return body

    def events(self, number: int) -> list[str]:
        """The kinds of all events of a channel."""
        return [heard.json["type"] for heard in self.observer.on(f"arbin1/channel/{number}/event")]

    def _events(self, number: int, kind: str) -> list[Heard]:
        return [
            heard for heard in self.observer.on(f"arbin1/channel/{number}/event") if heard.json["type"] == kind
        ]  # fmt: skip


def moment(entry: Mapping[str, Any]) -> float:
    """When a request came, in s."""
    return datetime.fromisoformat(entry["time"]).timestamp()


def _values(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    arguments = entry["arguments"]
    entries: list[Mapping[str, Any]] = arguments["updates"]["entries"] if "updates" in arguments else [arguments]
    return entries


@asynccontextmanager
async def bench(
    folder: Path,
    *,
    channels: int = 4,
    faults: Faults = NO_FAULTS,
    control: Mapping[str, Any] | None = None,
    protocol: object = 5,
    **cycler: Any,
) -> AsyncIterator[Bench]:
    """Everything but a bridge."""
    broker = Mosquitto(folder, f"persistence true\npersistence_location {folder}/")
    await broker.start()
    try:
        async with simulated(channels, faults) as server, Observer.connect(broker.port, protocol) as observer:
            yield Bench(broker, server, observer, folder / "data", protocol, control or {}, cycler)
    finally:
        await broker.stop()
