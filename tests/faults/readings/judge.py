"""What a subscriber saw, held against what the cyclers handed out: nothing missing, nothing changed, all in order."""

from collections import Counter, defaultdict
from collections.abc import Collection as Many
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.faults.readings.seen import Collection, Key, Seen

LATE_S = 2.0  # at the most between a cycler's answer and the `ts` that the bridge gives it, on a busy machine


@dataclass
class Evidence:
    """What happened.

    Attributes:
        answered: by cycler, when each poll was answered (seconds since 1970); the first has number 1.
        heard: what the subscriber saw.
        in_flight: by cycler, polls that were under way when the bridge or its link to the cycler died: may be missing.
        troubled: times (from, to) in which a faulty link to the cycler may have swallowed answers, or held them up.
        acknowledged: what the broker acknowledged to the bridge; what of that is missing is the broker's loss.
        altered: messages that were not what was sent.
        altering: whether the link damaged bytes, so that `altered` is no wonder.
        gaps: events in which the bridge named what it gave up.
        channels: that each cycler has.
    """

    answered: Mapping[str, Sequence[float]]
    heard: Collection
    in_flight: Mapping[str, Many[int]] = field(default_factory=dict)
    troubled: Sequence[tuple[float, float]] = ()
    acknowledged: Collection = field(default_factory=Collection)
    altered: Sequence[str] = ()
    altering: bool = False
    gaps: Sequence[Mapping[str, Any]] = ()
    channels: int = 4

    def is_troubled(self, at: float) -> bool:
        return any(begin <= at <= end for begin, end in self.troubled)

    def missing(self, cycler: str) -> set[int]:
        """Polls that were answered and not seen, whoever is to blame."""
        return set(range(1, len(self.answered[cycler]) + 1)) - self.heard.complete.get(cycler, set())

    def cost(self, cycler: str) -> set[int]:
        """Those of them that a kill, or a fault between cycler and bridge, may cost."""
        allowed = set(self.in_flight.get(cycler, ()))
        times = self.answered[cycler]
        return {number for number in self.missing(cycler) if number in allowed or self.is_troubled(times[number - 1])}

    def brokers(self, cycler: str) -> set[int]:
        """Those that the broker had acknowledged."""
        return self.missing(cycler) & self.acknowledged.complete.get(cycler, set())


def holes(heard: Collection) -> dict[tuple[str, str], list[int]]:
    """By cycler and boot: the seqs that a consumer knows to be missing, from 1 to the highest seen."""
    highest: dict[tuple[str, str], int] = defaultdict(int)
    for cycler, boot, seq in (message.key for message in heard.seen):
        highest[cycler, boot] = max(highest[cycler, boot], seq)
    found = {
        (cycler, boot): [seq for seq in range(1, top + 1) if (cycler, boot, seq) not in heard.keys]
        for (cycler, boot), top in highest.items()
    }
    return {where: seqs for where, seqs in found.items() if seqs}


def problems(evidence: Evidence, *, replayed: bool = False) -> list[str]:
    """Everything that must not be; empty when all is well.

    Args:
        evidence: what happened.
        replayed: whether the consumer has closed its gaps: then the broker's losses are no excuse any more.
    """
    changed = () if evidence.altering else evidence.altered
    return [
        *(f"altered: {each}" for each in changed),
        *_missing(evidence, replayed=replayed),
        *_holes(evidence, replayed=replayed),
        *_gaps(evidence),
        *_names(evidence),
        *_whole(evidence),
        *_repeats(evidence.heard.seen),
        *_flags(evidence.heard.seen),
        *_times(evidence),
        *_order(evidence.heard.seen),
    ]


def _missing(evidence: Evidence, *, replayed: bool) -> Iterator[str]:
    for cycler in evidence.answered:
        lost = evidence.missing(cycler) - evidence.cost(cycler)
        if not replayed:
            lost -= evidence.brokers(cycler)
        if lost:
            yield f"{cycler}: {len(lost)} polls were answered and never seen: {_ranges(lost)}"


def _holes(evidence: Evidence, *, replayed: bool) -> Iterator[str]:
    excused: Many[Key] = () if replayed else evidence.acknowledged.keys
    for (cycler, boot), seqs in holes(evidence.heard).items():
        lost = [seq for seq in seqs if (cycler, boot, seq) not in excused]
        if lost:
            yield f"{cycler}, boot {boot}: seq is not contiguous: {_ranges(lost)} missing"


def _gaps(evidence: Evidence) -> Iterator[str]:
    for event in evidence.gaps:
        yield f"{event.get('cycler')}: the bridge gave readings up, {event.get('message')!r}"


def _names(evidence: Evidence) -> Iterator[str]:
    """One seq, one poll; and no poll that nobody answered."""
    numbers: dict[Key, int] = {}
    keys: dict[tuple[str, int], Key] = {}
    for message in evidence.heard.seen:
        if message.number > len(evidence.answered.get(message.cycler, ())):
            yield f"{message.key}: poll {message.number} was never answered"
        if numbers.setdefault(message.key, message.number) != message.number:
            yield f"{message.key} is poll {numbers[message.key]} and poll {message.number}"
        if keys.setdefault((message.cycler, message.number), message.key) != message.key:
            yield f"poll {message.number} is {keys[message.cycler, message.number]} and {message.key}"


def _whole(evidence: Evidence) -> Iterator[str]:
    """A poll has all channels, but where the link to the cycler may have swallowed some."""
    every = set(range(1, evidence.channels + 1))
    found: dict[Key, set[int]] = defaultdict(set)
    numbers: dict[Key, int] = {}
    for message in evidence.heard.seen:
        found[message.key].update(message.channels)
        numbers[message.key] = message.number
    for key, channels in found.items():
        times = evidence.answered.get(key[0], ())
        excused = numbers[key] > len(times) or evidence.is_troubled(times[numbers[key] - 1])
        if key in evidence.heard.keys and channels != every and not excused:
            yield f"{key}: channels {_ranges(every - channels)} are missing"


def _repeats(seen: Sequence[Seen]) -> Iterator[str]:
    first: dict[tuple[Key, int, int], Seen] = {}
    for message in seen:
        before = first.setdefault((message.key, message.part, message.parts), message)
        if before.content != message.content:
            yield f"{message.key}, part {message.part}: a repeat differs: {before.content} / {message.content}"


def _flags(seen: Sequence[Seen]) -> Iterator[str]:
    for message in seen:
        if message.historical != (message.kind == "backfill"):
            yield f"{message.key}: on {message.kind}, and historical is {message.historical}"


def _times(evidence: Evidence) -> Iterator[str]:
    for message in evidence.heard.seen:
        times = evidence.answered.get(message.cycler, ())
        if message.number > len(times) or evidence.is_troubled(times[message.number - 1]):
            continue
        late_s = datetime.fromisoformat(message.ts).timestamp() - times[message.number - 1]
        if not -0.01 <= late_s <= LATE_S:
            yield f"{message.key}: its ts is {late_s:.3f} s after the cycler's answer"


def _order(seen: Sequence[Seen]) -> Iterator[str]:
    """What is new comes in the order in which it was polled: live ones always, late ones within a drain."""
    known: set[tuple[Key, int]] = set()
    last: dict[tuple[str, ...], Seen] = {}
    for message in seen:
        if (message.key, message.part) in known:
            continue
        known.add((message.key, message.part))
        stream = (message.kind, message.cycler, message.boot if message.kind == "readings" else str(message.drain))
        before = last.get(stream)
        if before and (message.number, message.part) < (before.number, before.part):
            yield f"{message.kind}: {message.key} came after {before.key}"
        last[stream] = message


def _ranges(numbers: Iterable[int]) -> str:
    """`1-3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:20]]
    return ", ".join(shown) + (f" and {len(runs) - 20} more runs" if len(runs) > 20 else "")


# --- figures ---


@dataclass
class Figures:
    """What a campaign counted.

    Attributes:
        bridge_kills: of the bridge; `broker_kills` of the broker; `faults` others.
        answered: polls, by the cyclers.
        live: polls first seen on `readings`; `late` on `backfill`.
        duplicates: messages seen again.
        in_flight: polls that a kill of the bridge, or the end of its link to the cycler, cost.
        most_per_kill: the most that one kill cost one cycler.
        swallowed: polls that a faulty link to the cycler cost.
        brokers: polls that the broker acknowledged and lost; `closed` those of them that `replay` brought back.
        altered: messages that a damaging link changed.
        drained_s: from the end of the faults until nothing was missing any more.
    """

    name: str
    bridge_kills: int = 0
    broker_kills: int = 0
    faults: int = 0
    answered: int = 0
    live: int = 0
    late: int = 0
    duplicates: int = 0
    in_flight: int = 0
    most_per_kill: int = 0
    swallowed: int = 0
    brokers: int = 0
    closed: int = 0
    altered: int = 0
    drained_s: float = 0.0


def count(evidence: Evidence, figures: Figures) -> None:
    """Fill in what the evidence shows."""
    first: dict[tuple[Key, int], Seen] = {}
    for message in evidence.heard.seen:
        first.setdefault((message.key, message.part), message)
    kinds = Counter({key: message.kind for (key, _), message in first.items() if key in evidence.heard.keys}.values())
    figures.answered = sum(map(len, evidence.answered.values()))
    figures.live, figures.late = kinds["readings"], kinds["backfill"]
    figures.duplicates = len(evidence.heard.seen) - len(first)
    figures.altered = len(evidence.altered)
    for cycler in evidence.answered:
        cost = evidence.cost(cycler)
        killed = cost & set(evidence.in_flight.get(cycler, ()))
        figures.in_flight += len(killed)
        figures.swallowed += len(cost) - len(killed)
        figures.most_per_kill = max(figures.most_per_kill, int(bool(killed)))
