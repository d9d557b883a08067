"""Assign, start, stop, resume, continue, jump: the life of a test."""

from dataclasses import dataclass
from typing import Annotated

from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.cti.fields import F32, I32, U32, array, flag, number, wchar
from cti_mqtt.cti.layout import CountedNumbers
from cti_mqtt.cti.results import (
    AssignResult,
    ContinueResult,
    JumpResult,
    ResumeResult,
    StartResult,
    StopResult,
)

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


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """Takes a stopped test up again, on a channel or on all.

    Source: v1.1, "Resume".
    """

    channel: I32
    all_channels: Annotated[bool, flag(reserved=101)] = False


@dataclass(frozen=True, slots=True)
class ResumeFeedback:
    """One a channel."""

    channel: I32
    result: Annotated[ResumeResult, number("B", ResumeResult, reserved=101)]


@dataclass(frozen=True, slots=True)
class ContinueRequest:
    """Ends the pause of some channels.

    Source: v4.5 and captures (v1.1 shows no channel list).
    """

    channels: Annotated[tuple[int, ...], CountedNumbers("H")]


@dataclass(frozen=True, slots=True)
class ContinueFeedback:
    """One a channel; on success `channel` may be NO_CHANNEL."""

    channel: I32
    result: Annotated[ContinueResult, number("B", ContinueResult, reserved=101)]


@dataclass(frozen=True, slots=True)
class JumpRequest:
    """Goes on at another step of the running schedule.

    Attributes:
        step: from 0; a step past the end stops the test.

    Source: v1.1, "Jump to step".
    """

    step: I32
    channel: Annotated[int, number("i", reserved=101)]


@dataclass(frozen=True, slots=True)
class JumpFeedback:
    """Whether the channel jumped."""

    channel: I32
    result: Annotated[JumpResult, number("B", JumpResult, reserved=101)]
