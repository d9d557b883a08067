"""How many readings a second reach a subscriber when a cycler is polled as fast as it goes.

Four sides, in turn, to the same Mosquitto and the same compiled subscriber (`mosquitto_sub`); everybody is a process:

- `bridge`: the bridge publishes `state` only, from a cycler whose answers are ready (`fast_bridge.py`);
- `pycti`: a plain loop of pycti-arbin and paho that publishes JSON, from the same cycler (`pycti_loop.py`);
- `paho`: paho with its network thread publishes ready payloads of the size of the bridge's (`bare_paho.py`);
- `loop`: the same without that thread, which at QoS 0 is twice as fast: the ceiling.

All publish retained messages to as many topics as there are channels, at QoS 0 and at QoS 1, the subscriber asking for
the same. What counts is the median of the rounds' ratios.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counts import Counts
from parties import BASE, CYCLER, bare_paho, bridge, broker, incumbent, ready_cyclers, states, watching
from plan import Plan
from reporting import median, medians_of_ratios
from subscriber import Counter, counting, one_payload

STATE = f"{BASE}/{CYCLER}/channel/1/state"
WARM_UP_POLLS = 20
QOS = (0, 1)
SIDES = ("bridge", "pycti", "paho", "loop")


@dataclass(frozen=True, slots=True)
class Lab:
    """A broker and a cycler, and how to measure at them."""

    folder: Path
    mqtt_port: int
    cti_port: int
    counts: Counts
    channels: int
    qos: int
    seconds: float

    def bridge(self) -> dict[str, float]:
        """Readings a second through the bridge, the share that arrived of what the cycler gave, bytes a payload."""
        settings = watching(self.mqtt_port, [self.cti_port], state=True, state_qos=self.qos, readings=False)
        with self._counter(CYCLER) as counter, bridge(self.folder, settings, fast=True):
            self._warm_up(counter, "the bridge")
            answered, arrived = self.counts.readings(), counter.count()
            rate = counter.rate(self.seconds)
            answered, arrived = self.counts.readings() - answered, counter.count() - arrived
            size = len(one_payload(self.mqtt_port, STATE, self.folder))
        return {"bridge": rate, "arrived": min(1.0, arrived / max(1, answered)), "bytes": size}

    def pycti(self) -> dict[str, float]:
        """Readings a second through the loop."""
        with (
            self._counter("pycti") as counter,
            incumbent(self.folder, self.mqtt_port, self.cti_port, qos=self.qos),
        ):
            self._warm_up(counter, "pycti-arbin")
            return {"pycti": counter.rate(self.seconds)}

    def paho(self, side: str, size: float) -> float:
        """Messages a second from paho, in one of its ways."""
        how = {"channels": self.channels, "size": round(size), "qos": self.qos}
        with (
            self._counter(side) as counter,
            bare_paho(self.folder, self.mqtt_port, side, thread=side == "paho", **how),
        ):
            self._warm_up(counter, "paho")
            return counter.rate(self.seconds)

    def round(self) -> dict[str, float]:
        """All, one after the other."""
        found = {**self.bridge(), **self.pycti()}
        return {**found, **{side: self.paho(side, found["bytes"]) for side in ("paho", "loop")}}

    @contextmanager
    def _counter(self, cycler: str) -> Iterator[Counter]:
        with counting(self.mqtt_port, states(cycler), self.qos, self.folder) as counter:
            yield counter

    def _warm_up(self, counter: Counter, who: str) -> None:
        counter.wait_for(WARM_UP_POLLS * self.channels, who)


def measure(plan: Plan) -> dict[str, Any]:
    """Each number of channels at each QoS."""
    return {
        "channels": {
            str(channels): {f"qos{qos}": measure_one(plan, channels, qos) for qos in QOS} for channels in plan.channels
        }
    }


def measure_one(plan: Plan, channels: int, qos: int) -> dict[str, Any]:
    """All rounds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cti-mqtt-bench-")))
        mqtt_port = stack.enter_context(broker(plan.mosquitto, folder))
        ports, counts = stack.enter_context(ready_cyclers(folder, channels))
        lab = Lab(folder, mqtt_port, ports[0], counts, channels, qos, plan.seconds)
        rounds = [lab.round() for _ in range(plan.rounds)]
    return {
        **{f"{side}_per_s": round(median(rounds, side)) for side in SIDES},
        **medians_of_ratios(rounds, "bridge", SIDES[1:]),
        "arrived": round(median(rounds, "arrived"), 3),
        "payload_bytes": round(median(rounds, "bytes")),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    text = ["ratio of readings a second at the subscriber, polled as fast as it goes, `state` only", ""]
    text.append("| channels | QoS | bridge | pycti | paho | loop | to pycti | to paho | to loop | arrived |")
    text.append("|---|---|---|---|---|---|---|---|---|---|")
    for channels, by_qos in found["channels"].items():
        for qos, one in by_qos.items():
            rates = " | ".join(f"{one[f'{side}_per_s']:,}" for side in SIDES)
            ratios = " | ".join(f"{one[f'bridge_to_{side}']:.2f}" for side in SIDES[1:])
            text.append(f"| {channels} | {qos[3:]} | {rates} | {ratios} | {100 * one['arrived']:.1f} % |")
    return text
