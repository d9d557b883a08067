"""Assign, start and stop: what a test needs."""

from dataclasses import dataclass
from typing import Annotated

from cti_mqtt.cti.codes import META_VARIABLE_COUNT, AssignResult, StartResult, StopResult
from cti_mqtt.cti.layout import F32, I32, U32, CountedNumbers, array, flag, number, wchar

NO_CHANNEL = -1  # a successful start may name no channel (v1.1), or the channel (as captured)


@dataclass(frozen=True, slots=True)
class AssignRequest:
    """Puts a schedule on a channel.

    Attributes:
        schedule: the schedule file's name.
        capacity: Ah; counts on MITS 7 only, and overwrites what the channel holds there.
        meta_variables: MV_UD1 to MV_UD16; as `capacity`.

    Source: v1.1, "Assign schedule".
    """

    channel: I32
    all_channels: Annotated[bool, flag()]
    schedule: Annotated[str, wchar(200)]
    capacity: F32 = 0.0
    barcode: Annotated[str, wchar(72)] = ""
    meta_variables: Annotated[tuple[float, ...], array("f", META_VARIABLE_COUNT, reserved=32)] = (0.0,) * 16


@dataclass(frozen=True, slots=True)
class AssignFeedback:
    """One a channel."""

    channel: I32
    result: Annotated[AssignResult, number("B", AssignResult, reserved=101)]


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Starts the assigned schedule on some channels, all under one test name.

    Source: v4.5 and captures (v1.1 shows no channel list).
    """

    test_name: Annotated[str, wchar(72)]
    channels: Annotated[tuple[int, ...], CountedNumbers("H")]


@dataclass(frozen=True, slots=True)
class StartFeedback:
    """One a channel; on success `channel` may be NO_CHANNEL."""

    channel: I32
    result: Annotated[StartResult, number("B", StartResult, reserved=101)]


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Stops a channel, or all of them.

    Source: v1.1, "Stop".
    """

    channel: U32
    all_channels: Annotated[bool, flag(reserved=101)] = False


@dataclass(frozen=True, slots=True)
class StopFeedback:
    """One a channel."""

    channel: I32
    result: Annotated[StopResult, number("B", StopResult, reserved=101)]
