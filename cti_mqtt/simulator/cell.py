"""A lithium-ion cell: OCV curve, series resistance, two RC elements, one thermal node.

Pure functions of a state. For a constant current they are exact however long the time span: the circuit is linear
between the points of the OCV curve, and its solution is written down, not integrated.

Units: V, A (charge positive), ohm, s, Ah, degrees Celsius, J/K, W/K.
"""

from bisect import bisect_right
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

SECONDS_PER_HOUR = 3600.0

# State of charge -> V, a typical NMC cell; beyond 0 and 1 steep, so that a limit is always reached.
_OCV = (
    (-0.02, 2.00), (0.00, 2.80), (0.02, 3.10), (0.05, 3.30), (0.10, 3.45), (0.20, 3.55), (0.30, 3.61), (0.40, 3.66),
    (0.50, 3.72), (0.60, 3.80), (0.70, 3.90), (0.80, 4.00), (0.90, 4.09), (1.00, 4.20), (1.05, 4.60),
)  # fmt: skip
_SOC = tuple(soc for soc, _ in _OCV)


def _segment(soc: float) -> tuple[float, float]:
    """The OCV at `soc` and its slope there, in V per unit of charge; the end pieces go on for ever."""
    right = min(max(bisect_right(_SOC, soc), 1), len(_OCV) - 1)
    (soc0, volt0), (soc1, volt1) = _OCV[right - 1], _OCV[right]
    slope = (volt1 - volt0) / (soc1 - soc0)
    return volt0 + (soc - soc0) * slope, slope


class CellState(NamedTuple):
    """What a cell remembers.

    Attributes:
        soc: state of charge, 0 empty, 1 full.
        rc1_v: voltage over the first RC element, `rc2_v` over the second.
    """

    soc: float
    rc1_v: float = 0.0
    rc2_v: float = 0.0
    temperature_c: float = 25.0


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell is. The defaults are fair values of a 2.5 Ah cell of size 18650."""

    capacity_ah: float = 2.5
    r0_ohm: float = 0.016
    r1_ohm: float = 0.024
    c1_farad: float = 1250.0
    r2_ohm: float = 0.010
    c2_farad: float = 10_000.0  # a time constant of 100 s
    heat_capacity_j_per_k: float = 25.0
    cooling_w_per_k: float = 0.042  # a time constant of ten minutes
    ambient_c: float = 25.0

    def ocv(self, soc: float) -> float:
        """Open-circuit voltage."""
        return _segment(soc)[0]

    def voltage(self, state: CellState, current_a: float) -> float:
        """Terminal voltage."""
        return self.ocv(state.soc) + state.rc1_v + state.rc2_v + current_a * self.r0_ohm

    def after(self, state: CellState, current_a: float, dt_s: float) -> CellState:
        """The state `dt_s` later, under constant current."""
        if dt_s <= 0:
            return state
        final1, final2 = current_a * self.r1_ohm, current_a * self.r2_ohm
        warm = self.ambient_c + self.heat_j(state, current_a, dt_s) / dt_s / self.cooling_w_per_k
        cooled = exp(-dt_s * self.cooling_w_per_k / self.heat_capacity_j_per_k)
        return CellState(
            state.soc + current_a * dt_s / SECONDS_PER_HOUR / self.capacity_ah,
            final1 + (state.rc1_v - final1) * exp(-dt_s / (self.r1_ohm * self.c1_farad)),
            final2 + (state.rc2_v - final2) * exp(-dt_s / (self.r2_ohm * self.c2_farad)),
            warm + (state.temperature_c - warm) * cooled,
        )

    def heat_j(self, state: CellState, current_a: float, dt_s: float) -> float:
        """What the three resistors turn into heat within `dt_s`, under constant current."""
        heat = current_a**2 * self.r0_ohm * dt_s
        for r_ohm, c_farad, start_v in (
            (self.r1_ohm, self.c1_farad, state.rc1_v),
            (self.r2_ohm, self.c2_farad, state.rc2_v),
        ):
            tau_s = r_ohm * c_farad
            final_v = current_a * r_ohm
            off_v = start_v - final_v
            left = exp(-dt_s / tau_s)
            squared = (
                final_v**2 * dt_s + 2 * final_v * off_v * tau_s * (1 - left) + off_v**2 * tau_s / 2 * (1 - left**2)
            )
            heat += squared / r_ohm
        return heat

    def cv_current(self, state: CellState, voltage_v: float, dt_s: float) -> float:
        """The constant current under which the terminal voltage is `voltage_v` after `dt_s` (0: right now), in A.

        Closed form, and stable for any `dt_s`; exact while the charge stays on one piece of the OCV curve.
        """
        ocv_v, slope = _segment(state.soc)
        left1 = exp(-dt_s / (self.r1_ohm * self.c1_farad))
        left2 = exp(-dt_s / (self.r2_ohm * self.c2_farad))
        missing_v = voltage_v - ocv_v - state.rc1_v * left1 - state.rc2_v * left2
        charging = slope * dt_s / SECONDS_PER_HOUR / self.capacity_ah
        return missing_v / (self.r0_ohm + self.r1_ohm * (1 - left1) + self.r2_ohm * (1 - left2) + charging)


@dataclass(slots=True)
class Battery:
    """A cell in a drawer of the cycler: what it is and how it is."""

    cell: Cell
    state: CellState
