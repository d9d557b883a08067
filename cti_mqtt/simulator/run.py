"""A schedule being run on a battery."""

from collections.abc import Sequence
from typing import NamedTuple

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.extended import ResumeState
from cti_mqtt.simulator.cell import SECONDS_PER_HOUR, Battery, CellState
from cti_mqtt.simulator.schedule import (
    MAX_CURRENT_A,
    TIMES,
    ConstantCurrent,
    ConstantVoltage,
    CRate,
    Go,
    Limit,
    MetaVariable,
    Pause,
    Quantity,
    Schedule,
    Step,
)

MAX_SPAN_S = 10.0  # between two looks at the limits; also what the Wh are summed over
MAX_CV_SPAN_S = 2.0  # the current of a constant-voltage step falls, and is taken as constant for so long
TIME_TOLERANCE_S = 1e-9  # a time limit this near is reached: rounding must not leave a span too short to add up
CROSSING_TOLERANCE_S = 1e-6

FROM_THE_START = ResumeState()
STOPPED = "Stopped by command"
JUMPED_OUT = "Jump past the last step"
_ENDS = {Go.END: ChannelStatus.FINISHED, Go.UNSAFE: ChannelStatus.UNSAFE}


class _Point(NamedTuple):
    """Where the test would be `dt_s` from now."""

    dt_s: float
    current_a: float
    state: CellState


class Run:
    """One test from its start on; keeps its counters after its end.

    Args:
        schedule: what to run.
        battery: on what; its state is moved on.
        nominal_ah: what a C-rate refers to.
        meta_variables: MV_UD1 to MV_UD16; read whenever a step needs one, so a change counts at once.
        start_step: with which step it begins, from 0.
        state: the counters it begins with.

    Attributes:
        ended: the status the test ended with, None while it runs.
        cycle: from 1; `step_index` from 0.
        exit_condition: why the last step or the test ended.
    """

    def __init__(
        self,
        schedule: Schedule,
        battery: Battery,
        nominal_ah: float,
        meta_variables: Sequence[float],
        start_step: int = 0,
        state: ResumeState = FROM_THE_START,
    ) -> None:
        self.schedule = schedule
        self._battery = battery
        self._nominal_ah = nominal_ah
        self._meta_variables = meta_variables
        self.ended: ChannelStatus | None = None
        self.cycle = state.cycle
        self.step_index = start_step
        self.test_time_s = state.test_time
        self.step_time_s = state.step_time
        self.current_a = 0.0
        self.charge_ah = state.charge_capacity
        self.discharge_ah = state.discharge_capacity
        self.charge_wh = state.charge_energy
        self.discharge_wh = state.discharge_energy
        self.dvdt = 0.0
        self.exit_condition = "N/A"
        self.refresh()

    @property
    def step(self) -> Step:
        """The present step, or the last one."""
        return self.schedule.steps[self.step_index]

    @property
    def step_and_cycle(self) -> str:
        """`[cycle] step: label, type`, as the cycler shows it."""
        return f"[{self.cycle}] {self.step_index + 1}: {self.step.label}, {self.step.type}"

    @property
    def status(self) -> ChannelStatus:
        """The channel's status because of this test."""
        return self.step.status if self.ended is None else self.ended

    @property
    def paused(self) -> bool:
        """Whether it waits for a continue."""
        return self.ended is None and isinstance(self.step.drive, Pause)

    @property
    def moving(self) -> bool:
        """Whether time means something to it."""
        return self.ended is None and not self.paused

    def advance(self, dt_s: float) -> float:
        """Let the test run for `dt_s`; how much of that was left when it ended or paused, in s."""
        while dt_s > 0 and self.moving:
            dt_s -= self._advance_within_step(dt_s)
        return max(dt_s, 0.0)

    def end(self, status: ChannelStatus, exit_condition: str) -> None:
        """End the test here."""
        self.ended = status
        self.exit_condition = exit_condition
        self.current_a = 0.0
        self.dvdt = 0.0

    def stop(self) -> None:
        """End the test by command: it can be taken up again."""
        self.end(ChannelStatus.IDLE, STOPPED)

    @property
    def stopped(self) -> bool:
        """Whether a command ended it, so that it can be taken up again."""
        return self.ended is ChannelStatus.IDLE and self.exit_condition == STOPPED

    def take_up(self) -> None:
        """Go on where a stop ended the test: the same step, the same counters; a pause is a pause again."""
        self.ended = None
        self.refresh()

    def continue_(self) -> None:
        """Go on after a pause."""
        if self.paused:
            self._leave_step(Go.NEXT, "continue")
            self.refresh()

    def jump(self, step_index: int) -> None:
        """Go on at another step; one past the last ends the test."""
        if step_index >= len(self.schedule.steps):
            self.end(ChannelStatus.FINISHED, JUMPED_OUT)
            return
        self.exit_condition = "Jump by command"
        self._enter_step(step_index)
        self.refresh()

    def refresh(self) -> None:
        """Take on the current that the step asks for now; leave steps whose limits are reached already."""
        while self.moving:
            self.current_a = self._current(0.0)
            limit = self._reached(_Point(0.0, self.current_a, self._battery.state))
            if limit is None:
                return
            self._leave_step(limit.go, limit.text)

    # --- one span ----------------------------------------------------------------------------------------------------

    def _advance_within_step(self, dt_s: float) -> float:
        """Move on by a span in which the current is constant; how long it was."""
        longest_s = MAX_CV_SPAN_S if isinstance(self.step.drive, ConstantVoltage) else MAX_SPAN_S
        point = self._look_ahead(min(dt_s, longest_s, self._until_time_limit()))
        if self._reached(point, besides=TIMES):
            point = self._crossing(point)
        limit = self._reached(point)
        self._move_to(point)
        if limit is not None:
            self._leave_step(limit.go, limit.text)
            self.refresh()
        return point.dt_s

    def _look_ahead(self, dt_s: float) -> _Point:
        current_a = self._current(dt_s)
        return _Point(dt_s, current_a, self._battery.cell.after(self._battery.state, current_a, dt_s))

    def _crossing(self, beyond: _Point) -> _Point:
        """The first point at which a limit (but no time limit) is reached, given one beyond it."""
        early_s = 0.0
        while beyond.dt_s - early_s > CROSSING_TOLERANCE_S:
            middle = self._look_ahead((early_s + beyond.dt_s) / 2)
            if self._reached(middle, besides=TIMES) is None:
                early_s = middle.dt_s
            else:
                beyond = middle
        return beyond

    def _move_to(self, point: _Point) -> None:
        cell = self._battery.cell
        before_v = cell.voltage(self._battery.state, point.current_a)
        after_v = cell.voltage(point.state, point.current_a)
        charge_ah = point.current_a * point.dt_s / SECONDS_PER_HOUR
        energy_wh = charge_ah * (before_v + after_v) / 2
        if charge_ah > 0:
            self.charge_ah += charge_ah
            self.charge_wh += energy_wh
        else:
            self.discharge_ah -= charge_ah
            self.discharge_wh -= energy_wh
        self.dvdt = (after_v - before_v) / point.dt_s
        self.test_time_s += point.dt_s
        self.step_time_s += point.dt_s
        self.current_a = point.current_a
        self._battery.state = point.state

    def _leave_step(self, go: Go, exit_condition: str) -> None:
        self.exit_condition = exit_condition
        if go is not Go.NEXT:
            self.end(_ENDS[go], exit_condition)
        elif self.step_index + 1 < len(self.schedule.steps):
            self._enter_step(self.step_index + 1)
        elif self.cycle < self.schedule.cycles:
            self.cycle += 1
            self._enter_step(self.schedule.loop_from)
        else:
            self.end(ChannelStatus.FINISHED, exit_condition)

    def _enter_step(self, index: int) -> None:
        self.step_index = index
        self.step_time_s = 0.0
        self.current_a = 0.0
        self.dvdt = 0.0

    # --- current and limits ------------------------------------------------------------------------------------------

    def _current(self, dt_s: float) -> float:
        """The constant current of the next `dt_s`."""
        drive = self.step.drive
        if isinstance(drive, ConstantVoltage):
            wanted = self._battery.cell.cv_current(self._battery.state, drive.voltage_v, dt_s)
            return min(max(wanted, 0.0), drive.max_current_a)
        if isinstance(drive, CRate):
            return min(max(drive.rate * self._nominal_ah, -MAX_CURRENT_A), MAX_CURRENT_A)
        if isinstance(drive, ConstantCurrent):
            if isinstance(drive.current_a, MetaVariable):
                return min(max(drive.current_a.value(self._meta_variables), 0.0), MAX_CURRENT_A)
            return drive.current_a
        return 0.0

    def _limits(self) -> tuple[Limit, ...]:
        return self.schedule.safety + self.step.limits

    def _until_time_limit(self) -> float:
        """Seconds to the nearest time limit."""
        nearest = float("inf")
        for limit in self._limits():
            threshold = limit.threshold(self._meta_variables) if limit.quantity in TIMES else None
            if threshold is not None:
                gone = self.step_time_s if limit.quantity is Quantity.STEP_TIME else self.test_time_s
                nearest = min(nearest, threshold - gone)
        return max(nearest, TIME_TOLERANCE_S)

    def _reached(self, point: _Point, besides: frozenset[Quantity] = frozenset()) -> Limit | None:
        """The first limit that is reached at a point, `besides` these quantities."""
        values = {
            Quantity.STEP_TIME: self.step_time_s + point.dt_s + TIME_TOLERANCE_S,
            Quantity.TEST_TIME: self.test_time_s + point.dt_s + TIME_TOLERANCE_S,
            Quantity.VOLTAGE: self._battery.cell.voltage(point.state, point.current_a),
            Quantity.CURRENT: abs(point.current_a),
            Quantity.TEMPERATURE: point.state.temperature_c,
        }
        for limit in self._limits():
            threshold = limit.threshold(self._meta_variables)
            if threshold is None or limit.quantity in besides:
                continue
            value = values[limit.quantity]
            if value <= threshold if limit.below else value >= threshold:
                return limit
        return None
