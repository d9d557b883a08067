"""What waits for the broker: bounded, in order, the latest of each retained topic.

- retained: the latest message of each topic is kept, and published again after each connection; beyond the bound a new
  topic is published and not kept;
- QoS 1: waits in a bounded backlog; the oldest are dropped and counted;
- QoS 0, not retained, or not worth keeping: dropped and counted.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

MOST_LOSSES = 5
LARGE = 1024  # bytes of a retained payload; a smaller one is not why a connection was lost
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
MAX_BACKLOG = 100_000  # messages, however small
MAX_RETAINED = 250_000  # topics: twenty cyclers of the largest kind, with all that a channel can have
MAX_RETAINED_BYTES = 256 * 1024 * 1024
MOST_AT_ONCE = 500  # messages that are handed over before others get their turn


class Message(NamedTuple):
    """Something to publish; a named tuple, since there is one for each channel of each poll.

    Attributes:
        expiry_s: how long it is worth having (MQTT 5 only).
        correlation: what a requester uses to recognise the answer (MQTT 5 only).
        keep: whether it is worth sending later if it cannot be sent now.
        urgent: whether somebody waits for it: it is written to the socket at once, not with what else comes.
        losses: how many connections were lost while it was the oldest that the broker had not confirmed.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    expiry_s: int | None = None
    correlation: bytes | None = None
    keep: bool = True
    urgent: bool = False
    losses: int = 0


class Outbox:
    """Messages on their way out.

    Args:
        is_open: whether this message can be handed over just now.
        hand_over: hands a message to the connection; whether that worked.
        max_backlog_bytes: how much may wait.
        max_retained_bytes: how much of what is retained may be kept.
        on_drop: called with a number of messages and why they were given up, where nobody would miss them otherwise.

    Attributes:
        dropped: messages that were given up.
    """

    def __init__(
        self,
        is_open: Callable[[Message], bool],
        hand_over: Callable[[Message], bool],
        max_backlog_bytes: int = MAX_BACKLOG_BYTES,
        max_retained_bytes: int = MAX_RETAINED_BYTES,
        on_drop: Callable[[int, str], None] = lambda _count, _why: None,
    ) -> None:
        self.dropped = 0
        self._is_open = is_open
        self._hand_over = hand_over
        self._max_backlog_bytes = max_backlog_bytes
        self._max_retained_bytes = max_retained_bytes
        self._on_drop = on_drop
        self._retained: dict[str, Message] = {}
        self._retained_bytes = 0
        self._outdated: OrderedDict[str, None] = OrderedDict()  # its first is found at once, a dict looks past the gone
        self._backlog: deque[Message] = deque()
        self._backlog_bytes = 0

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._backlog) + len(self._outdated)

    def put(self, message: Message) -> bool:
        """Hand a message over, or keep it as its kind deserves; whether it was handed over."""
        kept = message.retain and message.keep and self._retain(message)
        overtakes = not self._backlog or message.retain or message.qos == 0
        if overtakes and self._is_open(message) and self._hand_over(message):
            self._outdated.pop(message.topic, None)
            return True
        self._set_aside(message, kept=kept)
        return False

    def _retain(self, message: Message) -> bool:
        """Remember the latest of a topic; whether there was room."""
        before = self._retained.get(message.topic)
        grows = len(message.payload) - (len(before.payload) if before else 0)
        too_much = self._retained_bytes + max(0, grows) > self._max_retained_bytes
        if too_much or (before is None and len(self._retained) >= MAX_RETAINED):
            self.forget(message.topic)  # what is older must not come back after it
            return False
        self._retained[message.topic] = message
        self._retained_bytes += grows
        return True

    def _set_aside(self, message: Message, *, kept: bool) -> None:
        if kept:
            self._outdated[message.topic] = None
        elif message.keep and message.qos and not message.retain:
            self._backlog.append(message)
            self._backlog_bytes += len(message.payload)
            self._trim()
        else:
            self.dropped += 1
            if message.retain and message.keep:
                self._on_drop(1, f"too many retained topics to keep another; it was {message.topic}")

    def _trim(self) -> None:
        count = 0
        while self._backlog_bytes > self._max_backlog_bytes or len(self._backlog) > MAX_BACKLOG:
            self._backlog_bytes -= len(self._backlog.popleft().payload)
            count += 1
        if count:
            self.dropped += count
            self._on_drop(count, "too much waits for the broker; the oldest went first")

    def waits(self, topic: str) -> bool:
        """Whether the latest message of a retained topic has not been handed over yet."""
        return topic in self._outdated

    def forget(self, topic: str) -> None:
        """Publish a retained topic no more."""
        self._outdated.pop(topic, None)
        if message := self._retained.pop(topic, None):
            self._retained_bytes -= len(message.payload)

    def take_back(self, messages: Iterable[Message]) -> None:
        """Messages whose connection ended before the broker had them: they come first again."""
        messages = list(messages)
        self._suspect(next((message for message in messages if message.qos), None))
        lost = [message for message in messages if message.keep and message.qos and not message.retain]
        if lost:
            lost[0] = lost[0]._replace(losses=lost[0].losses + 1)
            if lost[0].losses >= MOST_LOSSES:  # it may be why: a message that the broker will not take
                self.dropped += 1
                self._on_drop(1, f"{MOST_LOSSES} connections were lost over it; it was for {lost[0].topic}")
                del lost[0]
        self._backlog.extendleft(reversed(lost))
        self._backlog_bytes += sum(len(message.payload) for message in lost)
        self._trim()

    def _suspect(self, oldest: Message | None) -> None:
        """A retained message that each connection breaks at is given up; without it the others have a chance."""
        if oldest is None or len(oldest.payload) <= LARGE or self._retained.get(oldest.topic) is not oldest:
            return
        if oldest.losses + 1 < MOST_LOSSES:
            self._retained[oldest.topic] = oldest._replace(losses=oldest.losses + 1)
            return
        self.dropped += 1
        self.forget(oldest.topic)
        self._on_drop(1, f"{MOST_LOSSES} connections were lost over it; it was for {oldest.topic}")

    def begin_anew(self) -> None:
        """A new connection: everything retained is to go out again."""
        self._outdated = OrderedDict.fromkeys(self._retained)

    def drain(self, most: int = MOST_AT_ONCE) -> bool:
        """Hand over what waits, as far as it can be: retained topics first, then the backlog in order.

        Args:
            most: messages; the event loop has other work, too.

        Returns:
            whether more could be handed over at once.
        """
        for _ in range(most):
            if not self._drain_one():
                return False
        return bool(self)

    def _drain_one(self) -> bool:
        if self._outdated:
            topic = next(iter(self._outdated))
            message = self._retained[topic]
            if not self._is_open(message) or not self._hand_over(message):
                return False
            del self._outdated[topic]
            return True
        if not self._backlog or not self._is_open(self._backlog[0]) or not self._hand_over(self._backlog[0]):
            return False
        self._backlog_bytes -= len(self._backlog.popleft().payload)
        return True
