"""What a bridge process costs with more and more cyclers, each polled once a second.

All cyclers are one other process whose answers are ready, Mosquitto and a subscriber to every state are two more. The
processor time of the bridge is that of its whole process; a poll is missed where a beat passed without a
request. Ages are from the cycler's answer, whose time each reading carries, to `mosquitto_sub`. What the start leaves
to be sent, some retained topics of each channel, is over when it begins.
"""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from age import wait_for
from counts import missed
from parties import START_S, bridge, broker, ready_cyclers, states, watching
from plan import Plan
from process_costs import cpu_s, memory_mb
from reporting import ms, percentile
from subscriber import ages

OUTPUTS = ("state", "readings", "journal")  # each with those before it
WARM_UP_POLLS = 3
START_EACH_S = 1.0  # more, for each cycler
SETTLE_EACH_S = 0.15  # for each cycler, until all is out that its login brought


def measure(plan: Plan) -> dict[str, Any]:
    """Each number of cyclers; their figures also as ratios to those of the first."""
    found = {str(cyclers): measure_one(plan, cyclers) for cyclers in plan.cyclers}
    first = next(iter(found.values()))
    for each in found.values():
        each["cpu_to_first"] = round(each["cpu_s_per_1000_readings"] / first["cpu_s_per_1000_readings"], 3)
        each["age_p99_to_first"] = round(each["age_p99_ms"] / first["age_p99_ms"], 3)
    return {"cyclers": found, "channels_each": plan.channels_each, "seconds": plan.scale_s, "output": plan.output}


def measure_one(plan: Plan, cyclers: int) -> dict[str, Any]:
    """So many cyclers for so long."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cti-mqtt-bench-")))
        mqtt_port = stack.enter_context(broker(plan.mosquitto, folder))
        lab = ready_cyclers(folder, plan.channels_each, cyclers=cyclers, stamped=True)
        cti_ports, counts = stack.enter_context(lab)
        found = stack.enter_context(ages(mqtt_port, states("+"), 0, folder))
        settings = watching(mqtt_port, cti_ports, readings=plan.output != "state")
        if plan.output == "journal":
            settings["data_dir"] = str(folder / "data")
        pid = stack.enter_context(bridge(folder, settings))
        readings_a_poll = cyclers * plan.channels_each
        wait_for(found, WARM_UP_POLLS * readings_a_poll, "the bridge", START_S + START_EACH_S * cyclers)
        time.sleep(SETTLE_EACH_S * cyclers)
        before, warm, cpu, began_ns = counts.read(), len(found), cpu_s(pid), time.monotonic_ns()
        time.sleep(plan.scale_s)
        after, last, cpu, ended_ns = counts.read(), len(found), cpu_s(pid) - cpu, time.monotonic_ns()
        memory = memory_mb(pid)
    readings, polls = (sum(each[i] for each in after) - sum(each[i] for each in before) for i in (0, 1))
    return {
        "readings": readings,
        "arrived": last - warm,
        "polls": polls,
        "missed_polls": missed(before, after, ended_ns),
        "cpu_s_per_1000_readings": round(1000 * cpu / readings, 5),
        "cpu_share_of_a_core": round(cpu / (ended_ns - began_ns) * 1e9, 4),
        "memory_mb": memory["now"],
        "peak_memory_mb": memory["peak"],
        "age_p50_ms": ms(statistics.median(found.since(warm))),
        "age_p99_ms": ms(percentile(found.since(warm), 0.99)),
    }


_WHAT = {"state": "state only", "readings": "state and readings", "journal": "state, readings and the journal"}


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    return [
        f"{found['channels_each']} channels each, polled once a second for {found['seconds']:g} s",
        f"published: {_WHAT[found['output']]}",
        "",
        "| cyclers | readings/s | polls missed | CPU per 1000 | to first | of a core | memory | p50 | p99 | to first |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_line(cyclers, one, found["seconds"]) for cyclers, one in found["cyclers"].items()),
    ]


def _line(cyclers: str, one: dict[str, Any], seconds: float) -> str:
    cells = (
        cyclers,
        f"{one['readings'] / seconds:,.0f}",
        f"{one['missed_polls']} of {one['polls'] + one['missed_polls']}",
        f"{1000 * one['cpu_s_per_1000_readings']:.1f} ms",
        f"{one['cpu_to_first']:.2f}",
        f"{100 * one['cpu_share_of_a_core']:.1f} %",
        f"{one['peak_memory_mb']:.0f} MB",
        f"{one['age_p50_ms']:.2f} ms",
        f"{one['age_p99_ms']:.2f} ms",
        f"{one['age_p99_to_first']:.2f}",
    )
    return f"| {' | '.join(cells)} |"
