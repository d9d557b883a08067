"""A channel that is to be stopped: who waits for it, and what is known of it so far; pure."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cti_mqtt.bridge.bus import Quality, Reading
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.bridge.verdict import Outcome, Verdict
from cti_mqtt.cti.results import StopResult

Tell = Callable[[int, Verdict], None]


def shows_rest(reading: Reading) -> bool:
    """Whether a reading proves that no test is under way: not where the cycler itself has lost the channel."""
    return not in_test(reading.record.status) and reading.quality is not Quality.COMM_LOST


@dataclass(slots=True)
class Wish:
    """Somebody who waits for a stop, and until when (monotonic)."""

    until_s: float
    tell: Tell


@dataclass(slots=True)
class Target:
    """A channel that is to be stopped.

    Attributes:
        asked_s: when that was asked for last, monotonic.
        before: what it showed when it was asked for first.
        wishes: who waits for it, the oldest first.
        insist_until_s: when a stop that nobody waits for, but that has to be, raises the alarm; None: there is none.
        watch_until_s: until when it goes on although nobody waits any more: a start may still be on its way.
        sent_s: when it was sent first and last, monotonic; None before that.
        in_flight: how many were sent and are not answered.
        verdict: what the last answer said.
        doubt: whether one was sent whose outcome is not known: it may have worked.
        accepted_s: when the cycler said yes last.
    """

    channel: int
    asked_s: float
    before: Reading | None
    wishes: deque[Wish] = field(default_factory=deque)
    insist_until_s: float | None = None
    watch_until_s: float | None = None
    done: list[Callable[[str], None]] = field(default_factory=list)
    sent_s: tuple[float, float] | None = None
    in_flight: int = 0
    verdict: Verdict | None = None
    doubt: bool = False
    accepted_s: float | None = None

    @property
    def said_not_running(self) -> bool:
        """Whether the cycler answered so last."""
        return self.verdict is not None and self.verdict.code == StopResult.NOT_RUNNING

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for it, or it has to be."""
        return bool(self.wishes) or self.insist_until_s is not None

    def take_overdue(self, now_s: float) -> list[Wish]:
        """Those who have waited long enough; they are told once."""
        overdue = []
        while self.wishes and self.wishes[0].until_s <= now_s:
            overdue.append(self.wishes.popleft())
        return overdue

    def hear(self, verdict: Verdict, now_s: float) -> None:
        """Take an answer."""
        self.in_flight = max(0, self.in_flight - 1)
        if verdict.outcome is Outcome.REFUSED and self.verdict is not None:
            return  # not sent this time: what is known stays known
        self.verdict = verdict
        self.doubt |= verdict.outcome is Outcome.UNKNOWN
        if verdict.outcome is Outcome.SUCCEEDED:
            self.accepted_s = now_s
