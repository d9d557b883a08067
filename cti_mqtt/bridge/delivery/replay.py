"""Polls that are sent once more because a consumer asks for them: the verb `replay`."""

import asyncio
from collections.abc import Callable
from functools import partial

from cti_mqtt.bridge.delivery.late import LateSender
from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.parcels import SentPoll
from cti_mqtt.bridge.delivery.sending import NOT_SENT
from cti_mqtt.bridge.journal import Journal, KeptPoll
from cti_mqtt.bridge.verdict import Outcome, Verdict, refused
from cti_mqtt.errors import StorageError

PORTION = 20  # polls that are read from the journal together
MAX_POLLS = 10_000  # in one request
MOST_SPANS = 8  # that are named in a message


class Replayer:
    """Sends a range again, on `backfill`.

    Args:
        late: sends one poll.
        journal: where they are kept; None: nowhere.
        marks: is told what has arrived.
        tell: told what became of each.
    """

    def __init__(
        self,
        late: LateSender,
        journal: Journal | None,
        marks: Marks,
        tell: Callable[[SentPoll, str | None], None],
    ) -> None:
        self._late = late
        self._journal = journal
        self._marks = marks
        self._tell = tell
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
        following, looked_at = from_seq, from_seq - 1
        while looked_at < to_seq:
            portion = await journal.span(cycler, boot, looked_at + 1, to_seq, PORTION)
            if portion.last is None:
                break
            looked_at = portion.last
            for poll in portion.polls:
                if poll.seq > following:
                    missing.append((following, poll.seq - 1))
                following = poll.seq + 1
                sent.append(await self._send(poll))
                if sent[-1].done() and sent[-1].result() == NOT_SENT:
                    return _broken_off(len(sent) - 1)
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

    async def _send(self, poll: KeptPoll) -> "asyncio.Future[str | None]":
        """Send one; its end, now or later."""
        settled: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        await self._late.send(poll, partial(self._settled, poll, settled))
        return settled

    def _settled(self, poll: KeptPoll, settled: "asyncio.Future[str | None]", failure: str | None) -> None:
        self._tell(poll, failure)
        if failure is None:
            self._marks.settled(poll.number, delivered=True)
        if not settled.done():
            settled.set_result(failure)


def _broken_off(sent: int) -> Verdict:
    return Verdict(Outcome.FAILED, None, "not_delivered", f"the broker was lost after {sent} polls; ask again")


def _some(spans: list[str]) -> str:
    more = f" and {len(spans) - MOST_SPANS} more" if len(spans) > MOST_SPANS else ""
    return ", ".join(spans[:MOST_SPANS]) + more
