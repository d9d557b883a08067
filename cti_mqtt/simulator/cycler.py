"""The simulated cycler: users, channels, and what each request does to them.

Pure but for the clock that is passed in: nothing happens between requests; whatever time has passed is caught up with
when somebody asks. Channels are 0-based, as on the wire.
"""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cti_mqtt.cti.codes import Selection, StatusClass, UserType, meta_index
from cti_mqtt.cti.messages.channels import ALL_CHANNELS, ChannelsInfoFeedback, ChannelsInfoRequest
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginFeedback, LoginRequest
from cti_mqtt.cti.messages.tests import (
    NO_CHANNEL,
    AssignFeedback,
    AssignRequest,
    StartFeedback,
    StartRequest,
    StopFeedback,
    StopRequest,
)
from cti_mqtt.cti.messages.variables import (
    FLOAT_VALUE,
    META_VARIABLE,
    SetMetaVariableFeedback,
    SetMetaVariableRequest,
)
from cti_mqtt.cti.results import (
    AssignResult,
    ConnectResult,
    LoginResult,
    SetMetaVariableResult,
    StartResult,
    StopResult,
)
from cti_mqtt.simulator.cell import Battery, Cell, CellState
from cti_mqtt.simulator.channel import Channel
from cti_mqtt.simulator.clock import Clock
from cti_mqtt.simulator.readings import record
from cti_mqtt.simulator.schedule import BUILT_IN, Schedule
from cti_mqtt.simulator.users import ADMIN, ControlPolicy, Session, User

MAX_CHANNELS = 1024
MITS_7, MITS_8 = 0, 1  # version codes of the login feedback


@dataclass(frozen=True, slots=True)
class Identity:
    """What the cycler tells of itself at login; `version` is the code of the MITS generation."""

    serial: str = "SIM-000001"
    nickname: str = "Simulated cycler"
    location: str = "Nowhere"
    note: str = "cti-mqtt simulate"
    ip: str = "127.0.0.1"
    version: int = MITS_8


def battery(rng: random.Random) -> Battery:
    """A battery like the others, but not quite."""
    cell = Cell(capacity_ah=2.5 * rng.uniform(0.97, 1.03))
    return Battery(cell, CellState(rng.uniform(0.3, 0.5), temperature_c=cell.ambient_c))


class SimulatedCycler:
    """A cabinet with channels, as MITS Pro serves it.

    Args:
        channels: how many, 1 to 1024.
        clock: seconds; see `SimulatedClock` and `ManualClock`.
        users: who is registered; by default admin with the password admin.
        control: who gets the right to control.
        identity: what it tells of itself.
        schedules: what can be assigned, by name.
        bms_count: BMS values a channel.
        smb_count: smart-battery values a channel.
        rng: makes the batteries differ; the same seed, the same batteries.

    Attributes:
        control: may be changed at any time; sessions keep what their login said.
        sessions: the connections that are open.
    """

    def __init__(
        self,
        channels: int = 16,
        *,
        clock: Clock,
        users: Iterable[User] = (ADMIN,),
        control: ControlPolicy = ControlPolicy.SHARED,
        identity: Identity | None = None,
        schedules: Mapping[str, Schedule] = BUILT_IN,
        bms_count: int = 0,
        smb_count: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"a cycler has 1 to {MAX_CHANNELS} channels, not {channels}")
        rng = rng or random.Random(1)  # noqa: S311 - batteries, not secrets
        self.control = control
        self.identity = identity or Identity()
        self.sessions: list[Session] = []
        self._clock = clock
        self._users = {user.name: user for user in users}
        self._schedules = schedules
        self._bms_count = bms_count
        self._smb_count = smb_count
        self._channels = tuple(Channel(battery(rng), clock()) for _ in range(channels))
        self._opened = 0
        self._handlers: dict[type[Any], Any] = {
            ChannelsInfoRequest: self._channels_info,
            AssignRequest: self._assign,
            StartRequest: self._start,
            StopRequest: self._stop,
            SetMetaVariableRequest: self._set_meta_variable,
        }

    @property
    def channel_count(self) -> int:
        """How many channels it has."""
        return len(self._channels)

    @property
    def now_s(self) -> float:
        """Simulated seconds."""
        return self._clock()

    def channel(self, index: int) -> Channel:
        """A channel (0-based) as it stands now.

        Raises:
            IndexError: there is no such channel.
        """
        if not self._exists(index):
            raise IndexError(f"there is no channel {index}")
        channel = self._channels[index]
        channel.advance_to(self._clock())
        return channel

    def _exists(self, index: int) -> bool:
        return 0 <= index < len(self._channels)

    # --- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self, *, files: bool = False) -> Session:
        """Somebody connected."""
        self._opened += 1
        session = Session(self._opened, files=files)
        self.sessions.append(session)
        return session

    def close_session(self, session: Session) -> None:
        """They went; the right to control becomes free."""
        session.user = None
        session.allow_control = False
        self.sessions.remove(session)

    def handle(self, request: Any, session: Session) -> list[Any]:
        """Carry out a request; the feedbacks, none for a request before login."""
        if isinstance(request, LoginRequest):
            return [self._login(request, session)]
        if isinstance(request, ConnectRequest):
            return [ConnectFeedback(request.kick_out, ConnectResult.ACCEPTED)]
        if session.user is None:
            return []
        feedbacks: list[Any] = self._handlers[type(request)](request, session)
        return feedbacks

    def _login(self, request: LoginRequest, session: Session) -> LoginFeedback:
        user = self._users.get(request.user)
        if user is None or user.password != request.password:
            session.user = None
            session.allow_control = False
            return self._introduction(LoginResult.FAILED, session)
        again = session.user is not None
        session.user = user
        session.allow_control = self._may_control(user, session)
        return self._introduction(LoginResult.ALREADY_LOGGED_IN if again else LoginResult.SUCCESS, session)

    def _may_control(self, user: User, session: Session) -> bool:
        if session.files or not user.may_control or self.control is ControlPolicy.REFUSED:
            return False
        taken = any(other.allow_control for other in self.sessions if other is not session)
        return self.control is ControlPolicy.SHARED or not taken

    def _introduction(self, result: LoginResult, session: Session) -> LoginFeedback:
        """Who the cycler is; to strangers it tells neither channels nor rights."""
        me = self.identity
        rank = UserType.SUPER_USER if session.user and session.user.super_user else UserType.USER
        return LoginFeedback(
            result=result,
            ip=me.ip,
            serial=me.serial,
            note=me.note,
            nickname=me.nickname,
            location=me.location,
            emergency_contact="",
            comments="",
            email="",
            phone="",
            itac=0,
            version=me.version,
            allow_control=session.allow_control,
            channel_count=self.channel_count if session.user else 0,
            user_type=rank,
        )

    # --- readings ----------------------------------------------------------------------------------------------------

    def _channels_info(self, request: ChannelsInfoRequest, _: Session) -> list[ChannelsInfoFeedback]:
        return [
            ChannelsInfoFeedback(
                tuple(
                    record(
                        index,
                        self.channel(index),
                        request.aux_options,
                        bms_count=self._bms_count,
                        smb_count=self._smb_count,
                    )
                    for index in self._selected(request)
                )
            )
        ]

    def _selected(self, request: ChannelsInfoRequest) -> list[int]:
        """The channels that a request means; none for a channel that does not exist."""
        if request.channel != ALL_CHANNELS:
            return [request.channel] if self._exists(request.channel) else []
        every = range(self.channel_count)
        if request.selection is Selection.RUNNING:
            return [index for index in every if self.channel(index).active]
        if request.selection is Selection.UNSAFE:
            return [index for index in every if self.channel(index).status.meaning is StatusClass.FAULT]
        return list(every)

    # --- control -----------------------------------------------------------------------------------------------------
    # Without the right to control the answer is "monitor window in use": the nearest there is in the tables of results.

    def _assign(self, request: AssignRequest, session: Session) -> list[AssignFeedback]:
        indices = range(self.channel_count) if request.all_channels else [request.channel]
        return [AssignFeedback(index, self._assign_one(index, request, session)) for index in indices]

    def _assign_one(self, index: int, request: AssignRequest, session: Session) -> AssignResult:
        if not session.allow_control:
            return AssignResult.MONITOR_WINDOW_IN_USE
        if not self._exists(index):
            return AssignResult.CHANNEL_DOES_NOT_EXIST
        channel = self.channel(index)
        if not request.schedule or channel.active:
            return AssignResult.RUNNING if request.schedule else AssignResult.SCHEDULE_NAME_EMPTY
        schedule = self._schedules.get(request.schedule)
        if schedule is None:
            return AssignResult.SCHEDULE_NOT_FOUND
        if self.identity.version == MITS_7:
            values = tuple(map(_finite, request.meta_variables))
            channel.take_over(_finite(request.capacity), values)
        return channel.assign(schedule, request.barcode)

    def _start(self, request: StartRequest, session: Session) -> list[StartFeedback]:
        if not request.channels:
            return [StartFeedback(NO_CHANNEL, StartResult.NO_CHANNELS_SELECTED)]
        return [StartFeedback(index, self._start_one(index, request, session)) for index in request.channels]

    def _start_one(self, index: int, request: StartRequest, session: Session) -> StartResult:
        if not session.allow_control:
            return StartResult.MONITOR_WINDOW_IN_USE
        if not self._exists(index):
            return StartResult.INVALID_CHANNEL
        return self.channel(index).start(request.test_name)

    def _stop(self, request: StopRequest, session: Session) -> list[StopFeedback]:
        indices = range(self.channel_count) if request.all_channels else [request.channel]
        return [StopFeedback(_signed(index), self._stop_one(index, session)) for index in indices]

    def _stop_one(self, index: int, session: Session) -> StopResult:
        if not session.allow_control:
            return StopResult.MONITOR_WINDOW_IN_USE
        if not self._exists(index):
            return StopResult.CHANNEL_DOES_NOT_EXIST
        return self.channel(index).stop()

    def _set_meta_variable(self, request: SetMetaVariableRequest, session: Session) -> list[SetMetaVariableFeedback]:
        return [SetMetaVariableFeedback(_signed(request.channel), self._set_one(request, session))]

    def _set_one(self, request: SetMetaVariableRequest, session: Session) -> SetMetaVariableResult:
        """The table has no code for a missing right or channel: both are "set failed"."""
        ours = (request.mv_type, request.value_type) == (META_VARIABLE, FLOAT_VALUE)
        if not (session.allow_control and ours and self._exists(request.channel)):
            return SetMetaVariableResult.SET_FAILED
        index = meta_index(request.meta_code)
        if index is None:
            return SetMetaVariableResult.META_CODE_DOES_NOT_EXIST
        return self.channel(request.channel).set_meta_variable(index, request.value)


def _finite(value: float) -> float:
    """Whatever a peer sends, the battery is computed with numbers."""
    return value if math.isfinite(value) else 0.0


def _signed(channel: int) -> int:
    """A channel of an unsigned field as the signed field of its feedback holds it."""
    return channel if channel < 1 << 31 else channel - (1 << 32)
