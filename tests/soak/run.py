# ruff: noqa: T201 - it prints
"""`make soak`: 16 cyclers of 64 channels at 1 Hz for an hour; memory, open files and missed polls of the bridge.

Needs Mosquitto, and a system with /proc. Exit status 1 where a bound is exceeded (they stand in tests/soak/judge.py).
The test suite runs a short cut (tests/soak/test_soak.py).
"""

import argparse
import asyncio
import platform
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.world import FaultError
from tests.soak.judge import MIB, Line, problems
from tests.soak.soak import FAULT_EVERY_S, Outcome, Plan, Soak
from tests.support.brokers import MOSQUITTO

WARM_UP_SHARE = 0.5  # of a short run; caches take three minutes to fill
LONGEST_WARM_UP_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--cyclers", type=int, default=16)
    parser.add_argument("--channels", type=int, default=64, help="of each cycler")
    parser.add_argument("--no-faults", action="store_true", help="no cycler is cut, no broker killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=["5", "3.1.1"], default="5", help="MQTT version of the bridge")
    options = parser.parse_args()
    if MOSQUITTO is None:
        print("Mosquitto is not installed", file=sys.stderr)
        return 1
    seconds = 60 * options.minutes
    plan = Plan(
        seconds,
        options.cyclers,
        options.channels,
        warm_up_s=min(LONGEST_WARM_UP_S, WARM_UP_SHARE * seconds),
        sample_s=min(10.0, seconds / 30),
        fault_every_s=None if options.no_faults else FAULT_EVERY_S,
        seed=options.seed,
        protocol=5 if options.protocol == "5" else options.protocol,
    )
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {platform.platform()}, Python {platform.python_version()}")
    print(f"{plan.cyclers} cyclers of {plan.channels} channels at 1 Hz for {options.minutes:g} min")
    with tempfile.TemporaryDirectory(prefix="cti-mqtt-soak-") as name:
        try:
            outcome = asyncio.run(Soak(plan, Path(name), lambda text: print(text, flush=True)).run())
        except FaultError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    report(outcome)
    found = problems(outcome.memory, outcome.fds, outcome.polls)
    for each in found:
        print(f"FAILED: {each}", file=sys.stderr)
    return 1 if found else 0


def report(outcome: Outcome) -> None:
    polls = outcome.polls
    print("\nfrom the end of the warm-up:")
    show("memory, MiB", outcome.memory, MIB)
    show("open files", outcome.fds, 1)
    print(f"{sum(outcome.faults.values())} faults: {outcome.faults}")
    print(f"{polls.answered} polls answered; {outcome.late} parts or polls seen first on backfill")
    print(f"{polls.missed} beats missed, and {polls.explained} that faults explain")
    print(f"{polls.unseen} answered and never seen, and {polls.cut} that faults explain")
    print(f"{outcome.duplicates} messages seen again; the broker forgot the subscriber {outcome.sessions_lost} times")


def show(title: str, line: Line, unit: float) -> None:
    values = f"start {line.start / unit:.1f}, end {line.end / unit:.1f}, slope {line.slope_per_h / unit:+.2f} an hour"
    print(f"  {title}: {values}")


if __name__ == "__main__":
    sys.exit(main())
