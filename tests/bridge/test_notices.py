"""Events that repeat for hours stay few, and their number is told."""

from datetime import UTC, datetime, timedelta

from cti_mqtt.bridge.bus import Bus, Happening, Item
from cti_mqtt.bridge.cycler_troubles import PollTroubles, spans
from cti_mqtt.bridge.notices import MAX_KEYS, WINDOW_S, Notices
from cti_mqtt.client.noise import Noise
from cti_mqtt.errors import UnsupportedCommandError

START = datetime(2026, 1, 2, tzinfo=UTC)


class Clock:
    """Time that stands until it is moved."""

    seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Told:
    """Notices, and what came of them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.happenings: list[Happening] = []
        bus = Bus()
        bus.subscribe(self._keep)
        self.notices = Notices("arbin1", bus, self.clock)

    def _keep(self, item: Item) -> None:
        assert isinstance(item, Happening)
        self.happenings.append(item)

    @property
    def messages(self) -> list[str]:
        return [happening.message for happening in self.happenings]


def test_two_reasons_that_alternate_for_two_hours() -> None:
    it = Told()
    for _ in range(720):
        for reason in ("refused", "silent"):
            it.clock.seconds += 5
            it.notices.say("disconnected", reason, cause=reason)
            it.notices.catch_up()
    assert it.messages[:2] == ["refused", "silent"]
    assert 20 <= len(it.messages) <= 26
    assert it.messages[2] == "refused (60 more times in the last 10 min)"


def test_what_is_over_is_not_told_again() -> None:
    it = Told()
    for _ in range(3):
        it.notices.say("garbage", "33 bytes")
    for _ in range(5):
        it.clock.seconds += WINDOW_S
        it.notices.catch_up()
    assert it.messages == ["33 bytes", "33 bytes (2 more times in the last 10 min)"]
    it.notices.say("garbage", "34 bytes")
    assert it.messages[-1] == "34 bytes"


def test_a_few_are_told_one_by_one() -> None:
    it = Told()
    for _ in range(10):
        it.notices.say("reconnected", "logged in", at_most=5)
    assert it.messages == ["logged in"] * 5


def test_any_number_of_causes_takes_a_bounded_number_of_events() -> None:
    it = Told()
    for number in range(10_000):
        it.notices.say("disconnected", str(number), cause=str(number))
    assert len(it.messages) == MAX_KEYS + 1


def test_a_lasting_failure_of_polls_is_told_when_it_begins() -> None:
    it = Told()
    troubles = PollTroubles(it.notices)
    for _ in range(100):
        troubles.failed(UnsupportedCommandError("no"))
    assert it.messages == ["no"]


def test_no_channel_at_all() -> None:
    it = Told()
    PollTroubles(it.notices).brought(range(1, 5), [])
    assert it.messages == ["a poll brought 0 of 4 channels"]


def test_noise_is_told_once_a_connection_and_summed_up() -> None:
    it = Told()
    troubles, noise = PollTroubles(it.notices), Noise()
    troubles.session_began(noise)
    troubles.look()
    noise.unknown += 1
    noise.wrong_checksums += 2
    for _ in range(3):
        troubles.look()
    text = "the cycler sent 1 messages of an unknown kind, 2 messages with a wrong checksum"
    assert it.messages == [text]
    assert it.happenings[0].after == 3
    noise.skipped(7, "no frame begins here")
    troubles.look()
    it.clock.seconds += WINDOW_S
    it.notices.catch_up()
    assert it.messages[1].startswith("the cycler sent 7 bytes that make no message (last: no frame begins here), 1 ")


def test_channels_as_people_write_them() -> None:
    assert spans([4, 1, 2, 3, 9, 7, 8, 12]) == "1-4, 7-9, 12"
