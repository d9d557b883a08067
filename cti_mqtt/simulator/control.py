"""What moves a test: assign, start, stop, resume, continue, jump.

Without the right to control the answer is "monitor window in use": the nearest there is in the tables of results.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from cti_mqtt.cti.messages.tests import (
    NO_CHANNEL,
    AssignFeedback,
    AssignRequest,
    ContinueFeedback,
    ContinueRequest,
    JumpFeedback,
    JumpRequest,
    ResumeFeedback,
    ResumeRequest,
    StartFeedback,
    StartRequest,
    StopFeedback,
    StopRequest,
)
from cti_mqtt.cti.results import (
    AssignResult,
    ContinueResult,
    JumpResult,
    ResumeResult,
    StartResult,
    StopResult,
)
from cti_mqtt.simulator.cabinet import Cabinet, signed
from cti_mqtt.simulator.channel import Channel, finite
from cti_mqtt.simulator.users import Session


def note_start(channel: Channel, session: Session, wall: Callable[[], datetime]) -> None:
    """Remember who started a test, and when."""
    channel.creator = session.user.name if session.user else ""
    channel.started_at = wall().strftime("%Y-%m-%d %H:%M:%S")


class Control:
    """Carries out control requests on a cabinet.

    Args:
        cabinet: the channels.
        wall: the time of day.
        overwrites: whether capacity and values of an assignment count, as on MITS 7.

    Attributes:
        handlers: request class -> what answers it.
    """

    def __init__(self, cabinet: Cabinet, wall: Callable[[], datetime], *, overwrites: Callable[[], bool]) -> None:
        self._cabinet = cabinet
        self._wall = wall
        self._overwrites = overwrites
        self.handlers: dict[type[Any], Any] = {
            AssignRequest: self._assign,
            StartRequest: self._start,
            StopRequest: self._stop,
            ResumeRequest: self._resume,
            ContinueRequest: self._continue,
            JumpRequest: self._jump,
        }

    def _assign(self, request: AssignRequest, session: Session) -> list[AssignFeedback]:
        indices = range(self._cabinet.count) if request.all_channels else [request.channel]
        return [AssignFeedback(index, self._assign_one(index, request, session)) for index in indices]

    def _assign_one(self, index: int, request: AssignRequest, session: Session) -> AssignResult:
        if not session.allow_control:
            return AssignResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(index):
            return AssignResult.CHANNEL_DOES_NOT_EXIST
        channel = self._cabinet.channel(index)
        if not request.schedule or channel.active:
            return AssignResult.RUNNING if request.schedule else AssignResult.SCHEDULE_NAME_EMPTY
        schedule = self._cabinet.schedules.get(request.schedule)
        if schedule is None:
            return AssignResult.SCHEDULE_NOT_FOUND
        if self._overwrites():
            channel.take_over(finite(request.capacity), tuple(map(finite, request.meta_variables)))
        return channel.assign(schedule, request.barcode)

    def _start(self, request: StartRequest, session: Session) -> list[StartFeedback]:
        if not request.channels:
            return [StartFeedback(NO_CHANNEL, StartResult.NO_CHANNELS_SELECTED)]
        return [StartFeedback(index, self._start_one(index, request, session)) for index in request.channels]

    def _start_one(self, index: int, request: StartRequest, session: Session) -> StartResult:
        if not session.allow_control:
            return StartResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(index):
            return StartResult.INVALID_CHANNEL
        channel = self._cabinet.channel(index)
        result = channel.start(request.test_name)
        if result is StartResult.OK:
            note_start(channel, session, self._wall)
        return result

    def _stop(self, request: StopRequest, session: Session) -> list[StopFeedback]:
        indices = range(self._cabinet.count) if request.all_channels else [request.channel]
        return [StopFeedback(signed(index), self._stop_one(index, session)) for index in indices]

    def _stop_one(self, index: int, session: Session) -> StopResult:
        if not session.allow_control:
            return StopResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(index):
            return StopResult.CHANNEL_DOES_NOT_EXIST
        return self._cabinet.channel(index).stop()

    def _resume(self, request: ResumeRequest, session: Session) -> list[ResumeFeedback]:
        indices = range(self._cabinet.count) if request.all_channels else [request.channel]
        return [ResumeFeedback(index, self._resume_one(index, session)) for index in indices]

    def _resume_one(self, index: int, session: Session) -> ResumeResult:
        if not session.allow_control:
            return ResumeResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(index):
            return ResumeResult.INVALID_CHANNEL
        return self._cabinet.channel(index).resume()

    def _continue(self, request: ContinueRequest, session: Session) -> list[ContinueFeedback]:
        """The table has no code for "no channels selected": such a request is answered with "invalid channel"."""
        if not request.channels:
            return [ContinueFeedback(NO_CHANNEL, ContinueResult.INVALID_CHANNEL)]
        return [ContinueFeedback(index, self._continue_one(index, session)) for index in request.channels]

    def _continue_one(self, index: int, session: Session) -> ContinueResult:
        if not session.allow_control:
            return ContinueResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(index):
            return ContinueResult.INVALID_CHANNEL
        return self._cabinet.channel(index).continue_test()

    def _jump(self, request: JumpRequest, session: Session) -> list[JumpFeedback]:
        return [JumpFeedback(request.channel, self._jump_one(request, session))]

    def _jump_one(self, request: JumpRequest, session: Session) -> JumpResult:
        if not session.allow_control:
            return JumpResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(request.channel):
            return JumpResult.INVALID_CHANNEL
        return self._cabinet.channel(request.channel).jump(request.step)
