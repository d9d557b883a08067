"""What a running process costs, as Linux counts it."""

import time
from pathlib import Path

_SCHEDULED = 2  # of the clocks of a process: time on a processor


def cpu_s(pid: int) -> float:
    """Processor time of a process since it began, all its threads, to the nanosecond; /proc counts hundredths only."""
    return time.clock_gettime((~pid << 3) | _SCHEDULED)  # as clock_getcpuclockid(3) makes it


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory in MB: now, and the most that it has been."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    kilobytes = {line[:5]: int(line.split()[1]) for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM"))}
    return {name: round(kilobytes[key] * 1024 / 1e6, 1) for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}
