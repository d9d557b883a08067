"""Limits of meta variables, and what is shown of them."""

import math
from typing import Any

import pytest

from cti_mqtt.bridge.bus import Bus, Item, MetaVariables
from cti_mqtt.bridge.variables import VariableBook, to_float32
from cti_mqtt.config import Limit
from tests.bridge.test_refusals import FakeClock


def book(limits: dict[int, dict[str, Any]], clock: FakeClock | None = None) -> tuple[VariableBook, list[Item]]:
    bus, items = Bus(), list[Item]()
    bus.subscribe(items.append)
    models = {index: Limit.model_validate(limit) for index, limit in limits.items()}
    return VariableBook("arbin1", models, bus, clock or FakeClock()), items


@pytest.mark.parametrize(
    ("limit", "before", "value", "allowed"),
    [
        pytest.param({"min": 0, "max": 5}, None, 0.0, True, id="at the minimum"),
        pytest.param({"min": 0, "max": 5}, None, 5.0, True, id="at the maximum"),
        pytest.param({"min": 0, "max": 5}, None, -1e-9, False, id="just below"),
        pytest.param({"max": 0.1}, None, 0.1, True, id="a limit is rounded like the value"),
        pytest.param({"max": 5}, None, 5.0000001, True, id="rounds to the limit"),
        pytest.param({"max": 5}, None, 5.001, False, id="above"),
        pytest.param({"max_step": 1}, None, 100.0, True, id="no step without a value before"),
        pytest.param({"max_step": 1, "initial": 0}, None, 1.5, False, id="the first step counts from initial"),
        pytest.param({"max_step": 1, "initial": 0}, 1.0, 1.5, True, id="then from the last value"),
        pytest.param({"max_step": 0.1}, 1.0, 1.1, True, id="one step is one step, rounded or not"),
        pytest.param({"max_step": 0.1}, 1.0, 1.11, False, id="more than one step up"),
        pytest.param({"max_step": 0.1}, 1.0, 0.89, False, id="more than one step down"),
    ],
)
def test_limits(limit: dict[str, Any], before: float | None, value: float, allowed: bool) -> None:
    it, _ = book({1: limit})
    if before is not None:
        it.accepted(7, 1, before)
    objection = it.objection("limit", 7, 1, value)
    assert (objection is None) is allowed, objection


def test_with_limits_the_rest_may_not_be_written() -> None:
    it, _ = book({1: {"max": 5}})
    assert it.objection("limit", 7, 2, 0.0)
    assert book({})[0].objection("limit", 7, 2, 1e30) is None


@pytest.mark.parametrize(("after_s", "value", "allowed"), [(1.0, 3.0, True), (0.5, 3.0, False), (10.0, -2.0, True)])
def test_rate(after_s: float, value: float, allowed: bool) -> None:
    clock = FakeClock()
    it, _ = book({1: {"max_rate_per_s": 1.0}}, clock)
    assert it.objection("rate", 7, 1, 2.0) is None
    it.accepted(7, 1, 2.0)
    clock.seconds += after_s
    assert (it.objection("rate", 7, 1, value) is None) is allowed
    assert it.objection("rate", 8, 1, 100.0) is None


class TestOnTheirWay:
    def test_what_is_on_its_way_counts_as_well(self) -> None:
        it, _ = book({1: {"max_step": 1, "initial": 0}})
        it.reserve(7, {1: 1.0})
        assert it.objection("limit", 7, 1, -1.0)  # a step of two, should the first arrive
        assert it.objection("limit", 7, 1, 2.0)  # a step of two, should it not
        assert it.objection("limit", 7, 1, 0.5) is None
        it.accepted(7, 1, 1.0)
        it.release(7, {1: 1.0})
        assert it.objection("limit", 7, 1, 2.0) is None

    def test_a_new_test_begins_at_initial(self) -> None:
        it, _ = book({1: {"max_step": 1, "initial": 0}})
        it.accepted(7, 1, 2.5)
        assert it.objection("limit", 7, 1, 3.0, fresh=True)
        assert it.objection("limit", 7, 1, 0.5, fresh=True) is None
        assert it.objection("limit", 7, 1, 3.0) is None


class TestShown:
    def test_what_was_accepted_since_the_test_started(self) -> None:
        it, items = book({})
        it.accepted(7, 1, 2.5)
        it.accepted(7, 16, 1.0)
        assert items[-1] == MetaVariables("arbin1", 7, {1: 2.5, 16: 1.0})
        it.test_seen(7)
        assert items[-1] == MetaVariables("arbin1", 7, {})

    def test_our_own_start_forgets_once_and_before_its_values(self) -> None:
        it, items = book({})
        it.accepted(7, 1, 2.5)
        it.test_started(7)
        assert items[-1] == MetaVariables("arbin1", 7, {})
        it.accepted(7, 1, 3.0)
        it.test_seen(7)  # the poll that shows our start
        assert items[-1] == MetaVariables("arbin1", 7, {1: 3.0})
        it.start_settled(7)
        it.test_seen(7)  # somebody else's
        assert items[-1] == MetaVariables("arbin1", 7, {})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.5e38, 1e300])
def test_not_a_finite_float32(value: float) -> None:
    with pytest.raises(ValueError, match=r"finite|fit"):
        to_float32(value)
