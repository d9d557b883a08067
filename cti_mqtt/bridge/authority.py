"""Whether the bridge may act on a cycler by itself: what was agreed before a restart may not be allowed any more."""

from collections.abc import Callable, Iterable

from cti_mqtt.bridge.station import Station


class Authority:
    """Of this bridge over one cycler.

    Args:
        station: the cycler.
        may_act: whether no elder bridge is known to command it.
        under_way: whether a lease of a channel is not over, or a stop of it is pursued.
    """

    def __init__(self, station: Station, may_act: Callable[[], bool], under_way: Callable[[int], bool]) -> None:
        self._station = station
        self._may_act = may_act
        self._under_way = under_way
        self._winding_down: set[int] = set()

    @property
    def stands_by(self) -> bool:
        """Whether an elder bridge commands: what is to be done waits until it is gone."""
        return not self._may_act()

    def wind_down(self, channels: Iterable[int]) -> None:
        """Control is switched off while this runs: on these channels it may still do what was agreed before.

        Until that is over. A bridge that begins anew does not know of it: then nothing is sent.
        """
        self._winding_down = set(channels)

    def _winds_down(self, channel: int) -> bool:
        if channel in self._winding_down and not self._under_way(channel):
            self._winding_down.discard(channel)
        return channel in self._winding_down

    def objection(self, channel: int) -> str:
        """Why nothing may be sent to a channel, now or later; '' if it may, as far as is known."""
        control = self._station.settings.control
        winds_down = self._winds_down(channel)
        if not control.enabled and not winds_down:
            return "control of this cycler is switched off"
        if control.mode == "shadow" and not winds_down:
            return "control.mode of this cycler is shadow"
        if self._station.info is not None and channel not in self._station.cycler_channels:
            return f"the cycler has no channel {channel}, but {len(self._station.cycler_channels)} channels"
        return ""
