"""One command being carried out: the checks that need a fresh look, leases, the sending, and tidying up after it."""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence

from cti_mqtt.bridge import checks
from cti_mqtt.bridge.answers import Command
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.examination import Plan
from cti_mqtt.bridge.jobs import Job
from cti_mqtt.bridge.lease import Lease
from cti_mqtt.bridge.leases import new_lease_id
from cti_mqtt.bridge.life import Answer, Life
from cti_mqtt.bridge.orders import CYCLER_VERBS, Assign, LeaseTerms, Release, Replay, SetMv, Start
from cti_mqtt.bridge.verdict import Outcome, Verdict, refused
from cti_mqtt.errors import CtiMqttError, StorageError, WithdrawnError

log = logging.getLogger(__name__)

LONGEST_S = 30.0  # besides the time-outs of its requests and the look for its effect
REPLAY_S = 600.0  # the same, where many readings are sent again
REQUESTS_IN_A_ROW = 6  # that a command may consist of, each with its time-out
STARTING_VERBS = frozenset({"start", "resume"})

DRY_RUN = Verdict(Outcome.SUCCEEDED, None, "ok", "dry run: every check passed, nothing was sent")


class Undertaking:
    """A command on the channels where nothing stands against it so far.

    Args:
        command: what was heard.
        plan: what it means.
        channels: where.
        answer: told the verdict, once a channel.

    Attributes:
        life: how far it has come.
    """

    def __init__(self, command: Command, plan: Plan, channels: Sequence[int], answer: Answer) -> None:
        self._command = command
        self._plan = plan
        self._desk = plan.desk
        self._control = plan.desk.station.settings.control  # under which it is permitted
        self._channels = tuple(channels)
        self._answer = answer
        self.life = Life(channels, self._objections, self._end, self._vouch)
        self._capped: set[int] = set()
        self._reserved: set[int] = set()
        self._lease_id = new_lease_id()
        self._prepared: set[int] = set()
        self._granted: dict[int, Lease] = {}
        self._desk.unfinished += len(self._channels)
        self._desk.busy.begin(channels, command.topic.verb)

    async def run(self) -> None:
        """From the last checks to the last answer, in bounded time."""
        station, order = self._desk.station, self._plan.order
        longest_s = REPLAY_S if isinstance(order, Replay) else LONGEST_S
        limit_s = longest_s + REQUESTS_IN_A_ROW * station.settings.timeout_s + station.settings.verify_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                ready = await self._last_checks()
                if self._command.dry_run:
                    for channel in ready:
                        self.life.end(channel, DRY_RUN)
                elif ready := await self._prepare_leases(ready):
                    every = len(ready) == len(station.cycler_channels)
                    await self._desk.executor.run(
                        Job(
                            order,
                            tuple(ready),
                            self.life,
                            self._command.began,
                            self._command.number,
                            every_channel=every,
                        )
                    )
        except TimeoutError:
            self.life.cut("timeout", f"it was not over within {limit_s:g} s")
        except Exception as error:  # a bug in one command must not end the others
            log.exception("%s: %s failed", station.name, self._command.topic.verb)
            self.life.cut("internal_error", f"an unexpected error in the bridge ({error!r}) ended it")

    def close(self) -> None:
        """However it ended, also before it began: every channel gets its answer."""
        self._desk.unfinished -= len(self._channels)
        self.life.cut("shutdown", "the bridge ended")

    # --- asked just before each request goes out ---

    def _objections(self, channels: Collection[int], aged: bool) -> None:  # noqa: FBT001  # what Life asks
        """Not too late, no stop since, no lease that ran out since, nobody else's lease."""
        if aged and (late := self._plan.deadline.expired(self._desk.station.monotonic())):
            raise WithdrawnError(late, "expired")
        if self._desk.station.settings.control is not self._control:
            self._check_after_reload(channels, aged)
        if not self._plan.channels:
            return
        self._plan.overruled.check(channels)
        if isinstance(self._plan.order, Start | SetMv):
            for channel in channels:
                self._check_lease(channel)

    def _check_after_reload(self, channels: Collection[int], aged: bool) -> None:  # noqa: FBT001  # as above
        """What was permitted may not be any more; what belongs to a test that was started is only held to limits."""
        order, station = self._plan.order, self._desk.station
        control, dry_run = station.settings.control, self._command.dry_run
        try:
            for channel in channels:
                where = channel if self._plan.channels else None
                if aged:
                    checks.check_still_permitted(self._command.topic, order, where, control, dry_run=dry_run)
                if aged and where is not None and isinstance(order, Start | SetMv) and order.lease is not None:
                    self._desk.leases.check_terms(channel, order.lease)
                if where is not None:
                    checks.check_values(order, channel, station, reasons=("limit",))
        except Refusal as refusal:
            raise WithdrawnError(f"since a reload: {refusal}", refusal.reason) from refusal

    def _check_lease(self, channel: int) -> None:
        try:
            self._desk.leases.check(channel, self._command.topic.user, self._plan.lease_id or self._own_id(channel))
        except Refusal as refusal:
            raise WithdrawnError(str(refusal), refusal.reason) from refusal

    def _own_id(self, channel: int) -> str | None:
        """A command without a user holds the lease that it was granted itself."""
        return self._command.lease_ids.get(channel)

    # --- the last checks ---

    async def _last_checks(self) -> list[int]:
        """Against what the channels show and hold; those that pass."""
        order = self._plan.order
        if self._command.topic.verb in CYCLER_VERBS or isinstance(order, Release):
            return list(self._channels)
        if order.expect is not None:
            await self._freshen()
        passed = []
        for channel in self._channels:
            try:
                self._check(channel)
            except Refusal as refusal:
                self.life.end(channel, refused(refusal.reason, str(refusal)))
            else:
                self.life.checked(channel)
                passed.append(channel)
        return passed

    def _check(self, channel: int) -> None:
        order, station = self._plan.order, self._desk.station
        starts = self._command.topic.verb in STARTING_VERBS
        if order.expect is not None:
            checks.check_expectation(order.expect, channel, station.book)
        if starts:
            self._desk.caps.check_rate(len(self._capped) if self._command.dry_run else 0)
        checks.check_values(order, channel, station)
        if isinstance(order, Start | SetMv) and order.lease is not None:
            self._desk.leases.check_terms(channel, order.lease)
        if starts:
            self._desk.caps.check_running(channel)
            self._desk.caps.begin(channel, dry_run=self._command.dry_run)
            self._capped.add(channel)
        if self._command.dry_run:
            return
        if not isinstance(order, Assign) and (values := order.values_for(channel)):
            station.variables.reserve(channel, values)
            self._reserved.add(channel)

    async def _freshen(self) -> None:
        """Poll anew what is too old to be held against an expectation."""
        station = self._desk.station
        old = [channel for channel in self._channels if station.book.good(channel) is None]
        if old:
            with contextlib.suppress(CtiMqttError):  # then there is no good reading, which is an answer too
                await station.refresh(old[0] if len(old) == 1 else None)

    # --- leases ---

    async def _prepare_leases(self, channels: list[int]) -> list[int]:
        """What the command will vouch for is on record before anything is sent; the channels where that worked."""
        order = self._plan.order
        if not isinstance(order, Start | SetMv) or order.lease is None:
            return channels
        terms = order.lease
        prepared = await asyncio.gather(*(self._prepare(channel, terms) for channel in channels))
        return [channel for channel, is_prepared in zip(channels, prepared, strict=True) if is_prepared]

    async def _prepare(self, channel: int, terms: LeaseTerms) -> bool:
        if self._desk.leases.running(channel) is not None:
            return True
        self._prepared.add(channel)
        try:
            await self._desk.leases.prepare(channel, self._command.topic.user, terms, self._lease_id)
        except StorageError as error:
            self.life.end(channel, refused("storage", str(error)))
            return False
        return True

    def _vouch(self, channel: int) -> None:
        """The command is being sent: from now on its sender vouches for the channel."""
        order = self._plan.order
        if not isinstance(order, Start | SetMv) or order.lease is None:
            return
        starts, before = isinstance(order, Start), self._desk.leases.running(channel)
        lease, is_new = self._desk.leases.vouch(
            channel, self._command.topic.user, order.lease, self._lease_id, pending=starts
        )
        self._plan.overruled.vouched_anew(channel)
        self._command.lease_ids[channel] = lease.lease_id
        if is_new or (before is not None and self._granted.get(channel) is before):
            self._granted[channel] = lease

    def _settle_lease(self, channel: int, verdict: Verdict) -> None:
        """A lease that was granted to what was not carried out ends, unless it was renewed since."""
        leases = self._desk.leases
        not_done = verdict.outcome in {Outcome.REFUSED, Outcome.FAILED}
        granted, running = self._granted.get(channel), leases.running(channel)
        if not_done and granted is not None and granted is running:
            if granted.pending or isinstance(self._plan.order, SetMv):
                leases.end(channel, f"the command that asked for it was {verdict.outcome.text}")
        elif channel in self._command.lease_ids and (not not_done or (running and running.pending)):
            leases.extend(channel)
        if channel in self._prepared:
            leases.forget_prepared(channel, self._lease_id)
        running = leases.running(channel)
        if running is None or running.lease_id != self._command.lease_ids.get(channel):
            self._command.lease_ids.pop(channel, None)

    # --- the end ---

    def _end(self, channel: int, verdict: Verdict) -> None:
        """Nothing stays reserved; then the verdict is told."""
        verb = self._command.topic.verb
        self._desk.busy.end(channel, verb)
        if verb in STARTING_VERBS and verdict.outcome is Outcome.UNKNOWN and not verdict.verified:
            self._desk.start_unknown(channel)
        if channel in self._capped:
            self._desk.caps.end(channel, verdict)
        if channel in self._reserved:
            self._desk.station.variables.release(channel, self._plan.order.values_for(channel))
        self._settle_lease(channel, verdict)
        self._answer(channel, verdict)
