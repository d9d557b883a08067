"""What is wrong with a session that goes on: polls that fail, lack channels or take too long, and bytes of no use."""

from collections.abc import Collection

from cti_mqtt.bridge.notices import Notices
from cti_mqtt.client.noise import Noise
from cti_mqtt.errors import CtiMqttError

CALM_POLLS = 10  # in time, one after the other: the cycler keeps up again


class PollTroubles:
    """Says once when a trouble begins, and once when it is over.

    Args:
        notices: where it is said.
    """

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._failing = ""
        self._incomplete = False
        self._skipped = 0
        self._calm = 0
        self._noise = Noise()
        self._noted = 0

    def session_began(self, noise: Noise) -> None:
        """Nothing is known of it yet; what is of no use in it will be counted in `noise`."""
        self._failing = ""
        self._incomplete = False
        self._noise = noise
        self._noted = 0

    # --- what a poll brought ---

    def failed(self, error: CtiMqttError) -> None:
        """A poll failed, and the session goes on."""
        if str(error) != self._failing:
            self._failing = str(error)
            self._notices.say("poll_failed", self._failing, cause=self._failing)

    def brought(self, expected: range, came: Collection[int]) -> None:
        """A poll of all channels came back."""
        self._failing = ""
        missing = [channel for channel in expected if channel not in came]
        if bool(missing or not expected) == self._incomplete:
            return
        self._incomplete = not self._incomplete
        if self._incomplete:
            which = f"; missing: {spans(missing)}" if came else ""
            self._notices.say(
                "readings_incomplete",
                f"a poll brought {len(came)} of {len(expected)} channels{which}",
                len(expected),
                len(came),
                at_most=5,
            )
        else:
            message = f"polls bring all {len(expected)} channels again"
            self._notices.say("readings_complete", message, None, len(came), at_most=5)

    # --- in time? ---

    def took(self, seconds: float, interval_s: float, skipped: int) -> None:
        """A poll was over after so long; so many beats passed meanwhile.

        Args:
            seconds: from when it was due until its end.
            interval_s: how often it should be.
            skipped: beats for which there is no poll.
        """
        if skipped:
            if not self._skipped:
                message = f"a poll took {seconds:.2f} s, the interval is {interval_s:g} s: beats are skipped"
                self._notices.say("polls_skipped", message, None, skipped, at_most=5)
            self._skipped += skipped
            self._calm = 0
        elif self._skipped:
            self._calm += 1
            if self._calm >= CALM_POLLS:
                message = f"polls are in time again, {self._skipped} beats were skipped"
                self._notices.say("polls_in_time", message, self._skipped, 0, at_most=5)
                self._skipped = 0

    # --- bytes of no use ---

    def look(self) -> None:
        """Say what the connection has brought besides messages; to be called about once an interval."""
        if self._noise.total > self._noted:
            self._noted = self._noise.total
            self._notices.say("garbage", f"the cycler sent {self._noise.text}", None, self._noted)


def spans(channels: Collection[int]) -> str:
    """Channels as people write them: `1-3, 7`."""
    parts: list[list[int]] = []
    for channel in sorted(channels):
        if parts and channel == parts[-1][-1] + 1:
            parts[-1][1:] = [channel]
        else:
            parts.append([channel])
    return ", ".join("-".join(map(str, part)) for part in parts)
