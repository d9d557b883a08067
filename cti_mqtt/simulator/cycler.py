"""The simulated cycler: users, channels, and what each request does to them.

Pure but for the clock that is passed in: nothing happens between requests; whatever time has passed is caught up with
when somebody asks. Channels are 0-based, as on the wire.
"""

import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cti_mqtt.cti.codes import Selection, UserType
from cti_mqtt.cti.messages.channels import ALL_CHANNELS, ChannelsInfoFeedback, ChannelsInfoRequest
from cti_mqtt.cti.messages.service import (
    GetSerialFeedback,
    GetSerialRequest,
    SendMessageFeedback,
    SendMessageRequest,
    StartCalibrationFeedback,
    StartCalibrationRequest,
)
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginFeedback, LoginRequest
from cti_mqtt.cti.messages.variables import UpdateMetaVariablesFeedback, UpdateMetaVariablesRequest
from cti_mqtt.cti.results import CalibrationResult, ConnectResult, LoginResult, SendMessageResult
from cti_mqtt.simulator.cabinet import Cabinet
from cti_mqtt.simulator.cell import Battery, Cell, CellState
from cti_mqtt.simulator.channel import Channel
from cti_mqtt.simulator.clock import Clock
from cti_mqtt.simulator.control import Control
from cti_mqtt.simulator.extended import Extended
from cti_mqtt.simulator.readings import record
from cti_mqtt.simulator.schedule import BUILT_IN, Schedule
from cti_mqtt.simulator.users import ADMIN, ControlPolicy, Session, User
from cti_mqtt.simulator.values import Values

MAX_CHANNELS = 1024
MAX_MESSAGES = 1000  # messages for the console that are remembered
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
        monotonic: real seconds: advanced updates are limited to one in 200 ms, however fast the simulated time is.
        wall: the time of day, for the start of a test.
        on_message: called with each message for the console.

    Attributes:
        schedules: what can be assigned, by name; a server with a file area keeps this as its files are.
        messages: the last messages for the console.
        calibrations: how often a calibration was started; it has no other effect.
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
        monotonic: Clock = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now().astimezone(),
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"a cycler has 1 to {MAX_CHANNELS} channels, not {channels}")
        rng = rng or random.Random(1)  # noqa: S311 - batteries, not secrets
        self.control = control
        self.identity = identity or Identity()
        self.sessions: list[Session] = []
        self.schedules = dict(schedules)
        self.messages: deque[str] = deque(maxlen=MAX_MESSAGES)
        self.calibrations = 0
        self._clock = clock
        self._users = {user.name: user for user in users}
        self._on_message = on_message
        self._bms_count = bms_count
        self._smb_count = smb_count
        self._cabinet = Cabinet(tuple(Channel(battery(rng), clock()) for _ in range(channels)), clock, self.schedules)
        self._opened = 0
        self._values = Values(self._cabinet, monotonic)
        self._handlers = self._table(wall)

    def _table(self, wall: Callable[[], datetime]) -> dict[type[Any], Any]:
        """Request class -> what answers it."""
        return {
            ChannelsInfoRequest: self._channels_info,
            GetSerialRequest: self._serial,
            StartCalibrationRequest: self._calibrate,
            SendMessageRequest: self._show,
            **Control(self._cabinet, wall, overwrites=lambda: self.identity.version == MITS_7).handlers,
            **Extended(self._cabinet, wall).handlers,
            **self._values.handlers,
        }

    @property
    def channel_count(self) -> int:
        """How many channels it has."""
        return self._cabinet.count

    @property
    def now_s(self) -> float:
        """Simulated seconds."""
        return self._clock()

    def channel(self, index: int) -> Channel:
        """A channel (0-based) as it stands now.

        Raises:
            IndexError: there is no such channel.
        """
        return self._cabinet.channel(index)

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
            return [request.channel] if self._cabinet.exists(request.channel) else []
        every = range(self.channel_count)
        if request.selection is Selection.RUNNING:
            return [index for index in every if self.channel(index).active]
        if request.selection is Selection.UNSAFE:
            return [index for index in every if self.channel(index).faulty]
        return list(every)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def _serial(self, _request: GetSerialRequest, _session: Session) -> list[GetSerialFeedback]:
        """The digits of the serial number: the feedback has room for a number only."""
        digits = re.sub(r"[^0-9]", "", self.identity.serial) or "0"
        return [GetSerialFeedback(int(digits) & 0xFFFFFFFF, 0)]

    def _calibrate(self, _: StartCalibrationRequest, session: Session) -> list[StartCalibrationFeedback]:
        """Only somebody who may control, and only while nothing runs."""
        if not session.allow_control or any(self.channel(index).active for index in range(self.channel_count)):
            return [StartCalibrationFeedback(CalibrationResult.FAILED)]
        self.calibrations += 1
        return [StartCalibrationFeedback(CalibrationResult.STARTED)]

    def _show(self, request: SendMessageRequest, session: Session) -> list[SendMessageFeedback]:
        if not session.dry:
            self.messages.append(request.message)
            if self._on_message:
                self._on_message(request.message)
        return [SendMessageFeedback(SendMessageResult.SHOWN)]

    def update_meta_variables(
        self, request: UpdateMetaVariablesRequest, session: Session, *, per_channel: bool
    ) -> list[UpdateMetaVariablesFeedback]:
        """An advanced update, answered once, or once a channel; `handle` answers it once."""
        if session.user is None:
            return []
        return self._values.update(request, session, per_channel=per_channel)
