"""How long to wait before trying again."""

import random
from collections.abc import Callable

SHORTEST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


class Backoff:
    """How long to wait before the next attempt: doubling, with jitter so that many clients do not come at once.

    Args:
        shortest_s: the first wait, and the least of any.
        longest_s: the most.
        uniform: random source, `random.uniform` or its like.
    """

    def __init__(
        self,
        shortest_s: float = SHORTEST_WAIT_S,
        longest_s: float = LONGEST_WAIT_S,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._uniform = uniform
        self._ceiling_s = 2 * shortest_s

    def next_s(self) -> float:
        """Seconds to wait now."""
        wait_s = self._uniform(self._ceiling_s / 2, self._ceiling_s)
        self._ceiling_s = min(self._longest_s, 2 * self._ceiling_s)
        return wait_s

    def reset(self) -> None:
        """All is well: begin with the shortest wait again."""
        self._ceiling_s = 2 * self._shortest_s
