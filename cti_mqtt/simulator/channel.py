"""One channel of the simulated cycler."""

import math

from cti_mqtt.cti.codes import META_VARIABLE_COUNT, ChannelStatus, StatusClass
from cti_mqtt.cti.messages.extended import ResumeState
from cti_mqtt.cti.results import (
    AssignResult,
    ContinueResult,
    JumpResult,
    ResumeResult,
    SetMetaVariableResult,
    StartResult,
    StopResult,
)
from cti_mqtt.simulator.cell import Battery
from cti_mqtt.simulator.run import FROM_THE_START, Run
from cti_mqtt.simulator.schedule import Schedule

MAX_NAME_UNITS = 71  # UTF-16 units that a record can show of a test name or a barcode
MAX_TEST_NAMES = 20  # how many a channel remembers
_NO_VALUES = (0.0,) * META_VARIABLE_COUNT
_LARGEST = 1e9  # s, Ah or Wh: beyond that a counter from outside is nonsense, and a record could not show it


def clip(text: str, units: int = MAX_NAME_UNITS) -> str:
    """What fits of a text: a peer may fill its field, an answer must end in NUL."""
    return text.encode("utf-16-le", "replace")[: 2 * units].decode("utf-16-le", "ignore")


def finite(value: float) -> float:
    """Whatever a peer sends, the battery is computed with numbers."""
    return value if math.isfinite(value) else 0.0


def _counter(value: float) -> float:
    return min(max(finite(value), 0.0), _LARGEST)


def _sound(state: ResumeState) -> ResumeState:
    """The counters from outside that a run uses, as numbers that can be computed with and shown."""
    return ResumeState(
        cycle=max(state.cycle, 1),
        test_time=_counter(state.test_time),
        step_time=_counter(state.step_time),
        charge_capacity=_counter(state.charge_capacity),
        discharge_capacity=_counter(state.discharge_capacity),
        charge_energy=_counter(state.charge_energy),
        discharge_energy=_counter(state.discharge_energy),
    )


class Channel:
    """A channel with a battery in it.

    Commands are carried out at the time the channel stands at; move it there first with `advance_to`.

    Args:
        battery: what is connected.
        now_s: the time it is made at, by the clock that `advance_to` will follow.

    Attributes:
        nominal_ah: what a C-rate refers to.
        meta_variables: MV_UD1 to MV_UD16.
        test_names: the last ones, the newest first.
        creator: who started the last test, `started_at` when.
    """

    def __init__(self, battery: Battery, now_s: float = 0.0) -> None:
        self.battery = battery
        self.schedule: Schedule | None = None
        self.test_name = ""
        self.test_names: list[str] = []
        self.creator = ""
        self.started_at = ""
        self.barcode = ""
        self.nominal_ah = 2.5
        self.meta_variables = [0.0] * META_VARIABLE_COUNT
        self.run: Run | None = None
        self._initial_values: tuple[float, ...] = _NO_VALUES
        self._now_s = now_s

    @property
    def status(self) -> ChannelStatus:
        """As the cycler shows it."""
        return self.run.status if self.run else ChannelStatus.IDLE

    @property
    def active(self) -> bool:
        """Whether a test is under way, paused or not."""
        return self.status.meaning in {StatusClass.RUNNING, StatusClass.PAUSED}

    @property
    def faulty(self) -> bool:
        """Whether it is unsafe, or worse."""
        return self.status.meaning is StatusClass.FAULT

    @property
    def current_a(self) -> float:
        """Charge positive."""
        return self.run.current_a if self.run else 0.0

    @property
    def voltage_v(self) -> float:
        """At the terminals."""
        return self.battery.cell.voltage(self.battery.state, self.current_a)

    # --- time --------------------------------------------------------------------------------------------------------

    def advance_to(self, now_s: float) -> None:
        """Let time pass until `now_s`; a time that is past already changes nothing."""
        self.advance(now_s - self._now_s)
        self._now_s = max(now_s, self._now_s)

    def advance(self, dt_s: float) -> None:
        """Let `dt_s` pass; without a test, or in a pause, that is one look whatever the time."""
        if dt_s <= 0:
            return
        left_s = self.run.advance(dt_s) if self.run and self.run.moving else dt_s
        self.battery.state = self.battery.cell.after(self.battery.state, 0.0, left_s)

    # --- commands ----------------------------------------------------------------------------------------------------

    def assign(self, schedule: Schedule, barcode: str = "") -> AssignResult:
        """Put a schedule on the channel."""
        if self.active:
            return AssignResult.RUNNING
        self.schedule = schedule
        self.barcode = clip(barcode)
        return AssignResult.OK

    def take_over(self, capacity_ah: float, meta_variables: tuple[float, ...]) -> None:
        """What an assignment brings besides on MITS 7: nominal capacity, and the values that a test starts with."""
        self.nominal_ah = capacity_ah
        self._initial_values = meta_variables
        self.meta_variables[:] = meta_variables

    def start(self, test_name: str, *, schedule: Schedule | None = None, step: int = 0) -> StartResult:
        """Start the assigned schedule, or another one that is assigned by this; counters and values begin anew.

        Args:
            test_name: what the test is called.
            schedule: None: the assigned one.
            step: with which step to begin, from 0.
        """
        schedule = schedule or self.schedule
        if self.active or self.faulty:
            return StartResult.RUNNING_OR_UNSAFE
        if schedule is None:
            return StartResult.NO_SCHEDULE_ASSIGNED
        if not test_name:
            return StartResult.TEST_NAME_EMPTY
        if step >= len(schedule.steps):
            return StartResult.INVALID_STEP
        self.schedule = schedule
        self.meta_variables[:] = self._initial_values
        self._run(test_name, schedule, step)
        return StartResult.OK

    def _run(self, test_name: str, schedule: Schedule, step: int, state: ResumeState = FROM_THE_START) -> None:
        self.test_name = clip(test_name)
        self.test_names = [self.test_name, *(name for name in self.test_names if name != self.test_name)]
        del self.test_names[MAX_TEST_NAMES:]
        self.run = Run(schedule, self.battery, self.nominal_ah, self.meta_variables, step, state)

    def stop(self) -> StopResult:
        """Stop the test; on an unsafe channel this is the acknowledgement that makes it idle again."""
        if self.run is None or not (self.active or self.faulty):
            return StopResult.NOT_RUNNING
        self.run.stop()
        return StopResult.OK

    def resume(self) -> ResumeResult:
        """Take the stopped test up where it stood."""
        if self.active or self.faulty:
            return ResumeResult.RUNNING_OR_UNSAFE
        if self.schedule is None:
            return ResumeResult.NO_SCHEDULE_ASSIGNED
        if self.run is None or self.run.schedule != self.schedule:
            return ResumeResult.NO_TEST_NAME_OR_NOT_LAST_SCHEDULE
        if not self.run.stopped:
            return ResumeResult.LOAD_RESUME
        self.run.take_up()
        return ResumeResult.OK

    def resume_from(self, test_name: str, schedule_name: str, step: int, state: ResumeState) -> ResumeResult:
        """Go on under a test name, with a step (from 0) and counters that somebody else remembered.

        Args:
            test_name: what the test is called.
            schedule_name: must be the assigned schedule's, or empty.
            step: with which step to go on, from 0.
            state: counters and values.
        """
        if self.active or self.faulty:
            return ResumeResult.RUNNING_OR_UNSAFE
        if self.schedule is None:
            return ResumeResult.NO_SCHEDULE_ASSIGNED
        if not test_name or schedule_name not in {"", self.schedule.name}:
            return ResumeResult.NO_TEST_NAME_OR_NOT_LAST_SCHEDULE
        if step >= len(self.schedule.steps):
            return ResumeResult.STEP_NUMBER
        self.meta_variables[:] = map(finite, state.meta_variables)
        self._run(test_name, self.schedule, step, _sound(state))
        return ResumeResult.OK

    def continue_test(self) -> ContinueResult:
        """Go on after a pause."""
        if self.faulty:
            return ContinueResult.UNSAFE
        if self.run is None or not self.active:
            return ContinueResult.NOT_PAUSED
        if not self.run.paused:
            return ContinueResult.RUNNING
        self.run.continue_()
        return ContinueResult.OK

    def jump(self, step: int) -> JumpResult:
        """Go on at another step, from 0; one past the last stops the test."""
        if self.run is None or not self.active:
            return JumpResult.NOT_RUNNING
        if step < 0:
            return JumpResult.INVALID_STEP_LIMIT
        self.run.jump(step)
        return JumpResult.OK

    def set_meta_variable(self, index: int, value: float) -> SetMetaVariableResult:
        """Set MV_UD<index> (1 to 16); a running step that reads it follows at once."""
        if self.run is None or not self.active:
            return SetMetaVariableResult.NOT_RUNNING
        if not math.isfinite(value):
            return SetMetaVariableResult.SET_FAILED
        self.meta_variables[index - 1] = value
        self.run.refresh()
        return SetMetaVariableResult.OK

    def resume_state(self) -> ResumeState:
        """Where the last test stands."""
        run = self.run
        if run is None:
            return ResumeState()
        return ResumeState(
            cycle=run.cycle,
            test_time=run.test_time_s,
            step_time=run.step_time_s,
            charge_capacity=run.charge_ah,
            discharge_capacity=run.discharge_ah,
            charge_energy=run.charge_wh,
            discharge_energy=run.discharge_wh,
            meta_variables=tuple(self.meta_variables),
        )
