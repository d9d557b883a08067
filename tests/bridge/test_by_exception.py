"""Which readings are worth a message: a table of cases, and what must hold for any records."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.bridge.bus import CyclerState, Poll, Quality, Reading, StaleReading
from cti_mqtt.bridge.by_exception import NewsJudge, ReportByException, moved
from cti_mqtt.bridge.fragments import NUMBERS
from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.channels import (
    AUX_KINDS,
    STEADY,
    AuxReading,
    BmsReading,
    ChannelRecord,
    Extras,
    SmbReading,
)
from cti_mqtt.publishing import DEFAULT_HEARTBEAT_S, DeadBands, Publish
from tests.bridge.test_payloads import RECORD
from tests.cti.strategies import CHANNEL_RECORDS

NAN, INF = math.nan, math.inf
WIDE: dict[str, Any] = {
    **dict.fromkeys(NUMBERS.values(), 1e30),
    "aux": dict.fromkeys(AUX_KINDS, 1e30),
    "bms": 1e30,
    "smb": 1e30,
}


def judge(**bands: Any) -> NewsJudge:
    return NewsJudge(DeadBands.model_validate(bands))


def is_news(before: ChannelRecord, after: ChannelRecord, **bands: Any) -> bool:
    return judge(**bands).is_news(before, before, after)


def changed(record: ChannelRecord, **changes: Any) -> ChannelRecord:
    return record._replace(**changes)


def extras(aux: Mapping[str, Sequence[tuple[float, float]]], bms: Any = (), smb: Any = ()) -> Extras:
    inputs = {kind: tuple(AuxReading(*each) for each in values) for kind, values in aux.items()}
    return Extras(inputs, tuple(BmsReading(*each) for each in bms), tuple(SmbReading(*each) for each in smb))


# --- numbers ---


@pytest.mark.parametrize(
    ("was", "now", "band", "expected"),
    [
        (1.0, 1.0, 0.0, False),
        (0.0, -0.0, 0.0, False),
        (1.0, math.nextafter(1.0, 2), 0.0, True),
        (1.0, 1.5, 0.5, False),
        (1.5, 1.0, 0.5, False),
        (1.0, 1.75, 0.5, True),
        (1.0, 0.25, 0.5, True),
        (1.0, NAN, 1e30, True),
        (NAN, 1.0, 1e30, True),
        (NAN, NAN, 0.0, False),
        (1.0, INF, 1e30, True),
        (INF, 1.0, 1e30, True),
        (INF, INF, 0.0, False),
        (INF, -INF, 1e30, True),
        (INF, NAN, 1e30, True),
        (NAN, -INF, 1e30, True),
        (-3e38, 3e38, 1e308, False),
    ],
)
def test_a_number_moves(was: float, now: float, band: float, expected: bool) -> None:
    assert moved(was, now, band) is expected


@pytest.mark.parametrize(("field", "shown"), NUMBERS.items())
def test_each_number_has_its_own_band(field: str, shown: str) -> None:
    before = changed(RECORD, **{field: 64.0})
    after = changed(RECORD, **{field: 64.5})
    assert is_news(before, after)
    assert is_news(before, after, **{shown: 0.25})
    assert not is_news(before, after, **{shown: 0.5})
    assert is_news(before, after, **{**WIDE, shown: 0.25})


def test_what_creeps_is_told_when_it_has_come_far_enough() -> None:
    """It is held against what was published, not against the reading before."""
    report = Report({"voltage_v": 0.35})
    told = [report(voltage=3.0 + number / 8) for number in range(9)]
    assert told == [True, False, False, True, False, False, True, False, False]


# --- texts, status, flags ---


@pytest.mark.parametrize("field", ChannelRecord._fields[:STEADY])
def test_whatever_is_no_number_is_news(field: str) -> None:
    value = getattr(RECORD, field)
    others: dict[type[Any], Any] = {
        str: f"{value}x",
        bool: not value,
        int: 3,
        ChannelStatus: ChannelStatus.UNSAFE,
    }
    assert is_news(RECORD, changed(RECORD, **{field: others[type(value)]}), **WIDE)


def test_statuses_that_nobody_knows_are_told_apart() -> None:
    one, other = (RECORD._replace(status=ChannelStatus(code)) for code in (98, 99))
    assert is_news(one, other, **WIDE)


# --- a new test ---


@pytest.mark.parametrize("field", ["test_time", "step_time"])
def test_a_clock_that_runs_backwards_is_a_new_test(field: str) -> None:
    """Also within the band of what was published, and with nothing else changed."""
    published = RECORD._replace(test_time=50.0, step_time=50.0)
    previous = changed(published, **{field: 58.0})
    began = changed(published, **{field: 55.0})
    assert judge(**WIDE).is_news(published, previous, began)
    assert judge(**WIDE).is_news(published, previous, published)
    assert not judge(**WIDE).is_news(published, published, previous)


# --- auxiliaries, BMS, SMB ---

BASE = extras(
    {"temperature": [(25.0, 0.5), (30.0, 0.0)], "ph": [(7.0, 0.0)]}, [(1, 3.5, "V")], [(1, "abc", ""), (2, 4.0, "A")]
)


@pytest.mark.parametrize(
    "after",
    [
        extras({}, [(1, 3.5, "V")], [(1, "abc", ""), (2, 4.0, "A")]),
        extras({"temperature": [(25.0, 0.5)], "ph": [(7.0, 0.0)]}, [(1, 3.5, "V")], [(1, "abc", ""), (2, 4.0, "A")]),
        BASE._replace(aux={**BASE.aux, "temperature": (AuxReading(NAN, 0.5), AuxReading(30.0, 0.0))}),
        BASE._replace(bms=()),
        BASE._replace(bms=(BmsReading(2, 3.5, "V"),)),
        BASE._replace(bms=(BmsReading(1, 3.5, "mV"),)),
        BASE._replace(bms=(BmsReading(1, NAN, "V"),)),
        BASE._replace(bms=(*BASE.bms, BmsReading(2, 3.5, "V"))),
        BASE._replace(smb=BASE.smb[:1]),
        BASE._replace(smb=(SmbReading(1, "abd", ""), BASE.smb[1])),
        BASE._replace(smb=(SmbReading(1, 1.0, ""), BASE.smb[1])),
        BASE._replace(smb=(BASE.smb[0], SmbReading(2, "4", "A"))),
        BASE._replace(bms=(), smb=(SmbReading(1, 3.5, "V"), *BASE.smb)),
    ],
)
def test_extras_that_no_band_covers(after: Extras) -> None:
    assert is_news(RECORD._replace(extras=BASE), RECORD._replace(extras=after), **WIDE)


@pytest.mark.parametrize(
    ("after", "enough", "too_little"),
    [
        (
            BASE._replace(aux={**BASE.aux, "temperature": (AuxReading(25.5, 0.5), AuxReading(30.0, 0.0))}),
            {"aux": {"temperature": 0.5}},
            {"aux": {"temperature": 0.25, "ph": 9}},
        ),
        (
            BASE._replace(aux={**BASE.aux, "temperature": (AuxReading(25.0, 0.5), AuxReading(30.0, 0.5))}),
            {"aux": {"temperature": 0.5}},
            {"aux": {"ph": 9}},
        ),
        (BASE._replace(bms=(BmsReading(1, 4.0, "V"),)), {"bms": 0.5}, {"bms": 0.25, "smb": 9}),
        (BASE._replace(smb=(BASE.smb[0], SmbReading(2, 4.5, "A"))), {"smb": 0.5}, {"smb": 0.25, "bms": 9}),
    ],
)
def test_extras_have_bands(after: Extras, enough: dict[str, Any], too_little: dict[str, Any]) -> None:
    before, now = RECORD._replace(extras=BASE), RECORD._replace(extras=after)
    assert not is_news(before, now, **enough)
    assert is_news(before, now, **too_little)
    assert is_news(before, now)


def test_no_numbers_are_no_news() -> None:
    def silent() -> ChannelRecord:
        nothing = extras({"ph": [(NAN, NAN)]}, [(1, NAN, "V")], [(1, NAN, "")])
        return RECORD._replace(voltage=float("nan"), current=float("nan"), extras=nothing)

    assert not is_news(silent(), silent())


@given(CHANNEL_RECORDS, CHANNEL_RECORDS)
def test_without_bands_any_difference_is_news(before: ChannelRecord, after: ChannelRecord) -> None:
    assert is_news(before, after) is (before != after)
    assert not is_news(after, after)


@given(CHANNEL_RECORDS, st.sampled_from(list(NUMBERS)), st.floats(0, 100, width=32), st.floats(0, 100))
def test_a_band_is_what_it_says(record: ChannelRecord, field: str, by: float, band: float) -> None:
    before, after = changed(record, **{field: 0.0}), changed(record, **{field: by})
    assert is_news(before, after, **{**WIDE, NUMBERS[field]: band}) is (by > band)


def test_bands_have_the_names_of_a_reading() -> None:
    assert list(DeadBands.model_fields) == [*NUMBERS.values(), "aux", "bms", "smb"]
    assert DeadBands.model_validate({"aux": dict.fromkeys(AUX_KINDS, 1)})


# --- what else makes a reading worth a message ---


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    def monotonic(self) -> float:
        return self.now_s


class Report:
    """One channel, polled again and again."""

    def __init__(self, dead_bands: dict[str, Any] | None = None, heartbeat_s: float | None = None) -> None:
        self.clock = ManualClock()
        settings = Publish.model_validate({"dead_bands": dead_bands, "heartbeat_s": heartbeat_s})
        self.report = ReportByException(settings, self.clock)
        self.seq = 0

    def reading(self, channel: int = 1, quality: Quality = Quality.GOOD, **changes: Any) -> Reading:
        return Reading(channel, RECORD._replace(**changes), quality, "", self.seq)

    def poll(self, *readings: Reading, cycler: str = "a") -> Sequence[Reading]:
        self.seq += 1
        return self.report.worth_telling(Poll(cycler, "", self.seq, readings))

    def __call__(self, *, cycler: str = "a", after_s: float = 1.0, **options: Any) -> bool:
        self.clock.now_s += after_s
        return bool(self.poll(self.reading(**options), cycler=cycler))


def test_off_unless_configured() -> None:
    report = Report()
    readings = tuple(report.reading(channel) for channel in (1, 2))
    for _ in range(3):
        assert report.poll(*readings) == readings
    assert report.report.longest_silence_s is None


@pytest.mark.parametrize("settings", [{"dead_bands": {}}, {"heartbeat_s": 1e4}])
def test_either_switches_it_on(settings: dict[str, Any]) -> None:
    report = Report(**settings)
    assert [report(), report(), report(voltage=3.0), report(voltage=3.0)] == [True, False, True, False]


def test_the_first_of_each_channel_and_cycler() -> None:
    report = Report({})
    one, two = report.reading(1), report.reading(2)
    assert report.poll(one) == (one,)
    assert report.poll(one, two) == (two,)
    assert report.poll(one, two) == ()
    assert report.poll(one, two, cycler="b") == (one, two)


def test_those_that_are_news_in_their_order() -> None:
    report = Report({})
    report.poll(*(report.reading(channel) for channel in (1, 2, 3)))
    readings = [report.reading(channel, voltage=3.0 if channel != 2 else RECORD.voltage) for channel in (1, 2, 3)]
    assert [reading.channel for reading in report.poll(*readings)] == [1, 3]


def test_asked_again_it_says_the_same() -> None:
    """Several outputs share one choice."""
    report = Report({})
    poll = Poll("a", "", 1, (report.reading(),))
    assert [report.report.worth_telling(poll) for _ in range(3)] == [poll.readings] * 3
    again = Poll("a", "", 2, (report.reading(),))
    assert [report.report.worth_telling(again) for _ in range(2)] == [(), ()]


@pytest.mark.parametrize(("given", "counts"), [(5.0, 5.0), (None, DEFAULT_HEARTBEAT_S)])
def test_heartbeat(given: float | None, counts: float) -> None:
    report = Report({}, given)
    assert report()
    assert not report(after_s=counts - 0.5)
    assert report(after_s=0.5)
    assert not report(after_s=counts - 0.5)
    assert report(voltage=3.0)
    assert not report(voltage=3.0, after_s=counts - 0.5)  # news count as a heartbeat
    assert report(voltage=3.0, after_s=1e6)


def test_a_heartbeat_takes_its_values_as_published() -> None:
    report = Report({"voltage_v": 0.5}, 10)
    assert report(voltage=3.0)
    assert report(voltage=3.375, after_s=10)
    assert not report(voltage=3.75)
    assert report(voltage=4.0)


def test_quality() -> None:
    report = Report({})
    told = [report(quality=quality) for quality in (Quality.GOOD, Quality.COMM_LOST, Quality.COMM_LOST, Quality.GOOD)]
    assert told == [True, True, False, True]


def test_after_it_was_stale() -> None:
    report = Report({})
    assert report()
    report.report.follow(StaleReading("a", report.reading(2, Quality.STALE)))
    report.report.follow(StaleReading("b", report.reading(1, Quality.STALE)))
    assert not report()
    report.report.follow(StaleReading("a", report.reading(1, Quality.STALE)))
    assert report()


def test_after_its_cycler_came_back() -> None:
    report = Report({})
    assert report()
    report.report.follow(CyclerState("b", online=True, info=None))
    assert not report()
    report.report.follow(CyclerState("a", online=False, info=None))
    assert report.report._channels == {}  # nothing is kept of what is gone
    report.report.follow(CyclerState("a", online=True, info=None))
    assert [report(), report()] == [True, False]


def test_anew() -> None:
    report = Report({})
    assert report()
    report.report.begin_anew()
    assert [report(), report()] == [True, False]
