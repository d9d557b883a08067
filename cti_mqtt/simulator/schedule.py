"""Schedules: steps, what drives the current in each, and the limits that end them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from cti_mqtt.cti.codes import ChannelStatus

MAX_CURRENT_A = 10.0  # what the simulated channel can deliver


class Quantity(Enum):
    """What a limit looks at; the value is its name in an exit condition, as MITS writes it."""

    STEP_TIME = "PV_CHAN_Step_Time"
    TEST_TIME = "PV_CHAN_Test_Time"
    VOLTAGE = "PV_CHAN_Voltage"
    CURRENT = "PV_CHAN_Current"  # without its sign
    TEMPERATURE = "Aux_Temperature_1"


TIMES = frozenset({Quantity.STEP_TIME, Quantity.TEST_TIME})


class Go(Enum):
    """Where a reached limit leads."""

    NEXT = "next step"
    END = "end of test"
    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True)
class MetaVariable:
    """MV_UD<index> as a limit's value, or as a current; as a limit it is switched off while it is 0 or less."""

    index: int

    def value(self, meta_variables: Sequence[float]) -> float:
        """Its present value."""
        return meta_variables[self.index - 1]


@dataclass(frozen=True, slots=True)
class Limit:
    """Ends a step once `quantity` is at or above `value` (at or below, with `below`)."""

    quantity: Quantity
    value: float | MetaVariable
    below: bool = False
    go: Go = Go.NEXT

    def threshold(self, meta_variables: Sequence[float]) -> float | None:
        """The value that counts just now; None while switched off."""
        if not isinstance(self.value, MetaVariable):
            return self.value
        value = self.value.value(meta_variables)
        return value if value > 0 else None

    @property
    def text(self) -> str:
        """The exit condition as the cycler shows it."""
        right = f"MV_UD{self.value.index}" if isinstance(self.value, MetaVariable) else f"{self.value:g}"
        return f"{self.quantity.value} {'<=' if self.below else '>='} {right}"


@dataclass(frozen=True, slots=True)
class Rest:
    """No current."""


@dataclass(frozen=True, slots=True)
class Pause:
    """No current, and the test's time stands still until a continue."""


@dataclass(frozen=True, slots=True)
class ConstantCurrent:
    """A, charge positive, or from a meta variable (then 0 to MAX_CURRENT_A: charging only)."""

    current_a: float | MetaVariable


@dataclass(frozen=True, slots=True)
class CRate:
    """Multiples of the nominal capacity an hour, charge positive."""

    rate: float


@dataclass(frozen=True, slots=True)
class ConstantVoltage:
    """Charges up to `voltage_v` and holds it, never with more than `max_current_a`."""

    voltage_v: float
    max_current_a: float


Drive = Rest | Pause | ConstantCurrent | CRate | ConstantVoltage


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `label` and `type` are what `step_and_cycle` shows, `status` the channel's status meanwhile."""

    label: str
    type: str
    status: ChannelStatus
    drive: Drive
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order; after the last the test ends, or the next cycle begins at `loop_from` (0-based).

    Attributes:
        safety: limits that hold in every step.
    """

    name: str
    steps: tuple[Step, ...]
    safety: tuple[Limit, ...] = ()
    cycles: int = 1
    loop_from: int = 0


_SAFETY = (
    Limit(Quantity.VOLTAGE, 4.35, go=Go.UNSAFE),
    Limit(Quantity.VOLTAGE, 2.0, below=True, go=Go.UNSAFE),
    Limit(Quantity.TEMPERATURE, 60.0, go=Go.UNSAFE),
    Limit(Quantity.TEST_TIME, 7 * 86_400.0, go=Go.END),
)
_FULL = Limit(Quantity.VOLTAGE, 4.2)
_EMPTY = Limit(Quantity.VOLTAGE, 3.0, below=True)


def rest(label: str, seconds: float) -> Step:
    """A rest of so many seconds."""
    return Step(label, "Rest", ChannelStatus.REST, Rest(), (Limit(Quantity.STEP_TIME, seconds),))


def _cc(label: str, rate: float, limit: Limit) -> Step:
    return Step(label, "C-Rate", ChannelStatus.CHARGE if rate > 0 else ChannelStatus.DISCHARGE, CRate(rate), (limit,))


def _cv(label: str, max_current_a: float, end_current_a: float) -> Step:
    ends = (Limit(Quantity.CURRENT, end_current_a, below=True), Limit(Quantity.STEP_TIME, 4 * 3600.0))
    return Step(label, "Voltage(V)", ChannelStatus.CHARGE, ConstantVoltage(4.2, max_current_a), ends)


_CLOSED_LOOP_ENDS = (
    Limit(Quantity.TEST_TIME, MetaVariable(16), go=Go.END),  # the "dead man": until when the controller vouches
    Limit(Quantity.VOLTAGE, 4.2, go=Go.END),
    Limit(Quantity.TEMPERATURE, 45.0, go=Go.END),
    Limit(Quantity.STEP_TIME, 86_400.0, go=Go.END),
)

BUILT_IN: Mapping[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule(
            "CCCV.sdx",
            (rest("Step_A", 30.0), _cc("CC", 0.6, _FULL), _cv("CV", 1.5, 0.125), rest("Rest", 60.0)),
            _SAFETY,
        ),
        Schedule("Discharge.sdx", (rest("Rest", 10.0), _cc("DC", -1.0, _EMPTY), rest("Rest", 60.0)), _SAFETY),
        Schedule("Rest.sdx", (rest("Rest", 3600.0),), _SAFETY),
        Schedule(
            "Formation.sdx",
            (
                rest("Rest", 60.0),
                Step(
                    "CCCV",
                    "CCCV",
                    ChannelStatus.CHARGE,
                    ConstantVoltage(4.2, 0.5),
                    (Limit(Quantity.CURRENT, 0.125, below=True),),
                ),
                rest("Rest", 300.0),
                _cc("DC", -0.5, _EMPTY),
                rest("Rest", 300.0),
            ),
            _SAFETY,
            cycles=3,
            loop_from=1,
        ),
        Schedule(
            "Pause.sdx",
            (rest("Rest", 10.0), Step("Wait", "Pause", ChannelStatus.PAUSE, Pause()), rest("Rest", 10.0)),
            _SAFETY,
        ),
        Schedule(
            "ClosedLoop.sdx",
            (
                Step(
                    "Loop",
                    "Current(A)",
                    ChannelStatus.CHARGE,
                    ConstantCurrent(MetaVariable(1)),
                    _CLOSED_LOOP_ENDS,
                ),
            ),
            _SAFETY,
        ),
    )
}
