"""One poll -> messages on `readings` or `backfill`, and whether the broker has all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from cti_mqtt.bridge import payloads
from cti_mqtt.bridge.delivery.parcels import SentPoll
from cti_mqtt.bridge.mqtt import PACKET_OVERHEAD, Settled
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.topics import Topics

LEAST_ROOM = 1024  # smaller parts are not tried


@dataclass(slots=True)
class _Tally:
    """The parts of one poll; settled once, when the last of them is."""

    settled: Settled
    open: int
    failure: str | None = None

    def settle(self, failure: str | None) -> None:
        self.failure = self.failure or failure
        self.open -= 1
        if self.open == 0:
            self.settled(self.failure)


class Sender:
    """Sends polls.

    Args:
        topics: names.
        offer: hands a message to the broker's connection; whether it could, and then later what became of it.
        max_bytes: how large a payload may be; None: as large as it likes.
        max_packet: the largest packet that the broker takes, None where it did not say.
    """

    def __init__(
        self,
        topics: Topics,
        offer: Callable[[Message, Settled], bool],
        max_bytes: int | None,
        max_packet: Callable[[], int | None],
    ) -> None:
        self._topics = topics
        self._offer = offer
        self._max_bytes = max_bytes
        self._max_packet = max_packet
        self._learned: int | None = None

    def send(self, poll: SentPoll, settled: Settled, *, historical: bool) -> bool:
        """Send a poll; False: nothing of it went out, and `settled` is not called."""
        topic = self._topics.cycler(poll.cycler, "backfill" if historical else "readings")
        room = self._room(topic)
        parts = list(payloads.readings(poll.ts, poll.boot, poll.seq, poll.fragments, room, historical=historical))
        tally = _Tally(settled, len(parts))
        for number, part in enumerate(parts):
            if self._offer(Message(topic, part, qos=1), tally.settle):
                continue
            if number == 0:
                return False
            for _ in parts[number:]:
                tally.settle("only a part of it could be handed to the connection")
            break
        return True

    def shrink(self, poll: SentPoll) -> None:
        """The broker called it too large: smaller parts from now on, down to one channel each."""
        size = sum(map(len, poll.fragments))
        self._learned = max(LEAST_ROOM, min(size, self._learned or size) // 2)

    def _room(self, topic: str) -> int | None:
        max_packet = self._max_packet()
        limits = [self._max_bytes, self._learned, max_packet and max_packet - len(topic) - PACKET_OVERHEAD]
        return min((limit for limit in limits if limit is not None), default=None)
