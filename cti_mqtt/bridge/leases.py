"""Leases: somebody vouches for a channel, and if he is not heard of in time the bridge does what was agreed.

It does so by itself: with or without the broker, and after a restart too. What was agreed passes verbs, steps, rates
and queues; it was checked when the lease was granted.
"""

import asyncio
import contextlib
import logging
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from cti_mqtt.bridge.alarms import LEASE_EXPIRED, AlarmBoard
from cti_mqtt.bridge.authority import Authority
from cti_mqtt.bridge.bus import Bus, Happening, Item, LeaseState, Poll
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.expiry import VOUCHED_AGAIN, Expiry
from cti_mqtt.bridge.lease import Lease
from cti_mqtt.bridge.orders import LeaseTerms
from cti_mqtt.bridge.overruling import Overruler
from cti_mqtt.bridge.pursuit import StopPursuit
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.stop_target import shows_rest
from cti_mqtt.bridge.store import LeaseRow, Store
from cti_mqtt.bridge.transitions import in_test

log = logging.getLogger(__name__)


class LeaseBook:
    """The leases of one cycler; `run` must be running.

    Args:
        station: the cycler.
        store: where they outlive the bridge.
        bus: where they are published.
        clock: stamps.
        alarms: for those that ask for one.
        pursuit: for those that end in a stop.
        overruler: told of those that ran out.
        is_starting: whether a start of a channel is under way: then a poll that shows it at rest proves nothing.
        authority: whether the bridge may act on the cycler at all.
    """

    def __init__(
        self,
        station: Station,
        store: Store,
        bus: Bus,
        clock: Clock,
        alarms: AlarmBoard,
        pursuit: StopPursuit,
        overruler: Overruler,
        is_starting: Callable[[int], bool],
        authority: Authority,
    ) -> None:
        self._station = station
        self._store = store
        self._bus = bus
        self._clock = clock
        self._alarms = alarms
        self._pursuit = pursuit
        self._overruler = overruler
        self._authority = authority
        self._expiry = Expiry(
            station, clock, alarms, pursuit, is_starting, authority, self._is_wanted, self._done, self._tell
        )
        self._leases: dict[int, Lease] = {}
        self._expired: dict[int, Lease] = {}
        self._restored = False
        self._to_announce: list[int] = []
        self._news = asyncio.Event()
        bus.subscribe(self._look_at)

    # --- asked ---

    def running(self, channel: int) -> Lease | None:
        """The lease of a channel, None if there is none."""
        return self._leases.get(channel)

    @property
    def channels(self) -> list[int]:
        """Where a lease runs, or what follows one is not done yet."""
        return sorted({*self._leases, *self._expired})

    def check(self, channel: int, user: str | None, lease_id: str | None) -> None:
        """Raises Refusal where somebody else holds the lease."""
        lease = self._leases.get(channel)
        if lease is None or self._holds(lease, user, lease_id):
            return
        holder = repr(lease.holder) if lease.holder is not None else "who knows its lease_id"
        raise Refusal("leased", f"channel {channel} is leased to {holder} until {stamp(lease.expires_at)}")

    @staticmethod
    def _holds(lease: Lease, user: str | None, lease_id: str | None) -> bool:
        return user == lease.holder if lease.holder is not None else lease_id == lease.lease_id

    def check_terms(self, channel: int, terms: LeaseTerms) -> None:
        """Raises Refusal where what is to be written on expiry may not be written at all."""
        for index, value in terms.fallback.items():
            if objection := self._station.variables.range_objection(index, value):
                raise Refusal("limit", f"lease.on_expiry, channel {channel}: {objection}")

    # --- granted, renewed, ended ---

    async def prepare(self, channel: int, user: str | None, terms: LeaseTerms, lease_id: str) -> None:
        """Put a lease that does not run yet on record, so that somebody acts on it whatever happens after `vouch`.

        Raises:
            StorageError: it cannot be put on record, so nobody would act on it after a restart.
        """
        if channel not in self._leases:
            lease = self._new(channel, user, terms, lease_id, pending=False)
            await self._store.put_lease(lease.row(self._station.name, "running"), durable=True)

    def vouch(
        self, channel: int, user: str | None, terms: LeaseTerms, lease_id: str, *, pending: bool
    ) -> tuple[Lease, bool]:
        """Somebody who may do so vouches for a channel, at the moment in which his command is sent.

        Args:
            channel: from 1.
            user: the user level of the command.
            terms: what it says.
            lease_id: for a new one, as it was prepared.
            pending: for a new one, whether its time counts only from `extend` on.

        Returns:
            the lease, and whether it is new.
        """
        before = self._leases.get(channel)
        if before is None:
            lease = self._new(channel, user, terms, lease_id, pending=pending)
            self._tell("lease_granted", channel, f"leased for {terms.ttl_s:g} s, then {lease.words}")
        else:
            until_s = self._clock.monotonic() + terms.ttl_s
            expires_at = self._clock.now() + timedelta(seconds=terms.ttl_s)
            lease = replace(
                before,
                terms=terms,
                expires_at=expires_at,
                until_s=math.inf if before.pending else until_s,
            )
        self._leases[channel] = lease
        self._store.put_lease(lease.row(self._station.name, "running"))
        self._publish(channel)
        self._news.set()
        return lease, before is None

    def forget_prepared(self, channel: int, lease_id: str) -> None:
        """The command that a lease was prepared for was not sent."""
        lease = self._leases.get(channel)
        if lease is None or lease.lease_id != lease_id:
            self._store.drop_lease(self._station.name, channel, lease_id)
            self._record_anew(channel)

    def extend(self, channel: int) -> None:
        """The command that a lease was granted to has been carried out: a start's time counts from here.

        Not before that somebody vouches again, so what a lease that ran out before wanted goes on until here.
        """
        lease = self._leases.get(channel)
        if lease is None:
            return
        if expired := self._expired.get(channel):
            self._done(expired, VOUCHED_AGAIN)
        self._alarms.clear(self._station.name, channel, LEASE_EXPIRED, VOUCHED_AGAIN)
        if lease.pending:
            lease.pending = False
            lease.expires_at = self._clock.now() + timedelta(seconds=lease.terms.ttl_s)
            lease.until_s = self._clock.monotonic() + lease.terms.ttl_s
            self._store.put_lease(lease.row(self._station.name, "running"))
            self._publish(channel)
            self._news.set()

    def _new(self, channel: int, user: str | None, terms: LeaseTerms, lease_id: str, *, pending: bool) -> Lease:
        now, ttl_s = self._clock.now(), terms.ttl_s
        until_s = math.inf if pending else self._clock.monotonic() + ttl_s
        return Lease(channel, lease_id, user, terms, now, now + timedelta(seconds=ttl_s), until_s, pending)

    def end(self, channel: int, why: str) -> Lease | None:
        """The lease is over before it ran out; None if there was none."""
        lease = self._leases.get(channel)
        if lease is not None:
            self._drop(lease)
            self._tell("lease_ended", channel, why)
        return lease

    def start_accepted(self, channel: int, admitted_s: float) -> None:
        """What runs now is another test, if it was asked for after a lease ran out: what that wanted is past."""
        lease = self._expired.get(channel)
        if lease is not None and lease.until_s < admitted_s:
            self._done(lease, "a later start of the channel was accepted")

    def _drop(self, lease: Lease) -> None:
        self._leases.pop(lease.channel, None)
        self._store.drop_lease(self._station.name, lease.channel, lease.lease_id)
        self._record_anew(lease.channel)
        self._publish(lease.channel)

    def _record_anew(self, channel: int) -> None:
        """What still stands of a channel, after its place on record was taken by something else for a while."""
        if lease := self._leases.get(channel):
            self._store.put_lease(lease.row(self._station.name, "running"))
        elif expired := self._expired.get(channel):
            self._store.put_lease(expired.row(self._station.name, "expired"))

    # --- the dead man's variable ---

    def deadman(self, channel: int, terms: LeaseTerms) -> Mapping[int, float]:
        """What to write so that the schedule itself ends the step if this bridge dies: test time + ttl.

        Empty where there is no such variable, or no test.
        """
        index = self._station.settings.control.deadman_mv
        reading, age_s = self._station.book.latest(channel), self._station.book.age_s(channel)
        if index is None or reading is None or age_s is None or not in_test(reading.record.status):
            return {}
        return {index: float(math.ceil(100 * (reading.record.test_time + age_s + terms.ttl_s))) / 100}

    # --- over time ---

    async def restore(self) -> None:
        """Take up the leases that ran when the bridge ended; what ran out meanwhile is acted on at once.

        Raises:
            StorageError: they cannot be read.
        """
        now, now_s = self._clock.now(), self._clock.monotonic()
        for row in await self._store.leases():
            if row.cycler != self._station.name or self._knows(row):
                continue
            try:
                self._take_up(row, now, now_s)
            except Exception:  # whatever is in one row must not keep the others from being taken up
                log.exception("%s: a lease on record cannot be read and is left out: %r", self._station.name, row)
        self._restored = True
        for channel in self._to_announce:
            self._publish(channel)
        self._news.set()

    def _take_up(self, row: LeaseRow, now: datetime, now_s: float) -> None:
        """A lease as it stands on record; where that cannot be read nobody vouches any more."""
        try:
            lease = Lease.of_row(row, now, now_s)
        except Exception:
            log.exception("%s: channel %d: unreadable lease: %r", self._station.name, row.channel, row)
            lease = Lease.unreadable(row, now, now_s)
            message = "a lease is on record, but cannot be read: the channel is stopped"
            self._alarms.raise_(self._station.name, row.channel, LEASE_EXPIRED, message, lease.lease_id)
        self._leases[row.channel] = lease
        left_s = lease.until_s - now_s
        log.warning("%s: channel %d: lease taken up, %.1f s left", self._station.name, row.channel, left_s)
        self._publish(row.channel)

    def _knows(self, row: LeaseRow) -> bool:
        """Whether this run has a lease already."""
        return any(
            lease is not None and lease.lease_id == row.lease_id
            for lease in (self._leases.get(row.channel), self._expired.get(row.channel))
        )

    def announce(self, channel: int) -> None:
        """Say who holds a channel, once that is known: nothing that an earlier bridge left may look alive."""
        if self._restored:
            self._publish(channel)
        else:
            self._to_announce.append(channel)

    async def run(self) -> None:
        """Watch the leases until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for lease in tuple(self._expired.values()):  # begun before something went wrong here
                tasks.create_task(
                    self._expiry.act(lease), name=f"{self._station.name}: lease of channel {lease.channel}, again"
                )
            while True:
                now_s = self._clock.monotonic()
                for lease in [lease for lease in self._leases.values() if lease.until_s <= now_s]:
                    self._begin_expiry(lease, tasks)
                pause_s = min(
                    (lease.until_s - now_s for lease in self._leases.values() if not lease.pending), default=None
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()
                self._news.clear()

    def _begin_expiry(self, lease: Lease, tasks: asyncio.TaskGroup) -> None:
        """From now on the bridge acts; what was on its way for the channel stays here."""
        channel = lease.channel
        del self._leases[channel]
        self._expired[channel] = lease
        self._overruler.lease_ran_out(channel)
        self._station.writer.discard([channel], f"the lease of channel {channel} ran out first")
        self._store.put_lease(lease.row(self._station.name, "expired"))
        self._publish(channel)
        holder = lease.holder or "its holder"
        objection = "" if lease.terms.on_expiry == "alarm" else self._authority.objection(channel)
        words = f"nothing is sent, for {objection}" if objection else lease.words
        message = f"{holder} was not heard of for {lease.terms.ttl_s:g} s: {words}"
        log.warning("%s: channel %d: %s", self._station.name, channel, message)
        self._tell("lease_expired", channel, message)
        tasks.create_task(self._expiry.act(lease), name=f"{self._station.name}: lease of channel {channel} ran out")

    def _is_wanted(self, lease: Lease) -> bool:
        """Whether what follows a lease is still to be done."""
        return self._expired.get(lease.channel) is lease

    def _done(self, lease: Lease, how: str) -> None:
        if self._is_wanted(lease):
            del self._expired[lease.channel]
        self._store.drop_lease(self._station.name, lease.channel, lease.lease_id)
        self._tell("lease_settled", lease.channel, how)

    # --- told ---

    def _look_at(self, item: Item) -> None:
        """An alarm about a controller that is gone is over when the channel no longer runs."""
        if not isinstance(item, Poll) or item.cycler != self._station.name:
            return
        for reading in item.readings:
            if shows_rest(reading) and self._alarms.stands(self._station.name, reading.channel, LEASE_EXPIRED):
                why = f"the channel shows {reading.record.status.text}"
                self._alarms.clear(self._station.name, reading.channel, LEASE_EXPIRED, why)

    def _publish(self, channel: int) -> None:
        lease = self._leases.get(channel)
        body = None if lease is None else lease.body
        self._bus.publish(LeaseState(self._station.name, channel, body))

    def _tell(self, kind: str, channel: int, message: str) -> None:
        ts = stamp(self._clock.now())
        self._bus.publish(Happening(ts, kind, message, self._station.name, channel))
        entry = {"ts": ts, "who": "bridge", "what": kind, "cycler": self._station.name, "channel": channel}
        self._store.audit([{**entry, "message": message}])


def new_lease_id() -> str:
    """An id for a lease."""
    return uuid.uuid4().hex
