"""Start and resume with everything that a test brings along, and what the cycler knows for it."""

from dataclasses import dataclass
from typing import Annotated

from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.cti.fields import F64, U32, array, number, wchar
from cti_mqtt.cti.layout import CountedNumbers, CountedRecords, Layout, Texts
from cti_mqtt.cti.results import StartDataCode

NO_VALUES = (0.0,) * META_VARIABLE_COUNT

Pair = Annotated[tuple[float, ...], array("d", 2)]
MetaVariables = Annotated[tuple[float, ...], array("f", META_VARIABLE_COUNT)]


@dataclass(frozen=True, slots=True)
class GetStartDataRequest:
    """Asks with which test names and steps some channels could start.

    Source: v1.1, "Get start data".
    """

    channels: Annotated[tuple[int, ...], CountedNumbers("H")]


@dataclass(frozen=True, slots=True)
class StartData:
    """What a channel could start with.

    Attributes:
        schedule: the assigned one.
        meta_variables: MV_UD1 to MV_UD16, as the channel holds them.
        steps: the labels of the schedule's steps.
    """

    channel: U32
    code: Annotated[StartDataCode, number("I", StartDataCode)]
    test_name_count: U32
    step_count: U32
    schedule: Annotated[str, wchar(200)]
    meta_variables: MetaVariables
    test_names: Annotated[tuple[str, ...], Texts("test_name_count")]
    steps: Annotated[tuple[str, ...], Texts("step_count")]


@dataclass(frozen=True, slots=True)
class GetStartDataFeedback:
    """One record a channel."""

    records: Annotated[tuple[StartData, ...], CountedRecords(Layout(StartData))]


@dataclass(frozen=True, slots=True)
class ResumeState:
    """Where a test stands: what a resumption goes on from. s, Ah and Wh; `tc_` are the test counters of a schedule.

    Source: v1.1, "Resume data".
    """

    cycle: U32 = 1
    test_time: F64 = 0.0
    step_time: F64 = 0.0
    charge_capacity: F64 = 0.0
    discharge_capacity: F64 = 0.0
    charge_energy: F64 = 0.0
    discharge_energy: F64 = 0.0
    tc_time: Annotated[tuple[float, ...], array("d", 4)] = (0.0,) * 4
    tc_charge_capacity: Pair = (0.0, 0.0)
    tc_discharge_capacity: Pair = (0.0, 0.0)
    tc_charge_energy: Pair = (0.0, 0.0)
    tc_discharge_energy: Pair = (0.0, 0.0)
    counter: Annotated[tuple[float, ...], array("f", 4)] = (0.0,) * 4
    charge_capacity_time: F64 = 0.0
    discharge_capacity_time: F64 = 0.0
    meta_variables: MetaVariables = NO_VALUES


State = Annotated[ResumeState, Layout(ResumeState)]


@dataclass(frozen=True, slots=True)
class GetResumeDataRequest:
    """Asks where the last tests of some channels stood.

    Source: v1.1, "Get resume data".
    """

    channels: Annotated[tuple[int, ...], CountedNumbers("H")]


@dataclass(frozen=True, slots=True)
class ResumeData:
    """Where the last test of a channel stood."""

    channel: U32
    code: Annotated[StartDataCode, number("I", StartDataCode)]
    step_count: U32
    test_name: Annotated[str, wchar(72)]
    schedule: Annotated[str, wchar(200)]
    creator: Annotated[str, wchar(64)]
    comment: Annotated[str, wchar(64)]
    start_time: Annotated[str, wchar(64)]
    state: State
    steps: Annotated[tuple[str, ...], Texts("step_count")]


@dataclass(frozen=True, slots=True)
class GetResumeDataFeedback:
    """One record a channel."""

    records: Annotated[tuple[ResumeData, ...], CountedRecords(Layout(ResumeData))]


@dataclass(frozen=True, slots=True)
class ExtendedStart:
    """What one channel starts with.

    Attributes:
        start_step: the documents do not say where it counts from; passed through.
    """

    channel: U32
    test_name: Annotated[str, wchar(72)]
    schedule: Annotated[str, wchar(200)]
    creator: Annotated[str, wchar(64)] = ""
    comment: Annotated[str, wchar(64)] = ""
    start_step: U32 = 0
    state: State = ResumeState()


@dataclass(frozen=True, slots=True)
class StartExtendedRequest:
    """Starts channels, all under the test name of the first record (v4.5). Answered like a start.

    Source: v1.1 and v4.5, "Start schedule, extended".
    """

    records: Annotated[tuple[ExtendedStart, ...], CountedRecords(Layout(ExtendedStart))]


@dataclass(frozen=True, slots=True)
class ExtendedResume:
    """What one channel goes on from; `start_step` as in `ExtendedStart`."""

    channel: U32
    test_name: Annotated[str, wchar(72)]
    schedule: Annotated[str, wchar(200)]
    start_step: U32 = 0
    state: State = ResumeState()


@dataclass(frozen=True, slots=True)
class ResumeExtendedRequest:
    """Takes tests up again from given states. Answered like a resume.

    Source: v1.1, "Resume schedule, extended".
    """

    records: Annotated[tuple[ExtendedResume, ...], CountedRecords(Layout(ExtendedResume))]
