"""Thousands of hostile messages: one result each for those that the rules answer, nothing moved, nothing piled up.

The shots go out in volleys, each followed by a good command: its answer shows that the bridge is still there, and what
went wrong in a volley is found in it.
"""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.client import Voice
from tests.faults.shots import MIB, Armoury, Shot
from tests.faults.world import CYCLER, FaultError, World, broker, check_log, log_of, plainly, resident_bytes, world
from tests.support.observer import Heard
from tests.support.processes import Program

VOLLEY = 40
VOLLEY_S = 30.0  # for the answers to one
ONLINE_S = 60.0
LATE_S = 1.0  # in which a result too many would come
WARM_UP = 0.2  # of the shots
MEMORY_GROWTH = 30 * MIB
STORED_FIXED = 4 * MIB
STORED_PER_SHOT = 4 * 1024
GOOD_CHANNEL = f"{CYCLER}/channel/16"


@dataclass
class Figures:
    """What happened.

    Attributes:
        warm_bytes, peak_bytes, final_bytes: of memory; 0 where the system does not tell.
    """

    shots: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    replies: int = 0
    warm_bytes: int = 0
    peak_bytes: int = 0
    final_bytes: int = 0
    stored_bytes: int = 0
    log_lines: int = 0


class Range:
    """One bridge under fire.

    Args:
        place: its world.
        rng: chooses the shots.
        shots: how many.
    """

    def __init__(self, place: World, rng: random.Random, shots: int) -> None:
        self.figures = Figures()
        self._place = place
        self._shots = shots
        self._armoury = Armoury(rng, place.base, five=place.protocol == 5)
        self._voice: Voice | None = None
        self._heard: list[tuple[str, dict[str, Any]]] = []
        self._counts: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()
        self._allowed: Counter[str] = Counter()
        self._availability: dict[str, bytes] = {}
        self._news = asyncio.Event()
        self._asked = 0

    async def run(self) -> Figures:
        """All volleys, and what is left behind.

        Raises:
            FaultError: the bridge did what it must never do.
        """
        base = self._place.base
        filters = ["#", "$weird/#"] if self._place.protocol == 5 else [f"{base}/+/result", f"{base}/+/channel/+/result"]
        if self._place.protocol != 5:
            filters.append(f"{base}/+/availability")
        async with (
            Voice.connect(self._place.broker_port, self._place.protocol, filters, self._hear) as self._voice,
            self._place.bridge() as bridge,
        ):
            await self._until(self._online, ONLINE_S, "online", bridge)
            for number in range(0, self._shots, VOLLEY):
                await self._volley(bridge, [self._armoury.next() for _ in range(min(VOLLEY, self._shots - number))])
                self._weigh(bridge, warm=number <= self._shots * WARM_UP)
            await self._finish(bridge)
        return self.figures

    # --- hearing ---

    def _hear(self, heard: Heard) -> None:
        leaf = heard.topic.removeprefix(f"{self._place.base}/")
        if leaf.endswith("availability") and leaf.count("/") == 1:
            self._availability[leaf] = heard.payload
        elif b'"outcome"' in heard.payload:  # a result, wherever it is heard; none of the shots looks like one
            self._keep(leaf, json.loads(heard.payload))
        self._news.set()

    def _keep(self, where: str, body: dict[str, Any]) -> None:
        self._counts[where] += 1
        self._heard.append((where, body))

    def _online(self) -> bool:
        return all(self._availability.get(f"{name}/availability") == b"online" for name in ("bridge", CYCLER))

    async def _until(self, condition: Any, timeout_s: float, what: str, bridge: Program) -> bool:
        """Whether a condition, looked at after each message, came true in time; the bridge must not end meanwhile."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not condition():
            if bridge.process.returncode is not None:
                raise FaultError(f"{what}: the bridge ended by itself:\n{log_of(bridge)}")
            if loop.time() > end:
                return False
            self._news.clear()
            try:
                async with asyncio.timeout(0.5):
                    await self._news.wait()
            except TimeoutError:
                continue
        return True

    # --- saying ---

    async def _volley(self, bridge: Program, shots: list[Shot]) -> None:
        assert self._voice is not None
        self._heard.clear()
        for shot in shots:
            self._wanted.update(shot.answers)
            self._allowed.update(shot.answers + shot.maybe)
            self.figures.shots[shot.kind] += 1
            self.figures.sent_bytes += len(shot.payload)
            topic = f"{self._place.base}/{shot.topic}"
            self._voice.say(topic, shot.payload, retain=shot.retain, **shot.properties)
        good = await self._ask(bridge, "set_mv", {"values": {"1": 1.0}, "dry_run": True})
        if good["outcome"] != "succeeded" or not good.get("dry_run"):
            raise FaultError(f"after a volley a good command was not taken: {good}\n{_listed(shots)}")
        if not await self._until(lambda: not self._wanted - self._counts, VOLLEY_S, "volley", bridge):
            self._complain("without a result", self._wanted - self._counts, shots)
        if self._counts - self._allowed:
            self._complain("with more results than there should be", self._counts - self._allowed, shots)
        self._check_results(shots)
        if self._place.asked:
            raise FaultError(f"the cycler was asked {self._place.asked[:5]}\n{_listed(shots)}")

    async def _ask(self, bridge: Program, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a good command; its result."""
        assert self._voice is not None
        self._asked += 1
        identity = f"good-{self._asked}"
        for counter in (self._wanted, self._allowed):
            counter[f"{GOOD_CHANNEL}/result"] += 1
        command = json.dumps({"id": identity, **body}).encode()
        self._voice.say(f"{self._place.base}/{GOOD_CHANNEL}/command/{verb}", command)

        def found() -> dict[str, Any] | None:
            return next((body for _, body in self._heard if body["id"] == identity), None)

        await self._until(found, VOLLEY_S, verb, bridge)
        result = found()
        if result is None:
            raise FaultError(f"a good {verb} was not answered:\n{log_of(bridge)}")
        return result

    def _complain(self, what: str, topics: Counter[str], shots: list[Shot]) -> None:
        """Name the shots that a miscount may come from."""
        suspects = [shot for shot in shots if set(shot.answers) & set(topics)]
        results = [f"{where} {body}" for where, body in self._heard if where in topics]
        text = "\n".join(f"{text:.500}" for text in results[:20])
        raise FaultError(f"{what}: {dict(topics)}\n{_listed(suspects or shots)}\nheard there:\n{text}")

    def _check_results(self, shots: list[Shot]) -> None:
        """Refused, every one."""
        for where, body in self._heard:
            if str(body["id"]).startswith("good-"):
                continue
            self.figures.replies += where.startswith("reply/")
            self.figures.reasons[body["reason"]] += not where.startswith("reply/")
            if body["outcome"] != "refused" or body["code"] is not None:
                suspects = [shot for shot in shots if where in shot.answers]
                raise FaultError(f"not refused: {where} {body}\n{_listed(suspects)}")

    # --- what is left behind ---

    def _weigh(self, bridge: Program, *, warm: bool) -> None:
        size = resident_bytes(bridge) or 0
        figures = self.figures
        figures.peak_bytes = max(figures.peak_bytes, size)
        figures.final_bytes = size
        if warm:
            figures.warm_bytes = size

    async def _finish(self, bridge: Program) -> None:
        """Nothing comes late; a good command is carried out; memory, disk and log are as they should be."""
        await asyncio.sleep(LATE_S)
        if late := self._counts - self._allowed:
            raise FaultError(f"results that came late, or twice: {late}")
        for verb, body in (("start", {"test_name": "good", "schedule": "CCCV.sdx"}), ("stop", {})):
            result = await self._ask(bridge, verb, body)
            if result["outcome"] != "succeeded":
                raise FaultError(f"in the end a good {verb} did not succeed: {result}")
        asked = [entry["command"] for entry in self._place.asked]
        if asked != ["assign", "start", "stop"]:
            raise FaultError(f"two good commands, but the cycler was asked {asked}")
        figures = self.figures
        figures.stored_bytes = self._place.stored_bytes()
        if figures.final_bytes - figures.warm_bytes > MEMORY_GROWTH:
            raise FaultError(f"memory grew from {figures.warm_bytes / MIB:.1f} to {figures.final_bytes / MIB:.1f} MiB")
        if figures.stored_bytes > STORED_FIXED + STORED_PER_SHOT * self._shots:
            raise FaultError(f"{figures.stored_bytes / MIB:.1f} MiB are stored of {self._shots} messages")
        if await bridge.end() != 0:
            raise FaultError(f"the bridge ended with status {bridge.process.returncode}:\n{log_of(bridge)}")
        check_log(bridge)
        figures.log_lines = len(bridge.lines)


def _listed(shots: list[Shot]) -> str:
    return "\n".join(f"  {shot}" for shot in shots[:VOLLEY])


async def campaign(folder: Path, shots: int, seed: int, protocol: object, limit_s: float) -> Figures:
    """All shots at one bridge.

    Raises:
        FaultError: the bridge did what it must never do.
        TimeoutError: it was not over in time.
    """
    rng = random.Random(f"hostile {protocol} {seed}")
    with plainly():
        async with (
            asyncio.timeout(limit_s),
            broker(folder) as port,
            world("h0", port, protocol, folder / "h0", state=False, readings=False) as place,
        ):
            return await Range(place, rng, shots).run()
