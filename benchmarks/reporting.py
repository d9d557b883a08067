"""What the benchmarks share: their options, which are the same for all, and the machine that they ran on."""

import argparse
import os
import platform
from collections.abc import Mapping
from typing import Any

from cti_mqtt import __version__


def parser(description: str, *, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """The options, with a benchmark's own defaults."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=rounds, help=f"of each side, in turn (default {rounds})")
    options.add_argument("--seconds", type=float, default=seconds, help=f"per round and side (default {seconds:g})")
    options.add_argument("--json", action="store_true", help="everything as JSON")
    return options


def parsed(options: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, checked; ends the program where it makes no sense."""
    found = options.parse_args()
    if found.rounds < 1 or not 0 < found.seconds < float("inf"):
        options.error("--rounds must be at least 1 and --seconds more than 0")
    return found


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
