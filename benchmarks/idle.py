"""What it costs to have a bridge at all: one cycler of 16 channels, polled once a second.

Beside it, in turn, the plain loop of pycti-arbin and paho does the same, which has to be started for each such cycler.
"""

import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from parties import bridge, broker, incumbent, ready_cyclers, states, watching
from plan import Plan
from process_costs import cpu_s, memory_mb
from reporting import median, medians_of_ratios
from subscriber import counting

CHANNELS = 16
WARM_UP_POLLS = 2
SHARE = 3  # of the time that one size of `scale` has


def measure(plan: Plan) -> dict[str, Any]:
    """One round each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cti-mqtt-bench-")))
        mqtt_port = stack.enter_context(broker(plan.mosquitto, folder))
        (cti_port,), _ = stack.enter_context(ready_cyclers(folder, CHANNELS))
        cpu: list[dict[str, float]] = []
        memory: list[dict[str, float]] = []
        settings = watching(mqtt_port, [cti_port])
        for _ in range(min(SHARE, plan.rounds)):
            ours = of_side(bridge(folder, settings), mqtt_port, states(), folder, plan.scale_s / SHARE)
            loop = incumbent(folder, mqtt_port, cti_port, qos=0, interval_s=1.0)
            theirs = of_side(loop, mqtt_port, states("pycti"), folder, plan.scale_s / SHARE)
            cpu.append({"bridge": ours[0], "pycti": theirs[0]})
            memory.append({"bridge": ours[1], "pycti": theirs[1]})
    return {
        "channels": CHANNELS,
        "cpu_share_of_a_core": {side: round(median(cpu, side), 5) for side in ("bridge", "pycti")},
        "cpu": medians_of_ratios(cpu, "bridge", ["pycti"]),
        "memory_mb": {side: round(median(memory, side), 1) for side in ("bridge", "pycti")},
        "memory": medians_of_ratios(memory, "bridge", ["pycti"]),
    }


def of_side(
    side: AbstractContextManager[int], mqtt_port: int, topic: str, folder: Path, seconds: float
) -> tuple[float, float]:
    """Share of a core, and MB of memory at the most."""
    with counting(mqtt_port, topic, 0, folder) as counter, side as pid:
        counter.wait_for(WARM_UP_POLLS * CHANNELS, "a side")
        cpu, began = cpu_s(pid), time.perf_counter()
        time.sleep(max(seconds, 1.0))
        return (cpu_s(pid) - cpu) / (time.perf_counter() - began), memory_mb(pid)["peak"]


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    cpu, memory = found["cpu_share_of_a_core"], found["memory_mb"]

    def ratio(what: str) -> float:
        return float(found[what]["bridge_to_pycti"])

    return [
        f"one cycler of {found['channels']} channels, polled once a second",
        "",
        "| | bridge | pycti loop | ratio |",
        "|---|---|---|---|",
        f"| of a core | {100 * cpu['bridge']:.2f} % | {100 * cpu['pycti']:.2f} % | {ratio('cpu'):.2f} |",
        f"| memory | {memory['bridge']:.0f} MB | {memory['pycti']:.0f} MB | {ratio('memory'):.2f} |",
    ]
