"""Schedules as files: what stands in a .sdx file of the simulator, and what such a file means.

The text is for reading. A file means a built-in schedule if it is a copy of its file, byte for byte and under any name;
whatever else it holds, the schedule rests.
"""

from collections.abc import Mapping
from dataclasses import replace

from cti_mqtt.simulator.schedule import (
    BUILT_IN,
    ConstantCurrent,
    ConstantVoltage,
    CRate,
    Drive,
    MetaVariable,
    Schedule,
)

EXTENSION = ".sdx"


def text_of(schedule: Schedule) -> bytes:
    """The file of a schedule; the schedule's name is the file's and does not stand in it."""
    lines = ["Schedule of the simulated cycler. A copy behaves alike; anything that was changed rests.", ""]
    for number, step in enumerate(schedule.steps, 1):
        lines.append(f"{number}: {step.label}, {step.type}{_setting(step.drive)}")
        lines += [f"   until {limit.text}: {limit.go.value}" for limit in step.limits]
    if schedule.cycles > 1:
        lines.append(f"then from step {schedule.loop_from + 1} again: {schedule.cycles} cycles")
    lines += [f"always: {limit.text}: {limit.go.value}" for limit in schedule.safety]
    return ("\r\n".join(lines) + "\r\n").encode()


def _setting(drive: Drive) -> str:
    match drive:
        case ConstantCurrent(current_a=MetaVariable(index=index)):
            return f", MV_UD{index} A"
        case ConstantCurrent(current_a=current_a):
            return f", {current_a:g} A"
        case CRate(rate=rate):
            return f", {rate:g} C"
        case ConstantVoltage(voltage_v=voltage_v, max_current_a=max_current_a):
            return f", {voltage_v:g} V, at most {max_current_a:g} A"
        case _:
            return ""


def schedule_in(content: bytes, name: str, known: Mapping[str, Schedule]) -> Schedule:
    """What a file means.

    Args:
        content: its bytes.
        name: its name.
        known: the schedules whose copies are recognised.
    """
    for schedule in known.values():
        if text_of(schedule) == content:
            return replace(schedule, name=name)
    return replace(BUILT_IN["Rest.sdx"], name=name)
