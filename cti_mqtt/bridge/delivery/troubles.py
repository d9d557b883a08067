"""Polls that the broker did not take again and again let others pass, for longer and longer."""

from dataclasses import dataclass

MOST_FAILURES = 5  # so often a poll is tried before all others; then they come first
DEFERRED_S = 600.0  # until it is tried again; the next time twice as long
LONGEST_DEFERRED_S = 6 * 3600.0


@dataclass(slots=True)
class Trouble:
    """What a poll has gone through.

    Attributes:
        until_s: when it is tried again, monotonic.
    """

    failures: int = 0
    rounds: int = 0
    until_s: float = 0.0

    def note(self, now_s: float) -> bool:
        """It failed once more; whether it is left alone for a while now."""
        self.failures += 1
        if self.failures < MOST_FAILURES:
            return False
        self.failures = 0
        self.until_s = now_s + min(LONGEST_DEFERRED_S, DEFERRED_S * 2**self.rounds)
        self.rounds = min(self.rounds + 1, 16)
        return True


class Troubles:
    """Of polls in the journal, by number."""

    def __init__(self) -> None:
        self._troubles: dict[int, Trouble] = {}

    def note(self, number: int, now_s: float) -> bool:
        """A poll failed; whether it is left alone for a while now."""
        return self._troubles.setdefault(number, Trouble()).note(now_s)

    def over(self, number: int) -> None:
        """It has arrived."""
        self._troubles.pop(number, None)

    def deferred(self, now_s: float) -> frozenset[int]:
        """Which are left alone."""
        return frozenset(number for number, trouble in self._troubles.items() if trouble.until_s > now_s)

    def next_s(self) -> float | None:
        """When the first of those is tried again."""
        return min((trouble.until_s for trouble in self._troubles.values() if trouble.until_s), default=None)

    def keep_only(self, seen: frozenset[int] | set[int]) -> None:
        """All others have left the journal."""
        for number in self._troubles.keys() - seen:
            del self._troubles[number]
