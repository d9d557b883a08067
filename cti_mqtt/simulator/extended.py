"""Start and resume with everything that a test brings along, and what the cycler tells for it.

Steps count from 0 here: the documents do not say, and the jump to a step counts so.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from cti_mqtt.cti.messages.extended import (
    ExtendedResume,
    ExtendedStart,
    GetResumeDataFeedback,
    GetResumeDataRequest,
    GetStartDataFeedback,
    GetStartDataRequest,
    ResumeData,
    ResumeExtendedRequest,
    ResumeState,
    StartData,
    StartExtendedRequest,
)
from cti_mqtt.cti.messages.tests import NO_CHANNEL, ResumeFeedback, StartFeedback
from cti_mqtt.cti.results import ResumeResult, StartDataCode, StartResult
from cti_mqtt.simulator.cabinet import Cabinet, signed
from cti_mqtt.simulator.channel import Channel, clip
from cti_mqtt.simulator.control import note_start
from cti_mqtt.simulator.schedule import Schedule
from cti_mqtt.simulator.users import Session

MAX_SCHEDULE_UNITS = 199
MAX_USER_UNITS = 63
_NO_VALUES = ResumeState().meta_variables


class Extended:
    """Answers the extended requests for a cabinet.

    Args:
        cabinet: the channels.
        wall: the time of day.

    Attributes:
        handlers: request class -> what answers it.
    """

    def __init__(self, cabinet: Cabinet, wall: Callable[[], datetime]) -> None:
        self._cabinet = cabinet
        self._wall = wall
        self.handlers: dict[type[Any], Any] = {
            GetStartDataRequest: self._start_data,
            StartExtendedRequest: self._start,
            GetResumeDataRequest: self._resume_data,
            ResumeExtendedRequest: self._resume,
        }

    # --- start -------------------------------------------------------------------------------------------------------

    def _start_data(self, request: GetStartDataRequest, _: Session) -> list[GetStartDataFeedback]:
        return [GetStartDataFeedback(tuple(map(self._start_data_of, request.channels)))]

    def _start_data_of(self, index: int) -> StartData:
        """A channel that does not exist has no test names that could be asked for."""
        if not self._cabinet.exists(index):
            return StartData(index, StartDataCode.TEST_NAME_QUERY_FAILED, 0, 0, "", _NO_VALUES, (), ())
        channel = self._cabinet.channel(index)
        names, steps = tuple(channel.test_names), _labels(channel.schedule)
        code = StartDataCode.OK if names else StartDataCode.EMPTY_TEST_NAME
        values = tuple(channel.meta_variables)
        return StartData(index, code, len(names), len(steps), _name(channel.schedule), values, names, steps)

    def _start(self, request: StartExtendedRequest, session: Session) -> list[StartFeedback]:
        """All under the first record's test name; of each record only channel, schedule and step count (v4.5)."""
        if not request.records:
            return [StartFeedback(NO_CHANNEL, StartResult.NO_CHANNELS_SELECTED)]
        test_name = request.records[0].test_name
        return [
            StartFeedback(signed(record.channel), self._start_one(record, test_name, session))
            for record in request.records
        ]

    def _start_one(self, record: ExtendedStart, test_name: str, session: Session) -> StartResult:
        """A schedule that is not there leaves the channel without one: "no schedule assigned"."""
        if not session.allow_control:
            return StartResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(record.channel):
            return StartResult.INVALID_CHANNEL
        channel = self._cabinet.channel(record.channel)
        schedule = self._cabinet.schedules.get(record.schedule) if record.schedule else channel.schedule
        if schedule is None and not (channel.active or channel.faulty):
            return StartResult.NO_SCHEDULE_ASSIGNED
        result = channel.start(test_name, schedule=schedule, step=record.start_step)
        if result is StartResult.OK:
            note_start(channel, session, self._wall)
        return result

    # --- resume ------------------------------------------------------------------------------------------------------

    def _resume_data(self, request: GetResumeDataRequest, _: Session) -> list[GetResumeDataFeedback]:
        return [GetResumeDataFeedback(tuple(map(self._resume_data_of, request.channels)))]

    def _resume_data_of(self, index: int) -> ResumeData:
        if not self._cabinet.exists(index):
            return _nothing_to_resume(index, StartDataCode.TEST_NAME_QUERY_FAILED)
        channel = self._cabinet.channel(index)
        if channel.run is None:
            return _nothing_to_resume(index, StartDataCode.NO_RESUME_TABLE)
        return _resume_data(index, channel, channel.run.schedule)

    def _resume(self, request: ResumeExtendedRequest, session: Session) -> list[ResumeFeedback]:
        if not request.records:
            return [ResumeFeedback(NO_CHANNEL, ResumeResult.NO_CHANNELS_SELECTED)]
        return [ResumeFeedback(signed(record.channel), self._resume_one(record, session)) for record in request.records]

    def _resume_one(self, record: ExtendedResume, session: Session) -> ResumeResult:
        if not session.allow_control:
            return ResumeResult.MONITOR_WINDOW_IN_USE
        if not self._cabinet.exists(record.channel):
            return ResumeResult.INVALID_CHANNEL
        channel = self._cabinet.channel(record.channel)
        return channel.resume_from(record.test_name, record.schedule, record.start_step, record.state)


def _name(schedule: Schedule | None) -> str:
    return clip(schedule.name, MAX_SCHEDULE_UNITS) if schedule else ""


def _labels(schedule: Schedule | None) -> tuple[str, ...]:
    return tuple(step.label for step in schedule.steps) if schedule else ()


def _resume_data(index: int, channel: Channel, schedule: Schedule) -> ResumeData:
    steps = _labels(schedule)
    return ResumeData(
        channel=index,
        code=StartDataCode.OK,
        step_count=len(steps),
        test_name=channel.test_name,
        schedule=_name(schedule),
        creator=clip(channel.creator, MAX_USER_UNITS),
        comment="",
        start_time=channel.started_at,
        state=channel.resume_state(),
        steps=steps,
    )


def _nothing_to_resume(index: int, code: StartDataCode) -> ResumeData:
    return ResumeData(index, code, 0, "", "", "", "", "", ResumeState(), ())
