"""What the orders, the results and the cycler's record say together; pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.faults.orders import Order
from tests.faults.world import CYCLER, Entry

OK = 0
# What is said of a message before the record is asked: whoever hears it may send the command again.
PASSING = frozenset({"retained", "not_connected"})


class Deed(NamedTuple):
    """Something that the cycler was asked for on a channel.

    Attributes:
        mark: what tells whose it is: a test name, a barcode, a value.
        done: whether it took effect.
        time: as in results.
    """

    verb: str
    channel: int
    mark: object
    done: bool
    reason: str
    time: str


class Answer(NamedTuple):
    """A result as it was heard; `target` is its topic without base and `result`."""

    target: str
    body: Mapping[str, Any]

    @property
    def passing(self) -> bool:
        """Whether it speaks of this message only, not of the command."""
        body = self.body
        return body["outcome"] == "refused" and body["reason"] in PASSING and not body["duplicate"]


@dataclass(frozen=True)
class Evidence:
    """All of a world."""

    orders: Mapping[str, Order]
    answers: Sequence[Answer]
    record: Sequence[Entry]


# --- the record ---


def deeds(record: Iterable[Entry]) -> Iterator[Deed]:
    """What each request asked for, and whether it took effect."""
    for entry in record:
        asked, results = entry["arguments"], entry["results"]
        match entry["command"]:
            case "start":
                found = {result["channel"]: result for result in results}
                for channel in asked["channels"]:
                    yield _deed("start", channel, asked["test_name"], found.get(channel), entry["time"])
            case "assign":
                yield _deed(
                    "assign", asked["channel"], asked["barcode"], results[0] if results else None, entry["time"]
                )
            case "set_meta_variable":
                yield _deed("set_mv", asked["channel"], asked["value"], results[0] if results else None, entry["time"])
            case "update_meta_variables":  # taken as a whole or not at all
                for each in asked["updates"]["entries"]:
                    yield _deed(
                        "set_mv", each["channel"], each["value"], results[0] if results else None, entry["time"]
                    )


def _deed(verb: str, channel: int, mark: object, result: Mapping[str, Any] | None, time: str) -> Deed:
    done = result is not None and result["code"] == OK
    return Deed(verb, channel, mark, done, "" if result is None else str(result["reason"]), time)


# --- judged ---


def problems(evidence: Evidence) -> list[str]:
    """Everything that must not be; empty where all is well."""
    every = list(deeds(evidence.record))
    return [
        *_done_twice(every),
        *_strangers(evidence, every),
        *_unanswered(evidence),
        *_disagreements(evidence),
        *_first_results(evidence),
        *_lies(evidence, every),
        *_late_refusals(evidence, every),
    ]


def _marks(evidence: Evidence) -> dict[object, Order]:
    """Whose a mark is."""
    return {mark: order for order in evidence.orders.values() for mark in (order.id, order.value) if mark is not None}


def _done_twice(every: Sequence[Deed]) -> Iterator[str]:
    done = Counter((deed.verb, deed.channel, deed.mark) for deed in every if deed.done)
    for (verb, channel, mark), times in done.items():
        if times > 1:
            yield f"{verb} {mark!r} was executed {times} times on channel {channel}"
    # A packet of values that came too soon after another was not even looked at, so it may be sent again.
    sent = Counter((deed.verb, deed.channel, deed.mark) for deed in every if deed.reason != "updated_within_200_ms")
    for (verb, channel, mark), times in sent.items():
        if times > max(1, done[verb, channel, mark]):
            yield f"{verb} {mark!r} was sent {times} times to channel {channel}"


def _strangers(evidence: Evidence, every: Sequence[Deed]) -> Iterator[str]:
    marks = _marks(evidence)
    for deed in every:
        order = marks.get(deed.mark)
        if order is None or deed.channel not in order.channels:
            yield f"nobody asked for {deed.verb} {deed.mark!r} on channel {deed.channel}"


def _unanswered(evidence: Evidence) -> Iterator[str]:
    heard = {(answer.body["id"], answer.target) for answer in evidence.answers if not answer.passing}
    for order in evidence.orders.values():
        if (order.id, order.target) not in heard:
            yield f"{order.id} has no result"


def _disagreements(evidence: Evidence) -> Iterator[str]:
    said: dict[tuple[str, str], set[str]] = {}
    for answer in evidence.answers:
        order = evidence.orders.get(answer.body["id"])
        if order is None:
            yield f"a result that nobody asked for: {answer.body}"
        elif order.once and not answer.passing:
            for where, outcome in outcomes(answer):
                said.setdefault((order.id, where), set()).add(outcome)
    for (identity, where), found in said.items():
        if len(found) > 1:
            yield f"{identity}: the results on {where} disagree: {', '.join(sorted(found))}"


def outcomes(answer: Answer) -> Iterator[tuple[str, str]]:
    """Where a result says what: a summary speaks for the channels, too."""
    yield answer.target, answer.body["outcome"]
    for channel, outcome in (answer.body.get("channels") or {}).items():
        yield f"{CYCLER}/channel/{channel}", outcome


def _first_results(evidence: Evidence) -> Iterator[str]:
    """At most one result on a topic is no duplicate."""
    firsts = Counter(
        (answer.body["id"], answer.target)
        for answer in evidence.answers
        if not answer.body["duplicate"] and answer.body["command"] != "stop" and not answer.passing
    )
    for (identity, where), times in firsts.items():
        if times > 1:
            yield f"{identity}: {times} results on {where} do not say that they are duplicates"


def _lies(evidence: Evidence, every: Sequence[Deed]) -> Iterator[str]:
    """Refused means never sent, succeeded means done, failed means not done."""
    sent = Counter((deed.mark, deed.channel) for deed in every if deed.verb != "assign")
    done = Counter((deed.mark, deed.channel) for deed in every if deed.verb != "assign" and deed.done)
    assigned = Counter((deed.mark, deed.channel) for deed in every if deed.verb == "assign" and deed.done)
    said: dict[tuple[str, str, str], None] = {}
    for answer in (answer for answer in evidence.answers if not answer.passing):
        said |= dict.fromkeys((answer.body["id"], where, outcome) for where, outcome in outcomes(answer))
    for identity, where, outcome in said:
        order = evidence.orders.get(identity)
        if order is None or not order.once or where == CYCLER:
            continue
        key = (order.id if order.value is None else order.value, int(where.rpartition("/")[2]))
        wrong = {
            "refused": sent[key] + assigned[key] > 0,
            "succeeded": done[key] != 1,
            "failed": done[key] > 0,
            "unknown": False,
        }
        if wrong[outcome]:
            facts = f"sent {sent[key]} times, executed {done[key]} times"
            yield f"{identity}: {outcome} on {where}, but it was {facts}"


def _late_refusals(evidence: Evidence, every: Sequence[Deed]) -> Iterator[str]:
    """Whoever is told that nothing was sent must not have been sent before."""
    sent: dict[object, str] = {}
    for deed in every:
        sent.setdefault(deed.mark, deed.time)
    for answer in evidence.answers:
        order = evidence.orders.get(answer.body["id"])
        if order is None or not order.once or not answer.passing:
            continue
        first = sent.get(order.id if order.value is None else order.value)
        if first is not None and first < answer.body["received_at"]:
            reason, received = answer.body["reason"], answer.body["received_at"]
            yield f"{order.id}: refused, {reason}, when it came at {received}, but it had been sent at {first}"


def dossier(evidence: Evidence, found: Iterable[str], most: int = 3) -> str:
    """All that is known of the first few orders that problems name, for people; not more than some results of each."""
    text = "\n".join(found)
    named = [
        order for order in evidence.orders.values() if order.id in text or (order.value and f" {order.value} " in text)
    ]
    lines = []
    for order in named[:most]:
        answers = [answer for answer in evidence.answers if answer.body["id"] == order.id]
        lines.append(f"{order.id}, sent to {order.target}: {order.body.decode()}; {len(answers)} results")
        lines += [f"  {answer.target}: {dict(answer.body)}" for answer in answers[: 2 * most]]
        lines += [f"  {deed}" for deed in deeds(evidence.record) if deed.mark in {order.id, order.value}]
    return "\n".join(lines)
