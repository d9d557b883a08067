"""The channels of a cycler, as they stand now."""

from collections.abc import Sequence

from cti_mqtt.simulator.channel import Channel
from cti_mqtt.simulator.clock import Clock
from cti_mqtt.simulator.schedule import Schedule


class Cabinet:
    """Channels that have caught up with the clock whenever somebody takes one.

    Args:
        channels: what is in it.
        clock: seconds, simulated.
        schedules: what can be assigned, by name; it may change.
    """

    def __init__(self, channels: Sequence[Channel], clock: Clock, schedules: dict[str, Schedule]) -> None:
        self.schedules = schedules
        self._channels = channels
        self._clock = clock

    @property
    def count(self) -> int:
        """How many channels there are."""
        return len(self._channels)

    def exists(self, index: int) -> bool:
        """Whether there is such a channel (0-based)."""
        return 0 <= index < len(self._channels)

    def channel(self, index: int) -> Channel:
        """A channel (0-based) as it stands now.

        Raises:
            IndexError: there is no such channel.
        """
        if not self.exists(index):
            raise IndexError(f"there is no channel {index}")
        channel = self._channels[index]
        channel.advance_to(self._clock())
        return channel


def signed(channel: int) -> int:
    """A channel of an unsigned field as the signed field of its feedback holds it."""
    return channel if channel < 1 << 31 else channel - (1 << 32)
