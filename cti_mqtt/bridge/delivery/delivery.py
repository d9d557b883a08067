"""From the poll to the broker's acknowledgement: no reading is lost on this way while disk or memory has room.

Each poll is written to the journal first and sent when that is done, but never later than one interval: a slow disk
holds nothing up. So long the very first ones wait for the connection, too. What the broker acknowledged is marked as
delivered; what it did not is left to `backfill`, in the journal, or in memory where the disk does not take it.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial

from cti_mqtt.bridge.bus import Poll
from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.parcels import Parcel, WaitingRoom
from cti_mqtt.bridge.delivery.sending import Sender
from cti_mqtt.bridge.journal import Journal


class Delivery:
    """Takes each poll and sees to it that the broker gets it.

    Args:
        sender: sends one poll.
        journal: where polls are on disk; None: nowhere.
        marks: which polls of the journal are on their way, or have arrived.
        waiting: where polls wait that are not on disk.
        boot: this run of the bridge.
        interval_s: how often a cycler is polled.
        tell: told what became of each poll.
        fell_behind: called when something has to be sent late.
    """

    def __init__(
        self,
        sender: Sender,
        journal: Journal | None,
        marks: Marks,
        waiting: WaitingRoom,
        boot: str,
        interval_s: Callable[[str], float],
        tell: Callable[[Parcel, str | None], None],
        fell_behind: Callable[[], None],
    ) -> None:
        self._sender = sender
        self._journal = journal
        self._marks = marks
        self._waiting = waiting
        self._boot = boot
        self._interval_s = interval_s
        self._tell = tell
        self._fell_behind = fell_behind
        self._was_connected = False
        self._lines: defaultdict[str, deque[Parcel]] = defaultdict(deque)

    def take(self, poll: Poll, fragments: Sequence[bytes]) -> None:
        """A new poll: on record, and then to the broker."""
        parcel = Parcel(poll.cycler, self._boot, poll.seq, poll.ts, tuple(fragments))
        line = self._lines[poll.cycler]
        line.append(parcel)
        loop = asyncio.get_running_loop()
        parcel.timer = loop.call_later(self._interval_s(poll.cycler), self._send_overdue, line, parcel)
        if self._journal is None:
            parcel.written = True
            self._send_line(line)
        else:
            late = partial(self._written_late, parcel)
            asked = self._journal.add(parcel.cycler, parcel.seq, parcel.ts, parcel.fragments, late)
            asked.add_done_callback(partial(self._written, line, parcel))

    def connected(self) -> None:
        """The broker is there: what the first moments brought goes out as what it is, live."""
        self._was_connected = True
        for line in self._lines.values():
            self._send_line(line)

    # --- written ahead ---

    def _written(self, line: "deque[Parcel]", parcel: Parcel, asked: "asyncio.Future[int]") -> None:
        parcel.written, was_settled = True, parcel.settled
        if not asked.cancelled() and asked.exception() is None:
            parcel.number = asked.result()
            self._marks.sending(parcel.number)
        self._send_line(line)
        if was_settled:
            self._conclude(parcel)

    def _written_late(self, parcel: Parcel, number: int) -> None:
        """The disk has it after all, when nobody believed that any more."""
        parcel.number = number
        self._waiting.remove(parcel)
        if parcel.settled:
            self._marks.settled(number, delivered=parcel.failure is None)
            self._fell_behind()
        else:
            self._marks.sending(number)

    def _send_overdue(self, line: "deque[Parcel]", parcel: Parcel) -> None:
        """Disk or broker take longer than a poll: what waits up to here goes out now."""
        while line and not parcel.sent:
            self._send(line.popleft())

    def _send_line(self, line: "deque[Parcel]") -> None:
        """Send what is on record, in order."""
        while self._was_connected and line and line[0].written:
            self._send(line.popleft())

    # --- sent ---

    def _send(self, parcel: Parcel) -> None:
        parcel.sent = True
        if parcel.timer is not None:
            parcel.timer.cancel()
        self._sender.send(parcel, partial(self._settled, parcel))

    def _settled(self, parcel: Parcel, failure: str | None) -> None:
        parcel.settled, parcel.failure = True, failure
        self._tell(parcel, failure)
        self._conclude(parcel)

    def _conclude(self, parcel: Parcel) -> None:
        """What is left to do once both are known: whether it is on disk, and whether the broker has it."""
        if not (parcel.written and parcel.settled):
            return
        if parcel.number is not None:
            self._marks.settled(parcel.number, delivered=parcel.failure is None)
        elif parcel.failure is not None:
            self._waiting.add(parcel)
        if parcel.failure is not None:
            self._fell_behind()
