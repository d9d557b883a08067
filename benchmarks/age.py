"""How old a reading is when a subscriber gets it, beside the least that MQTT must take for as many bytes.

- `bridge`: from the cycler's answer (it carries its time) to `mosquitto_sub`, one cycler, ten polls a second;
- `mqtt`: paho publishes as many messages of the same size with their time, as often; from that to `mosquitto_sub`.

A burst takes its time: the last of 128 messages comes later than the first, on both sides. What counts is the ratio of
the p50s, the median of the rounds.
"""

import statistics
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from parties import BASE, CYCLER, START_S, PartyError, bare_paho, bridge, broker, ready_cyclers, states, watching
from plan import Plan
from reporting import median, medians_of_ratios, ms, percentile
from subscriber import Ages, ages, one_payload

STATE = f"{BASE}/{CYCLER}/channel/1/state"
INTERVAL_S = 0.1
WARM_UP_POLLS = 5


def wait_for(found: Ages, count: int, who: str, timeout_s: float = START_S) -> None:
    """Until so many readings have come."""
    until = time.monotonic() + timeout_s
    while len(found) < count:
        if time.monotonic() > until:
            raise PartyError(f"no readings came from {who} within {timeout_s:g} s")
        time.sleep(0.02)


def measure(plan: Plan) -> dict[str, Any]:
    """Each number of channels."""
    return {str(channels): measure_one(plan, channels) for channels in plan.channels}


def measure_one(plan: Plan, channels: int) -> dict[str, Any]:
    """All rounds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cti-mqtt-bench-")))
        mqtt_port = stack.enter_context(broker(plan.mosquitto, folder))
        cyclers = ready_cyclers(folder, channels, stamped=True)
        (cti_port,), _ = stack.enter_context(cyclers)
        settings = watching(mqtt_port, [cti_port], INTERVAL_S, readings=False)
        rounds: list[dict[str, list[float]]] = []
        for _ in range(plan.rounds):
            found = of_side(bridge(folder, settings), mqtt_port, CYCLER, channels, folder, plan.seconds)
            size = len(one_payload(mqtt_port, STATE, folder))
            bare = bare_paho(folder, mqtt_port, "bare", channels=channels, size=size, qos=0, interval_s=INTERVAL_S)
            rounds.append({"bridge": found, "mqtt": of_side(bare, mqtt_port, "bare", channels, folder, plan.seconds)})
    return summary(rounds)


def of_side(
    side: AbstractContextManager[Any], mqtt_port: int, cycler: str, channels: int, folder: Path, seconds: float
) -> list[float]:
    """The ages that a subscriber sees while a side publishes."""
    with ages(mqtt_port, states(cycler), 0, folder) as found, side:
        wait_for(found, WARM_UP_POLLS * channels, "a side")
        warm = len(found)
        time.sleep(max(seconds, 2 * INTERVAL_S))
        return found.since(warm)


def summary(rounds: list[dict[str, list[float]]]) -> dict[str, Any]:
    """p50 as the median over the rounds, p99 over everything."""
    p50 = [{side: statistics.median(found) for side, found in each.items()} for each in rounds]
    result: dict[str, Any] = {}
    for side in ("bridge", "mqtt"):
        everything = [age for each in rounds for age in each[side]]
        result[f"{side}_p50_ms"] = ms(median(p50, side))
        result[f"{side}_p99_ms"] = ms(percentile(everything, 0.99))
        result[f"{side}_count"] = len(everything)
    return {**result, **medians_of_ratios(p50, "bridge", ["mqtt"])}


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    text = [f"age of a reading at the subscriber, polled every {INTERVAL_S:g} s, QoS 0", ""]
    text.append("| channels | bridge p50 | p99 | bare MQTT p50 | p99 | ratio at p50 |")
    text.append("|---|---|---|---|---|---|")
    for channels, one in found.items():
        times = " | ".join(f"{one[f'{side}_{p}_ms']:.2f} ms" for side in ("bridge", "mqtt") for p in ("p50", "p99"))
        text.append(f"| {channels} | {times} | {one['bridge_to_mqtt']:.2f} |")
    return text
