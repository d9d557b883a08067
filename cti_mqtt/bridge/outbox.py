"""What waits for the broker: bounded, in order, the latest of each retained topic.

- retained: the latest message of each topic is kept, and published again after each connection;
- QoS 1: waits in a bounded backlog; the oldest are dropped and counted;
- QoS 0, not retained, or not worth keeping: dropped and counted.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

log = logging.getLogger(__name__)

MOST_LOSSES = 5
MAX_BACKLOG_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """Something to publish.

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
        is_open: whether a message can be handed over just now.
        hand_over: hands a message to the connection; whether that worked.
        max_backlog_bytes: how much may wait.

    Attributes:
        dropped: messages that were given up.
    """

    def __init__(
        self,
        is_open: Callable[[], bool],
        hand_over: Callable[[Message], bool],
        max_backlog_bytes: int = MAX_BACKLOG_BYTES,
    ) -> None:
        self.dropped = 0
        self._is_open = is_open
        self._hand_over = hand_over
        self._max_backlog_bytes = max_backlog_bytes
        self._retained: dict[str, Message] = {}
        self._outdated: dict[str, None] = {}
        self._backlog: deque[Message] = deque()
        self._backlog_bytes = 0

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._backlog) + len(self._outdated)

    def put(self, message: Message) -> bool:
        """Hand a message over, or keep it as its kind deserves; whether it was handed over."""
        if message.retain and message.keep:
            self._retained[message.topic] = message
        overtakes = not self._backlog or message.retain or message.qos == 0
        if overtakes and self._is_open() and self._hand_over(message):
            self._outdated.pop(message.topic, None)
            return True
        self._set_aside(message)
        return False

    def _set_aside(self, message: Message) -> None:
        if not message.keep or (message.qos == 0 and not message.retain):
            self.dropped += 1
        elif message.retain:
            self._outdated[message.topic] = None
        else:
            self._backlog.append(message)
            self._backlog_bytes += len(message.payload)
            self._trim()

    def _trim(self) -> None:
        while self._backlog_bytes > self._max_backlog_bytes:
            self._backlog_bytes -= len(self._backlog.popleft().payload)
            self.dropped += 1

    def take_back(self, messages: Iterable[Message]) -> None:
        """Messages whose connection ended before the broker had them: they come first again."""
        lost = [message for message in messages if message.keep and message.qos and not message.retain]
        if lost:
            lost[0] = replace(lost[0], losses=lost[0].losses + 1)
            if lost[0].losses >= MOST_LOSSES:  # it may be why: a message that the broker will not take
                log.error("given up after %d lost connections: a message on %s", MOST_LOSSES, lost[0].topic)
                self.dropped += 1
                del lost[0]
        self._backlog.extendleft(reversed(lost))
        self._backlog_bytes += sum(len(message.payload) for message in lost)
        self._trim()

    def begin_anew(self) -> None:
        """A new connection: everything retained is to go out again."""
        self._outdated = dict.fromkeys(self._retained)

    def drain(self) -> None:
        """Hand over what waits, as far as it can be: retained topics first, then the backlog in order."""
        while self._outdated and self._is_open():
            topic = next(iter(self._outdated))
            if not self._hand_over(self._retained[topic]):
                return
            del self._outdated[topic]
        while self._backlog and self._is_open():
            if not self._hand_over(self._backlog[0]):
                return
            self._backlog_bytes -= len(self._backlog.popleft().payload)
