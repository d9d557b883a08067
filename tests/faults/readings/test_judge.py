"""The judge of the readings sees what it must see: each rule with evidence that keeps it and evidence that does not."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from tests.faults.readings.counted import mark, voltage_v
from tests.faults.readings.judge import Evidence, Figures, count, holes, problems
from tests.faults.readings.seen import AlteredError, Collection, Kind, Seen, understand

CYCLER = "arbin1"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()


def payload(number: int, seq: int | None = None, boot: str = "a", *, late: bool = False, after_s: float = 0.0) -> bytes:
    """A poll of two channels, answered `number` seconds after noon."""
    ts = datetime.fromtimestamp(NOON + number + after_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    channels = [
        {"channel": channel, "barcode": mark(number), "voltage_v": voltage_v(number, channel)} for channel in (1, 2)
    ]
    body = {"ts": ts, "boot": boot, "seq": seq or number, "channels": channels}
    return json.dumps(body | {"historical": True} if late else body).encode()


def message(number: int, seq: int | None = None, boot: str = "a", *, kind: Kind = "readings", drain: int = 0) -> Seen:
    return understand(kind, CYCLER, payload(number, seq, boot, late=kind == "backfill"), drain)


@dataclass
class Case:
    """Polls 1 to 3 live, 4 and 5 late, then 6 of another boot; 3 was heard twice."""

    messages: list[Seen] = field(
        default_factory=lambda: [
            *(message(number) for number in (1, 2, 3, 3)),
            *(message(number, kind="backfill") for number in (4, 5)),
            message(6, 1, "b"),
        ]
    )
    evidence: Evidence = field(
        default_factory=lambda: Evidence({CYCLER: [NOON + number for number in range(1, 7)]}, Collection(), channels=2)
    )

    def judged(self, **options: bool) -> list[str]:
        for each in self.messages:
            self.evidence.heard.add(each)
        return problems(self.evidence, **options)


def test_all_is_well() -> None:
    case = Case()
    assert case.judged(replayed=True) == []
    figures = Figures("test")
    count(case.evidence, figures)
    assert (figures.answered, figures.live, figures.late, figures.duplicates) == (6, 4, 2, 1)
    assert (figures.in_flight, figures.swallowed) == (0, 0)


def changed(case: Case, index: int, **fields: object) -> None:
    case.messages[index] = replace(case.messages[index], **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda case: case.messages.pop(1), "1 polls were answered and never seen: 2"),
        (lambda case: case.messages.pop(1), "boot a: seq is not contiguous: 2 missing"),
        (lambda case: case.messages.pop(), "1 polls were answered and never seen: 6"),
        (lambda case: changed(case, 6, seq=2), "boot b: seq is not contiguous: 1 missing"),
        (lambda case: case.messages.append(message(7, 2, "b")), "poll 7 was never answered"),
        (lambda case: case.messages.append(message(5, 6)), "poll 5 is .*'a', 5.* and .*'a', 6"),
        (lambda case: case.messages.append(message(6, 5)), "'a', 5\\) is poll 5 and poll 6"),
        (lambda case: changed(case, 3, content="{}"), "a repeat differs"),
        (lambda case: changed(case, 1, historical=True), "on readings, and historical is True"),
        (lambda case: changed(case, 4, historical=False), "on backfill, and historical is False"),
        (lambda case: changed(case, 5, ts="2026-01-02T12:00:09.000Z"), "its ts is 4.000 s after"),
        (lambda case: changed(case, 5, ts="2026-01-02T12:00:04.000Z"), "its ts is -1.000 s after"),
        (lambda case: case.messages.insert(0, case.messages.pop(1)), "readings: .*'a', 1.* came after .*'a', 2"),
        (lambda case: case.messages.insert(4, case.messages.pop(5)), "backfill: .*'a', 4.* came after .*'a', 5"),
        (lambda case: changed(case, 0, channels=(1,)), "'a', 1.*: channels 2 are missing"),
        (lambda case: changed(case, 0, parts=2), "1 polls were answered and never seen: 1"),
        (
            lambda case: setattr(case.evidence, "gaps", [{"cycler": CYCLER, "message": "full"}]),
            "gave readings up, 'full'",
        ),
        (lambda case: setattr(case.evidence, "altered", ["rubbish"]), "altered: rubbish"),
    ],
)
def test_something_is_wrong(spoil: Callable[[Case], object], problem: str) -> None:
    case = Case()
    spoil(case)
    with pytest.raises(AssertionError, match=problem):
        assert not case.judged(), "\n".join(case.judged())


@pytest.mark.parametrize("excuse", ["in_flight", "troubled"])
def test_a_kill_or_a_faulty_cycler_link_may_cost_a_poll(excuse: str) -> None:
    case = Case()
    case.messages.pop()
    value = {"in_flight": {CYCLER: {6}}, "troubled": [(NOON + 5.5, NOON + 6.5)]}[excuse]
    setattr(case.evidence, excuse, value)
    assert case.judged(replayed=True) == []
    figures = Figures("test")
    count(case.evidence, figures)
    assert (figures.in_flight, figures.swallowed) == ((1, 0) if excuse == "in_flight" else (0, 1))


def test_what_was_in_flight_is_no_excuse_for_others() -> None:
    case = Case()
    case.messages.pop()
    case.messages.pop()
    case.evidence.in_flight = {CYCLER: {6}}
    assert case.judged() == [f"{CYCLER}: 1 polls were answered and never seen: 5"]


def test_what_the_broker_acknowledged_and_lost_is_its_loss_until_a_replay() -> None:
    case = Case()
    case.evidence.acknowledged.add(case.messages.pop(1))
    assert case.judged() == []
    assert case.evidence.brokers(CYCLER) == {2}
    assert holes(case.evidence.heard) == {(CYCLER, "a"): [2]}
    assert len(problems(case.evidence, replayed=True)) == 2
    case.evidence.heard.add(message(2, kind="backfill", drain=1))
    assert problems(case.evidence, replayed=True) == []


def test_a_new_drain_may_begin_with_older_ones() -> None:
    case = Case()
    case.messages.append(replace(case.messages.pop(4), drain=1))
    assert case.judged() == []


def test_altered_messages_are_no_wonder_on_a_damaging_link() -> None:
    case = Case()
    case.evidence.altered, case.evidence.altering = ["rubbish"], True
    assert case.judged() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text.replace(b'"p3"', b'"p2"', 1),
        lambda text: text.replace(b'"p3"', b'"x3"'),
        lambda text: text.replace(b'"boot"', b'"bout"'),
        lambda text: text.replace(b'"voltage_v": 0.3', b'"voltage_v": 0.4'),
    ],
)
def test_what_no_bridge_can_have_sent_is_altered(spoil: Callable[[bytes], bytes]) -> None:
    assert understand("readings", CYCLER, payload(3)).number == 3
    with pytest.raises(AlteredError):
        understand("readings", CYCLER, spoil(payload(3)))


def test_a_poll_in_parts_is_complete_with_the_last() -> None:
    heard = Collection()
    for part in (2, 2, 1):
        assert heard.complete[CYCLER] == set()
        heard.add(replace(message(1), part=part, parts=2))
    assert heard.complete[CYCLER] == {1}
