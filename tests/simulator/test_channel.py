import time
from collections.abc import Callable

import pytest

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.results import AssignResult, ContinueResult, SetMetaVariableResult, StartResult, StopResult
from cti_mqtt.simulator import BUILT_IN, Battery, Cell, CellState, Channel
from cti_mqtt.simulator.channel import clip
from cti_mqtt.simulator.run import Run
from cti_mqtt.simulator.schedule import (
    ConstantCurrent,
    CRate,
    Go,
    Limit,
    MetaVariable,
    Quantity,
    Rest,
    Schedule,
    Step,
)


def channel_with(schedule: Schedule | str | None = None, soc: float = 0.4) -> Channel:
    channel = Channel(Battery(Cell(), CellState(soc)))
    if schedule is not None:
        assert channel.assign(BUILT_IN[schedule] if isinstance(schedule, str) else schedule) is AssignResult.OK
        assert channel.start("T1") is StartResult.OK
    return channel


def run_of(channel: Channel) -> Run:
    assert channel.run is not None
    return channel.run


def status_of(channel: Channel) -> ChannelStatus:
    return channel.status


def advance_until(channel: Channel, done: Callable[[Channel], bool], step_s: float = 10.0) -> None:
    for _ in range(100_000):
        if done(channel):
            return
        channel.advance(step_s)
    raise AssertionError("it never happened")


# --- whole tests ---


def test_cccv_goes_through_its_steps() -> None:
    channel = channel_with("CCCV.sdx")
    assert status_of(channel) is ChannelStatus.REST
    assert run_of(channel).step_and_cycle == "[1] 1: Step_A, Rest"
    channel.advance(61.5)
    run = run_of(channel)
    assert (run.test_time_s, run.step_time_s) == pytest.approx((61.5, 31.5))
    assert run.step_and_cycle == "[1] 2: CC, C-Rate"
    assert status_of(channel) is ChannelStatus.CHARGE
    assert channel.current_a == pytest.approx(1.5)
    assert run.exit_condition == "PV_CHAN_Step_Time >= 30"
    advance_until(channel, lambda c: run.step.label == "CV", 1.0)
    assert run.exit_condition == "PV_CHAN_Voltage >= 4.2"
    channel.advance(300.0)
    assert channel.voltage_v == pytest.approx(4.2, abs=1e-3)
    assert 0.125 < channel.current_a < 1.5
    advance_until(channel, lambda c: run.step.label == "Rest", 1.0)
    assert run.exit_condition == "PV_CHAN_Current <= 0.125"
    channel.advance(1000.0)
    assert status_of(channel) is ChannelStatus.FINISHED
    assert channel.current_a == 0.0
    assert run.exit_condition == "PV_CHAN_Step_Time >= 60"
    assert run.charge_ah == pytest.approx((channel.battery.state.soc - 0.4) * 2.5)
    assert run.discharge_ah == run.discharge_wh == 0.0
    assert 3.7 < run.charge_wh / run.charge_ah < 4.2


def test_discharge_counts_on_the_other_side() -> None:
    channel = channel_with("Discharge.sdx")
    channel.advance(100.0)
    assert status_of(channel) is ChannelStatus.DISCHARGE
    assert channel.current_a == pytest.approx(-2.5)
    channel.advance(7200.0)
    run = run_of(channel)
    assert status_of(channel) is ChannelStatus.FINISHED
    assert run.discharge_ah == pytest.approx((0.4 - channel.battery.state.soc) * 2.5)
    assert run.discharge_wh > 0
    assert run.charge_ah == 0.0


def test_a_voltage_limit_is_met_exactly() -> None:
    up_to = Limit(Quantity.VOLTAGE, 4.0, go=Go.END)
    step = Step("CC", "C-Rate", ChannelStatus.CHARGE, CRate(1.0), (up_to,))
    channel = channel_with(Schedule("s", (step,)))
    channel.advance(3600.0)
    state = channel.battery.state
    assert run_of(channel).test_time_s < 3600.0
    # The rest of the hour the cell relaxed; undo nothing, compute the end of the step anew.
    before = Cell().after(CellState(0.4), 2.5, run_of(channel).test_time_s)
    assert Cell().voltage(before, 2.5) == pytest.approx(4.0, abs=1e-5)
    assert state.soc == pytest.approx(before.soc)
    assert abs(state.rc1_v) < before.rc1_v


def test_formation_counts_cycles() -> None:
    channel = channel_with("Formation.sdx")
    run = run_of(channel)
    seen: list[tuple[int, int]] = []
    while channel.active:
        if not seen or seen[-1] != (run.cycle, run.step_index):
            seen.append((run.cycle, run.step_index))
        channel.advance(60.0)
    assert seen == [(1, 0)] + [(cycle, step) for cycle in (1, 2, 3) for step in (1, 2, 3, 4)]
    assert run.step_and_cycle == "[3] 5: Rest, Rest"
    assert run.charge_ah > 5.0
    assert run.discharge_ah > 5.0


def test_a_long_test_takes_no_time_and_no_cutting() -> None:
    """Five hours at once, and polled each second: the same readings, and quickly."""
    began = time.process_time()
    at_once, polled = channel_with("Formation.sdx"), channel_with("Formation.sdx")
    at_once.advance(5 * 3600.0)
    spent_s = time.process_time() - began
    for _ in range(5 * 3600):
        polled.advance(1.0)
    assert spent_s < 2.0
    a, b = run_of(at_once), run_of(polled)
    assert a.step_and_cycle == b.step_and_cycle
    assert a.test_time_s == pytest.approx(b.test_time_s)
    assert a.step_time_s == pytest.approx(b.step_time_s, abs=1.0)
    assert (a.charge_ah, a.charge_wh) == pytest.approx((b.charge_ah, b.charge_wh), rel=1e-3)
    assert at_once.voltage_v == pytest.approx(polled.voltage_v, abs=1e-3)
    assert at_once.battery.state.temperature_c == pytest.approx(polled.battery.state.temperature_c, abs=0.05)


def test_idle_time_is_one_look_however_long() -> None:
    channel = channel_with("Discharge.sdx")
    channel.advance(600.0)
    channel.stop()
    polarised = channel.voltage_v
    began = time.process_time()
    channel.advance(1e9)
    assert time.process_time() - began < 0.1
    assert channel.voltage_v > polarised
    assert channel.voltage_v == pytest.approx(Cell().ocv(channel.battery.state.soc))


def test_time_that_is_past_changes_nothing() -> None:
    channel = channel_with("CCCV.sdx")
    channel.advance_to(50.0)
    channel.advance_to(40.0)
    channel.advance_to(60.0)
    assert run_of(channel).test_time_s == pytest.approx(60.0)


# --- meta variables ---


def test_a_meta_variable_moves_a_running_step() -> None:
    channel = channel_with("ClosedLoop.sdx")
    assert (channel.status, channel.current_a) == (ChannelStatus.CHARGE, 0.0)
    assert channel.set_meta_variable(1, 1.25) is SetMetaVariableResult.OK
    assert channel.current_a == 1.25
    channel.advance(10.0)
    channel.set_meta_variable(1, 0.5)
    channel.advance(10.0)
    assert channel.current_a == 0.5
    assert run_of(channel).charge_ah == pytest.approx((1.25 + 0.5) * 10 / 3600)


@pytest.mark.parametrize(("wanted", "current_a"), [(-3.0, 0.0), (25.0, 10.0)])
def test_the_channel_delivers_what_it_can(wanted: float, current_a: float) -> None:
    channel = channel_with("ClosedLoop.sdx", soc=0.1)
    channel.set_meta_variable(1, wanted)
    assert channel.current_a == current_a


def test_the_dead_man_ends_the_test_when_nobody_vouches() -> None:
    channel = channel_with("ClosedLoop.sdx")
    channel.set_meta_variable(1, 1.0)
    for vouched_s in (10.0, 20.0, 30.0):
        channel.set_meta_variable(16, vouched_s)
        channel.advance(9.0)
        assert channel.active
    channel.advance(60.0)
    assert status_of(channel) is ChannelStatus.FINISHED
    assert run_of(channel).test_time_s == pytest.approx(30.0)
    assert run_of(channel).exit_condition == "PV_CHAN_Test_Time >= MV_UD16"
    assert channel.current_a == 0.0


def test_without_a_dead_man_the_loop_goes_on() -> None:
    channel = channel_with("ClosedLoop.sdx")
    channel.advance(3600.0)
    assert channel.active
    channel.set_meta_variable(16, 10.0)  # long past
    assert status_of(channel) is ChannelStatus.FINISHED


def test_the_closed_loop_ends_at_its_voltage() -> None:
    channel = channel_with("ClosedLoop.sdx")
    channel.set_meta_variable(1, 2.5)
    channel.advance(2 * 3600.0)
    assert run_of(channel).exit_condition == "PV_CHAN_Voltage >= 4.2"


def test_a_later_time_limit_does_not_hide_an_earlier_voltage_limit() -> None:
    limits = (Limit(Quantity.STEP_TIME, 5.0, go=Go.END), Limit(Quantity.VOLTAGE, 3.70, go=Go.UNSAFE))
    step = Step("CC", "Current(A)", ChannelStatus.CHARGE, ConstantCurrent(2.0), limits)
    channel = channel_with(Schedule("s", (step,)))
    channel.advance(10.0)
    assert status_of(channel) is ChannelStatus.UNSAFE
    assert run_of(channel).test_time_s < 5.0


def test_a_start_clears_meta_variables_and_counters() -> None:
    channel = channel_with("ClosedLoop.sdx")
    channel.set_meta_variable(1, 1.0)
    channel.advance(60.0)
    channel.stop()
    channel.start("T2")
    run = run_of(channel)
    assert channel.meta_variables == [0.0] * 16
    assert (run.test_time_s, run.charge_ah, run.exit_condition, channel.test_name) == (0.0, 0.0, "N/A", "T2")


def test_mits_7_starts_with_the_values_of_the_assignment() -> None:
    channel = channel_with()
    channel.assign(BUILT_IN["ClosedLoop.sdx"])
    channel.take_over(5.0, (0.75,) + (0.0,) * 15)
    channel.start("T1")
    assert channel.current_a == 0.75
    assert channel.nominal_ah == 5.0


# --- commands ---


def test_stop_makes_it_idle_and_keeps_the_counters() -> None:
    channel = channel_with("CCCV.sdx")
    channel.advance(100.0)
    assert channel.stop() is StopResult.OK
    channel.advance(100.0)
    assert status_of(channel) is ChannelStatus.IDLE
    assert channel.current_a == 0.0
    assert run_of(channel).test_time_s == pytest.approx(100.0)
    assert run_of(channel).exit_condition == "Stopped by command"
    assert channel.stop() is StopResult.NOT_RUNNING


def test_what_is_refused() -> None:
    channel = channel_with()
    assert channel.stop() is StopResult.NOT_RUNNING
    assert channel.set_meta_variable(1, 1.0) is SetMetaVariableResult.NOT_RUNNING
    assert channel.start("T1") is StartResult.NO_SCHEDULE_ASSIGNED
    channel.assign(BUILT_IN["CCCV.sdx"])
    assert channel.start("") is StartResult.TEST_NAME_EMPTY
    assert channel.start("T1") is StartResult.OK
    assert channel.start("T1") is StartResult.RUNNING_OR_UNSAFE
    assert channel.assign(BUILT_IN["Rest.sdx"]) is AssignResult.RUNNING
    assert channel.set_meta_variable(1, float("nan")) is SetMetaVariableResult.SET_FAILED
    assert channel.schedule is BUILT_IN["CCCV.sdx"]


def test_a_finished_channel_starts_again() -> None:
    channel = channel_with("Rest.sdx")
    channel.advance(3600.0)
    assert status_of(channel) is ChannelStatus.FINISHED
    assert channel.assign(BUILT_IN["CCCV.sdx"]) is AssignResult.OK
    assert channel.start("T2") is StartResult.OK


def test_unsafe_wants_an_acknowledgement() -> None:
    hot = Limit(Quantity.TEMPERATURE, 26.0, go=Go.UNSAFE)
    step = Step("CC", "Current(A)", ChannelStatus.DISCHARGE, ConstantCurrent(-5.0))
    channel = channel_with(Schedule("s", (step,), (hot,)))
    channel.advance(600.0)
    assert status_of(channel) is ChannelStatus.UNSAFE
    assert run_of(channel).exit_condition == "Aux_Temperature_1 >= 26"
    assert channel.start("T2") is StartResult.RUNNING_OR_UNSAFE
    assert channel.stop() is StopResult.OK
    assert channel.start("T2") is StartResult.OK


def test_a_pause_waits_for_a_continue() -> None:
    channel = channel_with("Pause.sdx")
    assert channel.continue_test() is ContinueResult.RUNNING
    channel.advance(1e6)
    assert status_of(channel) is ChannelStatus.PAUSE
    assert channel.active
    assert run_of(channel).test_time_s == pytest.approx(10.0)
    assert channel.continue_test() is ContinueResult.OK
    assert status_of(channel) is ChannelStatus.REST
    channel.advance(10.0)
    assert status_of(channel) is ChannelStatus.FINISHED
    assert channel.continue_test() is ContinueResult.NOT_PAUSED


def test_a_pause_can_be_stopped() -> None:
    channel = channel_with("Pause.sdx")
    channel.advance(20.0)
    assert channel.stop() is StopResult.OK


@pytest.mark.parametrize("length", [10, 71, 72, 500])
def test_names_fit_their_fields(length: int) -> None:
    assert clip("x" * length) == "x" * min(length, 71)
    assert len(clip("\N{BATTERY}" * length).encode("utf-16-le")) // 2 <= 71


# --- schedules ---


def test_limits_read_as_text() -> None:
    assert Limit(Quantity.VOLTAGE, 2.5, below=True).text == "PV_CHAN_Voltage <= 2.5"
    assert Limit(Quantity.TEST_TIME, MetaVariable(16)).threshold([0.0] * 16) is None


def test_a_full_battery_leaves_its_charge_at_once() -> None:
    channel = channel_with("CCCV.sdx", soc=1.0)
    channel.advance(100.0)
    assert status_of(channel) is ChannelStatus.FINISHED
    assert run_of(channel).charge_ah < 0.01


def test_the_built_in_schedules_all_end() -> None:
    for name in BUILT_IN:
        channel = channel_with(name)
        channel.advance(8 * 86_400.0)
        assert status_of(channel) is (ChannelStatus.PAUSE if name == "Pause.sdx" else ChannelStatus.FINISHED), name


def test_a_schedule_of_rests_only() -> None:
    rests = Schedule("s", (Step("R", "Rest", ChannelStatus.REST, Rest(), (Limit(Quantity.STEP_TIME, 0.0),)),), cycles=5)
    assert channel_with(rests).status is ChannelStatus.FINISHED
