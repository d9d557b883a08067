"""What the bridge does by itself when a lease has run out: write, stop, or raise the alarm, until it is done."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping

from cti_mqtt.bridge.alarms import LEASE_EXPIRED, AlarmBoard
from cti_mqtt.bridge.authority import Authority
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.lease import Lease
from cti_mqtt.bridge.orders import OnExpiry
from cti_mqtt.bridge.pursuit import StopPursuit
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.stop_target import shows_rest
from cti_mqtt.bridge.verdict import Outcome
from cti_mqtt.errors import CtiMqttError, WithdrawnError

log = logging.getLogger(__name__)

CONFIRM_S = 2.0  # a value that is not confirmed by then becomes a stop
TRY_AGAIN_S = 0.2

VOUCHED_AGAIN = "somebody vouches for the channel again"


class Expiry:
    """Does what was agreed.

    Args:
        station: the cycler.
        clock: how long it takes.
        alarms: for those who asked for one, and for what cannot be done.
        pursuit: for those who asked for a stop, and for what cannot be written.
        is_starting: whether a start of a channel is under way: then a poll that shows it at rest proves nothing.
        authority: whether this bridge may act.
        is_wanted: whether what follows a lease is still to be done.
        done: told how it ended.
        tell: publishes an event and puts it on record: its kind, the channel, a sentence.
    """

    def __init__(
        self,
        station: Station,
        clock: Clock,
        alarms: AlarmBoard,
        pursuit: StopPursuit,
        is_starting: Callable[[int], bool],
        authority: Authority,
        is_wanted: Callable[[Lease], bool],
        done: Callable[[Lease, str], None],
        tell: Callable[[str, int, str], None],
    ) -> None:
        self._station = station
        self._clock = clock
        self._alarms = alarms
        self._pursuit = pursuit
        self._is_starting = is_starting
        self._authority = authority
        self._is_wanted = is_wanted
        self._done = done
        self._tell = tell

    async def act(self, lease: Lease) -> None:
        """Do what was agreed."""
        try:
            match lease.terms.on_expiry:
                case OnExpiry():
                    await self._write_fallback(lease)
                case "stop":
                    if await self._may_act(lease):
                        self._stop(lease)
                case _:
                    message = f"{lease.holder or 'the holder of the lease'} was not heard of in time"
                    self._alarms.raise_(self._station.name, lease.channel, LEASE_EXPIRED, message, lease.lease_id)
                    self._done(lease, "the alarm is raised")
        except Exception:
            log.exception("%s: channel %d: lease", self._station.name, lease.channel)
            if await self._may_act(lease):
                self._stop(lease)

    async def _may_act(self, lease: Lease) -> bool:
        """Wait until this bridge may act on the channel; False once that is not wanted or allowed any more."""
        channel, name = lease.channel, self._station.name
        waits_since_s, told = self._clock.monotonic(), False
        alarm_s = waits_since_s + self._station.settings.control.stop_timeout_s
        while self._is_wanted(lease):
            if objection := self._authority.objection(channel):
                message = f"a lease ran out ({lease.words}), but nothing is sent, for {objection}"
                self._alarms.raise_(name, channel, LEASE_EXPIRED, message, lease.lease_id)
                self._done(lease, f"nothing was sent: {objection}")
                return False
            if not self._authority.stands_by and self._station.info is not None:
                return True
            if self._station.info is None and self._clock.monotonic() >= alarm_s:
                alarm_s = math.inf
                message = f"a lease ran out, but the cycler is not reached; when it is, {lease.words}"
                self._alarms.raise_(name, channel, LEASE_EXPIRED, message, lease.lease_id)
            if self._authority.stands_by and not told:
                told = True
                message = f"an elder bridge commands this cycler; when it is gone, {lease.words}"
                log.warning("%s: channel %d: %s", name, channel, message)
                self._tell("lease_held_back", channel, message)
            if self._settled_by_rest(lease, waits_since_s):
                return False
            await asyncio.sleep(TRY_AGAIN_S)
        return False

    async def _write_fallback(self, lease: Lease) -> None:
        """Write until the cycler confirms; two seconds after the first sending the channel is stopped instead."""
        channel, values = lease.channel, lease.terms.fallback
        stop_at_s: float | None = None
        asked_s = self._clock.monotonic()
        while self._is_wanted(lease):
            if self._settled_by_rest(lease, asked_s):
                return
            if stop_at_s is not None and self._clock.monotonic() >= stop_at_s:
                self._tell("lease_fallback_failed", channel, f"not confirmed within {CONFIRM_S:g} s: it is stopped")
                self._stop(lease)
                return
            if not await self._may_act(lease):
                return
            if self._station.online:
                stop_at_s = stop_at_s or self._clock.monotonic() + CONFIRM_S
                if await self._write_once(lease, values, stop_at_s):
                    words = ", ".join(f"MV_UD{index} = {value:g}" for index, value in values.items())
                    self._done(lease, f"{words} written")
                    return
            await asyncio.sleep(TRY_AGAIN_S)

    def _settled_by_rest(self, lease: Lease, since_s: float) -> bool:
        """Whether a poll shows that nothing runs any more, so that nothing is left to do."""
        shown = self._station.book.asked_after(since_s, lease.channel)
        if shown is None or not shows_rest(shown) or self._is_starting(lease.channel):
            return False
        self._done(lease, f"the channel does not run (it shows {shown.record.status.text})")
        return True

    async def _write_once(self, lease: Lease, values: Mapping[int, float], until_s: float) -> bool:
        """One attempt, no longer than there is time; whether the cycler confirmed it."""
        channel = lease.channel

        def gate(_: int) -> None:
            if not self._is_wanted(lease):
                raise WithdrawnError(VOUCHED_AGAIN)

        left_s = max(TRY_AGAIN_S, until_s - self._clock.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                verdict = await self._station.writer.write_first(channel, values, gate)
                if verdict.outcome is Outcome.SUCCEEDED:
                    return True
                log.warning("%s: channel %d: fallback: %s", self._station.name, channel, verdict.message)
                with contextlib.suppress(CtiMqttError):
                    await self._station.refresh(channel)  # it may have come to an end
        return False

    def _stop(self, lease: Lease) -> None:
        self._pursuit.insist(lease.channel, lambda how: self._done(lease, how))
