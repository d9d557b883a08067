"""What the benchmarks share: how rounds are summed up, and the machine that they ran on."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cti_mqtt import __version__

Round = Mapping[str, float]


def median(rounds: Sequence[Round], side: str) -> float:
    """Of one side over all rounds."""
    return statistics.median(each[side] for each in rounds)


def medians_of_ratios(rounds: Sequence[Round], side: str, others: Sequence[str]) -> dict[str, Any]:
    """`<side>_to_<other>`: the median of the rounds' ratios, and every round's."""
    found: dict[str, Any] = {}
    for other in others:
        ratios = [each[side] / each[other] for each in rounds]
        found[f"{side}_to_{other}"] = round(statistics.median(ratios), 4)
        found[f"{side}_to_{other}_rounds"] = [round(ratio, 4) for ratio in ratios]
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def ms(seconds: float) -> float:
    """Milliseconds, to the microsecond."""
    return round(1000 * seconds, 3)


def machine() -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "cti_mqtt": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def machine_line(described: Mapping[str, Any]) -> str:
    """The same for people."""
    return f"cti-mqtt {', '.join(str(value) for value in described.values() if value)} cores"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123  # a device, not a path of ours
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
