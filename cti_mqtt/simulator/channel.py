"""One channel of the simulated cycler."""

import math

from cti_mqtt.cti.codes import META_VARIABLE_COUNT, ChannelStatus, StatusClass
from cti_mqtt.cti.results import AssignResult, SetMetaVariableResult, StartResult, StopResult
from cti_mqtt.simulator.cell import Battery
from cti_mqtt.simulator.run import Run
from cti_mqtt.simulator.schedule import Schedule

MAX_NAME_UNITS = 71  # UTF-16 units that a record can show of a test name or a barcode
_NO_VALUES = (0.0,) * META_VARIABLE_COUNT


def clip(text: str, units: int = MAX_NAME_UNITS) -> str:
    """What fits of a text: a peer may fill its field, an answer must end in NUL."""
    return text.encode("utf-16-le", "replace")[: 2 * units].decode("utf-16-le", "ignore")


class Channel:
    """A channel with a battery in it.

    Commands are carried out at the time the channel stands at; move it there first with `advance_to`.

    Args:
        battery: what is connected.
        now_s: the time it is made at, by the clock that `advance_to` will follow.

    Attributes:
        nominal_ah: what a C-rate refers to.
        meta_variables: MV_UD1 to MV_UD16.
    """

    def __init__(self, battery: Battery, now_s: float = 0.0) -> None:
        self.battery = battery
        self.schedule: Schedule | None = None
        self.test_name = ""
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

    def start(self, test_name: str) -> StartResult:
        """Start the assigned schedule; counters and meta variables begin anew."""
        if self.active or self.status.meaning is StatusClass.FAULT:
            return StartResult.RUNNING_OR_UNSAFE
        if self.schedule is None:
            return StartResult.NO_SCHEDULE_ASSIGNED
        if not test_name:
            return StartResult.TEST_NAME_EMPTY
        self.test_name = clip(test_name)
        self.meta_variables[:] = self._initial_values
        self.run = Run(self.schedule, self.battery, self.nominal_ah, self.meta_variables)
        return StartResult.OK

    def stop(self) -> StopResult:
        """Stop the test; on an unsafe channel this is the acknowledgement that makes it idle again."""
        if self.run is None or not (self.active or self.status.meaning is StatusClass.FAULT):
            return StopResult.NOT_RUNNING
        self.run.end(ChannelStatus.IDLE, "Stopped by command")
        return StopResult.OK

    def set_meta_variable(self, index: int, value: float) -> SetMetaVariableResult:
        """Set MV_UD<index> (1 to 16); a running step that reads it follows at once."""
        if self.run is None or not self.active:
            return SetMetaVariableResult.NOT_RUNNING
        if not math.isfinite(value):
            return SetMetaVariableResult.SET_FAILED
        self.meta_variables[index - 1] = value
        self.run.refresh()
        return SetMetaVariableResult.OK

    def continue_test(self) -> bool:
        """Go on after a pause; whether there was one."""
        if self.run is None or not self.run.paused:
            return False
        self.run.resume()
        return True
