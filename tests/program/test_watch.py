"""What `watch` shows as old: what nobody keeps up to date, and not what only is quiet."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.cli.watch import OLD_S, Board

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIVES = {"bridge": b"online", "a": b"online", "a/channel/1": b"online"}


def is_dim(said: dict[str, bytes], age_s: float, problem: str = "", **changes: Any) -> bool:
    board = Board("cti")
    for who, payload in said.items():
        board.hear(Incoming(f"cti/{who}/availability", payload, retain=True))
    body = {"ts": (NOW - timedelta(seconds=age_s)).isoformat(), "status": "Idle", "quality": "good", **changes}
    board.hear(Incoming("cti/a/channel/1/state", orjson.dumps(body), retain=True))
    cells = list(board.table(problem, NOW).columns[2].cells)
    assert len(cells) == 1
    return "[dim]" in str(cells[0])


@pytest.mark.parametrize(
    ("said", "age_s", "expected"),
    [
        ({}, OLD_S - 1, False),
        ({}, OLD_S + 1, True),
        (LIVES, OLD_S + 1, False),
        ({**LIVES, "bridge": b"offline"}, OLD_S + 1, True),
        ({**LIVES, "a": b"offline"}, 0, True),
        ({**LIVES, "a/channel/1": b"stale"}, OLD_S + 1, True),
        ({**LIVES, "a/channel/1": b"offline"}, OLD_S + 1, True),
        ({**LIVES, "a/channel/1": b""}, OLD_S + 1, True),
    ],
)
def test_old_is_what_nobody_vouches_for(said: dict[str, bytes], age_s: float, expected: bool) -> None:
    assert is_dim(said, age_s) is expected


def test_without_a_broker_nobody_does() -> None:
    assert is_dim(LIVES, OLD_S + 1, problem="no connection")


def test_a_stale_reading_is_old_at_once() -> None:
    assert is_dim(LIVES, 0, quality="stale")
