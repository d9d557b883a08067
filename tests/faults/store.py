"""What the bridge keeps in its data directory: looked at from outside, with SQL of our own and the program's audit."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from cti_mqtt.bridge.store.schema import FILE_NAME
from tests.faults.judgement import Answer, outcomes
from tests.faults.orders import Order
from tests.faults.world import CYCLER, FaultError, World
from tests.support.processes import finished

THE_CYCLER = -1  # in the column `channel` of a command


@dataclass(frozen=True)
class Kept:
    """A command in the store.

    Attributes:
        target: what stands before `command` in its topic, without base.
        outcomes: by where they were published.
    """

    id: str
    target: str
    channels: tuple[int, ...]
    finished: bool
    outcomes: Mapping[str, str]


def kept(place: World) -> list[Kept]:
    """Every command in the store; nobody may be writing. None where there is no store yet."""
    path = place.data_dir / FILE_NAME
    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            return []  # killed while it was made
        results: dict[int, dict[str, str]] = {}
        for number, channel, body in connection.execute("SELECT command, channel, body FROM result"):
            results.setdefault(number, {})[_target(channel)] = json.loads(body)["outcome"]
        rows = connection.execute("SELECT number, id, channel, channels, finished FROM command").fetchall()
    return [
        Kept(identity, _target(channel), tuple(json.loads(channels)), bool(done), results.get(number, {}))
        for number, identity, channel, channels, done in rows
    ]


def unfinished(place: World) -> int:
    """How many commands have no end; nobody may be writing."""
    return sum(not command.finished for command in kept(place))


async def check_store(place: World, orders: Mapping[str, Order], answers: Iterable[Answer]) -> tuple[int, int]:
    """Every command that the store has as received has the results that were heard, and the audit holds together.

    A stop does not wait for the record, so one that was answered in the instant of a kill may be missing there.

    Returns:
        How many commands the store knows, and how many stops are not in the audit.

    Raises:
        FaultError: something is unfinished, missing or forged.
    """
    commands = kept(place)
    heard: dict[tuple[str, str], set[str]] = {}
    for answer in (answer for answer in answers if not answer.passing):
        for where, outcome in outcomes(answer):
            heard.setdefault((answer.body["id"], where), set()).add(outcome)
    found = [*_gaps(commands, orders), *_contradictions(commands, heard)]
    missing = set(orders) - await _audited(place)
    found += [f"{identity} is not in the audit" for identity in sorted(missing) if orders[identity].once]
    if found:
        raise FaultError(f"{place.base}: {len(found)} problems in the data directory:\n" + "\n".join(found[:30]))
    return len(commands), len(missing)


def _target(channel: int | None) -> str:
    return CYCLER if channel in {None, THE_CYCLER} else f"{CYCLER}/channel/{channel}"


def _gaps(commands: Collection[Kept], orders: Mapping[str, Order]) -> Iterator[str]:
    for command in commands:
        if not command.finished:
            yield f"{command.id} was received and never finished"
        wanted = {command.target, *map(_target, command.channels)} if command.id in orders else set()
        if missing := wanted - set(command.outcomes):
            yield f"{command.id}: no result is stored for {', '.join(sorted(missing))}"
    known = {command.id for command in commands}
    for identity, order in orders.items():
        if order.once and identity not in known:
            yield f"{identity} was answered, but is not in the store"


def _contradictions(commands: Collection[Kept], heard: Mapping[tuple[str, str], set[str]]) -> Iterator[str]:
    for command in commands:
        for where, outcome in command.outcomes.items():
            for said in heard.get((command.id, where), set()) - {outcome}:
                yield f"{command.id}: stored is {outcome} for {where}, but heard was {said}"


async def _audited(place: World) -> set[str]:
    """The ids that the audit has with an outcome.

    Raises:
        FaultError: it does not hold together.
    """
    where = ("audit", "--data-dir", str(place.data_dir))
    status, verdict = await finished(*where, "--verify")
    if status != 0:
        raise FaultError(f"{place.base}: the audit does not hold together: {verdict}")
    _, text = await finished(*where, "--format", "json")
    entries: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    return {entry["id"] for entry in entries if entry.get("outcome")}
