"""Polls of many cyclers: where their beats lie, and that the bridge keeps to them."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.bridge.beats import Beat, free_phase, next_beat
from tests.bridge.reload_rig import another, reload, running
from tests.support.brokers import MOSQUITTO_5, broker_of_kind, needs_mosquitto
from tests.support.rig import Rig, rig, simulated

INTERVAL_S = 0.5
SLACK_S = 0.1  # for a busy machine; beats of the cyclers here are further apart
A_DAY_S = 86400.0


def phases(cyclers: int) -> list[float]:
    found: list[float] = []
    for _ in range(cyclers):
        found.append(free_phase(found))
    return found


def gaps(moments: Sequence[float], round_s: float = 1.0) -> list[float]:
    """Between neighbours, on a ring."""
    ordered = sorted(moments)
    return [later - earlier for earlier, later in pairwise([*ordered, ordered[0] + round_s])]


class TestPhases:
    @pytest.mark.parametrize("cyclers", [1, 2, 3, 8, 20, 64, 200])
    def test_they_are_spread(self, cyclers: int) -> None:
        """No two come close, and nowhere is a hole."""
        assert min(gaps(phases(cyclers))) > 0.4 / cyclers
        assert max(gaps(phases(cyclers))) < 1.9 / cyclers

    def test_one_begins_with_the_interval(self) -> None:
        assert phases(1) == [0.0]

    @pytest.mark.parametrize("step", [2, 3, 4])
    def test_they_are_spread_also_among_each_so_manyth(self, step: int) -> None:
        """Cyclers with one interval are spread, whatever the others beside them in the configuration have."""
        some = phases(64)[::step]
        assert max(gaps(some)) < 3 / len(some)

    def test_a_newcomer_takes_the_place_that_became_free(self) -> None:
        all_of_them = phases(8)
        assert free_phase([phase for phase in all_of_them if phase != all_of_them[3]]) == all_of_them[3]
        assert free_phase(all_of_them) == phases(9)[8]


PHASES = st.floats(0, 1, exclude_max=True)
INTERVALS_S = st.floats(0.05, 3600)
NOWS_S = st.floats(0, 1000 * A_DAY_S)


class TestNextBeat:
    @pytest.mark.parametrize("phase", [0.0, 0.3, 0.999])
    def test_on_a_beat_the_next_one_follows(self, phase: float) -> None:
        due_s, interval_s = (7 + phase) * 2.0, 2.0
        for took_s in (0.0, 0.1, 1.9):
            beat = next_beat(due_s, due_s + took_s, interval_s, phase)
            assert beat.due_s == pytest.approx(due_s + interval_s)
            assert beat.skipped == 0

    @pytest.mark.parametrize(("took_s", "skipped"), [(2.0, 0), (2.1, 1), (3.9, 1), (4.1, 2), (20.5, 10)])
    def test_a_slow_poll_skips_beats(self, took_s: float, skipped: int) -> None:
        assert next_beat(10.0, 10.0 + took_s, 2.0, 0.0) == Beat(10.0 + 2.0 * (skipped + 1), skipped)

    @pytest.mark.parametrize(
        ("began_s", "due_s"), [(10.0, 12.0), (10.9, 12.0), (11.1, 14.0), (11.9, 14.0), (12.0, 14.0)]
    )
    def test_after_a_first_poll_anywhere_it_falls_into_its_beats(self, began_s: float, due_s: float) -> None:
        """Neither half an interval after it nor counted as skipped."""
        assert next_beat(began_s, began_s + 0.05, 2.0, 0.0) == Beat(due_s, 0)

    @pytest.mark.parametrize(("over_s", "due_s", "skipped"), [(12.5, 14.0, 0), (12.9, 14.0, 1), (14.1, 16.0, 1)])
    def test_a_slow_first_poll_skips_a_beat_where_it_takes_longer_than_an_interval(
        self, over_s: float, due_s: float, skipped: int
    ) -> None:
        assert next_beat(10.8, over_s, 2.0, 0.0) == Beat(due_s, skipped)

    @given(phase=PHASES, interval_s=INTERVALS_S, due_s=NOWS_S, took=st.floats(0, 30))
    def test_anywhere(self, phase: float, interval_s: float, due_s: float, took: float) -> None:
        """On the grid, not in the past, half an interval after the last at the least, and no later than it must be."""
        now_s = due_s + took * interval_s
        found = next_beat(due_s, now_s, interval_s, phase)
        slack_s = 1e-6 * interval_s + 1e-6
        beats = found.due_s / interval_s - phase
        assert abs(beats - round(beats)) * interval_s < slack_s
        assert found.due_s > now_s - slack_s
        assert found.due_s - due_s > 0.5 * interval_s - slack_s
        assert found.due_s - max(now_s, due_s + 0.5 * interval_s) < interval_s + slack_s
        assert 0 <= found.skipped <= took + 1

    @given(phase=PHASES, interval_s=INTERVALS_S, due_s=NOWS_S)
    def test_polls_in_time_skip_nothing_for_ever(self, phase: float, interval_s: float, due_s: float) -> None:
        """However the numbers are rounded: one poll each interval, the clock a thousand days old."""
        beat = next_beat(due_s, due_s, interval_s, phase)
        for _ in range(20):
            before, beat = beat, next_beat(beat.due_s, beat.due_s + 0.1 * interval_s, interval_s, phase)
            assert beat.skipped == 0
            assert beat.due_s - before.due_s == pytest.approx(interval_s, abs=1e-6)


# --- in the bridge ---


def asked_at(it: Rig, cycler: str) -> list[float]:
    """When each poll came to the cycler, in s."""
    return [datetime.fromisoformat(entry["time"]).timestamp() for entry in it.asked("channels_info", cycler=cycler)]


async def polls(it: Rig, cycler: str, count: int) -> list[float]:
    """Until so many came, from now on; when each of them did."""
    before = len(asked_at(it, cycler))
    async with asyncio.timeout(30):
        while len(asked_at(it, cycler)) < before + count:  # noqa: ASYNC110  # a test looks from outside
            await asyncio.sleep(0.01)
    return asked_at(it, cycler)[before : before + count]


async def beats_of(it: Rig, cycler: str, interval_s: float = INTERVAL_S, count: int = 3) -> float:
    """Where in the interval a cycler's polls lie, s; all but its next one.

    On a busy machine some come late: what counts is where several in a row agree.
    """
    async with asyncio.timeout(30):
        while True:
            places = [moment % interval_s for moment in (await polls(it, cycler, count + 1))[1:]]
            around = [(place - places[0] + interval_s / 2) % interval_s for place in places]
            if max(around) - min(around) < SLACK_S:
                break
    return sorted(places, key=lambda place: (place - places[0] + interval_s / 2) % interval_s)[len(places) // 2]


def apart(one_s: float, other_s: float, interval_s: float = INTERVAL_S) -> float:
    """How far two places in an interval are from each other."""
    distance_s = abs(one_s - other_s) % interval_s
    return min(distance_s, interval_s - distance_s)


@needs_mosquitto
async def test_cyclers_are_polled_one_after_the_other(tmp_path: Path) -> None:
    names = ("arbin1", "arbin2", "arbin3")
    async with running(tmp_path, *names, poll_interval_s=INTERVAL_S) as it:
        places = [await beats_of(it, name) for name in names]
        assert min(gaps(places, INTERVAL_S)) > 0.236 * INTERVAL_S - SLACK_S
        for name in names:
            assert it.bridge._stations[name].counters.skipped == 0


@needs_mosquitto
async def test_a_session_that_begins_anew_is_polled_at_once_and_keeps_its_beats(tmp_path: Path) -> None:
    interval_s = 2.0
    async with running(tmp_path, "arbin1", "arbin2", poll_interval_s=interval_s) as it:
        place = await beats_of(it, "arbin2", interval_s, 1)
        await asyncio.sleep(0.3 * interval_s)  # not near a beat
        it.servers["arbin2"].disconnect_all()
        await it.observer.wait("arbin2/event", lambda heard: heard.json["type"] == "reconnected")
        await polls(it, "arbin2", 3)
        (login,) = it.asked("login", cycler="arbin2")[1:]
        began = datetime.fromisoformat(login["time"]).timestamp()
        first, second, third = [moment for moment in asked_at(it, "arbin2") if moment >= began][:3]
        assert first - began < 0.4  # a beat is further away
        assert 0.5 * interval_s - SLACK_S < second - first < 1.5 * interval_s + SLACK_S
        assert third - second == pytest.approx(interval_s, abs=SLACK_S)
        assert apart(second % interval_s, place, interval_s) < SLACK_S
        assert it.bridge._stations["arbin2"].counters.skipped == 0


@needs_mosquitto
async def test_who_comes_and_goes_moves_nobody_else(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(running(tmp_path, "arbin1", "arbin2", poll_interval_s=INTERVAL_S))
        server = await stack.enter_async_context(simulated(4))
        place = await beats_of(it, "arbin2")
        before = it.bridge._stations["arbin1"].phase
        new = another(it, server, poll_interval_s=INTERVAL_S)
        await reload(it, arbin1=None)
        assert apart(await beats_of(it, "arbin2"), place) < SLACK_S
        await reload(it, arbin3=new)
        assert it.bridge._stations["arbin3"].phase == before
        assert apart(await beats_of(it, "arbin2"), place) < SLACK_S


@needs_mosquitto
async def test_another_interval_begins_at_once_and_then_has_its_beats(tmp_path: Path) -> None:
    async with running(tmp_path, "arbin1", "arbin2", poll_interval_s=600.0) as it:
        await reload(it, arbin1={"poll_interval_s": INTERVAL_S}, arbin2={"poll_interval_s": INTERVAL_S})
        one, other = await asyncio.gather(beats_of(it, "arbin1"), beats_of(it, "arbin2"))
        assert apart(one, other) > 0.38 * INTERVAL_S - SLACK_S


@needs_mosquitto
async def test_different_intervals(tmp_path: Path) -> None:
    """Each keeps its own, and no poll is missing but those that a busy machine skips and the bridge counts."""
    async with (
        broker_of_kind(MOSQUITTO_5, tmp_path) as port,
        rig(port, 5, channels=2, cyclers=("arbin1", "arbin2"), cycler={"poll_interval_s": 0.2}) as it,
    ):
        await it.ready("arbin1")
        await it.ready("arbin2")
        await reload(it, arbin2={"poll_interval_s": INTERVAL_S})
        counters = it.bridge._stations["arbin1"].counters
        skipped = counters.skipped
        quick, slow = await asyncio.gather(polls(it, "arbin1", 10), polls(it, "arbin2", 5))
        assert round((quick[-1] - quick[0]) / 0.2) - 9 <= counters.skipped - skipped
        assert median(later - earlier for earlier, later in pairwise(quick)) == pytest.approx(0.2, abs=SLACK_S)
        assert median(later - earlier for earlier, later in pairwise(slow[1:])) == pytest.approx(0.5, abs=SLACK_S)
