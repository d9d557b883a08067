"""How old a command may become; pure."""

import math
from datetime import datetime

from cti_mqtt.bridge.orders import Order

CLOCK_SKEW_S = 2.0


class Deadline:
    """Until when a command may be sent. Only its receipt is held against the time of day; from then on it is counted.

    Args:
        order: with its own times.
        received_at: wall time.
        received_s: the same moment, monotonic.
        expiry_s: MQTT 5 message expiry, as it was left on receipt.
        max_age_s: how old a command with `issued_at` alone may be.
    """

    def __init__(
        self, order: Order, received_at: datetime, received_s: float, expiry_s: int | None, max_age_s: float
    ) -> None:
        self._ahead_s = 0.0
        limits = []
        if order.issued_at is not None:
            self._ahead_s = (order.issued_at - received_at).total_seconds()
            limits.append(self._ahead_s + (max_age_s if order.ttl_s is None else order.ttl_s))
        elif order.ttl_s is not None:
            limits.append(order.ttl_s)
        if expiry_s is not None:
            limits.append(float(expiry_s))
        self._until_s = received_s + min(limits) if limits else math.inf

    def expired(self, now_s: float) -> str | None:
        """Why it is too late at this monotonic time, None if it is not."""
        if now_s <= self._until_s:
            return None
        return f"too late by {now_s - self._until_s:.1f} s; nothing was sent"

    def skewed(self) -> str | None:
        """Why the sender's clock cannot be right, None if it can."""
        if self._ahead_s <= CLOCK_SKEW_S:
            return None
        return f"issued_at is {self._ahead_s:.1f} s in the future; set the clocks of sender and bridge"
