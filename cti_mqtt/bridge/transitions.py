"""What changed between two readings of a channel, in the words of the `event` topic; pure."""

from collections.abc import Iterator
from typing import NamedTuple

from cti_mqtt.bridge.payloads import parse_step_and_cycle
from cti_mqtt.cti.codes import ChannelStatus, StatusClass
from cti_mqtt.cti.messages.channels import STEADY, ChannelRecord


class Transition(NamedTuple):
    """One change: its type, what was, what is, and a sentence."""

    type: str
    before: object
    after: object
    message: str


def in_test(status: ChannelStatus) -> bool:
    """Whether a test is under way: running or paused."""
    return status.meaning in {StatusClass.RUNNING, StatusClass.PAUSED}


def unchanged(before: ChannelRecord, after: ChannelRecord) -> bool:
    """Whether there can be no change between two readings, seen at a glance; False may mean that one must look."""
    return before[:STEADY] == after[:STEADY] and after.test_time >= before.test_time


def transitions(before: ChannelRecord, after: ChannelRecord) -> Iterator[Transition]:
    """The changes from one reading of a channel to the next, in the order a person would tell them."""
    if before.comm_failure != after.comm_failure:
        yield _comm(after)
    if before.status != after.status:
        yield Transition(
            "status_changed", before.status.text, after.status.text, f"{before.status.text} -> {after.status.text}"
        )
        if after.status.meaning is StatusClass.FAULT:
            yield _fault(before.status, after.status)
    yield from _test_changes(before, after)


def _comm(after: ChannelRecord) -> Transition:
    if after.comm_failure:
        return Transition("comm_lost", before=False, after=True, message="the cycler lost contact with the channel")
    return Transition(
        "comm_restored", before=True, after=False, message="the cycler has contact with the channel again"
    )


def _fault(before: ChannelStatus, after: ChannelStatus) -> Transition:
    kind = "unsafe" if after is ChannelStatus.UNSAFE else "fault"
    return Transition(kind, before.text, after.text, f"the channel is in the state {after.text}")


def _test_changes(before: ChannelRecord, after: ChannelRecord) -> Iterator[Transition]:
    was, now = in_test(before.status), in_test(after.status)
    another = now and was and _another_test(before, after)
    if was and (not now or another):
        yield Transition(
            "test_finished",
            before.status.text,
            after.status.text,
            f"test {before.test_name!r} ended: {after.exit_condition if not another else 'another test has begun'}",
        )
    if now and (not was or another):
        yield Transition("test_started", before.status.text, after.status.text, f"test {after.test_name!r} started")
    elif now and _place(before) != _place(after):
        yield Transition("step_changed", _place(before)[1], _place(after)[1], after.step_and_cycle)


def _another_test(before: ChannelRecord, after: ChannelRecord) -> bool:
    """Test time only grows while a test lasts."""
    return before.test_name != after.test_name or after.test_time < before.test_time


def _place(record: ChannelRecord) -> tuple[int | None, int | None]:
    return parse_step_and_cycle(record.step_and_cycle)[:2]
