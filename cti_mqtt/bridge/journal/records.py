"""What the journal takes and gives, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptPoll:
    """A poll as it stands in the journal.

    Attributes:
        number: its place; older ones have smaller numbers, also across restarts.
        cycler: its id.
        boot: the run of the bridge that took it.
        seq: of the poll, within cycler and run.
        ts: when it was taken, as published.
        fragments: one JSON object a channel.
    """

    number: int
    cycler: str
    boot: str
    seq: int
    ts: str
    fragments: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Portion:
    """Some of what was asked for, in order; the next portion begins behind `last`.

    Attributes:
        polls: those of them that can be read; there may be none although more follow.
        last: the last number, or seq, that was looked at; None: there was nothing to look at, this is the end.
    """

    polls: tuple[KeptPoll, ...]
    last: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Polls in a row that were given up without the broker having them.

    Attributes:
        cycler: its id.
        boot: the run of the bridge that took them.
        from_seq: the first of them.
        to_seq: the last of them.
        polls: how many.
        why: for people.
    """

    cycler: str
    boot: str
    from_seq: int
    to_seq: int
    polls: int
    why: str


@dataclass(frozen=True, slots=True)
class Span:
    """What is kept of one run, delivered or not; there may be holes in it."""

    cycler: str
    boot: str
    from_seq: int
    to_seq: int
    polls: int


@dataclass(frozen=True, slots=True)
class Lost:
    """One poll that was given up."""

    number: int
    cycler: str
    boot: str
    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How much there is.

    Attributes:
        waiting: polls that are not delivered.
        waiting_bytes: of their payload, as stored.
        delivered_bytes: of the payload of the others.
    """

    waiting: int = 0
    waiting_bytes: int = 0
    delivered_bytes: int = 0
