"""What came since a command was heard, and overrules it: a stop, a lease that ran out."""

from collections import Counter
from collections.abc import Collection, Iterable

from cti_mqtt.errors import WithdrawnError


class Overruler:
    """Counts, channel by channel, what overrules everything that was heard before."""

    def __init__(self) -> None:
        self.stops: Counter[int] = Counter()
        self.expiries: Counter[int] = Counter()

    def stop(self, channels: Iterable[int]) -> None:
        """A stop was heard: whatever else these channels wait for must not come after it."""
        self.stops.update(channels)

    def lease_ran_out(self, channel: int) -> None:
        """The bridge acts now: what its holder still wanted must not come after that."""
        self.expiries[channel] += 1

    def snapshot(self, channels: Collection[int], *, leased: bool) -> "Snapshot":
        """To be taken when a command is heard; `leased` for those that a lease concerns."""
        return Snapshot(self, channels, leased=leased)


class Snapshot:
    """How things stood when a command was heard."""

    def __init__(self, overruler: Overruler, channels: Collection[int], *, leased: bool) -> None:
        self._overruler = overruler
        self._leased = leased
        self._stops = {channel: overruler.stops[channel] for channel in channels}
        self._expiries = {channel: overruler.expiries[channel] for channel in channels}

    def vouched_anew(self, channel: int) -> None:
        """The command itself was granted a lease just now: one that ran out before does not count."""
        self._expiries[channel] = self._overruler.expiries[channel]

    def objection(self, channel: int) -> str | None:
        """Why a command must not go out to this channel any more, None if it may."""
        if self._overruler.stops[channel] != self._stops[channel]:
            return f"a stop of channel {channel} came first"
        if self._leased and self._overruler.expiries[channel] != self._expiries[channel]:
            return f"the lease of channel {channel} ran out first"
        return None

    def check(self, channels: Iterable[int]) -> None:
        """Raises WithdrawnError where it must not go out to one of these channels."""
        objections = [objection for channel in channels if (objection := self.objection(channel))]
        if objections:
            raise WithdrawnError("; ".join(objections))
