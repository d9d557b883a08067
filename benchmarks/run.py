"""`make bench`: everything that is measured, each figure beside one of the same run that it can be compared with.

The parts, each described in its file: `decode` (decode.py), `pipeline` (pipeline.py), `latency` (age.py, commands.py),
`scale` (scale.py) and `idle` (idle.py). Figures are medians of several rounds; those of one machine tell little about
another, their ratios do. All but `decode` need Mosquitto and its clients.

Examples:
    python benchmarks/run.py --only decode,pipeline --json
    python benchmarks/run.py --only scale --cyclers 64 --minutes 5 --output journal
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import age
import chart
import commands
import decode
import idle
import pipeline
import scale
from parties import PartyError, find
from plan import QUICK, Plan
from reporting import machine, machine_line

Measure = Callable[[Plan], dict[str, Any]]
Lines = Callable[[dict[str, Any]], list[str]]


def measure_latency(plan: Plan) -> dict[str, Any]:
    """Both kinds."""
    return {"age": age.measure(plan), "command": commands.measure(plan)}


def latency_lines(found: dict[str, Any]) -> list[str]:
    """Both kinds, for people."""
    return [*age.lines(found["age"]), "", *commands.lines(found["command"])]


PARTS: dict[str, tuple[Measure, Lines]] = {
    "decode": (decode.measure, decode.lines),
    "pipeline": (pipeline.measure, pipeline.lines),
    "latency": (measure_latency, latency_lines),
    "scale": (scale.measure, scale.lines),
    "idle": (idle.measure, idle.lines),
}
WITHOUT_BROKER = frozenset({"decode"})


def main() -> None:
    """Measure and print."""
    options, parts, plan = arguments()
    described = machine()
    if not options.json:
        print(machine_line(described))
    found: dict[str, Any] = {"machine": described, "rounds": plan.rounds, "seconds": plan.seconds}
    try:
        if set(parts) - WITHOUT_BROKER:
            plan = replace(plan, mosquitto=find(plan.mosquitto))
            find("mosquitto_sub")
        for part in parts:
            measure, lines = PARTS[part]
            found[part] = measure(plan)
            if not options.json:
                print("\n".join(["", f"## {part}", "", *lines(found[part])]), flush=True)
    except PartyError as error:
        sys.exit(f"not everything was measured: {error}")
    if options.json:
        print(json.dumps(found, indent=2))
    if options.save:
        options.save.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.svg and "scale" in found:
        options.svg.write_text(chart.svg(found["scale"]), encoding="utf-8")


def arguments() -> tuple[argparse.Namespace, list[str], Plan]:
    """The command line, checked; ends the program where it makes no sense."""
    parser = argparse.ArgumentParser(description="How fast, and beside what.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="everything once and small: whether it runs, no figures")
    parser.add_argument("--rounds", type=int, help=f"of each side, in turn (default {Plan().rounds})")
    parser.add_argument("--seconds", type=float, help=f"per round and side (default {Plan().seconds:g})")
    parser.add_argument("--minutes", type=float, help=f"of each size of `scale` (default {Plan().scale_s / 60:g})")
    parser.add_argument("--cyclers", type=numbers, help="sizes of `scale`, with commas (default 1,8,64)")
    parser.add_argument("--channels", type=numbers, help="of the cycler of `pipeline`, with commas (default 16,128)")
    parser.add_argument("--output", choices=scale.OUTPUTS, help="in `scale`: state, or more (default readings)")
    parser.add_argument("--mosquitto", help="the broker's program (default: the one that is installed)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--save", type=Path, help="write the JSON into this file")
    parser.add_argument("--svg", type=Path, help="draw the figures of `scale` into this file")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--only: no such part: {', '.join(unknown)}")
    plan = planned(options)
    if plan.rounds < 1 or not all(0 < seconds < math.inf for seconds in (plan.seconds, plan.scale_s)):
        parser.error("--rounds must be at least 1, --seconds and --minutes more than 0")
    return options, parts, plan


def planned(options: argparse.Namespace) -> Plan:
    """What the options change of the plan."""
    plan = QUICK if options.quick else Plan()
    given = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "scale_s": None if options.minutes is None else 60 * options.minutes,
        "cyclers": options.cyclers,
        "channels": options.channels,
        "output": options.output,
        "mosquitto": options.mosquitto,
    }
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


def numbers(text: str) -> Sequence[int]:
    """Whole numbers from 1, with commas between."""
    found = tuple(map(int, text.split(",")))
    if min(found) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return found


if __name__ == "__main__":
    main()
