"""Polls that are sent once more because a consumer asks for them: the verb `replay`."""

import asyncio
from collections.abc import Callable
from functools import partial

from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.pace import Pace
from cti_mqtt.bridge.delivery.sending import Sender
from cti_mqtt.bridge.journal import Journal, KeptPoll
from cti_mqtt.bridge.verdict import Outcome, Verdict, refused
from cti_mqtt.errors import StorageError

PORTION = 20  # polls that are read from the journal together
MAX_POLLS = 10_000  # in one request
CONGESTED_S = 0.1  # until a connection that takes no more is tried again
MOST_SPANS = 8  # that are named in a message


class Replayer:
    """Sends a range again, on `backfill`.

    Args:
        sender: sends one poll.
        journal: where they are kept; None: nowhere.
        marks: is told what has arrived.
        pace: how fast, together with the backfill.
        is_connected: whether the broker is there.
    """

    def __init__(
        self,
        sender: Sender,
        journal: Journal | None,
        marks: Marks,
        pace: Pace,
        is_connected: Callable[[], bool],
    ) -> None:
        self._sender = sender
        self._journal = journal
        self._marks = marks
        self._pace = pace
        self._is_connected = is_connected
        self._busy: set[str] = set()

    async def replay(self, cycler: str, boot: str, from_seq: int, to_seq: int) -> Verdict:
        """Send again what is kept of the range; here when the broker has all of it."""
        if self._journal is None:
            why = "this bridge keeps no journal (data_dir, journal.enabled, publish.readings)"
            return Verdict(Outcome.FAILED, None, "not_kept", why)
        if to_seq - from_seq >= MAX_POLLS:
            return refused("limit", f"at most {MAX_POLLS} polls in one replay; ask for the range in parts")
        if cycler in self._busy:
            return refused("busy", f"a replay of {cycler} is not finished")
        self._busy.add(cycler)
        try:
            return await self._replay(self._journal, cycler, boot, from_seq, to_seq)
        except StorageError as error:
            return Verdict(Outcome.FAILED, None, "storage", f"the journal cannot be read: {error}")
        finally:
            self._busy.discard(cycler)

    async def _replay(self, journal: Journal, cycler: str, boot: str, from_seq: int, to_seq: int) -> Verdict:
        missing: list[tuple[int, int]] = []
        sent: list[asyncio.Future[str | None]] = []
        following = from_seq
        while polls := await journal.span(cycler, boot, following, to_seq, PORTION):
            for poll in polls:
                if poll.seq > following:
                    missing.append((following, poll.seq - 1))
                following = poll.seq + 1
                if (settled := await self._send(poll)) is None:
                    return _broken_off(len(sent))
                sent.append(settled)
        if following <= to_seq:
            missing.append((following, to_seq))
        failures = [failure for failure in await asyncio.gather(*sent) if failure is not None]
        if failures:
            return Verdict(
                Outcome.FAILED, None, "not_delivered",
                f"{len(failures)} of {len(sent)} polls did not reach the broker: {failures[0]}",
            )  # fmt: skip
        if not missing:
            return Verdict(Outcome.SUCCEEDED, None, "ok", f"{len(sent)} polls sent again")
        return Verdict(Outcome.FAILED, None, "not_kept", await self._what_is_kept(journal, cycler, len(sent), missing))

    async def _what_is_kept(self, journal: Journal, cycler: str, sent: int, missing: list[tuple[int, int]]) -> str:
        kept = [f"{span.from_seq} to {span.to_seq} of boot {span.boot}" for span in await journal.kept(cycler)]
        return (
            f"{sent} polls sent again; seq {_some([f'{first} to {last}' for first, last in missing])} are not kept; "
            f"kept of {cycler}: {_some(kept) or 'nothing'}"
        )

    async def _send(self, poll: KeptPoll) -> "asyncio.Future[str | None] | None":
        """Its end, later; None: the broker has gone."""
        settled: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        await self._pace.turn()
        while self._is_connected():
            if self._sender.send(poll, partial(self._settled, poll, settled), historical=True):
                return settled
            await asyncio.sleep(CONGESTED_S)
        self._pace.landed()
        return None

    def _settled(self, poll: KeptPoll, settled: "asyncio.Future[str | None]", failure: str | None) -> None:
        self._pace.landed()
        if failure is None:
            self._marks.settled(poll.number, delivered=True)
        if not settled.done():
            settled.set_result(failure)


def _broken_off(sent: int) -> Verdict:
    return Verdict(Outcome.FAILED, None, "not_delivered", f"the broker was lost after {sent} polls; ask again")


def _some(spans: list[str]) -> str:
    more = f" and {len(spans) - MOST_SPANS} more" if len(spans) > MOST_SPANS else ""
    return ", ".join(spans[:MOST_SPANS]) + more
