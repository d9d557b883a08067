"""Random and mutated frames for both roles: no exception, a bounded buffer, and a way back.

A short cut of `make fuzz`, which runs a million frames. The randomness is seeded: a failure comes again.
"""

import random

import pytest

from cti_mqtt.cti.frame import Direction
from tests.cti.golden import TOKEN, u32
from tests.fuzz.campaign import Campaign
from tests.fuzz.frames import CODES
from tests.fuzz.run import ROLES, main

FRAMES = 2000  # for each of 8 seeds and 2 roles


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name)
def test_fuzz(direction: Direction, seed: int) -> None:
    figures = Campaign(direction, seed).run(FRAMES)
    assert figures.frames == FRAMES
    assert figures.events["message, checksum good"] > 0
    assert figures.returns == {"after one bound of silence": 1, "at once": FRAMES // 4}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name)
def test_noise(direction: Direction, seed: int) -> None:
    """Bytes of which every second one is part of a token or a header."""
    rng = random.Random(f"noise {direction.name} {seed}")
    words = [TOKEN, TOKEN[:3], b"\xdd", b"\0", *map(u32, (0, 22, 128, 60_000, *CODES[direction]))]
    campaign = Campaign(direction, seed)
    for _ in range(300):
        campaign.feed(b"".join(rng.choice((rng.randbytes(1), rng.choice(words))) for _ in range(100)))
    campaign.find_back()


def test_the_program_says_what_it_did(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--frames", "400"])
    assert main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("400 frames in ")
    assert all(role in shown for role in ROLES.values())
    assert "bytes buffered at the most" in shown


def test_the_program_fails_and_names_the_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(campaign: Campaign, frames: int) -> None:
        raise IndexError(frames)

    monkeypatch.setattr(Campaign, "run", fail)
    monkeypatch.setattr("sys.argv", ["fuzz", "--frames", "400", "--seed", "7"])
    assert main() == 1
    assert "seed 7 failed" in capsys.readouterr().err
