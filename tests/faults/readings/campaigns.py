"""What readings go through. Each campaign is a world of its own; in the end nothing is missing, or it is said what.

A seed gives the same kinds of moments and lengths; when exactly a process dies is up to the machine.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cti_mqtt.bridge.mqtt.takeover import SHORT_LIFE_S, SUSPICIOUS
from tests.faults.readings.judge import Figures, count, holes, problems
from tests.faults.readings.world import INTERVAL_S, KEEPALIVE_S, QUIET_S, TIMEOUT_S, World, defaults, kept, world
from tests.faults.world import FaultError, log_of, plainly
from tests.support.proxy import Behaviour, Corrupt, Delay, Pass, Stall, Throttle, Truncate

SETTLE_S = 90.0  # from the last fault until nothing is missing
POLLS_OF_TEN_MINUTES = 600  # at one a second
TAKEN_FOR_A_RIVAL = SUSPICIOUS - 1  # short connections in a row are one fewer
AWAY_S = 2.5  # sometimes longer than it takes the bridge to try again
JUST_S = 0.02  # after an answer, while the poll is decoded, written and sent
ASK_RANGE = 500  # seqs that one replay asks for


@dataclass(frozen=True)
class Plan:
    """What a campaign goes through.

    Attributes:
        kills: how often something is killed, or a link is made faulty.
        outage_s: how long the broker is away, in the campaign about that.
        fault_s: how long a link is faulty each time.
    """

    kills: int = 50
    seed: int = 0
    protocol: object = 5
    outage_s: float = POLLS_OF_TEN_MINUTES * INTERVAL_S
    fault_s: float = 3.0


Course = Callable[[World, Plan, random.Random, Figures], Awaitable[None]]


# --- courses: the bridge runs when one begins and when it ends ---


async def broker_killed(it: World, plan: Plan, rng: random.Random, figures: Figures) -> None:
    """The broker dies again and again; for every other death the subscriber is away and its queue at the broker.

    Now and then it lives so long that it does not look as if another client took the bridge's place again and again:
    else the bridge would keep out of its way for longer and longer.
    """
    for number in range(plan.kills):
        await it.progress()
        if number % TAKEN_FOR_A_RIVAL == TAKEN_FOR_A_RIVAL - 1:
            await asyncio.sleep(SHORT_LIFE_S)
        away = rng.random() < 0.5
        if away:
            await it.subscriber.go()
        await asyncio.sleep(rng.uniform(0, 1.0))
        await it.broker.kill()
        figures.broker_kills += 1
        await asyncio.sleep(rng.uniform(0, AWAY_S))
        it.subscriber.drain += 1
        await it.broker.start()
        if away:
            await it.subscriber.come()


async def broker_forgets(it: World, plan: Plan, rng: random.Random, figures: Figures) -> None:
    """The broker dies with what it had acknowledged and not passed on: the subscriber is away, and then unknown."""
    for _ in range(plan.kills):
        await it.progress()
        await it.subscriber.go()
        await it.progress(polls=rng.randint(2, 10))
        await it.broker.kill()
        figures.broker_kills += 1
        it.subscriber.drain += 1
        await it.broker.start()
        await asyncio.sleep(rng.uniform(0, 1.0))
        await it.subscriber.come()


async def bridge_killed(it: World, plan: Plan, rng: random.Random, figures: Figures) -> None:
    """The bridge dies again and again: at any time, just when a poll has been answered, or while it starts."""
    for _ in range(plan.kills):
        moment = rng.random()
        if moment < 0.2:
            await asyncio.sleep(rng.uniform(0, 2.0))
        else:
            await it.progress()
            await asyncio.sleep(rng.uniform(0, 1.0))
        if moment > 0.5:
            await it.next_answer()
            await asyncio.sleep(rng.uniform(0, JUST_S))
        await it.kill()
        figures.bridge_kills += 1
        it.subscriber.drain += 1
        await it.start()


async def both_killed(it: World, plan: Plan, rng: random.Random, figures: Figures) -> None:
    """Both are away at once: either dies first, either comes back first; the bridge polls a while without a broker."""
    for _ in range(plan.kills):
        await it.progress()
        first, second = rng.sample([it.kill, it.broker.kill], 2)
        await first()
        await asyncio.sleep(rng.uniform(0, 0.5))
        await second()
        figures.bridge_kills += 1
        figures.broker_kills += 1
        it.subscriber.drain += 1
        if rng.random() < 0.5:
            await it.start()
            await asyncio.sleep(rng.uniform(0, 3.0))
            if rng.random() < 0.5:  # dies with what it could not deliver
                await it.kill()
                figures.bridge_kills += 1
                await it.start()
            await it.broker.start()
        else:
            await it.broker.start()
            await it.start()


async def broker_away(it: World, plan: Plan, _rng: random.Random, figures: Figures) -> None:
    """The broker is away for long."""
    await it.progress()
    await it.broker.kill()
    figures.broker_kills += 1
    await asyncio.sleep(plan.outage_s)
    it.subscriber.drain += 1
    await it.broker.start()


def _damages(rng: random.Random) -> list[tuple[str, Behaviour]]:
    """What a link can do without changing a byte; the name says in which direction."""
    return [
        (way, each)
        for each in (
            Delay(rng.uniform(0.2, 1.5)),
            Stall(),
            Truncate(rng.randint(1, 400)),
            Truncate(rng.randint(1, 400), reset=True),
            Throttle(rng.uniform(2_000, 20_000)),
        )
        for way in ("to_server", "to_client")
    ]


async def broker_link(it: World, plan: Plan, rng: random.Random, figures: Figures) -> None:
    """The network between bridge and broker cuts, delays, stalls, truncates and starves."""
    for _ in range(plan.kills):
        await it.progress()
        it.subscriber.drain += 1
        if rng.random() < 0.3:
            it.link.cut(reset=rng.random() < 0.5)
        else:
            way, behaviour = rng.choice(_damages(rng))
            setattr(it.link, way, behaviour)
            await asyncio.sleep(rng.uniform(0.5, plan.fault_s) + (KEEPALIVE_S if isinstance(behaviour, Stall) else 0))
            it.link.both(Pass())
        figures.faults += 1
        it.subscriber.drain += 1


async def broker_link_corrupt(it: World, plan: Plan, rng: random.Random, figures: Figures) -> None:
    """The network between bridge and broker flips bits. Nothing in MQTT can see that; TLS would."""
    for _ in range(plan.kills):
        await it.progress()
        setattr(it.link, rng.choice(["to_server", "to_client"]), Corrupt(10 ** rng.uniform(-5, -3)))
        await asyncio.sleep(rng.uniform(0.5, plan.fault_s))
        it.link.both(Pass())
        it.link.cut()
        figures.faults += 1
        it.subscriber.drain += 1
    await it.progress()


async def cycler_link(it: World, plan: Plan, rng: random.Random, figures: Figures) -> None:
    """The network between cyclers and bridge does all of that, and flips bits; polls may be lost, none may be false."""
    for _ in range(plan.kills):
        await it.progress()
        link = it.links[rng.choice(list(it.links))]
        began = time.time() - 2 * INTERVAL_S
        if rng.random() < 0.2:
            link.cut(reset=rng.random() < 0.5)
        else:
            damages = [*_damages(rng), ("to_client", Corrupt(1e-4)), ("to_server", Corrupt(1e-3))]
            way, behaviour = rng.choice(damages)
            setattr(link, way, behaviour)
            await asyncio.sleep(rng.uniform(0.5, plan.fault_s))
            link.both(Pass())
        it.troubled.append((began, time.time() + TIMEOUT_S + 2 * INTERVAL_S))
        figures.faults += 1


# --- from the beginning to the judgement ---


@dataclass(frozen=True)
class Campaign:
    """A course, and what it stands for.

    Attributes:
        keeps: how the broker persists.
        altering: whether bytes are changed on the way to the broker.
        share: of the plan's kills.
        must_lose: whether the broker has to lose something, or the campaign shows nothing.
    """

    name: str
    course: Course
    keeps: Callable[[Path], str] = kept
    altering: bool = False
    share: float = 1.0
    must_lose: bool = False


CAMPAIGNS = (
    Campaign("broker", broker_killed),
    Campaign("bridge", bridge_killed),
    Campaign("both", both_killed, share=0.4),
    Campaign("outage", broker_away),
    Campaign("broker-link", broker_link, share=0.6),
    Campaign("broker-link-corrupt", broker_link_corrupt, altering=True, share=0.2),
    Campaign("cycler-link", cycler_link, share=0.6),
    Campaign("defaults", broker_forgets, keeps=defaults, share=0.2, must_lose=True),
)
BY_NAME = {each.name: each for each in CAMPAIGNS}


async def carry_out(campaign: Campaign, plan: Plan, folder: Path) -> Figures:
    """One campaign, from its beginning to the judgement.

    Raises:
        FaultError: the bridge did what it must never do.
    """
    rng = random.Random(f"{campaign.name} {plan.seed}")
    figures = Figures(campaign.name)
    share = replace(plan, kills=max(1, round(plan.kills * campaign.share)))
    with plainly():
        async with world(campaign.name, folder / campaign.name, plan.protocol, plan.seed, campaign.keeps) as it:
            await it.start()
            await it.progress()
            await campaign.course(it, share, rng, figures)
            await it.progress()
            await _judge(it, campaign, figures)
    return figures


async def _judge(it: World, campaign: Campaign, figures: Figures) -> None:
    altering = campaign.altering
    drained_s = await it.settled(SETTLE_S, altering=altering)
    if drained_s is None:
        raise _failure(it, f"not all was seen within {SETTLE_S:g} s", altering=altering)
    figures.drained_s = drained_s
    await _close_gaps(it, altering=altering)
    await it.end()
    await it.subscriber.until(it.subscriber.quiet(), 20, "an end of messages")
    evidence = it.evidence(altering=altering)
    count(evidence, figures)
    figures.brokers = len(it.brokers_loss)
    figures.closed = sum(number not in evidence.missing(name) for name, number in it.brokers_loss)
    if found := problems(evidence, replayed=True):
        raise _failure(it, "\n".join(found[:40]), altering=altering)
    if campaign.must_lose and not figures.brokers:
        raise FaultError("a broker that keeps nothing lost nothing: this shows nothing")


async def _close_gaps(it: World, *, altering: bool) -> None:
    """Do what a consumer does that sees holes in `seq`: ask for them."""

    def open_holes() -> dict[tuple[str, str], list[int]]:
        return holes(it.evidence(altering=altering).heard)

    if not it.brokers_loss and await it.subscriber.happens(
        lambda: not open_holes(), QUIET_S
    ):  # polls are always under way
        return
    it.subscriber.drain += 1
    for (cycler, boot), seqs in open_holes().items():
        for first, last in _ranges(seqs):
            it.subscriber.drain += 1
            result = await it.subscriber.ask(cycler, "replay", {"boot": boot, "from_seq": first, "to_seq": last})
            if result["outcome"] != "succeeded":
                raise _failure(it, f"replay of {cycler} {boot} {first} to {last}: {result}", altering=altering)
    if not await it.subscriber.happens(lambda: not open_holes(), SETTLE_S):
        raise _failure(it, f"replay left {open_holes()}", altering=altering)
    it.subscriber.drain += 1


def _ranges(seqs: list[int]) -> list[tuple[int, int]]:
    """Holes that lie close together are asked for in one go, as long as that is not too much."""
    ranges: list[tuple[int, int]] = []
    for seq in seqs:
        if ranges and seq <= ranges[-1][1] + 5 and seq - ranges[-1][0] < ASK_RANGE:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges


def _failure(it: World, what: str, *, altering: bool) -> FaultError:
    """What went wrong, with what helps to see why."""
    found = problems(it.evidence(altering=altering))
    health = it.subscriber.health
    log = log_of(it.bridge, 20) if it.bridge else "the bridge does not run"
    listed = "\n".join(found[:40])
    return FaultError(f"{it.base}: {what}\nproblems so far: {len(found)}\n{listed}\nhealth: {health}\nlog:\n{log}")
