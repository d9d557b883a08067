import random
from typing import Any

import pytest

from cti_mqtt.cti.codes import ChannelStatus, Selection, UserType
from cti_mqtt.cti.messages.channels import AuxOption, ChannelsInfoRequest
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest, StopRequest
from cti_mqtt.cti.messages.variables import SetMetaVariableRequest
from cti_mqtt.cti.results import ConnectResult, LoginResult
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.simulator import ADMIN, ControlPolicy, Identity, ManualClock, Session, SimulatedCycler, User

from .conftest import LOGIN

CCCV = "CCCV.sdx"
RUNNING, ASSIGNED, EMPTY, MISSING = 0, 1, 2, 99


def set_mv(channel: int, code: int = 52, value: float = 1.0, *, kind: int = 1) -> SetMetaVariableRequest:
    return SetMetaVariableRequest(channel, kind, code, 1, value)


@pytest.fixture
def busy(cycler: SimulatedCycler, session: Session) -> SimulatedCycler:
    """Channel 0 runs, channel 1 has a schedule, the others have nothing."""
    cycler.handle(AssignRequest(RUNNING, False, "ClosedLoop.sdx"), session)
    cycler.handle(AssignRequest(ASSIGNED, False, CCCV), session)
    cycler.handle(StartRequest("T0", (RUNNING,)), session)
    return cycler


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        (AssignRequest(EMPTY, False, CCCV), [(EMPTY, "ok")]),
        (AssignRequest(MISSING, False, CCCV), [(MISSING, "channel_does_not_exist")]),
        (AssignRequest(-1, False, CCCV), [(-1, "channel_does_not_exist")]),
        (AssignRequest(EMPTY, False, ""), [(EMPTY, "schedule_name_empty")]),
        (AssignRequest(EMPTY, False, "nix.sdx"), [(EMPTY, "schedule_not_found")]),
        (AssignRequest(RUNNING, False, CCCV), [(RUNNING, "running")]),
        (AssignRequest(0, True, CCCV), [(0, "running"), (1, "ok"), (2, "ok"), (3, "ok")]),
        (StartRequest("T1", (ASSIGNED,)), [(ASSIGNED, "ok")]),
        (StartRequest("T1", (RUNNING,)), [(RUNNING, "running_or_unsafe")]),
        (StartRequest("T1", (EMPTY,)), [(EMPTY, "no_schedule_assigned")]),
        (StartRequest("T1", (MISSING,)), [(MISSING, "invalid_channel")]),
        (StartRequest("", (ASSIGNED,)), [(ASSIGNED, "test_name_empty")]),
        (StartRequest("T1", ()), [(-1, "no_channels_selected")]),
        (
            StartRequest("T1", (ASSIGNED, EMPTY, ASSIGNED)),
            [(ASSIGNED, "ok"), (EMPTY, "no_schedule_assigned"), (ASSIGNED, "running_or_unsafe")],
        ),
        (StopRequest(RUNNING), [(RUNNING, "ok")]),
        (StopRequest(ASSIGNED), [(ASSIGNED, "not_running")]),
        (StopRequest(MISSING), [(MISSING, "channel_does_not_exist")]),
        (StopRequest(0xFFFFFFFF), [(-1, "channel_does_not_exist")]),
        (StopRequest(0, True), [(0, "ok"), (1, "not_running"), (2, "not_running"), (3, "not_running")]),
        (set_mv(RUNNING), [(RUNNING, "ok")]),
        (set_mv(RUNNING, 116), [(RUNNING, "ok")]),
        (set_mv(RUNNING, 56), [(RUNNING, "meta_code_does_not_exist")]),
        (set_mv(ASSIGNED), [(ASSIGNED, "not_running")]),
        (set_mv(MISSING), [(MISSING, "set_failed")]),
        (set_mv(RUNNING, kind=2), [(RUNNING, "set_failed")]),
        (set_mv(RUNNING, value=float("inf")), [(RUNNING, "set_failed")]),
    ],
)
def test_results(busy: SimulatedCycler, session: Session, request_: Any, answers: list[tuple[int, str]]) -> None:
    feedbacks = busy.handle(request_, session)
    assert [(feedback.channel, feedback.result.reason) for feedback in feedbacks] == answers
    assert all(pack_message(feedback) for feedback in feedbacks)


# --- who may ---


def test_login_introduces_the_cycler(cycler: SimulatedCycler) -> None:
    session = cycler.open_session()
    (answer,) = cycler.handle(LOGIN, session)
    assert (answer.result, answer.allow_control, answer.channel_count) == (LoginResult.SUCCESS, True, 4)
    assert (answer.user_type, answer.serial, answer.version) == (UserType.SUPER_USER, "SIM-000001", 1)
    (again,) = cycler.handle(LOGIN, session)
    assert again.result is LoginResult.ALREADY_LOGGED_IN
    assert again.allow_control


@pytest.mark.parametrize("login", [LoginRequest("admin", "wrong"), LoginRequest("nobody", "admin")])
def test_a_wrong_login_fails(cycler: SimulatedCycler, login: LoginRequest) -> None:
    session = cycler.open_session()
    (answer,) = cycler.handle(login, session)
    assert (answer.result, answer.allow_control, answer.channel_count) == (LoginResult.FAILED, False, 0)
    assert cycler.handle(ChannelsInfoRequest(), session) == []


def test_a_wrong_login_ends_the_session_before_it(cycler: SimulatedCycler, session: Session) -> None:
    cycler.handle(LoginRequest("admin", "wrong"), session)
    assert cycler.handle(ChannelsInfoRequest(), session) == []


def test_before_login_only_connect_is_answered(cycler: SimulatedCycler) -> None:
    session = cycler.open_session()
    assert cycler.handle(ConnectRequest(7), session) == [ConnectFeedback(7, ConnectResult.ACCEPTED)]
    for request in (ChannelsInfoRequest(), AssignRequest(0, False, CCCV), StopRequest(0), set_mv(0)):
        assert cycler.handle(request, session) == []


def test_without_the_right_nothing_moves(clock: ManualClock) -> None:
    cycler = SimulatedCycler(2, clock=clock, users=[ADMIN, User("guest", "g", may_control=False)])
    admin, guest = cycler.open_session(), cycler.open_session()
    cycler.handle(LOGIN, admin)
    (answer,) = cycler.handle(LoginRequest("guest", "g"), guest)
    assert (answer.result, answer.allow_control) == (LoginResult.SUCCESS, False)
    cycler.handle(AssignRequest(0, False, "Rest.sdx"), admin)
    for request, reason in (
        (AssignRequest(0, False, CCCV), "monitor_window_in_use"),
        (StartRequest("T1", (0,)), "monitor_window_in_use"),
        (StopRequest(0), "monitor_window_in_use"),
        (set_mv(0), "set_failed"),
    ):
        (feedback,) = cycler.handle(request, guest)
        assert feedback.result.reason == reason
    assert cycler.channel(0).status is ChannelStatus.IDLE
    assert cycler.handle(ChannelsInfoRequest(0), guest)[0].records[0].schedule == "Rest.sdx"


@pytest.mark.parametrize(
    ("policy", "first", "second", "later"),
    [
        (ControlPolicy.SHARED, True, True, True),
        (ControlPolicy.FIRST, True, False, True),
        (ControlPolicy.REFUSED, False, False, False),
    ],
)
def test_who_gets_control(clock: ManualClock, policy: ControlPolicy, first: bool, second: bool, later: bool) -> None:
    cycler = SimulatedCycler(1, clock=clock, control=policy)
    sessions = [cycler.open_session() for _ in range(2)]
    assert [cycler.handle(LOGIN, session)[0].allow_control for session in sessions] == [first, second]
    cycler.close_session(sessions[0])
    assert cycler.handle(LOGIN, sessions[1])[0].allow_control is later


def test_the_file_port_takes_no_control(clock: ManualClock) -> None:
    cycler = SimulatedCycler(1, clock=clock, control=ControlPolicy.FIRST)
    assert not cycler.handle(LOGIN, cycler.open_session(files=True))[0].allow_control
    assert cycler.handle(LOGIN, cycler.open_session())[0].allow_control


def test_users_do_not_show_their_passwords() -> None:
    assert "secret" not in repr(User("bob", "secret"))


# --- readings ---


def read(cycler: SimulatedCycler, session: Session, request: ChannelsInfoRequest) -> list[Any]:
    (feedback,) = cycler.handle(request, session)
    return list(feedback.records)


def test_selections(busy: SimulatedCycler, session: Session) -> None:
    def channels(request: ChannelsInfoRequest) -> list[int]:
        return [record.channel for record in read(busy, session, request)]

    assert channels(ChannelsInfoRequest()) == [0, 1, 2, 3]
    assert channels(ChannelsInfoRequest(-1, Selection.RUNNING)) == [0]
    assert channels(ChannelsInfoRequest(-1, Selection.UNSAFE)) == []
    assert channels(ChannelsInfoRequest(2)) == [2]
    assert channels(ChannelsInfoRequest(99)) == []
    run = busy.channel(0).run
    assert run is not None
    run.end(ChannelStatus.UNSAFE, "x")
    assert channels(ChannelsInfoRequest(-1, Selection.UNSAFE)) == [0]


def test_a_record_shows_the_test(busy: SimulatedCycler, session: Session, clock: ManualClock) -> None:
    busy.handle(AssignRequest(3, False, CCCV, barcode="B42"), session)
    busy.handle(StartRequest("cell-42", (3,)), session)
    clock.advance(61.5)
    (record,) = read(busy, session, ChannelsInfoRequest(3))
    assert (record.schedule, record.test_name, record.barcode) == (CCCV, "cell-42", "B42")
    assert (record.status, record.step_and_cycle, record.master_channel) == (2, "[1] 2: CC, C-Rate", 3)
    assert (record.test_time, record.step_time, record.current) == pytest.approx((61.5, 31.5, 1.5))
    assert record.power == pytest.approx(record.voltage * record.current)
    assert record.charge_capacity == pytest.approx(1.5 * 31.5 / 3600)
    (idle,) = read(busy, session, ChannelsInfoRequest(2))
    assert (idle.status, idle.test_name, idle.exit_condition, idle.step_and_cycle) == (0, "", "N/A", "")


@pytest.mark.parametrize(
    ("options", "aux", "bms", "smb"),
    [
        (AuxOption.NONE, 0, 0, 0),
        (AuxOption.AUXILIARY, 1, 0, 0),
        (AuxOption.BMS, 0, 4, 0),
        (AuxOption.SMB, 0, 0, 2),
        (AuxOption.ALL, 1, 4, 2),
    ],
)
def test_additional_values(clock: ManualClock, options: AuxOption, aux: int, bms: int, smb: int) -> None:
    cycler = SimulatedCycler(1, clock=clock, bms_count=4, smb_count=2)
    session = cycler.open_session()
    cycler.handle(LOGIN, session)
    (record,) = read(cycler, session, ChannelsInfoRequest(0, aux_options=options))
    extras = record.extras
    assert (len(extras.aux.get("temperature", ())), len(extras.bms), len(extras.smb)) == (aux, bms, smb)
    if bms:
        assert [entry.unit for entry in extras.bms] == ["V", "degC", "%", "V"]
    if smb:
        assert [type(entry.value) for entry in extras.smb] == [float, str]


def test_batteries_differ_and_are_the_same_each_time(clock: ManualClock) -> None:
    def volts(seed: int) -> list[float]:
        cycler = SimulatedCycler(3, clock=clock, rng=random.Random(seed))
        return [cycler.channel(i).voltage_v for i in range(3)]

    assert len(set(volts(1))) == 3
    assert volts(1) == volts(1) != volts(2)


def test_mits_7_takes_capacity_and_values_from_the_assignment(clock: ManualClock) -> None:
    for version, capacity_ah, current_a in ((0, 3.0, 0.5), (1, 2.5, 0.0)):
        cycler = SimulatedCycler(1, clock=clock, identity=Identity(version=version))
        session = cycler.open_session()
        cycler.handle(LOGIN, session)
        values = (0.5, float("nan")) + (0.0,) * 14
        cycler.handle(AssignRequest(0, False, "ClosedLoop.sdx", 3.0, "", values), session)
        cycler.handle(StartRequest("T1", (0,)), session)
        assert (cycler.channel(0).nominal_ah, cycler.channel(0).current_a) == (capacity_ah, current_a)
        assert cycler.channel(0).meta_variables[1] == 0.0


@pytest.mark.parametrize("channels", [0, 1025])
def test_too_few_and_too_many_channels(clock: ManualClock, channels: int) -> None:
    with pytest.raises(ValueError, match="channels"):
        SimulatedCycler(channels, clock=clock)


def test_no_such_channel(cycler: SimulatedCycler) -> None:
    with pytest.raises(IndexError):
        cycler.channel(-1)
