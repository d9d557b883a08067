"""Counted cyclers, a broker that can be killed, the bridge as a process, a subscriber, and links that can break."""

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cti_mqtt.simulator import Recorder, SimulatedServer
from tests.faults.readings.counted import CountedCycler
from tests.faults.readings.judge import Evidence
from tests.faults.readings.seen import Collection, Seen
from tests.faults.readings.subscriber import Subscriber
from tests.faults.readings.tap import Tap
from tests.faults.world import FaultError, check_log, log_of
from tests.support.brokers import HOST, Mosquitto
from tests.support.processes import Program, program
from tests.support.programs import ROOT
from tests.support.proxy import Proxy
from tests.support.rig import PASSWORD

CYCLERS = ("arbin1", "arbin2")
CHANNELS = 4
INTERVAL_S = 0.1
TIMEOUT_S = 2.0  # of the bridge for the cycler's answers
KEEPALIVE_S = 2  # of the bridge at the broker
BACKFILL_PER_S = 200
SMALL_BYTES = 1500  # polls go out in parts
ONLINE_S = 60.0
QUIET_S = 3.0  # after which nothing more is expected
MOMENTARY = 10  # polls are always under way while the bridge polls
EXAMPLE = ROOT / "examples/mosquitto/mosquitto.conf"


Keeps = Callable[[Path], str]


def kept(folder: Path) -> str:
    """What examples/mosquitto says about persistence and queues, with its files in a folder of ours."""
    names = "persistence|autosave_interval|autosave_on_changes|persistent_client_expiration|max_queued_messages"
    lines = re.findall(rf"^(?:{names}) .*$", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return "\n".join([*lines, f"persistence_location {folder}/"])


def defaults(_: Path) -> str:
    """Mosquitto as it is without a word about persistence; only its queue is long enough for what is to be shown."""
    return "max_queued_messages 100000"


class MortalMosquitto(Mosquitto):
    """A Mosquitto that can be killed."""

    @property
    def runs(self) -> bool:
        return self._process is not None

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait, 10)
            self._process = None


@dataclass
class World:
    """Everything of a campaign. The bridge runs only between `start` and `kill` or `end`.

    Attributes:
        cyclers: by id; `servers` where they are served, `links` the proxies between them and the bridge.
        link: the proxy between the bridge and the broker.
        tap: before it; the bridge connects here.
        bridge: the running process, if any.
        in_flight: by cycler, the polls that were under way when something died.
        troubled: when the links to the cyclers were faulty.
        brokers_loss: what the broker had acknowledged and did not bring, when `settled` last looked.
    """

    base: str
    protocol: object
    folder: Path
    broker: MortalMosquitto
    cyclers: dict[str, CountedCycler]
    servers: dict[str, SimulatedServer]
    links: dict[str, Proxy]
    link: Proxy
    tap: Tap
    subscriber: Subscriber
    bridge: Program | None = None
    in_flight: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    troubled: list[tuple[float, float]] = field(default_factory=list)
    brokers_loss: set[tuple[str, int]] = field(default_factory=set)
    _stack: AsyncExitStack | None = None
    _before: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many polls each cycler has answered."""
        return {name: len(cycler.answered) for name, cycler in self.cyclers.items()}

    # --- the bridge ---

    def configure(self) -> None:
        """Write the configuration; JSON is YAML."""
        cycler = {
            "host": HOST,
            "poll_interval_s": INTERVAL_S,
            "timeout_s": TIMEOUT_S,
            "checksum": "strict",
            "control": {"enabled": True, "verbs": ["replay"], "channels": "all"},
        }
        settings = {
            "data_dir": str(self.folder / "data"),
            "health_interval_s": 0.5,
            "journal": {"backfill_per_s": BACKFILL_PER_S},
            "mqtt": {
                "host": HOST,
                "port": self.tap.port,
                "base_topic": self.base,
                "protocol": self.protocol,
                "client_id": f"bridge-{self.base}",
                "keepalive_s": KEEPALIVE_S,
            },
            "cyclers": {
                name: {**cycler, "port": link.port, "file_port": self.servers[name].file_port}
                for name, link in self.links.items()
            },
            "publish": {"max_bytes": None if self.protocol == 5 else SMALL_BYTES},
        }
        (self.folder / "bridge.yaml").write_text(json.dumps(settings))

    async def start(self) -> None:
        """Start the bridge; it is not there yet."""
        environment = {"ARBIN_CTI_USERNAME": "admin", "ARBIN_CTI_PASSWORD": PASSWORD}
        self._before = self.counts
        self._stack = AsyncExitStack()
        self.bridge = await self._stack.enter_async_context(
            program("run", "-c", str(self.folder / "bridge.yaml"), environment=environment)
        )

    async def kill(self) -> None:
        """SIGKILL; the last poll of each cycler was in flight, if there was one."""
        assert self.bridge is not None
        if self.bridge.process.returncode is not None:
            raise FaultError(f"the bridge ended by itself, {self.bridge.process.returncode}:\n{log_of(self.bridge)}")
        self.bridge.process.kill()
        await self.bridge.process.wait()
        await self._gone()

    async def end(self) -> None:
        """SIGTERM, and what it says at the end.

        Raises:
            FaultError: its exit status is not 0.
        """
        assert self.bridge is not None
        bridge = self.bridge
        status = await bridge.end()
        await self._gone()
        if status != 0:
            raise FaultError(f"the bridge ended with status {status}:\n{log_of(bridge)}")

    async def _gone(self) -> None:
        assert self.bridge is not None
        assert self._stack is not None
        servers = self.servers.values()
        await self.subscriber.until(lambda: not any(each.connection_count for each in servers), 10, "closed sessions")
        for name, number in self.counts.items():
            if number > self._before[name]:
                self.in_flight[name].add(number)
        await self._stack.aclose()  # all of its output is read now
        check_log(self.bridge)
        self.bridge = self._stack = None

    async def progress(self, polls: int = 1, timeout_s: float = ONLINE_S) -> None:
        """Until the broker has acknowledged so many more polls of each cycler.

        Raises:
            FaultError: it did not in time.
        """
        acknowledged = self.tap.acknowledged.complete
        wanted = {name: len(acknowledged[name]) + polls for name in self.cyclers}
        if not await self.subscriber.happens(
            lambda: all(len(acknowledged[name]) >= number for name, number in wanted.items()), timeout_s
        ):
            log = log_of(self.bridge) if self.bridge else "it does not run"
            raise FaultError(f"the bridge got no reading to the broker within {timeout_s:g} s:\n{log}")

    async def next_answer(self) -> None:
        """Until a cycler answers a poll."""
        answered = asyncio.Event()
        for cycler in self.cyclers.values():
            cycler.on_answer = answered.set
        await answered.wait()

    # --- what is found ---

    def evidence(self, *, altering: bool = False) -> Evidence:
        """Everything so far; what a damaging link changed is left out of what was heard."""
        heard, altered = self.subscriber.heard, list(self.subscriber.altered)
        if altering:
            heard, changed = _unaltered(heard.seen, self.tap.sent.seen)
            altered += changed
        return Evidence(
            {name: tuple(cycler.answered) for name, cycler in self.cyclers.items()},
            heard,
            self.in_flight,
            tuple(self.troubled),
            self.tap.acknowledged,
            altered,
            altering=altering,
            channels=CHANNELS,
            gaps=[event for event in self.subscriber.events if event.get("type") == "gap"],
        )

    async def settled(self, timeout_s: float, *, altering: bool = False) -> float | None:
        """Until all that was answered so far is seen, but for what it may cost; how long that took, None: too long.

        What the broker acknowledged and does not bring for a while is taken for its loss.
        """
        due, began = self.counts, time.monotonic()
        known: tuple[set[tuple[str, int]], float] = (set(), began)

        def done() -> bool:
            nonlocal known
            found = self.evidence(altering=altering)
            lost, brokers = set(), set()
            for name, number in due.items():
                brokers |= {(name, each) for each in found.brokers(name)}
                lost |= {(name, each) for each in found.missing(name) - found.cost(name) if each <= number}
            if not lost:
                return self.subscriber.health is not None and self.subscriber.health["queue"] <= MOMENTARY
            if lost != known[0]:
                known = lost, time.monotonic()
            return lost <= brokers and time.monotonic() - known[1] > QUIET_S

        if not await self.subscriber.happens(done, timeout_s):
            return None
        self.brokers_loss = known[0] & {(n, each) for n in due for each in self.evidence(altering=altering).brokers(n)}
        return (known[1] if self.brokers_loss else time.monotonic()) - began


def _unaltered(seen: list[Seen], sent: list[Seen]) -> tuple[Collection, list[str]]:
    """Those messages that were sent so, and what the others say."""
    known = {(message.kind, message.cycler, message.historical, message.content) for message in sent}
    good, bad = Collection(), []
    for message in seen:
        if (message.kind, message.cycler, message.historical, message.content) in known:
            good.add(message)
        else:
            bad.append(f"{message.kind} {message.key}: not what was sent")
    return good, bad


@asynccontextmanager
async def world(base: str, folder: Path, protocol: object, seed: int, keeps: Keeps = kept) -> AsyncIterator[World]:
    """A world with everything but the bridge running.

    Args:
        base: the bridge's base topic.
        folder: is made.
        protocol: of bridge and subscriber.
        seed: for the links' damage.
        keeps: `kept` or `defaults`: how the broker persists.
    """
    await asyncio.to_thread(folder.mkdir)
    async with AsyncExitStack() as stack:
        broker = MortalMosquitto(folder, keeps(folder))
        await broker.start()
        stack.push_async_callback(broker.kill)
        cyclers = {name: CountedCycler(CHANNELS) for name in CYCLERS}
        servers = {
            name: await stack.enter_async_context(SimulatedServer(cycler, recorder=Recorder(keep=1)))
            for name, cycler in cyclers.items()
        }
        links = {
            name: await stack.enter_async_context(Proxy(HOST, server.port, seed=seed))
            for name, server in servers.items()
        }
        link = await stack.enter_async_context(Proxy(HOST, broker.port, seed=seed))
        tap = await stack.enter_async_context(Tap.serving(base, lambda: link.port, protocol))
        subscriber = Subscriber(base, broker.port, protocol)
        await subscriber.come()
        stack.push_async_callback(subscriber.go)
        it = World(base, protocol, folder, broker, cyclers, servers, links, link, tap, subscriber)
        it.configure()
        try:
            yield it
        finally:
            if it._stack is not None:
                await it._stack.aclose()
