"""`make faults`: the bridge killed at 200 moments while 1 000 commands are sent, 10 000 hostile messages, and readings
that go through kills of bridge and broker and through bad links (tests/faults/readings).

Needs Mosquitto. Exit status 1 where the bridge did what it must never do; the seed brings the same commands, kinds of
moments and messages back. The test suite runs a short cut of the same (tests/faults/test_crash.py, test_hostile.py,
readings/test_campaigns.py).
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.faults import crash, hostile
from tests.faults.readings import campaigns as readings
from tests.faults.readings.judge import Figures as ReadingFigures
from tests.faults.shots import MIB
from tests.faults.world import FaultError
from tests.support.brokers import MOSQUITTO

START_S = 60.0
KILL_S = 12.0  # at the most, per kill in one world
SHOT_S = 0.1  # at the most
READING_KILL_S = 30.0  # at the most, with what follows
COMMAND_KILLS = 200
READING_KILLS = 50
ALL = ["commands", "hostile", *readings.BY_NAME]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", help=f"some of these, with commas between them: {', '.join(ALL)}")
    parser.add_argument(
        "--kills",
        type=int,
        help=f"among commands ({COMMAND_KILLS}; 0: not at all), and in each campaign about readings ({READING_KILLS})",
    )
    parser.add_argument("--commands", type=int, default=1000, help="sent meanwhile")
    parser.add_argument("--payloads", type=int, default=10_000, help="hostile messages; 0: none")
    parser.add_argument("--worlds", type=int, default=4, help="bridges that are killed at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=["5", "3.1.1"], default="5", help="MQTT version of the bridge")
    options = parser.parse_args()
    if MOSQUITTO is None:
        print("Mosquitto is not installed", file=sys.stderr)
        return 1
    kills = COMMAND_KILLS if options.kills is None else options.kills
    only = ALL if options.only is None else options.only.split(",")
    if wrong := [name for name in only if name not in ALL]:
        parser.error(f"--only: there is no {', '.join(wrong)}; there are {', '.join(ALL)}")
    if options.worlds < 1 or (kills and options.commands < kills):
        parser.error("at least one world, and one command a kill")
    protocol = 5 if options.protocol == "5" else options.protocol
    good = True
    with tempfile.TemporaryDirectory(prefix="cti-mqtt-faults-") as name:
        if kills and "commands" in only:
            plan = crash.Plan(kills, options.commands, options.seed, protocol)
            limit_s = START_S + crash.ANSWERED_S + KILL_S * -(-kills // options.worlds)
            killing = crash.campaign(Path(name), plan, options.worlds, limit_s)
            good &= carried_out(options.seed, killing, report_crash)
        if options.payloads and "hostile" in only:
            limit_s = START_S + hostile.VOLLEY_S + SHOT_S * options.payloads
            firing = hostile.campaign(Path(name), options.payloads, options.seed, protocol, limit_s)
            good &= carried_out(options.seed, firing, report_hostile)
        for each in [each for each in readings.CAMPAIGNS if each.name in only and options.kills != 0]:
            plan_of_readings = readings.Plan(READING_KILLS if options.kills is None else kills, options.seed, protocol)
            limit_s = START_S + plan_of_readings.outage_s + READING_KILL_S * plan_of_readings.kills
            losing = asyncio.wait_for(readings.carry_out(each, plan_of_readings, Path(name)), limit_s)
            good &= carried_out(options.seed, losing, report_readings)
    return 0 if good else 1


def carried_out(seed: int, campaign: Coroutine[Any, Any, Any], report: Any) -> bool:
    """Run a campaign and report; whether it went well."""
    began = time.perf_counter()
    try:
        figures = asyncio.run(campaign)
    except (FaultError, TimeoutError) as error:
        what = "it took too long" if isinstance(error, TimeoutError) else str(error)
        print(f"FAILED (--seed {seed}): {what}\n", file=sys.stderr)
        return False
    report(figures, time.perf_counter() - began)
    return True


def report_crash(figures: crash.Figures, seconds: float) -> None:
    kills, commands = figures.kills.total(), figures.commands.total()
    print(f"{kills} kills, {commands} commands in {seconds:.0f} s; nothing but a stop was executed twice\n")
    table("killed", figures.kills)
    print(f"  {figures.interrupted:>8}  commands had no end at those moments")
    table("commands", figures.commands)
    print(f"  {figures.messages:>8}  messages, with their repeats")
    table("results heard", figures.outcomes)
    print(f"  {figures.duplicates:>8}  of them duplicates")
    table("executed by the cycler", figures.executed)
    print(f"  {figures.stored:>8}  commands in the store, none of them unfinished; the audit holds together")
    print(f"  {figures.unaudited:>8}  stops that were answered just before a kill are not in the audit\n")


def report_hostile(figures: hostile.Figures, seconds: float) -> None:
    total = figures.shots.total()
    size = figures.sent_bytes / MIB
    print(f"{total} hostile messages, {size:.0f} MiB, in {seconds:.0f} s; nothing was executed\n")
    table("messages", figures.shots)
    table("refused", figures.reasons)
    print(f"  {figures.replies:>8}  results on response topics")
    memory = [f"{value / MIB:.1f}" for value in (figures.warm_bytes, figures.peak_bytes, figures.final_bytes)]
    print(f"  memory after the warm-up {memory[0]} MiB, peak {memory[1]} MiB, at the end {memory[2]} MiB")
    print(f"  {figures.stored_bytes / MIB:.1f} MiB on disk, {figures.log_lines} lines of log")


def report_readings(figures: ReadingFigures, seconds: float) -> None:
    print(f"readings, {figures.name}, in {seconds:.0f} s; none is missing")
    for value, what in (
        (figures.bridge_kills, "kills of the bridge"),
        (figures.broker_kills, "kills of the broker"),
        (figures.faults, "faults of a link"),
        (figures.answered, "polls answered by two cyclers"),
        (figures.live, "of them seen first on readings"),
        (figures.late, "of them seen first on backfill"),
        (figures.in_flight, "of them lost in flight, at the most one a cycler and kill of the bridge"),
        (figures.swallowed, "of them lost on a faulty link to a cycler"),
        (figures.brokers, f"of them acknowledged by the broker and lost by it; {figures.closed} came back by replay"),
        (figures.duplicates, "messages seen again"),
        (figures.altered, "messages altered by a link that damages"),
    ):
        print(f"  {value:>8}  {what}")
    print(f"  {figures.drained_s:>8.1f}  s from the last fault until nothing was missing\n")


def table(title: str, counts: Counter[str]) -> None:
    print(f"{title}:")
    for name, count in counts.most_common():
        print(f"  {count:>8}  {name}")


if __name__ == "__main__":
    sys.exit(main())
