"""One client's connection to the simulated cycler: requests in, feedbacks out, faults in between."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NoReturn

from cti_mqtt.cti.codes import Selection
from cti_mqtt.cti.commands import BY_CLASS
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.channels import ALL_CHANNELS, ChannelsInfoFeedback, ChannelsInfoRequest
from cti_mqtt.cti.messages.files import DownloadFeedback, UploadFeedback
from cti_mqtt.cti.messages.service import UnknownCommandFeedback
from cti_mqtt.cti.messages.variables import UpdateMetaVariablesRequest
from cti_mqtt.cti.results import LoginResult
from cti_mqtt.cti.stream import ChecksumPolicy, Received, ReceivedUnknown, Skipped, Stream
from cti_mqtt.simulator.cycler import SimulatedCycler
from cti_mqtt.simulator.desk import REQUESTS as FILE_REQUESTS
from cti_mqtt.simulator.desk import Answer, Desk, refusal
from cti_mqtt.simulator.faults import FILE_NAMES, AnswerStyle, UpdateAnswer
from cti_mqtt.simulator.injector import Injector
from cti_mqtt.simulator.recorder import Recorder, arguments, command_name, results
from cti_mqtt.simulator.users import Session
from cti_mqtt.simulator.wire import encode

logger = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024
_BOTH_PORTS = frozenset({"login", "connect"})
_LOOK_S = 0.02  # how soon the end of a connection is noticed while its answer is delayed


class _HangUpError(Exception):
    """The conversation is over: whatever still waits to be sent is not."""


class Connection:
    """A conversation with one client.

    Args:
        reader: bytes from the client.
        writer: bytes to the client.
        session: what the cycler knows of the client.
        cycler: who carries out the requests.
        injector: what is wrong; looked at anew for each request.
        recorder: told of each request.
        desk: who answers its file requests; None where there are no files.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        session: Session,
        cycler: SimulatedCycler,
        injector: Injector,
        recorder: Recorder,
        desk: Desk | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._session = session
        self._cycler = cycler
        self._recorder = recorder
        self._desk = desk
        self._sending = asyncio.Lock()
        self._tasks = asyncio.TaskGroup()
        self._injector = injector
        self._requests = 0
        self._frames = 0

    def use(self, injector: Injector) -> None:
        """Other faults from now on; requests and frames are counted anew."""
        self._injector = injector
        self._requests = 0
        self._frames = 0

    def abort(self) -> None:
        """Cut the connection; bytes that wait are lost."""
        self._writer.transport.abort()

    async def serve(self) -> None:
        """Converse until either side ends it."""
        try:
            async with self._tasks:
                await self._converse()
        except* (_HangUpError, OSError):
            logger.debug("connection %d ended", self._session.number)
        finally:
            self._cycler.close_session(self._session)
            if self._desk:
                self._desk.close()
            self._writer.close()

    async def _converse(self) -> NoReturn:
        stream = Stream(Direction.REQUEST, ChecksumPolicy.STRICT)
        while data := await self._reader.read(_READ_BYTES):
            ready: list[bytes] = []
            position = 0
            for event in stream.feed(data):
                if isinstance(event, Skipped):
                    logger.debug("connection %d: skipped %d bytes: %s", self._session.number, event.size, event.reason)
                    continue
                if self._requests == self._injector.faults.cut_after_requests:
                    self._record(event, answered=False, feedbacks=[])
                    await self._send(ready)
                    raise _HangUpError
                request = event.message if isinstance(event, Received) else event
                if self._session.files and isinstance(request, FILE_REQUESTS):
                    await self._send(ready)
                    ready = []
                    await self._serve_file(event, request, position)
                else:
                    ready += self._receive(event, position)
                position += 1
            await self._send(ready)
        raise _HangUpError

    # --- a request ---------------------------------------------------------------------------------------------------

    def _receive(self, event: Received | ReceivedUnknown, position: int) -> list[bytes]:
        """Serve a request, the `position`-th of its segment; the frames that are to be sent at once."""
        faults = self._injector.faults
        request = event.message if isinstance(event, Received) else event
        command = command_name(request)
        feedbacks = [] if self._lost(command, position) else self._carry_out(request, command)
        answered = bool(feedbacks) and command not in faults.mute
        self._record(event, answered=answered, feedbacks=feedbacks)
        if not answered:
            return []
        frames = [encode(feedback, command, faults) for feedback in feedbacks]
        delay_s = faults.delay_of(command)
        if delay_s or faults.record_delay_s:
            self._tasks.create_task(self._send_later(frames, delay_s, faults.record_delay_s), name=f"late {command}")
            return []
        return frames

    def _lost(self, command: str, position: int) -> bool:
        faults = self._injector.faults
        self._requests += 1
        return (
            command in faults.drop
            or (faults.drop_every > 0 and self._requests % faults.drop_every == 0)
            or (faults.first_of_segment_only and position > 0)
        )

    def _carry_out(self, request: Any, command: str) -> list[Any]:
        faults = self._injector.faults
        if isinstance(request, ReceivedUnknown):
            return [UnknownCommandFeedback(request.code, request.extended)]
        if command in faults.unknown or (self._session.files != (command in FILE_NAMES) and command not in _BOTH_PORTS):
            return [UnknownCommandFeedback(BY_CLASS[type(request)][1].code, 0)]
        code = self._injector.forced_code(command)
        if code is not None:
            return self._refuse(request, command, code)
        if isinstance(request, ChannelsInfoRequest):
            return self._read(request, faults.answer)
        if isinstance(request, UpdateMetaVariablesRequest):
            per_channel = faults.advanced_answer is UpdateAnswer.CHANNEL
            return self._cycler.update_meta_variables(request, self._session, per_channel=per_channel)
        return self._cycler.handle(request, self._session)

    def _refuse(self, request: Any, command: str, code: int) -> list[Any]:
        """The feedbacks of a request with another result; a session without rights changes nothing."""
        session = self._session if command == "login" else Session(0, user=self._session.user, dry=True)
        feedbacks = [
            replace(feedback, result=type(feedback.result)(code)) for feedback in self._cycler.handle(request, session)
        ]
        if command == "login" and not LoginResult(code).usable:
            session.user = None
            session.allow_control = False
        return feedbacks

    def _read(self, request: ChannelsInfoRequest, style: AnswerStyle) -> list[Any]:
        if style is AnswerStyle.ALWAYS_ALL:
            request = replace(request, channel=ALL_CHANNELS, selection=Selection.ALL)
        feedbacks: list[Any] = []
        for feedback in self._cycler.handle(request, self._session):
            records = feedback.records[:1] if style is AnswerStyle.FIRST_ONLY else feedback.records
            if style is AnswerStyle.PER_CHANNEL and records:
                feedbacks += [ChannelsInfoFeedback((record,)) for record in records]
            else:
                feedbacks.append(ChannelsInfoFeedback(records))
        return feedbacks

    def _record(self, event: Received | ReceivedUnknown, *, answered: bool, feedbacks: list[Any]) -> None:
        request = event.message if isinstance(event, Received) else event
        self._recorder.add(
            {
                "sim_time_s": round(self._cycler.now_s, 3),
                "connection": self._session.number,
                "port": "files" if self._session.files else "control",
                "user": self._session.user.name if self._session.user else None,
                "command": command_name(request),
                "arguments": arguments(request),
                "answered": answered,
                "results": results(feedbacks),
            }
        )

    # --- files -------------------------------------------------------------------------------------------------------
    # Served in order, one after the other; what the client sends meanwhile waits.

    async def _serve_file(self, event: Received | ReceivedUnknown, request: Any, position: int) -> None:
        faults = self._injector.faults
        command = command_name(request)
        if self._lost(command, position):
            self._record(event, answered=False, feedbacks=[])
            return
        answered = command not in faults.mute
        recorded = False
        async with aclosing(self._file_answers(request, command)) as answers:
            async for answer in answers:
                if not recorded:
                    self._record(event, answered=answered, feedbacks=[answer.feedback])
                    await self._pause(faults.delay_of(command))
                    recorded = True
                else:
                    await self._pause(faults.record_delay_s)
                if answered:
                    await self._send_answer(answer, command)
        if not recorded:
            self._record(event, answered=False, feedbacks=[])

    def _file_answers(self, request: Any, command: str) -> AsyncGenerator[Answer, None]:
        faults = self._injector.faults
        if command in faults.unknown or self._desk is None:
            return _only(UnknownCommandFeedback(BY_CLASS[type(request)][1].code, 0))
        code = self._injector.forced_code(command)
        if code is not None and self._session.user is not None:
            return _only(refusal(request, code))
        return self._desk.answers(request, self._injector)

    async def _send_answer(self, answer: Answer, command: str) -> None:
        faults = self._injector.faults
        if isinstance(answer.feedback, DownloadFeedback | UploadFeedback):
            await self._pause(faults.chunk_delay_s)
        frame = encode(answer.feedback, command, faults)
        if answer.cut:
            self._writer.write(frame[: len(frame) // 2])
            raise _HangUpError
        await self._send([frame])
        if self._writer.is_closing():
            raise _HangUpError

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for somebody who has gone."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, _LOOK_S))
            if self._writer.is_closing() or self._reader.at_eof():
                raise _HangUpError

    # --- its feedbacks -----------------------------------------------------------------------------------------------

    async def _send_later(self, frames: list[bytes], delay_s: float, record_delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if not record_delay_s:
            await self._send(frames)
            return
        for index, frame in enumerate(frames):
            if index:
                await asyncio.sleep(record_delay_s)
            await self._send([frame])

    async def _send(self, frames: list[bytes]) -> None:
        async with self._sending:
            cut = self._injector.faults.cut_after_frames
            whole = len(frames) if cut is None else max(min(len(frames), cut - self._frames), 0)
            self._frames += whole
            for piece in self._pieces(frames[:whole]):
                self._writer.write(piece)
                await self._writer.drain()
                await asyncio.sleep(0)  # so that each piece is a segment of its own
            if whole < len(frames):
                self._writer.write(frames[whole][: len(frames[whole]) // 2])
                self._writer.close()

    def _pieces(self, frames: list[bytes]) -> Iterator[bytes]:
        faults = self._injector.faults
        writes = ([b"".join(frames)] if frames else []) if faults.merge else frames
        if not faults.segment_bytes:
            yield from writes
            return
        for data in writes:
            for start in range(0, len(data), faults.segment_bytes):
                yield data[start : start + faults.segment_bytes]


async def _only(feedback: Any) -> AsyncGenerator[Answer, None]:
    yield Answer(feedback)
