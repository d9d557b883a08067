"""How many channels may run at once, and how many may be started in a minute."""

from collections import Counter, deque

from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.bridge.verdict import Outcome, Verdict

WINDOW_S = 60.0


class StartCaps:
    """The caps of one cycler.

    Args:
        station: the cycler; its `control.max_running` and `control.max_starts_per_min` count.
    """

    def __init__(self, station: Station) -> None:
        self._station = station
        self._started_s: deque[float] = deque()
        self._under_way: Counter[int] = Counter()
        self._unseen_since_s: dict[int, float] = {}

    def check_rate(self, also: int = 0) -> None:
        """Raises Refusal where as many were started within the last minute, and `also` besides, as may be."""
        now_s = self._station.monotonic()
        while self._started_s and now_s - self._started_s[0] >= WINDOW_S:
            self._started_s.popleft()
        most = self._station.settings.control.max_starts_per_min
        if most is not None and len(self._started_s) + also >= most:
            wait_s = WINDOW_S - (now_s - self._started_s[0] if self._started_s else 0.0)
            raise Refusal(
                "rate", f"{most} starts within a minute (control.max_starts_per_min); again in {wait_s:.0f} s"
            )

    def check_running(self, channel: int) -> None:
        """Raises Refusal where as many other channels run as may."""
        most = self._station.settings.control.max_running
        if most is not None and len(running := self._running() - {channel}) >= most:
            raise Refusal("limit", f"{len(running)} channels run already (control.max_running: {most})")

    def begin(self, channel: int, *, dry_run: bool) -> None:
        """A start or resume is about to be sent; it counts until `end`, and from then on what the channel shows."""
        if not dry_run:
            self._started_s.append(self._station.monotonic())
        self._under_way[channel] += 1

    def end(self, channel: int, verdict: Verdict) -> None:
        """It has its answer; where that leaves open whether it runs, it counts until a poll shows it."""
        self._under_way[channel] -= 1
        self._under_way = +self._under_way
        if verdict.outcome is Outcome.UNKNOWN or verdict.verified is False:
            self._unseen_since_s[channel] = self._station.monotonic()

    def _running(self) -> set[int]:
        """Channels in a test, starting, or never seen: what is not known counts as running."""
        book = self._station.book
        for channel, since_s in tuple(self._unseen_since_s.items()):
            if book.asked_after(since_s, channel) is not None:
                del self._unseen_since_s[channel]
        latest = {channel: book.latest(channel) for channel in self._station.cycler_channels}
        running = {channel for channel, reading in latest.items() if reading is None or in_test(reading.record.status)}
        return running | set(self._under_way) | set(self._unseen_since_s)
