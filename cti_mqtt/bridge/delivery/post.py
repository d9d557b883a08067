"""Everything that readings need on their way to the broker, put together."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from cti_mqtt import config
from cti_mqtt.bridge.bus import Bus, Happening, Poll
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.delivery.backfill import Backfill
from cti_mqtt.bridge.delivery.delivery import Delivery
from cti_mqtt.bridge.delivery.late import LateSender
from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.pace import Pace
from cti_mqtt.bridge.delivery.parcels import Parcel, SentPoll, WaitingRoom
from cti_mqtt.bridge.delivery.replay import Replayer
from cti_mqtt.bridge.delivery.sending import NOT_SENT, Sender
from cti_mqtt.bridge.journal import Gap, Gaps, Journal, Lost
from cti_mqtt.bridge.mqtt import LOST, SUSPECT, MqttLink
from cti_mqtt.bridge.topics import Topics

log = logging.getLogger(__name__)

REFUSED_AGAIN_S = 60.0  # a broker that refuses readings is told of so often, for each of its reasons
RESTART_WAIT_S = 2.0  # after a bug, not to fill the log


class ReadingsPost:
    """Takes polls and sees to it that the broker gets them, now or later; `run` must be running.

    Args:
        settings: where the journal is and how much it may hold; how fast late readings go out.
        topics: names.
        link: the broker.
        bus: where is told what was lost or refused.
        clock: stamps and ages.
        boot: this run of the bridge.
        interval_s: how often a cycler is polled.

    Attributes:
        replayer: sends a range again.
    """

    def __init__(
        self,
        settings: config.Config,
        topics: Topics,
        link: MqttLink,
        bus: Bus,
        clock: Clock,
        boot: str,
        interval_s: Callable[[str], float],
    ) -> None:
        self._link = link
        self._bus = bus
        self._clock = clock
        self._gaps = Gaps(self._tell)  # of what waited in memory
        self._journal: Journal | None = None
        if settings.data_dir is not None and settings.journal_on:
            self._journal = Journal(settings.data_dir, settings.journal, boot, clock, self._tell)
        self._lost = 0
        self._waiting = WaitingRoom(self._lose)
        self._told: dict[str, float] = {}
        self._marks = marks = Marks(self._journal)
        self._sender = sender = Sender(
            topics, link.offer, settings.publish.max_bytes, lambda: link.max_packet, clock.monotonic, self._say
        )
        late = LateSender(sender, Pace(settings.journal.backfill_per_s), lambda: link.connected)
        self._backfill = Backfill(late, self._journal, marks, self._waiting, lambda: link.connected, self._settled)
        self._delivery = Delivery(
            sender, self._journal, marks, self._waiting, boot, interval_s, self._settled, self._backfill.wake
        )
        self.replayer = Replayer(late, self._journal, marks, self._settled)

    # --- figures for the verdict on health ---

    @property
    def problem(self) -> str:
        """Why the journal cannot be written; '' if it can, or there is none."""
        return self._journal.problem if self._journal else ""

    @property
    def waiting(self) -> int:
        """How many polls wait to be sent late; what is on its way just now is the link's to count."""
        kept = max(0, self._journal.waiting - len(self._marks)) if self._journal else 0
        return len(self._waiting) + kept

    @property
    def dropped(self) -> int:
        """How many polls were given up."""
        return self._lost + (self._journal.dropped if self._journal else 0)

    @property
    def filled(self) -> float:
        """How full the journal is, of what the broker has not got; from 0 to 1."""
        return self._journal.filled if self._journal else 0.0

    # --- the way ---

    def take(self, poll: Poll, fragments: Sequence[bytes]) -> None:
        """A new poll, and its readings as JSON, one text a channel."""
        self._delivery.take(poll, fragments)

    def connected(self) -> None:
        """The broker is there, and everything retained went out."""
        self._sender.connected()
        self._delivery.connected()
        self._backfill.wake()

    async def open(self) -> None:
        """Open the journal; trouble with the disk is never raised."""
        if self._journal is not None:
            await self._journal.open()

    async def run(self) -> None:
        """Send what waits, and keep the journal within its bounds, until cancelled."""
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._backfill.run(), name="backfill")
                    if self._journal is not None:
                        tasks.create_task(self._journal.run(), name="journal")
            except* Exception:  # cancellation passes
                log.exception("readings that wait: unexpected error, starting again")
            await asyncio.sleep(RESTART_WAIT_S)

    def tell_losses(self) -> None:
        """Say now what was given up."""
        self._gaps.tell()

    async def close(self) -> None:
        """When the link has ended: note what has arrived, and write what still waits in memory."""
        if told := self._marks.tell():
            await asyncio.wait([told])
        if self._journal is not None:
            while parcel := self._waiting.take():
                self._journal.add(parcel.cycler, parcel.seq, parcel.ts, parcel.fragments)
            await self._journal.close()
        if lost := len(self._waiting):
            log.warning("%d polls that the broker has not got end with the bridge: there is no journal", lost)

    # --- what went wrong ---

    def _lose(self, parcel: Parcel) -> None:
        self._lost += 1
        why = "neither the broker nor the disk took them, and the memory for them is full"
        if self._journal is None:
            why = "the broker did not take them, there is no journal, and the memory for them is full"
        self._gaps.add([Lost(parcel.number or 0, parcel.cycler, parcel.boot, parcel.seq, why)])

    def _tell(self, gap: Gap) -> None:
        span = {"boot": gap.boot, "from_seq": gap.from_seq, "to_seq": gap.to_seq, "polls": gap.polls}
        message = f"readings {gap.from_seq} to {gap.to_seq} of boot {gap.boot} are lost: {gap.why}"
        self._bus.publish(Happening(stamp(self._clock.now()), "gap", message, gap.cycler, after=span))

    def _settled(self, poll: SentPoll, failure: str | None) -> None:
        """A poll has its end, this time."""
        self._sender.learn(poll, failure)
        if failure in {None, LOST, SUSPECT, NOT_SENT}:
            return
        now_s = self._clock.monotonic()
        if now_s - self._told.get(str(failure), -REFUSED_AGAIN_S) < REFUSED_AGAIN_S:
            return
        self._told[str(failure)] = now_s
        self._say(
            poll, f"the broker refused readings (seq {poll.seq} of boot {poll.boot}): {failure}; they are sent again"
        )

    def _say(self, poll: SentPoll, message: str) -> None:
        log.warning("%s: %s", poll.cycler, message)
        self._bus.publish(Happening(stamp(self._clock.now()), "publish_refused", message, poll.cycler))
