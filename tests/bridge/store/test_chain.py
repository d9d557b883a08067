"""The hash chain: whatever is done to the rows is found."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cti_mqtt.bridge.store.audit import FIRST_HASH, AuditRow, Break, canonical, chained, verify

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ENTRIES = st.lists(st.dictionaries(st.text(st.characters()), JSON, max_size=4), min_size=1, max_size=8)


def chain(entries: list[str]) -> list[AuditRow]:
    rows, head = [], FIRST_HASH
    for seq, entry in enumerate(entries, 1):
        head = chained(head, entry)
        rows.append(AuditRow(seq, entry, head))
    return rows


def change_entry(rows: list[AuditRow], at: int, text: str) -> list[AuditRow]:
    return [*rows[:at], replace(rows[at], entry=text), *rows[at + 1 :]]


def change_hash(rows: list[AuditRow], at: int, text: str) -> list[AuditRow]:
    return [*rows[:at], replace(rows[at], hash=text), *rows[at + 1 :]]


def change_seq(rows: list[AuditRow], at: int, text: str) -> list[AuditRow]:
    return [*rows[:at], replace(rows[at], seq=rows[at].seq + 1 + len(text)), *rows[at + 1 :]]


def remove(rows: list[AuditRow], at: int, _: str) -> list[AuditRow]:
    return [*rows[:at], *rows[at + 1 :]]


def remove_and_renumber(rows: list[AuditRow], at: int, _: str) -> list[AuditRow]:
    return [*rows[:at], *(replace(row, seq=row.seq - 1) for row in rows[at + 1 :])]


def cut(rows: list[AuditRow], at: int, _: str) -> list[AuditRow]:
    return rows[:at]


def exchange(rows: list[AuditRow], at: int, _: str) -> list[AuditRow]:
    return [*rows[:at], *rows[at : at + 2][::-1], *rows[at + 2 :]]


def exchange_and_renumber(rows: list[AuditRow], at: int, _: str) -> list[AuditRow]:
    return [replace(row, seq=seq) for seq, row in enumerate(exchange(rows, at, ""), 1)]


def repeat(rows: list[AuditRow], at: int, _: str) -> list[AuditRow]:
    return [*rows[: at + 1], *rows[at:]]


def add(rows: list[AuditRow], at: int, text: str) -> list[AuditRow]:
    """With a right hash and renumbered, but the rows after it as they were."""
    previous = rows[at - 1].hash if at else FIRST_HASH
    new = AuditRow(at + 1, text, chained(previous, text))
    return [*rows[:at], new, *(replace(row, seq=row.seq + 1) for row in rows[at:])]


MUTATIONS = (
    change_entry, change_hash, change_seq, remove, remove_and_renumber, cut, exchange, exchange_and_renumber, repeat,
    add,
)  # fmt: skip


@given(ENTRIES)
def test_a_whole_chain(entries: list[dict[str, object]]) -> None:
    rows = chain([canonical(entry) for entry in entries])
    assert verify(rows) is None
    assert verify(rows, len(rows)) is None


@pytest.mark.parametrize("mutate", MUTATIONS)
@given(entries=ENTRIES, data=st.data(), text=st.text())
def test_any_single_mutation_is_found(
    mutate: Callable[[list[AuditRow], int, str], list[AuditRow]],
    entries: list[dict[str, object]],
    data: st.DataObject,
    text: str,
) -> None:
    rows = chain([canonical(entry) for entry in entries])
    at = data.draw(st.integers(0, len(rows) - 1))
    mutated = mutate(rows, at, text)
    assume(mutated != rows)
    found = verify(mutated, len(rows))
    assert found is not None
    assert 1 <= found.seq <= len(rows) + 1


@given(ENTRIES)
def test_canonical_entries_are_json_and_do_not_depend_on_order(entries: list[dict[str, object]]) -> None:
    for entry in entries:
        text = canonical(entry)
        assert isinstance(json.loads(text), dict)
        assert canonical(dict(reversed(entry.items()))) == text


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"b": 1, "a": "ü"}, '{"a":"ü","b":1}'),
        ({"nan": float("nan")}, '{"nan":null}'),
        ({"half": "\ud800"}, '{"half":"\\ud800"}'),
        ({"big": 2**70}, '{"big":1180591620717411303424}'),
        ({"values": {1: 2.5}}, '{"values":{"1":2.5}}'),
    ],
)
def test_canonical(entry: dict[str, object], expected: str) -> None:
    assert canonical(entry) == expected


def test_the_hash_is_what_anybody_can_compute() -> None:
    first = hashlib.sha256(b"0" * 64 + b"{}").hexdigest()
    assert [row.hash for row in chain(["{}", "{}"])] == [first, hashlib.sha256(f"{first}{{}}".encode()).hexdigest()]


@pytest.mark.parametrize(
    ("rows", "last_seq", "seq"),
    [([], 0, None), ([], None, None), ([], 3, 1), (chain(["a", "b"]), 3, 3), (chain(["a", "b"]), 1, 3)],
)
def test_where(rows: list[AuditRow], last_seq: int | None, seq: int | None) -> None:
    found: Break | None = verify(rows, last_seq)
    assert (found and found.seq) == seq
