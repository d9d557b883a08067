"""What changed between two readings."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.bridge.transitions import in_test, transitions, unchanged
from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.channels import ChannelRecord
from tests.bridge.test_payloads import RECORD
from tests.cti.strategies import CHANNEL_RECORDS

S = ChannelStatus
RUNNING: dict[str, Any] = {
    "status": S.CHARGE,
    "test_name": "T",
    "test_time": 10.0,
    "step_and_cycle": "[1] 2: CC, C-Rate",
}
IDLE: dict[str, Any] = {**RUNNING, "status": S.IDLE}


@pytest.mark.parametrize(
    ("before", "after", "types"),
    [
        pytest.param(RUNNING, {**RUNNING, "test_time": 11.0, "voltage": 4.0}, [], id="nothing worth telling"),
        pytest.param(IDLE, {**RUNNING, "test_time": 0.5}, ["status_changed", "test_started"], id="started"),
        pytest.param(RUNNING, IDLE, ["status_changed", "test_finished"], id="stopped"),
        pytest.param(RUNNING, {**RUNNING, "status": S.FINISHED}, ["status_changed", "test_finished"], id="finished"),
        pytest.param(RUNNING, {**RUNNING, "status": S.PAUSE}, ["status_changed"], id="paused: the test goes on"),
        pytest.param({**RUNNING, "status": S.PAUSE}, RUNNING, ["status_changed"], id="resumed"),
        pytest.param(RUNNING, {**RUNNING, "step_and_cycle": "[1] 3: CV, CCCV"}, ["step_changed"], id="another step"),
        pytest.param(RUNNING, {**RUNNING, "step_and_cycle": "[2] 2: CC, C-Rate"}, ["step_changed"], id="another cycle"),
        pytest.param(
            RUNNING, {**RUNNING, "status": S.UNSAFE}, ["status_changed", "unsafe", "test_finished"], id="unsafe"
        ),
        pytest.param(IDLE, {**IDLE, "status": S.ERROR}, ["status_changed", "fault"], id="fault while idle"),
        pytest.param(RUNNING, {**RUNNING, "comm_failure": True}, ["comm_lost"], id="contact lost"),
        pytest.param({**RUNNING, "comm_failure": True}, RUNNING, ["comm_restored"], id="contact again"),
        pytest.param(
            RUNNING,
            {**RUNNING, "test_name": "U", "test_time": 1.0},
            ["test_finished", "test_started"],
            id="another test",
        ),
        pytest.param(
            RUNNING, {**RUNNING, "test_time": 1.0}, ["test_finished", "test_started"], id="the same name once more"
        ),
        pytest.param(IDLE, {**IDLE, "status": S(99)}, ["status_changed", "test_started"], id="unknown runs"),
    ],
)
def test_events(before: dict[str, Any], after: dict[str, Any], types: list[str]) -> None:
    found = list(transitions(RECORD._replace(**before), RECORD._replace(**after)))
    assert [each.type for each in found] == types
    assert not (types and unchanged(RECORD._replace(**before), RECORD._replace(**after)))


@given(CHANNEL_RECORDS, CHANNEL_RECORDS, st.sets(st.sampled_from(ChannelRecord._fields)))
def test_what_is_seen_at_a_glance(before: ChannelRecord, other: ChannelRecord, fields: set[str]) -> None:
    after = before._replace(**{field: getattr(other, field) for field in fields})
    if unchanged(before, after):
        assert not list(transitions(before, after))


def test_a_running_test_is_seen_to_be_unchanged_at_a_glance() -> None:
    before = RECORD._replace(**{**RUNNING, "test_time": 1.0})
    assert unchanged(before, before._replace(test_time=2.0, voltage=4.0))
    assert not unchanged(before, before._replace(test_time=0.5))
    assert not unchanged(before, before._replace(test_time=math.nan))


def test_steps_are_numbers() -> None:
    (change,) = transitions(
        RECORD._replace(**RUNNING), RECORD._replace(**{**RUNNING, "step_and_cycle": "[1] 3: CV, CCCV"})
    )
    assert (change.before, change.after) == (2, 3)


def test_unknown_numbers_count_as_running() -> None:
    assert in_test(S(99))
    assert not in_test(S.UNSAFE)
