"""Retained commands: a message stored at the broker must not move a battery when the bridge comes back.

MQTT 5: the subscription asks for no stored messages, for the retain flag as it was published, and for none of our own.
So what arrives with the flag is live: a stop is carried out all the same, everything else is refused; both are cleared.

MQTT 3.1.1: what arrives with the flag is a stored replay: refused, also a stop, and cleared. The empty message that
clears it comes back to us without the flag, on a topic where an empty message means "stop": exactly that one is
swallowed. A stored message may also come without its flag there, so in the first moments after subscribing nothing but
a stop is carried out.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from enum import Enum

ECHO_WITHIN_S = 2.0  # an echo that has not come by then will not come; an empty message is a stop again
SETTLE_S = 1.0  # after subscribing: a broker sends what it has stored at once


class Judgement(Enum):
    """What to do with a command message."""

    TAKE = "take"
    TAKE_AND_CLEAR = "take and clear"
    REFUSE = "refuse"
    REFUSE_AND_CLEAR = "refuse and clear"
    REFUSE_EARLY = "refuse, too early"
    SWALLOW = "swallow"

    @property
    def refusal(self) -> str | None:
        """What to answer; None where it is not refused."""
        return _REFUSALS.get(self)


_REFUSALS = {
    **dict.fromkeys(
        (Judgement.REFUSE, Judgement.REFUSE_AND_CLEAR),
        "retained commands are not carried out; publish it without the retain flag",
    ),
    Judgement.REFUSE_EARLY: (
        "what comes in the first moments after subscribing cannot be told from a stored message; "
        "send it again once bridge/availability says online"
    ),
}


class RetainedGuard:
    """Judges the messages of one subscription.

    Args:
        protocol_5: whether MQTT 5 is spoken.
        monotonic: seconds that never jump.
        settle_s: how long after subscribing a message may be a stored one without its flag (3.1.1 only).
    """

    def __init__(self, monotonic: Callable[[], float], *, protocol_5: bool, settle_s: float = SETTLE_S) -> None:
        self._protocol_5 = protocol_5
        self._settle_s = settle_s
        self._settled_at: float | None = None
        self._monotonic = monotonic
        self._cleared: defaultdict[str, deque[float]] = defaultdict(deque)

    def new_connection(self) -> None:
        """Commands are subscribed to, or will be: no echo outlives the subscription before, and nothing is settled."""
        self._cleared.clear()
        self._settled_at = None

    def subscribed(self) -> None:
        """The broker has confirmed the subscriptions to commands."""
        self._settled_at = self._monotonic() + self._settle_s

    def cleared(self, topic: str) -> None:
        """An empty retained message was sent to this topic."""
        if not self._protocol_5:
            self._cleared[topic].append(self._monotonic())

    def judge(self, topic: str, payload: bytes, *, retain: bool, is_stop: bool) -> Judgement:
        """What to do with a message on a command topic."""
        if not retain:
            if not payload and self._is_echo(topic):
                return Judgement.SWALLOW
            return Judgement.TAKE if is_stop or self._settled else Judgement.REFUSE_EARLY
        if not payload:
            # Somebody clears a topic: nothing is stored. To clear it again would set two bridges clearing for ever.
            return Judgement.TAKE if is_stop and self._protocol_5 else Judgement.REFUSE
        if is_stop and self._protocol_5:
            return Judgement.TAKE_AND_CLEAR
        return Judgement.REFUSE_AND_CLEAR

    @property
    def _settled(self) -> bool:
        return self._protocol_5 or (self._settled_at is not None and self._monotonic() >= self._settled_at)

    def _is_echo(self, topic: str) -> bool:
        sent = self._cleared.get(topic)
        while sent:
            if self._monotonic() - sent.popleft() <= ECHO_WITHIN_S:
                return True
        self._cleared.pop(topic, None)
        return False
