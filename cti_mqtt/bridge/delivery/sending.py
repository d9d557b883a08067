"""One poll -> messages on `readings` or `backfill`, and whether the broker has all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from cti_mqtt.bridge import payloads
from cti_mqtt.bridge.delivery.parcels import SentPoll
from cti_mqtt.bridge.mqtt import LOST, PACKET_OVERHEAD, SUSPECT, TOO_LARGE, Settled
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.topics import Topics

LEAST_ROOM = 1024  # smaller parts are not tried: there each channel has a message of its own
SUSPECTED = 2  # connections in a row that were lost over readings, until these are sent in smaller parts
NOT_SENT = "the broker is not reached, or does not keep up"
HOPELESS = 4  # the same with the smallest parts, until no readings are sent for a while
PAUSE_S = 60.0  # of sending readings, so that commands can live


@dataclass(slots=True)
class Tally:
    """The parts of one poll; settled once, when the last of them is."""

    settled: Settled
    open: int
    failure: str | None = None

    def settle(self, failure: str | None) -> None:
        """One part has its end."""
        self.failure = self.failure or failure
        self.open -= 1
        if self.open == 0:
            self.settled(self.failure)

    def give_up(self, parts: int, failure: str) -> None:
        """So many parts do not go out."""
        for _ in range(parts):
            self.settle(failure)


class Sender:
    """Turns polls into messages, and learns what the broker takes.

    Some brokers end the connection over a message that is too large for them, without a word: every one, commands and
    all, as long as it comes again. So where connections in a row end without having taken a poll, polls become smaller.

    Args:
        topics: names.
        offer: hands a message to the broker's connection; whether it could, and then later what became of it.
        max_bytes: how large a payload may be; None: as large as it likes.
        max_packet: the largest packet that the broker takes, None where it did not say.
        now_s: monotonic.
        tell: says in a sentence that readings are sent otherwise than before.
    """

    def __init__(
        self,
        topics: Topics,
        offer: Callable[[Message, Settled], bool],
        max_bytes: int | None,
        max_packet: Callable[[], int | None],
        now_s: Callable[[], float],
        tell: Callable[[SentPoll, str], None],
    ) -> None:
        self._topics = topics
        self._offer = offer
        self._max_bytes = max_bytes
        self._max_packet = max_packet
        self._now_s = now_s
        self._tell = tell
        self._learned: int | None = None
        self._suspected = 0
        self._noted = False
        self._paused_until_s = 0.0

    def messages(self, poll: SentPoll, *, historical: bool) -> list[Message]:
        """What to publish."""
        topic = self._topics.cycler(poll.cycler, "backfill" if historical else "readings")
        room = self._room(topic)
        parts = payloads.readings(poll.ts, poll.boot, poll.seq, poll.fragments, room, historical=historical)
        return [Message(topic, part, qos=1) for part in parts]

    def offer(self, message: Message, settled: Settled) -> bool:
        """Hand over a message, if that can be done just now; `settled` is called only then."""
        return self._now_s() >= self._paused_until_s and self._offer(message, settled)

    def send(self, poll: SentPoll, settled: Settled) -> None:
        """Send a poll live, now or not at all."""
        messages = self.messages(poll, historical=False)
        tally = Tally(settled, len(messages))
        for number, message in enumerate(messages):
            if not self.offer(message, tally.settle):
                tally.give_up(len(messages) - number, NOT_SENT)
                return

    def learn(self, poll: SentPoll, failure: str | None) -> None:
        """What became of a poll."""
        if failure is None:
            self._suspected, self._noted = 0, False
        elif failure == TOO_LARGE:
            self._shrink(poll)
        elif failure in {LOST, SUSPECT} and not self._noted:
            self._noted = True  # once a connection, and only where it has not taken a single poll
            self._suspected += 1
            if self._learned == LEAST_ROOM and self._suspected >= HOPELESS:
                self._paused_until_s = self._now_s() + PAUSE_S
                self._tell(
                    poll,
                    f"{self._suspected} connections in a row were lost over readings, however small: none are sent for "
                    f"{PAUSE_S:g} s, they wait",
                )
            elif self._suspected >= SUSPECTED:
                self._shrink(poll)

    def connected(self) -> None:
        """A new connection."""
        self._noted = False

    def _shrink(self, poll: SentPoll) -> None:
        """Smaller parts from now on, down to one channel each."""
        size = sum(map(len, poll.fragments))
        before, self._learned = self._learned, max(LEAST_ROOM, min(size, self._learned or size) // 2)
        if before != self._learned:
            self._tell(
                poll,
                f"the broker does not take readings of {size} bytes in one message; they are sent in parts of at most "
                f"{self._learned}; set publish.max_bytes to what it takes",
            )

    def _room(self, topic: str) -> int | None:
        max_packet = self._max_packet()
        limits = [self._max_bytes, self._learned, max_packet and max_packet - len(topic) - PACKET_OVERHEAD]
        return min((limit for limit in limits if limit is not None), default=None)
