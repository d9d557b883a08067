"""Retained commands: a message stored at the broker must not move a battery when the bridge comes back.

MQTT 5: the subscription asks for no stored messages, for the retain flag as it was published, and for none of our own.
So what arrives with the flag is live: a stop is carried out all the same, everything else is refused; both are cleared.

MQTT 3.1.1: what arrives with the flag is a stored replay: refused, also a stop, and cleared. The empty message that
clears it comes back to us without the flag, on a topic where an empty message means "stop": exactly that one is
swallowed.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from enum import Enum

ECHO_WITHIN_S = 2.0  # an echo that has not come by then will not come; an empty message is a stop again


class Judgement(Enum):
    """What to do with a command message."""

    TAKE = "take"
    TAKE_AND_CLEAR = "take and clear"
    REFUSE = "refuse"
    REFUSE_AND_CLEAR = "refuse and clear"
    SWALLOW = "swallow"


class RetainedGuard:
    """Judges one connection's messages.

    Args:
        protocol_5: whether MQTT 5 is spoken.
        monotonic: seconds that never jump.
    """

    def __init__(self, monotonic: Callable[[], float], *, protocol_5: bool) -> None:
        self._protocol_5 = protocol_5
        self._monotonic = monotonic
        self._cleared: defaultdict[str, deque[float]] = defaultdict(deque)

    def new_connection(self) -> None:
        """No echo outlives its connection."""
        self._cleared.clear()

    def cleared(self, topic: str) -> None:
        """An empty retained message was sent to this topic."""
        if not self._protocol_5:
            self._cleared[topic].append(self._monotonic())

    def judge(self, topic: str, payload: bytes, *, retain: bool, is_stop: bool) -> Judgement:
        """What to do with a message on a command topic."""
        if not retain:
            return Judgement.SWALLOW if not payload and self._is_echo(topic) else Judgement.TAKE
        if not payload:
            # Somebody clears a topic: nothing is stored. To clear it again would set two bridges clearing for ever.
            return Judgement.TAKE if is_stop and self._protocol_5 else Judgement.REFUSE
        if is_stop and self._protocol_5:
            return Judgement.TAKE_AND_CLEAR
        return Judgement.REFUSE_AND_CLEAR

    def _is_echo(self, topic: str) -> bool:
        sent = self._cleared.get(topic)
        while sent:
            if self._monotonic() - sent.popleft() <= ECHO_WITHIN_S:
                return True
        self._cleared.pop(topic, None)
        return False
