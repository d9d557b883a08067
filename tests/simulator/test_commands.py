"""Resume, continue, jump, advanced updates, start and resume data, and the rest of the control port."""

from datetime import datetime
from typing import Any

import pytest

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.channels import ChannelsInfoRequest
from cti_mqtt.cti.messages.extended import (
    ExtendedResume,
    ExtendedStart,
    GetResumeDataRequest,
    GetStartDataRequest,
    ResumeExtendedRequest,
    ResumeState,
    StartExtendedRequest,
)
from cti_mqtt.cti.messages.service import GetSerialRequest, SendMessageRequest, StartCalibrationRequest
from cti_mqtt.cti.messages.tests import (
    AssignRequest,
    ContinueRequest,
    JumpRequest,
    ResumeRequest,
    StartRequest,
    StopRequest,
)
from cti_mqtt.cti.messages.variables import (
    MetaVariableUpdate,
    UpdateHeader,
    UpdateMetaVariablesRequest,
    Updates,
)
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.simulator import Identity, ManualClock, Session, SimulatedCycler
from cti_mqtt.simulator.run import Run

from .conftest import LOGIN

CCCV = "CCCV.sdx"
RUNNING, PAUSED, STOPPED, IDLE, FINISHED, UNSAFE, ASSIGNED, MISSING = *range(7), 99
WALL = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - what a wall clock shows


@pytest.fixture
def real_time() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cycler(clock: ManualClock, real_time: ManualClock) -> SimulatedCycler:
    return SimulatedCycler(
        7, clock=clock, monotonic=real_time, wall=lambda: WALL, identity=Identity(serial="SN 207-855")
    )


def run_of(cycler: SimulatedCycler, channel: int) -> Run:
    run = cycler.channel(channel).run
    assert run is not None
    return run


@pytest.fixture
def busy(cycler: SimulatedCycler, session: Session, clock: ManualClock) -> SimulatedCycler:
    """One channel in each state; 11 s after the starts."""
    for channel, schedule in (
        *((RUNNING, "ClosedLoop.sdx"), (PAUSED, "Pause.sdx"), (STOPPED, CCCV)),
        *((FINISHED, "ClosedLoop.sdx"), (UNSAFE, "Rest.sdx"), (ASSIGNED, CCCV)),
    ):
        cycler.handle(AssignRequest(channel, False, schedule), session)
    cycler.handle(StartRequest("T0", (RUNNING, PAUSED, STOPPED, FINISHED, UNSAFE)), session)
    cycler.channel(FINISHED).set_meta_variable(16, 5.0)
    clock.advance(11.0)
    cycler.handle(StopRequest(STOPPED), session)
    run_of(cycler, UNSAFE).end(ChannelStatus.UNSAFE, "PV_CHAN_Voltage >= 4.35")
    return cycler


def update(*entries: tuple[int, int, float], header: UpdateHeader = UpdateHeader.V11) -> UpdateMetaVariablesRequest:
    return UpdateMetaVariablesRequest(Updates(tuple(MetaVariableUpdate(*entry) for entry in entries), header))


def start_extended(
    channel: int, schedule: str = CCCV, test_name: str = "T1", start_step: int = 0
) -> StartExtendedRequest:
    return StartExtendedRequest((ExtendedStart(channel, test_name, schedule, start_step=start_step),))


def resume_extended(
    channel: int, schedule: str = CCCV, test_name: str = "T1", start_step: int = 0
) -> ResumeExtendedRequest:
    return ResumeExtendedRequest((ExtendedResume(channel, test_name, schedule, start_step),))


NAN = float("nan")


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        (ResumeRequest(STOPPED), [(STOPPED, "ok")]),
        (ResumeRequest(RUNNING), [(RUNNING, "running_or_unsafe")]),
        (ResumeRequest(PAUSED), [(PAUSED, "running_or_unsafe")]),
        (ResumeRequest(UNSAFE), [(UNSAFE, "running_or_unsafe")]),
        (ResumeRequest(IDLE), [(IDLE, "no_schedule_assigned")]),
        (ResumeRequest(ASSIGNED), [(ASSIGNED, "no_test_name_or_not_last_schedule")]),
        (ResumeRequest(FINISHED), [(FINISHED, "load_resume")]),
        (ResumeRequest(MISSING), [(MISSING, "invalid_channel")]),
        (ResumeRequest(-1), [(-1, "invalid_channel")]),
        (
            ResumeRequest(0, True),
            [
                *((RUNNING, "running_or_unsafe"), (PAUSED, "running_or_unsafe"), (STOPPED, "ok")),
                *((IDLE, "no_schedule_assigned"), (FINISHED, "load_resume"), (UNSAFE, "running_or_unsafe")),
                (ASSIGNED, "no_test_name_or_not_last_schedule"),
            ],
        ),
        (ContinueRequest((PAUSED,)), [(PAUSED, "ok")]),
        (ContinueRequest((RUNNING,)), [(RUNNING, "running")]),
        (ContinueRequest((IDLE,)), [(IDLE, "not_paused")]),
        (ContinueRequest((FINISHED,)), [(FINISHED, "not_paused")]),
        (ContinueRequest((UNSAFE,)), [(UNSAFE, "unsafe")]),
        (ContinueRequest((MISSING,)), [(MISSING, "invalid_channel")]),
        (ContinueRequest(()), [(-1, "invalid_channel")]),
        (ContinueRequest((PAUSED, STOPPED, PAUSED)), [(PAUSED, "ok"), (STOPPED, "not_paused"), (PAUSED, "running")]),
        (JumpRequest(0, RUNNING), [(RUNNING, "ok")]),
        (JumpRequest(2, PAUSED), [(PAUSED, "ok")]),
        (JumpRequest(99, RUNNING), [(RUNNING, "ok")]),
        (JumpRequest(-1, RUNNING), [(RUNNING, "invalid_step_limit")]),
        (JumpRequest(0, STOPPED), [(STOPPED, "not_running")]),
        (JumpRequest(0, IDLE), [(IDLE, "not_running")]),
        (JumpRequest(0, MISSING), [(MISSING, "invalid_channel")]),
        (JumpRequest(0, -1), [(-1, "invalid_channel")]),
        (update((RUNNING, 52, 1.0)), [(RUNNING, "ok")]),
        (update((RUNNING, 52, 1.0), header=UpdateHeader.V45), [(RUNNING, "ok")]),
        (update((RUNNING, 52, 1.0), (PAUSED, 116, 2.0), (RUNNING, 53, 3.0)), [(RUNNING, "ok")]),
        (update(*[(RUNNING, 52, 1.0)] * 160), [(RUNNING, "ok")]),
        (update((RUNNING, 56, 1.0)), [(RUNNING, "meta_code_does_not_exist")]),
        (update((RUNNING, 52, 1.0), (IDLE, 52, 1.0)), [(IDLE, "not_running")]),
        (update((MISSING, 52, 1.0)), [(MISSING, "set_failed")]),
        (update((RUNNING, 52, NAN)), [(RUNNING, "set_failed")]),
        (update(), [(-1, "set_failed")]),
        (start_extended(IDLE), [(IDLE, "ok")]),
        (start_extended(ASSIGNED, ""), [(ASSIGNED, "ok")]),
        (start_extended(IDLE, ""), [(IDLE, "no_schedule_assigned")]),
        (start_extended(IDLE, "nix.sdx"), [(IDLE, "no_schedule_assigned")]),
        (start_extended(IDLE, test_name=""), [(IDLE, "test_name_empty")]),
        (start_extended(IDLE, start_step=4), [(IDLE, "invalid_step")]),
        (start_extended(RUNNING, "nix.sdx"), [(RUNNING, "running_or_unsafe")]),
        (start_extended(UNSAFE), [(UNSAFE, "running_or_unsafe")]),
        (start_extended(MISSING), [(MISSING, "invalid_channel")]),
        (start_extended(0xFFFF_FFFF), [(-1, "invalid_channel")]),
        (StartExtendedRequest(()), [(-1, "no_channels_selected")]),
        (
            StartExtendedRequest((ExtendedStart(IDLE, "T1", CCCV), ExtendedStart(RUNNING, "", CCCV))),
            [(IDLE, "ok"), (RUNNING, "running_or_unsafe")],
        ),
        (resume_extended(STOPPED), [(STOPPED, "ok")]),
        (resume_extended(ASSIGNED, ""), [(ASSIGNED, "ok")]),
        (resume_extended(STOPPED, "Rest.sdx"), [(STOPPED, "no_test_name_or_not_last_schedule")]),
        (resume_extended(STOPPED, test_name=""), [(STOPPED, "no_test_name_or_not_last_schedule")]),
        (resume_extended(STOPPED, start_step=4), [(STOPPED, "step_number")]),
        (resume_extended(IDLE), [(IDLE, "no_schedule_assigned")]),
        (resume_extended(RUNNING), [(RUNNING, "running_or_unsafe")]),
        (resume_extended(MISSING), [(MISSING, "invalid_channel")]),
        (ResumeExtendedRequest(()), [(-1, "no_channels_selected")]),
    ],
)
def test_results(busy: SimulatedCycler, session: Session, request_: Any, answers: list[tuple[int, str]]) -> None:
    feedbacks = busy.handle(request_, session)
    assert [(feedback.channel, feedback.result.reason) for feedback in feedbacks] == answers
    assert all(pack_message(feedback) for feedback in feedbacks)


@pytest.mark.parametrize(
    "request_",
    [
        *(ResumeRequest(STOPPED), ContinueRequest((PAUSED,)), JumpRequest(99, RUNNING)),
        *(update((RUNNING, 52, 1.0)), start_extended(IDLE), resume_extended(STOPPED), StartCalibrationRequest()),
    ],
    ids=lambda request: type(request).__name__,
)
def test_without_the_right_nothing_moves(busy: SimulatedCycler, session: Session, request_: Any) -> None:
    guest = Session(9, user=session.user)
    before = [busy.channel(index).status for index in range(7)]
    (feedback,) = busy.handle(request_, guest)
    assert feedback.result.reason in {"monitor_window_in_use", "set_failed", "failed"}
    assert [busy.channel(index).status for index in range(7)] == before
    assert busy.channel(RUNNING).meta_variables[0] == 0.0
    assert busy.calibrations == 0
    assert busy.handle(request_, Session(10)) == []


# --- resume ---


def test_a_resumed_test_goes_on_where_it_stood(cycler: SimulatedCycler, session: Session, clock: ManualClock) -> None:
    cycler.handle(AssignRequest(0, False, CCCV), session)
    cycler.handle(StartRequest("cell-42", (0,)), session)
    clock.advance(90.0)
    (before,) = cycler.handle(ChannelsInfoRequest(0), session)[0].records
    cycler.handle(StopRequest(0), session)
    clock.advance(1000.0)
    assert cycler.channel(0).status is ChannelStatus.IDLE
    assert cycler.handle(ResumeRequest(0), session)[0].result == 0
    (after,) = cycler.handle(ChannelsInfoRequest(0), session)[0].records
    for name in ("status", "test_name", "schedule", "step_and_cycle", "test_time", "step_time", "charge_capacity"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.current == pytest.approx(1.5)
    clock.advance(10.0)
    assert run_of(cycler, 0).test_time_s == pytest.approx(100.0)
    assert run_of(cycler, 0).charge_ah == pytest.approx(1.5 * 70 / 3600)


def test_a_pause_that_was_stopped_is_a_pause_again(busy: SimulatedCycler, session: Session) -> None:
    busy.handle(StopRequest(PAUSED), session)
    busy.handle(ResumeRequest(PAUSED), session)
    assert busy.channel(PAUSED).status is ChannelStatus.PAUSE
    assert busy.handle(ContinueRequest((PAUSED,)), session)[0].result == 0
    assert busy.channel(PAUSED).status is ChannelStatus.REST


def test_another_schedule_cannot_be_resumed(busy: SimulatedCycler, session: Session) -> None:
    busy.handle(AssignRequest(STOPPED, False, "Rest.sdx"), session)
    assert busy.handle(ResumeRequest(STOPPED), session)[0].result.reason == "no_test_name_or_not_last_schedule"
    busy.handle(AssignRequest(STOPPED, False, CCCV), session)
    assert busy.handle(ResumeRequest(STOPPED), session)[0].result == 0


def test_values_outlive_a_stop(busy: SimulatedCycler, session: Session) -> None:
    busy.handle(update((RUNNING, 52, 1.25)), session)
    busy.handle(StopRequest(RUNNING), session)
    busy.handle(ResumeRequest(RUNNING), session)
    assert busy.channel(RUNNING).current_a == 1.25


# --- jump ---


def test_a_jump_counts_steps_from_0(busy: SimulatedCycler, session: Session, clock: ManualClock) -> None:
    busy.handle(ResumeRequest(STOPPED), session)
    busy.handle(JumpRequest(3, STOPPED), session)
    (record,) = busy.handle(ChannelsInfoRequest(STOPPED), session)[0].records
    assert (record.step_and_cycle, record.step_time, record.test_time) == ("[1] 4: Rest, Rest", 0.0, 11.0)
    assert record.exit_condition == "Jump by command"
    clock.advance(59.0)
    assert busy.channel(STOPPED).active
    clock.advance(2.0)
    assert not busy.channel(STOPPED).active


@pytest.mark.parametrize("step", [1, 0x7FFF_FFFF])
def test_a_jump_past_the_end_stops_the_test(busy: SimulatedCycler, session: Session, step: int) -> None:
    assert busy.handle(JumpRequest(step, RUNNING), session)[0].result == 0
    (record,) = busy.handle(ChannelsInfoRequest(RUNNING), session)[0].records
    assert (record.status, record.exit_condition) == (ChannelStatus.FINISHED, "Jump past the last step")
    assert record.current == 0.0


# --- many values at once ---


def test_an_advanced_update_is_taken_whole_or_not_at_all(busy: SimulatedCycler, session: Session) -> None:
    busy.handle(update((RUNNING, 52, 1.5), (IDLE, 52, 1.0)), session)
    assert busy.channel(RUNNING).current_a == 0.0


def test_once_a_channel_each_stands_for_itself(busy: SimulatedCycler, session: Session) -> None:
    request = update((RUNNING, 52, 1.5), (IDLE, 52, 1.0), (RUNNING, 116, 99.0), (PAUSED, 1, 0.0))
    feedbacks = busy.update_meta_variables(request, session, per_channel=True)
    assert [(feedback.channel, feedback.result.reason) for feedback in feedbacks] == [
        *((RUNNING, "ok"), (IDLE, "not_running"), (PAUSED, "meta_code_does_not_exist"))
    ]
    assert (busy.channel(RUNNING).current_a, busy.channel(RUNNING).meta_variables[15]) == (1.5, 99.0)
    again = busy.update_meta_variables(request, session, per_channel=True)
    assert [(feedback.channel, int(feedback.result)) for feedback in again] == [(0, 0x14), (3, 0x14), (1, 0x14)]
    assert busy.update_meta_variables(update(), session, per_channel=True)[0].channel == -1
    assert busy.update_meta_variables(request, Session(9), per_channel=True) == []


def test_more_values_than_fit(busy: SimulatedCycler, session: Session) -> None:
    (feedback,) = busy.handle(update(*[(RUNNING, 52, 1.0)] * 161), session)
    assert feedback.result.reason == "set_failed"


def test_one_advanced_update_in_200_ms(busy: SimulatedCycler, session: Session, real_time: ManualClock) -> None:
    """Of the whole server, in real time; what was refused does not count."""
    real_time.advance(1.0)
    for seconds, reason in (
        *((0.0, "ok"), (0.1, "updated_within_200_ms"), (0.09, "updated_within_200_ms"), (0.02, "ok")),
        (0.199, "updated_within_200_ms"),
    ):
        real_time.advance(seconds)
        assert busy.handle(update((RUNNING, 52, 1.0)), session)[0].result.reason == reason


# --- start and resume data ---


def test_start_data(busy: SimulatedCycler, session: Session) -> None:
    busy.handle(StopRequest(RUNNING), session)
    busy.handle(StartRequest("T1", (RUNNING,)), session)
    busy.handle(update((RUNNING, 105, 2.5)), session)
    (feedback,) = busy.handle(GetStartDataRequest((RUNNING, ASSIGNED, IDLE, MISSING)), session)
    assert pack_message(feedback)
    running, assigned, idle, missing = feedback.records
    assert (running.channel, running.code, running.schedule) == (RUNNING, 0, "ClosedLoop.sdx")
    assert (running.test_names, running.steps) == (("T1", "T0"), ("Loop",))
    assert running.meta_variables == (0.0,) * 4 + (2.5,) + (0.0,) * 11
    assert (assigned.code, assigned.test_names) == (35, ())
    assert (assigned.schedule, assigned.steps) == (CCCV, ("Step_A", "CC", "CV", "Rest"))
    assert (idle.code, idle.schedule, idle.steps) == (35, "", ())
    assert (missing.channel, missing.code) == (MISSING, 34)
    assert busy.handle(GetStartDataRequest(()), session)[0].records == ()


def test_test_names_are_remembered_to_a_point(cycler: SimulatedCycler, session: Session) -> None:
    cycler.handle(AssignRequest(0, False, CCCV), session)
    for number in (*range(30), 25):
        cycler.handle(StartRequest(f"T{number}", (0,)), session)
        cycler.handle(StopRequest(0), session)
    names = cycler.channel(0).test_names
    assert names[:3] == ["T25", "T29", "T28"]
    assert (len(names), len(set(names))) == (20, 20)


def test_resume_data_and_a_resumption_from_it(busy: SimulatedCycler, session: Session, clock: ManualClock) -> None:
    (feedback,) = busy.handle(GetResumeDataRequest((STOPPED, IDLE, MISSING)), session)
    assert pack_message(feedback)
    data, idle, missing = feedback.records
    assert (data.code, data.test_name, data.schedule, data.creator) == (0, "T0", CCCV, "admin")
    assert (data.start_time, data.steps) == ("2026-01-02 03:04:05", ("Step_A", "CC", "CV", "Rest"))
    assert (data.state.cycle, data.state.test_time, data.state.step_time) == (1, 11.0, 11.0)
    assert (idle.code, missing.code) == (36, 34)
    record = ExtendedResume(ASSIGNED, data.test_name, data.schedule, 0, data.state)
    busy.handle(ResumeExtendedRequest((record,)), session)
    clock.advance(9.0)
    (reading,) = busy.handle(ChannelsInfoRequest(ASSIGNED), session)[0].records
    assert (reading.test_name, reading.test_time, reading.step_time) == ("T0", 20.0, 20.0)


def test_a_resumption_takes_step_counters_and_values(busy: SimulatedCycler, session: Session) -> None:
    state = ResumeState(
        cycle=3,
        test_time=5000.0,
        charge_capacity=1.5,
        discharge_capacity=0.5,
        charge_energy=6.0,
        discharge_energy=2.0,
        meta_variables=(0.5, NAN) + (0.0,) * 14,
    )
    record = ExtendedResume(STOPPED, "other", CCCV, 3, state)
    assert busy.handle(ResumeExtendedRequest((record,)), session)[0].result == 0
    (reading,) = busy.handle(ChannelsInfoRequest(STOPPED), session)[0].records
    assert (reading.step_and_cycle, reading.test_name, reading.test_time) == ("[3] 4: Rest, Rest", "other", 5000.0)
    assert (reading.charge_capacity, reading.discharge_energy) == (1.5, 2.0)
    assert busy.channel(STOPPED).meta_variables[:2] == [0.5, 0.0]


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf"), -1.0, 1e300])
def test_counters_from_outside_that_are_none(busy: SimulatedCycler, session: Session, value: float) -> None:
    names = ("test_time", "step_time", "charge_capacity", "discharge_capacity", "charge_energy", "discharge_energy")
    state = ResumeState(cycle=0, **dict.fromkeys(names, value))  # type: ignore[arg-type]
    busy.handle(ResumeExtendedRequest((ExtendedResume(STOPPED, "T", "", 0, state),)), session)
    (feedback,) = busy.handle(ChannelsInfoRequest(STOPPED), session)
    assert pack_message(feedback)
    assert 0.0 <= feedback.records[0].charge_capacity <= 1e9


def test_an_extended_start(busy: SimulatedCycler, session: Session) -> None:
    request = StartExtendedRequest(
        (
            ExtendedStart(IDLE, "first", "Formation.sdx", "Ms. X", "a comment", 3, ResumeState(cycle=9)),
            ExtendedStart(ASSIGNED, "second", CCCV, start_step=1),
        )
    )
    assert [int(feedback.result) for feedback in busy.handle(request, session)] == [0, 0]
    formation, cccv = (busy.handle(ChannelsInfoRequest(channel), session)[0].records[0] for channel in (3, 6))
    assert (formation.test_name, formation.schedule) == ("first", "Formation.sdx")
    assert formation.step_and_cycle == "[1] 4: DC, C-Rate"
    assert (cccv.test_name, cccv.step_and_cycle) == ("first", "[1] 2: CC, C-Rate")
    (data,) = busy.handle(GetResumeDataRequest((IDLE,)), session)[0].records
    assert (data.creator, data.comment) == ("admin", "")


# --- the rest ---


def test_the_serial_number_is_a_number(cycler: SimulatedCycler, session: Session, clock: ManualClock) -> None:
    assert cycler.handle(GetSerialRequest(), session)[0].serial == 207_855
    other = SimulatedCycler(1, clock=clock, identity=Identity(serial="none"))
    other_session = other.open_session()
    other.handle(LOGIN, other_session)
    assert other.handle(GetSerialRequest(), other_session)[0].serial == 0


def test_calibration_wants_channels_at_rest(cycler: SimulatedCycler, session: Session) -> None:
    assert cycler.handle(StartCalibrationRequest(), session)[0].result.reason == "started"
    cycler.handle(AssignRequest(0, False, CCCV), session)
    cycler.handle(StartRequest("T", (0,)), session)
    assert cycler.handle(StartCalibrationRequest(), session)[0].result.reason == "failed"
    assert cycler.calibrations == 1


def test_messages_are_shown(clock: ManualClock) -> None:
    seen: list[str] = []
    cycler = SimulatedCycler(1, clock=clock, on_message=seen.append)
    session = cycler.open_session()
    cycler.handle(LOGIN, session)
    assert cycler.handle(SendMessageRequest("[now]<-->[hello]"), session)[0].result.reason == "shown"
    assert seen == list(cycler.messages) == ["[now]<-->[hello]"]
