import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.simulator.cell import SECONDS_PER_HOUR, Cell, CellState

CELL = Cell()
states = st.builds(
    CellState,
    soc=st.floats(0.0, 1.0),
    rc1_v=st.floats(-0.1, 0.1),
    rc2_v=st.floats(-0.1, 0.1),
    temperature_c=st.floats(10.0, 60.0),
)
currents = st.floats(-5.0, 5.0)


def test_ocv_rises_everywhere() -> None:
    volts = [CELL.ocv(i / 1000) for i in range(-100, 1200)]
    assert all(a < b for a, b in pairwise(volts))
    assert CELL.ocv(0.0) == pytest.approx(2.8)
    assert CELL.ocv(1.0) == pytest.approx(4.2)
    assert CELL.ocv(0.95) == pytest.approx((4.09 + 4.2) / 2)


def test_a_current_step_shows_r0_at_once_and_all_resistors_in_the_end() -> None:
    rest = CellState(0.5)
    assert CELL.voltage(rest, 1.0) - CELL.voltage(rest, 0.0) == pytest.approx(CELL.r0_ohm)
    late = CELL.after(rest, 1.0, 2000.0)
    polarised = CELL.voltage(late, 1.0) - CELL.ocv(late.soc)
    assert polarised == pytest.approx(CELL.r0_ohm + CELL.r1_ohm + CELL.r2_ohm)
    relaxed = CELL.after(late, 0.0, 5000.0)
    assert CELL.voltage(relaxed, 0.0) == pytest.approx(CELL.ocv(late.soc))


def test_time_constants() -> None:
    state = CELL.after(CellState(0.5, rc1_v=0.1, rc2_v=0.1), 0.0, 30.0)
    assert state.rc1_v == pytest.approx(0.1 * math.exp(-1))
    assert state.rc2_v == pytest.approx(0.1 * math.exp(-0.3))


@given(states, currents, st.floats(0.01, 5000.0), st.floats(0.01, 5000.0))
def test_the_circuit_does_not_care_how_time_is_cut(
    state: CellState, current_a: float, first_s: float, second_s: float
) -> None:
    whole = CELL.after(state, current_a, first_s + second_s)
    pieces = CELL.after(CELL.after(state, current_a, first_s), current_a, second_s)
    assert pieces[:3] == pytest.approx(whole[:3], abs=1e-9)


@given(states, currents, st.floats(1.0, 7200.0))
def test_charge_is_kept(state: CellState, current_a: float, dt_s: float) -> None:
    after = CELL.after(state, current_a, dt_s)
    assert (after.soc - state.soc) * CELL.capacity_ah == pytest.approx(current_a * dt_s / SECONDS_PER_HOUR)


@pytest.mark.parametrize("current_a", [2.5, -2.5, 0.0])
def test_energy_is_kept(current_a: float) -> None:
    """What goes in at the terminals is in the cell, in the capacitors, or heat."""
    state = start = CellState(0.31, rc1_v=0.03, rc2_v=-0.01)
    step_s, terminal_j, cell_j, heat_j = 0.05, 0.0, 0.0, 0.0
    for _ in range(12_000):
        after = CELL.after(state, current_a, step_s)
        terminal_j += current_a * step_s * (CELL.voltage(state, current_a) + CELL.voltage(after, current_a)) / 2
        cell_j += current_a * step_s * (CELL.ocv(state.soc) + CELL.ocv(after.soc)) / 2
        heat_j += CELL.heat_j(state, current_a, step_s)
        state = after
    stored_j = (
        CELL.c1_farad * (state.rc1_v**2 - start.rc1_v**2) + CELL.c2_farad * (state.rc2_v**2 - start.rc2_v**2)
    ) / 2
    assert terminal_j == pytest.approx(cell_j + stored_j + heat_j, rel=1e-6, abs=1e-3)
    assert CELL.heat_j(start, current_a, 600.0) == pytest.approx(heat_j, rel=1e-9)


def test_thermal_node_warms_to_its_balance_and_cools_to_the_ambient() -> None:
    warm = CELL.after(CellState(0.5), 2.5, 50_000.0)
    power_w = 2.5**2 * (CELL.r0_ohm + CELL.r1_ohm + CELL.r2_ohm)
    assert warm.temperature_c == pytest.approx(CELL.ambient_c + power_w / CELL.cooling_w_per_k, rel=1e-2)
    cool = CELL.after(warm, 0.0, 600.0 / 1.008)  # about one time constant
    assert CELL.ambient_c < cool.temperature_c < warm.temperature_c
    assert CELL.after(warm, 0.0, 1e6).temperature_c == pytest.approx(CELL.ambient_c, abs=1e-2)


@given(states, st.floats(3.0, 4.3), st.floats(0.0, 20.0))
def test_the_cv_current_holds_the_voltage(state: CellState, voltage_v: float, dt_s: float) -> None:
    current_a = CELL.cv_current(state, voltage_v, dt_s)
    after = CELL.after(state, current_a, dt_s)
    one_piece = math.isclose(
        CELL.ocv(after.soc) - CELL.ocv(state.soc),
        (CELL.ocv(state.soc + 1e-9) - CELL.ocv(state.soc)) * 1e9 * (after.soc - state.soc),
        rel_tol=1e-3,
        abs_tol=1e-9,
    )
    if one_piece:
        assert CELL.voltage(after, current_a) == pytest.approx(voltage_v, abs=1e-4)


def test_no_time_changes_nothing() -> None:
    state = CellState(0.5, 0.01, 0.02, 30.0)
    assert CELL.after(state, 1.0, 0.0) is state
