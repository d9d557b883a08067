"""Hostile messages: a short cut of `make faults`, which sends 10 000; and the program behind it."""

import random
from pathlib import Path

import pytest

from tests.faults import run
from tests.faults.hostile import campaign
from tests.faults.shots import Armoury, answered_on
from tests.support.brokers import needs_mosquitto

SHOTS = 600
LIMIT_S = 100.0


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_hostile_messages(tmp_path: Path, protocol: object) -> None:
    figures = await campaign(tmp_path, SHOTS, 1, protocol, LIMIT_S)
    assert figures.shots.total() == SHOTS
    assert {"malformed", "unknown_channel", "unknown_cycler", "unknown_command", "not_allowed"} <= set(figures.reasons)
    assert (figures.replies > 0) is (protocol == 5)


def test_the_same_seed_gives_the_same_shots() -> None:
    first, second = (Armoury(random.Random(7), "cti", five=True) for _ in range(2))
    shots = [first.next() for _ in range(500)]
    assert list(map(str, shots)) == [str(second.next()) for _ in range(500)]
    assert len({shot.kind for shot in shots}) > 25


def test_no_shot_stops_anything_by_rule() -> None:
    """A stop is carried out whatever its payload: none may go to a channel that exists, none that is empty to all."""
    armoury = Armoury(random.Random(1), "cti", five=True)
    for _ in range(5000):
        shot = armoury.next()
        levels = shot.topic.split("/")
        if levels[:2] == ["arbin1", "command"] and levels[2:3] == ["stop"]:
            assert shot.payload or len(levels) > 4
        if levels[:2] == ["arbin1", "channel"] and levels[3:5] == ["command", "stop"] and len(levels) < 7:
            assert levels[2] not in map(str, range(1, 17)), shot


@pytest.mark.parametrize(
    ("topic", "result"),
    [
        ("arbin1/channel/7/command/start", "arbin1/channel/7/result"),
        ("arbin1/channel/x/command", "arbin1/channel/x/result"),
        ("arbin1/command/start/me", "arbin1/result"),
        ("nobody/command/start", "bridge/result"),
        ("nobody/channel/7/command/start", "bridge/result"),
    ],
)
def test_where_results_come(topic: str, result: str) -> None:
    assert answered_on(topic) == result


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_the_program_says_what_it_did(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["faults", "--kills", "0", "--payloads", "120"])
    assert run.main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("120 hostile messages, ")
    assert "nothing was executed" in shown
    assert "memory after the warm-up" in shown
