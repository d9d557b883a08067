"""The judge of the crash test sees what it must see: evidence with one thing wrong in it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.judgement import Answer, Evidence, problems
from tests.faults.orders import Order
from tests.faults.world import CYCLER, Entry

SEVEN = f"{CYCLER}/channel/7"
EIGHT = f"{CYCLER}/channel/8"


def order(identity: str, verb: str, *channels: int, value: float | None = None) -> Order:
    return Order(identity, verb, channels, len(channels) > 1, json.dumps({"id": identity}).encode(), value)


NOON = "2026-01-02T12:00:00.000Z"


def answer(where: str, identity: str, outcome: str = "succeeded", **more: Any) -> Answer:
    body = {"id": identity, "command": "start", "outcome": outcome, "reason": "ok", "duplicate": False, **more}
    return Answer(where, {"received_at": NOON, **body})


def entry(command: str, arguments: dict[str, Any], results: list[dict[str, Any]]) -> Entry:
    return {"time": NOON, "command": command, "arguments": arguments, "results": results}


def started(identity: str, *channels: int, code: int = 0) -> Entry:
    results = [{"channel": channel, "code": code, "reason": "ok" if code == 0 else "running"} for channel in channels]
    return entry("start", {"test_name": identity, "channels": list(channels)}, results)


def updated(value: float, channel: int, code: int = 0, reason: str = "ok") -> Entry:
    entries = [{"channel": channel, "value": value}]
    results = [{"channel": channel, "code": code, "reason": reason}]
    return entry("update_meta_variables", {"updates": {"entries": entries}}, results)


@dataclass
class Case:
    """A start of channel 7 that succeeded, one over two channels, a write that was refused."""

    orders: list[Order] = field(
        default_factory=lambda: [order("a", "start", 7), order("b", "start", 7, 8), order("c", "set_mv", 7, value=2.5)]
    )
    answers: list[Answer] = field(
        default_factory=lambda: [
            answer(SEVEN, "a"),
            answer(SEVEN, "a", duplicate=True),
            answer(SEVEN, "b", "failed"),
            answer(EIGHT, "b", "unknown"),
            answer(CYCLER, "b", "unknown", channels={"7": "failed", "8": "unknown"}),
            answer(SEVEN, "c", "refused"),
        ]
    )
    record: list[Entry] = field(default_factory=lambda: [started("a", 7), started("b", 7, code=16), started("b", 8)])

    def problems(self) -> list[str]:
        return problems(Evidence({each.id: each for each in self.orders}, self.answers, self.record))


def test_all_is_well() -> None:
    assert Case().problems() == []


def for_now(time: str) -> Answer:
    return answer(SEVEN, "a", "refused", reason="not_connected", received_at=f"2026-01-02T{time}Z")


def test_a_refusal_for_now_may_come_before() -> None:
    case = Case()
    case.answers.insert(0, for_now("11:59:59.999"))
    assert case.problems() == []


TOO_SOON = "updated_within_200_ms"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda case: case.record.append(started("a", 7)), "start 'a' was executed 2 times on channel 7"),
        (lambda case: case.record.append(started("a", 7, code=16)), "start 'a' was sent 2 times to channel 7"),
        (lambda case: case.record.append(started("x", 7)), "nobody asked for start 'x' on channel 7"),
        (lambda case: case.record.append(started("a", 9)), "nobody asked for start 'a' on channel 9"),
        (lambda case: case.record.append(updated(2.5, 7)), "c: refused on arbin1/channel/7, but it was sent 1 times"),
        (lambda case: case.record.pop(0), "a: succeeded on arbin1/channel/7, but it was sent 0 times"),
        (lambda case: case.record.append(started("b", 7)), "b: failed on arbin1/channel/7, but it was sent 2 times"),
        (lambda case: case.answers.pop(), "c has no result"),
        (lambda case: case.answers.append(answer(SEVEN, "a", "failed", duplicate=True)), "results on .*/7 disagree"),
        (lambda case: case.answers.append(answer(CYCLER, "b", "failed", duplicate=True)), "results on arbin1 disagree"),
        (lambda case: case.answers.append(answer(SEVEN, "a")), "2 results on .*/7 do not say that they are duplicates"),
        (lambda case: case.answers.append(answer(SEVEN, "x")), "a result that nobody asked for"),
        (lambda case: case.answers.append(for_now("12:00:00.001")), "a: refused, not_connected, .* had been sent at"),
    ],
)
def test_something_is_wrong(spoil: Callable[[Case], object], problem: str) -> None:
    case = Case()
    spoil(case)
    with pytest.raises(AssertionError, match=problem):
        assert not case.problems(), "\n".join(case.problems())


def test_a_packet_that_came_too_soon_may_be_sent_again() -> None:
    case = Case(answers=[*Case().answers[:-1], answer(SEVEN, "c")])
    case.record += [updated(2.5, 7, 20, TOO_SOON), updated(2.5, 7, 20, TOO_SOON), updated(2.5, 7)]
    assert case.problems() == []


def test_a_stop_may_come_twice() -> None:
    case = Case()
    case.orders.append(order("s", "stop", 7))
    case.answers += [answer(SEVEN, "s", command="stop"), answer(SEVEN, "s", "failed", command="stop")]
    assert case.problems() == []
