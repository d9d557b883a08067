"""When a cycler is polled: each has its own place in the interval, so that many are not polled at once; pure.

Beats lie at `(k + phase) * interval` on a clock that never jumps. So what a poll took, or when a session began, moves
none of them.
"""

import math
from collections.abc import Collection
from itertools import count
from typing import NamedTuple

GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, without their whole parts, never come close, however many there are


class Beat(NamedTuple):
    """The next poll.

    Attributes:
        due_s: when.
        skipped: how many beats have passed without one, since the last poll took longer than an interval.
    """

    due_s: float
    skipped: int


def free_phase(taken: Collection[float]) -> float:
    """A part of the interval, from 0 to 1, for one more cycler: apart from all others, which stay where they are.

    Args:
        taken: the phases of the others, as they came from here.
    """
    phases = (place * GOLDEN % 1.0 for place in count())
    return next(phase for phase in phases if phase not in taken)


def next_beat(due_s: float, now_s: float, interval_s: float, phase: float) -> Beat:
    """When to poll again, not before now; beats that have passed are not made up for.

    Args:
        due_s: when the last poll was due. It need not lie on a beat; then one that follows within half an interval is
            left out.
        now_s: when it was over.
        interval_s: between beats.
        phase: which part of an interval they are late.
    """
    beat = math.ceil(max(due_s / interval_s + 0.5, now_s / interval_s) - phase)
    intervals = math.ceil((now_s - due_s) / interval_s)
    return Beat((beat + phase) * interval_s, max(0, intervals - 1))
