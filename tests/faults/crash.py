"""The bridge killed at random moments while commands with ids are sent, each repeated until it is answered.

Half of the moments are chosen where it hurts most: the instant at which the cycler has carried out a command and has
not answered yet, and the instant at which a result was heard. A seed gives the same orders and kinds of moments; when
exactly the process dies is up to the machine.
"""

import asyncio
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cti_mqtt.simulator import NO_FAULTS, Faults
from tests.faults.judgement import OK, Evidence, deeds, dossier, problems
from tests.faults.orders import Deck, Order
from tests.faults.sender import Sender
from tests.faults.store import check_store, unfinished
from tests.faults.world import Entry, FaultError, World, broker, check_log, log_of, plainly, world
from tests.support.processes import Program

ONLINE_S = 60.0  # for a start on a machine that does other things, too
IN_FLIGHT_S = 0.3  # within which the kill follows the first or the last command of a burst
STARTING_S = 3.5  # within which the kill follows the start
TRAP_S = 2.0  # for a request or a result that the kill is waiting for
LAST_BURST = 12  # orders at once when nothing is killed any more
ANSWERED_S = 120.0
SLOW = Faults(delays_s={"start": 0.04, "set_meta_variable": 0.02, "update_meta_variables": 0.03, "stop": 0.02})


class Moment(StrEnum):
    """When the process dies."""

    IN_FLIGHT = "up to 300 ms after the first or the last command of a burst"
    AT_REQUEST = "the cycler did it, and has not answered yet"
    AT_RESULT = "a result was just heard"
    STARTING = "while it was starting"


MOMENTS = {Moment.IN_FLIGHT: 40, Moment.AT_REQUEST: 30, Moment.AT_RESULT: 20, Moment.STARTING: 10}


@dataclass(frozen=True)
class Plan:
    """What one world goes through."""

    kills: int
    commands: int
    seed: int
    protocol: object = 5


@dataclass
class Figures:
    """What happened.

    Attributes:
        interrupted: commands that the store had without an end when the bridge was killed.
        stored: commands in the store, in the end.
        unaudited: stops that were answered, and a kill came before they were in the audit.
    """

    kills: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    executed: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0
    stored: int = 0
    unaudited: int = 0

    def add(self, other: "Figures") -> None:
        self.kills += other.kills
        self.commands += other.commands
        self.messages += other.messages
        self.outcomes += other.outcomes
        self.duplicates += other.duplicates
        self.executed += other.executed
        self.interrupted += other.interrupted
        self.stored += other.stored
        self.unaudited += other.unaudited


class Siege:
    """One world under fire.

    Args:
        place: the world.
        sender: its controller.
        plan: how long.
        rng: chooses orders and moments.
    """

    def __init__(self, place: World, sender: Sender, plan: Plan, rng: random.Random) -> None:
        self._place = place
        self._sender = sender
        self._plan = plan
        self._rng = rng
        self._deck = Deck(place.base, rng)
        self._learned = 0
        self.figures = Figures()

    async def run(self) -> Figures:
        """Every life of the bridge, the last one to its end; then judge.

        Raises:
            FaultError: the bridge did what it must never do.
        """
        for _ in range(self._plan.kills):
            await self._short_life()
        await self._last_life()
        self._judge()
        found = await check_store(self._place, self._sender.orders, self._sender.answers)
        self.figures.stored, self.figures.unaudited = found
        return self.figures

    # --- lives ---

    async def _short_life(self) -> None:
        moment = self._rng.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        self._sender.bridge_gone()
        async with self._place.bridge() as bridge:
            if moment is Moment.STARTING:
                await asyncio.sleep(self._rng.uniform(0, STARTING_S))
            else:
                await self._online(bridge)
                await self._burst(bridge, moment)
            await self._kill(bridge)
            if bridge.process.returncode != -signal.SIGKILL:
                raise FaultError(f"the bridge ended by itself, status {bridge.process.returncode}:\n{log_of(bridge)}")
            check_log(bridge)
        self.figures.kills[moment] += 1
        self.figures.interrupted += unfinished(self._place)

    @staticmethod
    async def _kill(bridge: Program) -> None:
        if bridge.process.returncode is None:
            bridge.process.kill()
        await bridge.process.wait()

    async def _online(self, bridge: Program) -> None:
        try:
            async with asyncio.timeout(ONLINE_S):
                await self._sender.online.wait()
        except TimeoutError:
            raise FaultError(f"the bridge did not come online within {ONLINE_S:g} s:\n{log_of(bridge)}") from None

    async def _burst(self, bridge: Program, moment: Moment) -> None:
        """Send some orders, and let the bridge die at the moment."""
        self._sender.say_again()
        early = moment is not Moment.IN_FLIGHT or self._rng.random() < 0.5
        killer = asyncio.create_task(self._kill_at(bridge, moment)) if early else None
        for _ in range(self._share()):
            self._sender.send(self._next())
            if self._rng.random() < 0.3:
                self._sender.say_again()  # an impatient one: again while the first is on its way
            if self._rng.random() < 0.4:
                await asyncio.sleep(self._rng.uniform(0, 0.06))
        await (killer or self._kill_at(bridge, moment))

    def _next(self) -> Order:
        """Another order, in the light of what was heard since the last."""
        news = self._sender.answers[self._learned :]
        self._learned += len(news)
        for answer in news:
            if answer.body["channel"] is not None and answer.body["status_after"] and not answer.body["duplicate"]:
                self._deck.learn(answer.body["channel"], answer.body["status_after"])
        return self._deck.next()

    def _share(self) -> int:
        """How many new orders this life gets: on average, so that a tenth is left for the last."""
        left = self._plan.commands - len(self._sender.orders)
        mean = 0.9 * self._plan.commands / self._plan.kills / (1 - MOMENTS[Moment.STARTING] / 100)
        return min(left, self._rng.randint(1, max(1, round(2 * mean) - 1)))

    async def _kill_at(self, bridge: Program, moment: Moment) -> None:
        if moment is Moment.IN_FLIGHT:
            await asyncio.sleep(self._rng.uniform(0, IN_FLIGHT_S))
        elif moment is Moment.AT_REQUEST:
            await self._kill_at_request(bridge, self._rng.randint(1, 8))
        else:
            await self._wait_results(self._rng.randint(1, 8))
        await self._kill(bridge)

    async def _kill_at_request(self, bridge: Program, number: int) -> None:
        """Kill from within the cycler: before the answer goes out."""
        left = number

        def on_asked(_: Entry) -> None:
            nonlocal left
            left -= 1
            if left == 0 and bridge.process.returncode is None:
                bridge.process.kill()

        self._place.on_asked = on_asked
        try:
            async with asyncio.timeout(TRAP_S):
                await bridge.process.wait()
        except TimeoutError:
            pass
        finally:
            self._place.on_asked = lambda _: None

    async def _wait_results(self, number: int) -> None:
        wanted = len(self._sender.answers) + number
        try:
            async with asyncio.timeout(TRAP_S):
                await self._sender.until(lambda: len(self._sender.answers) >= wanted)
        except TimeoutError:
            return  # none came: then now

    async def _last_life(self) -> None:
        """Send the rest, hear every answer, hear it once more, end in order."""
        self._sender.bridge_gone()
        async with self._place.bridge() as bridge:
            await self._online(bridge)
            while (left := self._plan.commands - len(self._sender.orders)) > 0:
                for _ in range(min(left, LAST_BURST)):
                    self._sender.send(self._next())
                await self._answered(bridge)
            await self._answered(bridge)
            self._sender.say_again(everything=True)
            await self._answered(bridge)
            status = await bridge.end()
            check_log(bridge)
            if status != 0:
                raise FaultError(f"the bridge ended with status {status}:\n{log_of(bridge)}")

    async def _answered(self, bridge: Program) -> None:
        try:
            async with asyncio.timeout(ANSWERED_S):
                await self._sender.until(lambda: not self._sender.open)
        except TimeoutError:
            left = ", ".join(self._sender.open)
            raise FaultError(f"no answer within {ANSWERED_S:g} s: {left}\n{log_of(bridge)}") from None

    # --- judged ---

    def _judge(self) -> None:
        sender, figures = self._sender, self.figures
        figures.commands.update(order.verb for order in sender.orders.values())
        figures.messages = sender.messages
        figures.outcomes.update(
            f"{answer.body['command']} {'refused for now' if answer.passing else answer.body['outcome']}"
            for answer in sender.answers
        )
        figures.duplicates = sum(answer.body["duplicate"] for answer in sender.answers)
        figures.executed.update(deed.verb for deed in deeds(self._place.asked) if deed.done)
        figures.executed["stop"] += sum(
            result["code"] == OK
            for entry in self._place.asked
            if entry["command"] == "stop"
            for result in entry["results"]
        )
        evidence = Evidence(sender.orders, sender.answers, self._place.asked)
        if found := problems(evidence):
            tail = f"\n… and {len(found) - 30} more" if len(found) > 30 else ""
            text = "\n".join(found[:30]) + tail
            raise FaultError(f"{self._place.base}: {len(found)} problems:\n{text}\n{dossier(evidence, found)}")


async def besiege(base: str, broker_port: int, plan: Plan, folder: Path, *, slow: bool = False) -> Figures:
    """One world, from its beginning to the judgement."""
    rng = random.Random(f"{base} {plan.seed}")
    faults = SLOW if slow else NO_FAULTS
    async with (
        world(base, broker_port, plan.protocol, folder / base, faults, state=False, readings=False) as place,
        Sender.connect(place, rng) as sender,
    ):
        return await Siege(place, sender, plan, rng).run()


async def campaign(folder: Path, plan: Plan, worlds: int, limit_s: float) -> Figures:
    """A plan, shared out to worlds that run at the same time on one broker.

    Raises:
        FaultError: the bridge did what it must never do, in some of the worlds.
        TimeoutError: it was not over in time.
    """
    total = Figures()
    with plainly():
        async with asyncio.timeout(limit_s), broker(folder) as port:
            parts = [_part(plan, number, worlds) for number in range(worlds)]
            sieges = [besiege(f"w{n}", port, part, folder, slow=n % 2 > 0) for n, part in enumerate(parts)]
            ends = await asyncio.gather(*sieges, return_exceptions=True)  # what one world shows is not the others' end
        if errors := [each for each in ends if isinstance(each, BaseException)]:
            raise BaseExceptionGroup("worlds that went wrong", errors)
    for each in ends:
        assert isinstance(each, Figures)
        total.add(each)
    return total


def _part(plan: Plan, number: int, worlds: int) -> Plan:
    """One of `worlds` shares of a plan."""

    def share(amount: int) -> int:
        return amount * (number + 1) // worlds - amount * number // worlds

    return Plan(share(plan.kills), share(plan.commands), plan.seed, plan.protocol)
