"""Polls -> publications: the latest reading of each channel, what changed, and what has gone stale."""

from collections.abc import Mapping

from cti_mqtt.bridge.bus import Availability, Bus, ChannelState, Happening, Poll, Quality, Reading, StaleReading
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.payloads import parse_step_and_cycle
from cti_mqtt.bridge.transitions import transitions, unchanged
from cti_mqtt.bridge.variables import VariableBook
from cti_mqtt.cti.messages.channels import ChannelRecord

FRESH_INTERVALS = 2  # a reading this young can be held against an expectation
STALE_INTERVALS = 3


class ReadingBook:
    """What is known of a cycler's channels.

    Args:
        cycler: its id.
        interval_s: how often it is polled.
        bus: where everything is published.
        clock: stamps and ages.
        variables: is told when a test begins.

    Attributes:
        interval_s: may be set anew; ages count by it.
        polls: how many brought at least one reading.
    """

    def __init__(self, cycler: str, interval_s: float, bus: Bus, clock: Clock, variables: VariableBook) -> None:
        self._cycler = cycler
        self.interval_s = interval_s
        self._bus = bus
        self._clock = clock
        self._latest: dict[int, Reading] = {}
        self._heard_at: dict[int, float] = {}
        self._asked_at: dict[int, float] = {}
        self._availability: dict[int, Availability] = {}
        self._variables = variables
        self.polls = 0

    def latest(self, channel: int) -> Reading | None:
        """The last reading of a channel, however old."""
        return self._latest.get(channel)

    def age_s(self, channel: int) -> float | None:
        """How long ago that was, None if there is none."""
        heard_at = self._heard_at.get(channel)
        return None if heard_at is None else self._clock.monotonic() - heard_at

    def good(self, channel: int) -> Reading | None:
        """The last reading of a channel if it is good and younger than two intervals."""
        reading, age_s = self._latest.get(channel), self.age_s(channel)
        if reading is None or age_s is None or reading.quality is not Quality.GOOD:
            return None
        return reading if age_s < FRESH_INTERVALS * self.interval_s else None

    def asked_after(self, moment_s: float, channel: int) -> Reading | None:
        """The last reading of a channel if it was asked for after a monotonic time, so after what was sent before."""
        reading = self._latest.get(channel)
        return reading if reading and self._asked_at[channel] > moment_s else None

    def step(self, channel: int) -> int | None:
        """The step that the last reading shows."""
        reading = self._latest.get(channel)
        return parse_step_and_cycle(reading.record.step_and_cycle)[1] if reading else None

    def record(self, records: Mapping[int, ChannelRecord], asked_s: float | None = None) -> None:
        """Publish what a poll brought; an empty one is no poll.

        Args:
            records: by channel.
            asked_s: when they were asked for, monotonic; now, if it does not matter.
        """
        if not records:
            return
        self.polls += 1
        ts, now = stamp(self._clock.now()), self._clock.monotonic()
        fresh = tuple(
            Reading(channel, record, Quality.COMM_LOST if record.comm_failure else Quality.GOOD, ts, self.polls)
            for channel, record in sorted(records.items())
        )
        before = {reading.channel: self._latest.get(reading.channel) for reading in fresh}
        for reading in fresh:
            self._latest[reading.channel] = reading
            self._heard_at[reading.channel] = now
            self._asked_at[reading.channel] = now if asked_s is None else asked_s
        self._bus.publish(Poll(self._cycler, ts, self.polls, fresh))
        for reading in fresh:
            self._set_availability(reading.channel, Availability.ONLINE)
            self._publish_changes(before[reading.channel], reading)

    def _publish_changes(self, before: Reading | None, after: Reading) -> None:
        if before is None or unchanged(before.record, after.record):
            return
        for change in transitions(before.record, after.record):
            if change.type == "test_started":
                self._variables.test_seen(after.channel)
            self._bus.publish(
                Happening(
                    after.ts, change.type, change.message, self._cycler, after.channel, change.before, change.after
                )
            )

    # --- availability ---

    def mark_stale(self) -> None:
        """Publish which channels have not been heard of for too long; to be called about once an interval."""
        now = self._clock.monotonic()
        for channel, heard_at in self._heard_at.items():
            reading = self._latest[channel]
            if now - heard_at <= STALE_INTERVALS * self.interval_s or reading.quality is Quality.STALE:
                continue
            self._latest[channel] = stale = reading._replace(quality=Quality.STALE)
            self._bus.publish(StaleReading(self._cycler, stale))
            if self._availability.get(channel) is Availability.ONLINE:
                self._set_availability(channel, Availability.STALE)

    def online(self, channels: range) -> None:
        """The cycler is there; each channel comes with its first reading."""
        for channel in channels:
            if channel not in self._availability:
                self._set_availability(channel, Availability.OFFLINE)
                self._variables.publish(channel)

    def keep_only(self, channels: range) -> None:
        """The cycler has no others any more: what is known of them is marked stale now, and forgotten."""
        for channel in [channel for channel in self._availability if channel not in channels]:
            self._set_availability(channel, Availability.OFFLINE)
            del self._availability[channel]
            self._heard_at.pop(channel, None)
            self._asked_at.pop(channel, None)
            reading = self._latest.pop(channel, None)
            if reading and reading.quality is not Quality.STALE:
                self._bus.publish(StaleReading(self._cycler, reading._replace(quality=Quality.STALE)))

    def offline(self) -> None:
        """The cycler has gone, and its channels with it."""
        for channel in self._availability:
            self._set_availability(channel, Availability.OFFLINE)

    def _set_availability(self, channel: int, availability: Availability) -> None:
        if self._availability.get(channel) is not availability:
            self._availability[channel] = availability
            self._bus.publish(ChannelState(self._cycler, channel, availability))
