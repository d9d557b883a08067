"""The soak itself: cyclers in one process, the bridge in another, Mosquitto, a subscriber; now and then a fault."""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.faults.readings.seen import Key, Kind
from tests.faults.readings.subscriber import Subscriber
from tests.faults.readings.world import MortalMosquitto, kept
from tests.faults.world import FaultError, check_log, log_of, resident_bytes
from tests.soak.cyclers import names
from tests.soak.judge import Beats, Line, Sample, beats, line
from tests.support.brokers import HOST
from tests.support.processes import Program, program
from tests.support.rig import PASSWORD

BASE = "soak"
SAMPLE_S = 10.0
FAULT_EVERY_S = (120.0, 300.0)
CUT_S = (0.5, 5.0)
ONLINE_S = 60.0
RECONNECTED_S = 15.0  # after a cut, by when the bridge has come back
DRAIN_S = 60.0
LIMIT = 64 * 2**20  # bytes of a line from the cyclers' process


@dataclass(frozen=True)
class Plan:
    """How long, and with what.

    Attributes:
        sample_s: how often memory and files are looked at.
        warm_up_s: from the first reading, until what is measured counts.
        fault_every_s: from one fault to the next, at least and at most; None: none.
    """

    seconds: float = 3600.0
    cyclers: int = 16
    channels: int = 64
    interval_s: float = 1.0
    sample_s: float = SAMPLE_S
    warm_up_s: float = 300.0
    fault_every_s: tuple[float, float] | None = FAULT_EVERY_S
    seed: int = 0
    protocol: object = 5


@dataclass
class Outcome:
    """What came of it; memory in bytes."""

    memory: Line
    fds: Line
    polls: Beats
    late: int
    duplicates: int
    sessions_lost: int
    faults: dict[str, int]
    samples: list[Sample] = field(default_factory=list)


class Cyclers:
    """The simulated cyclers' process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asking = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def running(cls, count: int, channels: int) -> AsyncIterator[Self]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.soak.cyclers", str(count), str(channels)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LIMIT,
        )
        assert process.stdin is not None
        try:
            yield cls(process)
            process.stdin.close()
            await asyncio.wait_for(process.wait(), 10)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._asking:
            self._process.stdin.write(question.encode() + b"\n")
            return json.loads(await self._process.stdout.readline())


def each_second(folder: Path) -> str:
    """As examples/mosquitto advises for many channels: one save a second, not one a change."""
    return kept(folder).replace("autosave_on_changes true", "autosave_on_changes false")


def configuration(plan: Plan, ports: dict[str, list[int]], broker_port: int, folder: Path) -> dict[str, Any]:
    """As a user would write it: everything else as it is by default."""
    return {
        "data_dir": str(folder / "data"),
        "mqtt": {"host": HOST, "port": broker_port, "base_topic": BASE, "protocol": plan.protocol},
        "cyclers": {
            name: {"host": HOST, "port": port, "file_port": file_port, "poll_interval_s": plan.interval_s}
            for name, (port, file_port) in ports.items()
        },
    }


def sample(bridge: Program, began: float) -> Sample:
    """Look at the bridge's process."""
    rss_bytes = resident_bytes(bridge)
    if rss_bytes is None:
        raise FaultError("this system does not say how much memory a process has (no /proc)")
    return Sample(time.monotonic() - began, rss_bytes, len(list(Path(f"/proc/{bridge.process.pid}/fd").iterdir())))


class Soak:
    """One soak.

    Args:
        say: is given a line now and then.
    """

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        self._rng = random.Random(plan.seed)
        self._troubled: dict[str, list[tuple[float, float]]] = {name: [] for name in names(plan.cyclers)}
        self._faults = {"cycler cut": 0, "broker restarted": 0}
        self._samples: list[Sample] = []

    async def run(self) -> Outcome:
        """From the beginning to the figures.

        Raises:
            FaultError: the bridge ended, or its log shows a bug.
        """
        plan = self._plan
        environment = {"ARBIN_CTI_USERNAME": "admin", "ARBIN_CTI_PASSWORD": PASSWORD}
        async with AsyncExitStack() as stack:
            cyclers = await stack.enter_async_context(Cyclers.running(plan.cyclers, plan.channels))
            broker = MortalMosquitto(self._folder, each_second(self._folder))
            await broker.start()
            stack.push_async_callback(broker.kill)
            subscriber = Subscriber(BASE, broker.port, plan.protocol)
            await subscriber.come()
            stack.push_async_callback(subscriber.go)
            settings = configuration(plan, await cyclers.ask("ports"), broker.port, self._folder)
            file = self._folder / "bridge.yaml"
            file.write_text(json.dumps(settings))
            bridge = await stack.enter_async_context(program("run", "-c", str(file), environment=environment))
            wanted = set(names(plan.cyclers))
            await subscriber.until(lambda: wanted <= set(subscriber.heard.complete), ONLINE_S, "readings of all")
            await self._soak(cyclers, broker, bridge)
            answered = await self._drained(cyclers, subscriber)
            if await bridge.end() != 0:
                raise FaultError(f"the bridge ended with status {bridge.process.returncode}:\n{log_of(bridge)}")
            check_log(bridge)
        return self._outcome(answered, subscriber)

    # --- under load ---

    async def _soak(self, cyclers: Cyclers, broker: MortalMosquitto, bridge: Program) -> None:
        began = time.monotonic()
        end = began + self._plan.seconds
        fault_at = self._next_fault(began)
        while time.monotonic() < end:
            if bridge.process.returncode is not None:
                raise FaultError(f"the bridge ended, status {bridge.process.returncode}:\n{log_of(bridge)}")
            self._samples.append(sample(bridge, began))
            self._tell(self._samples[-1])
            if fault_at is not None and time.monotonic() >= fault_at:
                await self._fault(cyclers, broker)
                fault_at = self._next_fault(time.monotonic())
            await asyncio.sleep(self._plan.sample_s)

    def _next_fault(self, now: float) -> float | None:
        return now + self._rng.uniform(*self._plan.fault_every_s) if self._plan.fault_every_s else None

    async def _fault(self, cyclers: Cyclers, broker: MortalMosquitto) -> None:
        length_s = self._rng.uniform(*CUT_S)
        if self._rng.random() < 0.7:
            name = self._rng.choice(list(self._troubled))
            began = time.time() - self._plan.interval_s
            self._say(f"{name} is cut for {length_s:.1f} s")
            await cyclers.ask(f"cut {name} {length_s}")
            self._troubled[name].append((began, time.time() + RECONNECTED_S))
            self._faults["cycler cut"] += 1
        else:
            self._say(f"the broker is killed and away for {length_s:.1f} s")
            await broker.kill()
            await asyncio.sleep(length_s)
            await broker.start()
            self._faults["broker restarted"] += 1

    def _tell(self, latest: Sample) -> None:
        if len(self._samples) % max(1, round(60 / self._plan.sample_s)) == 1:
            self._say(f"{latest.at_s:6.0f} s: {latest.rss_bytes / 2**20:.1f} MiB, {latest.fds} open files")

    # --- afterwards ---

    async def _drained(self, cyclers: Cyclers, subscriber: Subscriber) -> dict[str, list[float]]:
        """When each poll was answered, up to a moment by which all of them should have been seen."""
        answered: dict[str, list[float]] = await cyclers.ask("answered 0")

        def seen() -> bool:
            polls = [self._beats(name, times, subscriber) for name, times in answered.items()]
            return not any(each.unseen for each in polls)

        await subscriber.happens(seen, DRAIN_S)
        return answered

    def _beats(self, name: str, times: list[float], subscriber: Subscriber) -> Beats:
        return beats(times, subscriber.heard.complete[name], self._plan.interval_s, self._troubled[name])

    def _outcome(self, answered: dict[str, list[float]], subscriber: Subscriber) -> Outcome:
        heard = subscriber.heard
        warm = [each for each in self._samples if each.at_s >= self._plan.warm_up_s]
        times_s = [each.at_s for each in warm]
        polls = sum((self._beats(name, times, subscriber) for name, times in answered.items()), Beats())
        first: dict[tuple[Key, int], Kind] = {}
        for message in heard.seen:
            first.setdefault((message.key, message.part), message.kind)
        return Outcome(
            line(times_s, [each.rss_bytes for each in warm]),
            line(times_s, [each.fds for each in warm]),
            polls,
            sum(kind == "backfill" for kind in first.values()),
            len(heard.seen) - len(first),
            subscriber.sessions_lost,
            self._faults,
            self._samples,
        )
