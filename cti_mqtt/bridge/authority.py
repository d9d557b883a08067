"""Whether the bridge may act on a cycler by itself: what was agreed before a restart may not be allowed any more."""

from collections.abc import Callable

from cti_mqtt.bridge.station import Station


class Authority:
    """Of this bridge over one cycler.

    Args:
        station: the cycler.
        may_act: whether no elder bridge is known to command it.
    """

    def __init__(self, station: Station, may_act: Callable[[], bool]) -> None:
        self._station = station
        self._may_act = may_act

    @property
    def stands_by(self) -> bool:
        """Whether an elder bridge commands: what is to be done waits until it is gone."""
        return not self._may_act()

    def objection(self, channel: int) -> str:
        """Why nothing may be sent to a channel, now or later; '' if it may, as far as is known."""
        control = self._station.settings.control
        if not control.enabled:
            return "control of this cycler is switched off"
        if control.mode == "shadow":
            return "control.mode of this cycler is shadow"
        if self._station.info is not None and channel not in self._station.cycler_channels:
            return f"the cycler has no channel {channel}, but {len(self._station.cycler_channels)} channels"
        return ""
