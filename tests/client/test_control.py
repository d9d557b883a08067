"""Control requests and their feedbacks: whose answer is whose, and what it proves."""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from cti_mqtt.client.exchange import URGENT
from cti_mqtt.cti.messages.service import UnknownCommandFeedback
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest
from cti_mqtt.cti.messages.tests import (
    AssignRequest,
    StartFeedback,
    StartRequest,
    StopFeedback,
    StopRequest,
)
from cti_mqtt.cti.messages.variables import SetMetaVariableFeedback
from cti_mqtt.cti.results import AssignResult, ConnectResult, SetMetaVariableResult, StartResult, StopResult
from cti_mqtt.cti.stream import ChecksumPolicy, pack_message
from cti_mqtt.errors import (
    ChecksumError,
    ConnectionLostError,
    FeedbackTimeoutError,
    InvalidRequestError,
    NotConnectedError,
    OutcomeUnknownError,
    UnsupportedCommandError,
    WithdrawnError,
)
from cti_mqtt.simulator import ChecksumStyle, Faults, ForcedResult

from .conftest import SHORT_S, Script, Serve, Spawn, connect, damaged, misplaced, readings, turns, until

SET_OK, SET_FAILED = SetMetaVariableResult.OK, SetMetaVariableResult.SET_FAILED
STARTED, STOPPED = StartResult.OK, StopResult.OK


def started(*channels: int) -> list[StartFeedback]:
    return [StartFeedback(channel, STARTED) for channel in channels]


# --- with the simulator ---


@pytest.mark.parametrize("names_channel", [True, False])
async def test_a_test_from_assignment_to_stop(serve: Serve, names_channel: bool) -> None:
    server = await serve(4, start_names_channel=names_channel)
    async with connect(server) as cycler:
        assert await cycler.assign(2, "ClosedLoop.sdx", barcode="B") == 0
        assert await cycler.assign(3, "nothing.sdx") is AssignResult.SCHEDULE_NOT_FOUND
        assert await cycler.start([2, 3], "T") == {2: STARTED, 3: StartResult.NO_SCHEDULE_ASSIGNED}
        assert await cycler.set_meta_variable(2, 16, 1.5) == 0
        assert await cycler.set_meta_variable(3, 16, 1.5) is SetMetaVariableResult.NOT_RUNNING
        assert await cycler.stop(2) == 0
        assert await cycler.stop(2) is StopResult.NOT_RUNNING
        assert await cycler.stop(9) is StopResult.CHANNEL_DOES_NOT_EXIST
    (assigned, _), (written, _) = (server.recorder.commands(name) for name in ("assign", "set_meta_variable"))
    assert (assigned["arguments"]["channel"], assigned["arguments"]["barcode"]) == (2, "B")
    assert (written["arguments"]["index"], written["arguments"]["value"]) == (16, 1.5)


async def test_values_of_an_assignment_arrive(serve: Serve) -> None:
    server = await serve(4)
    values = [float(index) for index in range(1, 17)]
    async with connect(server) as cycler:
        await cycler.assign(1, "Rest.sdx", capacity_ah=2.0, meta_variables=values)
    (entry,) = server.recorder.commands("assign")
    assert (entry["arguments"]["capacity"], entry["arguments"]["meta_variables"]) == (2.0, values)


async def test_all_channels_stop_with_one_request(serve: Serve) -> None:
    server = await serve(4)
    async with connect(server) as cycler:
        await cycler.assign(2, "Rest.sdx")
        await cycler.start([2], "T")
        idle = StopResult.NOT_RUNNING
        assert await cycler.stop_all() == {1: idle, 2: STOPPED, 3: idle, 4: idle}
    assert len(server.recorder.commands("stop")) == 1


async def test_a_result_that_nobody_knows_is_a_value(serve: Serve) -> None:
    async with connect(await serve(4, results=(ForcedResult("stop", 0x77),))) as cycler:
        result = await cycler.stop(1)
    assert (int(result), result.known, result.text) == (0x77, False, "Unknown 119")


@pytest.mark.parametrize("index", [0, 17])
async def test_requests_that_cannot_be_expressed_are_not_sent(serve: Serve, index: int) -> None:
    server = await serve(4)
    async with connect(server) as cycler:
        with pytest.raises(ValueError, match="MV_UD"):
            await cycler.set_meta_variable(1, index, 0.0)
        with pytest.raises(InvalidRequestError, match="test_name"):
            await cycler.start([1], "x" * 72)
        with pytest.raises(InvalidRequestError, match="no channels"):
            await cycler.start([], "T")
        assert await cycler.ping()
    assert [entry["command"] for entry in server.recorder.entries] == ["login", "connect"]


async def test_a_channel_named_twice_is_started_once(serve: Serve) -> None:
    server = await serve(4)
    async with connect(server) as cycler:
        assert list(await cycler.start([2, 1, 2], "T")) == [2, 1]
    (entry,) = server.recorder.commands("start")
    assert entry["arguments"]["channels"] == [2, 1]


# --- whose answer ---


async def test_answers_in_the_other_order(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        first, second = spawn(cycler.set_meta_variable(1, 1, 1.0)), spawn(cycler.set_meta_variable(2, 1, 2.0))
        assert [request.channel for request in await peer.receive(2)] == [0, 1]
        peer.send(SetMetaVariableFeedback(1, SET_FAILED))
        assert await second is SET_FAILED
        assert not first.done()
        peer.send(SetMetaVariableFeedback(0, SET_OK))
        assert await first is SET_OK


async def test_answers_for_one_channel_go_to_the_oldest(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        writes = [spawn(cycler.set_meta_variable(1, index, 0.0)) for index in (1, 2, 3)]
        await peer.receive(3)
        peer.send(*(SetMetaVariableFeedback(channel, SetMetaVariableResult(0x10 + channel)) for channel in (0, -1, 0)))
        assert [int(await write) for write in writes] == [0x10, 0x0F, 0x10]


async def test_feedbacks_that_nobody_asked_for_change_nothing(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        peer.send(StopFeedback(0, STOPPED), readings(0, 1), *started(-1), UnknownCommandFeedback(0xBB310001, 0))
        await turns()
        stop = spawn(cycler.stop(1))
        await peer.receive()
        peer.send(StopFeedback(1, STOPPED), SetMetaVariableFeedback(0, SET_OK), *started(0), readings(0))
        await turns()
        assert not stop.done()
        peer.send(StopFeedback(0, StopResult.NOT_CONNECTED))
        assert await stop is StopResult.NOT_CONNECTED


async def test_bytes_between_answers(script: Script, spawn: Spawn, caplog: pytest.LogCaptureFixture) -> None:
    """Junk and codes that nobody knows are told once a connection: some servers send them with every message."""
    caplog.set_level(logging.DEBUG, "cti_mqtt.client")
    strange = bytes.fromhex("DDDDDDDDDDDDDD11 16000000 99999999 00000000")
    strange += (sum(strange) & 0xFFFF).to_bytes(2, "little")
    for _ in range(2):
        async with script.session() as (cycler, peer):
            for _ in range(3):
                stop = spawn(cycler.stop(1))
                await peer.receive()
                peer.send(b"junk", strange, b"junk" + strange, StopFeedback(0, STOPPED))
                assert await stop == 0
    for text in ("skipped 4 bytes", "unknown code 0x99999999"):
        levels = [record.levelname for record in caplog.records if text in record.getMessage()]
        assert levels == ["WARNING", *["DEBUG"] * 5] * 2


async def test_a_command_that_the_server_does_not_know(serve: Serve) -> None:
    server = await serve(4, unknown=frozenset({"set_meta_variable", "start"}))
    async with connect(server) as cycler:
        found = await asyncio.gather(
            cycler.stop(1),
            cycler.set_meta_variable(1, 1, 0.0),
            cycler.assign(1, "Rest.sdx"),
            cycler.start([1, 2], "T"),
            cycler.ping(),
            return_exceptions=True,
        )
        assert [type(each) for each in found] == [
            StopResult,
            UnsupportedCommandError,
            AssignResult,
            UnsupportedCommandError,
            type(await cycler.ping()),
        ]
        assert "set meta variable" in str(found[1])


async def test_the_oldest_of_an_unknown_command_fails(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        stop = spawn(cycler.stop(1))
        writes = [spawn(cycler.set_meta_variable(channel, 1, 0.0)) for channel in (1, 2)]
        await peer.receive(3)
        peer.send(UnknownCommandFeedback(0xBB150001, 0))
        with pytest.raises(UnsupportedCommandError):
            await writes[0]
        peer.send(SetMetaVariableFeedback(1, SET_OK), StopFeedback(0, STOPPED))
        assert await writes[1] == await stop == 0


# --- a start of several channels ---


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (started(0, 1, 2), {1: 0, 2: 0, 3: 0}),
        (started(-1, -1, -1), {1: 0, 2: 0, 3: 0}),
        ([*started(-1), StartFeedback(1, StartResult(0x13)), *started(-1)], {1: 0, 2: 0x13, 3: 0}),
        (started(2, -1, 0), {1: 0, 2: 0, 3: 0}),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_a_start_is_answered_once_a_channel(
    script: Script, spawn: Spawn, answers: list[StartFeedback], expected: dict[int, int], together: bool
) -> None:
    async with script.session() as (cycler, peer):
        start = spawn(cycler.start([1, 2, 3], "T"))
        assert await peer.receive() == [StartRequest("T", (0, 1, 2))]
        if together:
            peer.send(*answers)
        else:
            for answer in answers:
                assert not start.done()
                peer.send(answer)
                await turns()
        assert await start == expected


@pytest.mark.parametrize(
    ("answers", "proven"),
    [
        (started(2), {3}),
        (started(2, -1), {3}),
        (started(0, 0, 0), {1}),
        (started(1, 2), {2, 3}),
        (started(-1, -1), set()),
    ],
)
async def test_with_too_few_answers_the_rest_is_unknown(
    script: Script, spawn: Spawn, answers: list[StartFeedback], proven: set[int]
) -> None:
    async with script.session(timeout_s=SHORT_S) as (cycler, peer):
        start = spawn(cycler.start([1, 2, 3], "T"))
        await peer.receive()
        peer.send(*answers)
        if proven:
            results = await start
            assert {channel for channel, result in results.items() if result == 0} == proven
            assert all(isinstance(results[channel], FeedbackTimeoutError) for channel in {1, 2, 3} - proven)
        else:
            with pytest.raises(FeedbackTimeoutError):
                await start
        assert isinstance(await cycler.wait_closed(), FeedbackTimeoutError)
        assert await peer.ended()


async def test_answers_keep_a_slow_start_alive(serve: Serve) -> None:
    """The time-out counts from the last answer: 16 of them may take longer than one is allowed to."""
    server = await serve(16, record_delay_s=0.03)
    async with connect(server, timeout_s=0.3) as cycler:
        results = await cycler.start(cycler.channels, "T")
    assert set(results.values()) == {StartResult.NO_SCHEDULE_ASSIGNED}


async def test_starts_go_one_after_the_other(script: Script, spawn: Spawn) -> None:
    """Two in flight, and nobody could tell whose a success without a channel is; other commands go past."""
    async with script.session() as (cycler, peer):
        first, second = spawn(cycler.start([1, 2], "A")), spawn(cycler.start([3], "B"))
        stop = spawn(cycler.stop(4))
        assert [type(request) for request in await peer.receive(2)] == [StartRequest, StopRequest]
        assert await peer.waiting() == []
        peer.send(StopFeedback(3, STOPPED), *started(-1))
        assert await stop == 0
        assert await peer.waiting() == []
        peer.send(*started(-1))
        assert await first == {1: 0, 2: 0}
        assert await peer.receive() == [StartRequest("B", (2,))]
        peer.send(StartFeedback(-1, StartResult(0x15)))
        assert await second == {3: 0x15}


async def test_a_start_whose_caller_has_gone_keeps_its_answers(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        first, second = spawn(cycler.start([1], "A")), spawn(cycler.start([2], "B"))
        await peer.receive()
        first.cancel()
        assert await peer.waiting() == []
        peer.send(*started(-1))
        assert await peer.receive() == [StartRequest("B", (1,))]
        peer.send(StartFeedback(-1, StartResult(0x12)))
        assert await second == {2: 0x12}


# --- late answers ---


async def test_silence_ends_the_connection(script: Script, spawn: Spawn) -> None:
    async with script.session(timeout_s=SHORT_S) as (cycler, peer):
        stop = spawn(cycler.stop(1))
        await turns()
        flying = [spawn(cycler.set_meta_variable(1, 1, 0.0)), spawn(cycler.start([1], "A")), spawn(cycler.stop(1))]
        waiting = [spawn(cycler.start([2], "B")), spawn(cycler.start([3], "C"))]
        with pytest.raises(FeedbackTimeoutError, match=r"cycler-1: no answer to stop within 0\.15 s"):
            await stop
        for task in flying:
            with pytest.raises(ConnectionLostError, match="no answer to stop"):
                await task
        for task in waiting:
            with pytest.raises(NotConnectedError, match="no answer to stop"):
                await task
        with pytest.raises(NotConnectedError):
            await cycler.stop(1)
        assert [type(request) for request in await peer.receive(4)].count(StartRequest) == 1
        assert await peer.ended()


async def test_a_late_answer_is_nobodys(script: Script, spawn: Spawn) -> None:
    async with script.session(timeout_s=SHORT_S) as (cycler, old):
        with pytest.raises(FeedbackTimeoutError):
            await cycler.stop(1)
        old.send(StopFeedback(0, STOPPED))
        async with script.session() as (again, peer):
            stop = spawn(again.stop(1))
            await peer.receive()
            old.send(StopFeedback(0, STOPPED))
            await turns()
            assert not stop.done()
            peer.send(StopFeedback(0, StopResult.NOT_RUNNING))
            assert await stop is StopResult.NOT_RUNNING


@pytest.mark.parametrize("command", ["assign", "start", "stop", "set_meta_variable"])
@pytest.mark.parametrize("fault", ["drop", "mute"])
async def test_every_control_request_that_times_out_ends_the_connection(serve: Serve, command: str, fault: str) -> None:
    faults: dict[str, Any] = {fault: frozenset({command})}
    server = await serve(4, **faults)
    async with connect(server, timeout_s=SHORT_S) as cycler:
        attempt: Any = {
            "assign": cycler.assign,
            "start": lambda channel, name: cycler.start([channel], name),
            "stop": lambda channel, _: cycler.stop(channel),
            "set_meta_variable": lambda channel, _: cycler.set_meta_variable(channel, 1, 0.0),
        }[command]
        with pytest.raises(FeedbackTimeoutError):
            await attempt(1, "Rest.sdx")
        await cycler.wait_closed()
    assert len(server.recorder.commands(command)) == 1


async def test_the_answer_of_a_caller_that_has_gone_is_not_the_next_ones(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        gone = spawn(cycler.set_meta_variable(1, 1, 1.0))
        await peer.receive()
        gone.cancel()
        second = spawn(cycler.set_meta_variable(1, 1, 2.0))
        await peer.receive()
        peer.send(SetMetaVariableFeedback(0, SET_FAILED))
        await turns()
        assert not second.done()
        peer.send(SetMetaVariableFeedback(0, SET_OK))
        assert await second is SET_OK


async def test_a_caller_that_gives_up_after_a_while(script: Script) -> None:
    async with script.session() as (cycler, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await cycler.stop(1)
        peer.send(StopFeedback(0, STOPPED))
        assert await peer.receive() == [StopRequest(0)]


async def test_what_nobody_waits_for_any_more_is_not_sent(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        first, second = spawn(cycler.start([1], "A")), spawn(cycler.start([2], "B"))
        third = spawn(cycler.start([3], "C"))
        await peer.receive()
        second.cancel()
        peer.send(*started(0))
        await first
        assert await peer.receive() == [StartRequest("C", (2,))]
        peer.send(*started(2))
        assert await third == {3: 0}


# --- damaged answers ---


@pytest.mark.parametrize("policy", [ChecksumPolicy.WARN, ChecksumPolicy.IGNORE])
async def test_a_damaged_answer_leaves_the_outcome_unknown(serve: Serve, policy: ChecksumPolicy) -> None:
    commands = frozenset({"assign", "start", "stop", "set_meta_variable"})
    server = await serve(4, checksum=ChecksumStyle.WRONG, checksum_of=commands)
    async with connect(server, checksum=policy) as cycler:
        for attempt in (cycler.assign(1, "Rest.sdx"), cycler.stop(1), cycler.set_meta_variable(1, 1, 0.0)):
            with pytest.raises(ChecksumError):
                await attempt
        for results in (await cycler.start([1, 2], "T"), await cycler.stop_all()):
            assert {type(result) for result in results.values()} == {ChecksumError}
        assert len(await cycler.read_channels()) == 4
        server.faults = Faults()
        assert await cycler.stop(1) is StopResult.NOT_RUNNING


@pytest.mark.parametrize("policy", [ChecksumPolicy.WARN, ChecksumPolicy.IGNORE])
@pytest.mark.parametrize("segment_bytes", [0, 128, 64])
async def test_a_server_that_misplaces_every_checksum_is_believed(
    serve: Serve, policy: ChecksumPolicy, segment_bytes: int
) -> None:
    """In segments of 128 bytes, each of its feedbacks ends where a segment does; its checksum comes in the next."""
    server = await serve(4, checksum=ChecksumStyle.MISPLACED, segment_bytes=segment_bytes)
    async with connect(server, checksum=policy) as cycler:
        assert await cycler.assign(1, "Rest.sdx") == 0
        assert await cycler.start([1, 2], "T") == {1: 0, 2: StartResult.NO_SCHEDULE_ASSIGNED}
        assert await cycler.set_meta_variable(1, 1, 0.0) == 0
        assert await cycler.stop(1) == 0


async def test_a_sound_server_is_not_believed_without_a_checksum(script: Script, spawn: Spawn) -> None:
    """Zeros in its place, and the checksum behind them late: since the login was sound, that is damage."""
    async with script.session() as (cycler, peer):
        stop = spawn(cycler.stop(1))
        await peer.receive()
        peer.send(misplaced(StopFeedback(0, STOPPED))[:-2])
        with pytest.raises(ChecksumError):
            await stop


async def test_damage_and_unnamed_successes(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        start = spawn(cycler.start([1, 2], "T"))
        await peer.receive()
        peer.send(pack_message(StartFeedback(1, STARTED)), damaged(StartFeedback(-1, STARTED)))
        results = await start
        assert results[2] == 0
        assert isinstance(results[1], OutcomeUnknownError)


async def test_strict_takes_sound_answers_only(script: Script, spawn: Spawn) -> None:
    async with script.session(checksum=ChecksumPolicy.STRICT) as (cycler, peer):
        stop = spawn(cycler.stop(1))
        await peer.receive()
        bad = StopFeedback(0, StopResult.NOT_RUNNING)
        peer.send(damaged(bad), misplaced(bad), StopFeedback(0, STOPPED))
        assert await stop is STOPPED


async def test_strict_and_a_server_that_is_never_sound(serve: Serve) -> None:
    server = await serve(4)
    async with connect(server, checksum=ChecksumPolicy.STRICT, timeout_s=SHORT_S) as cycler:
        server.faults = replace(server.faults, checksum=ChecksumStyle.WRONG)
        with pytest.raises(FeedbackTimeoutError):
            await cycler.stop(1)


@pytest.mark.parametrize("style", [ChecksumStyle.WRONG, ChecksumStyle.MISPLACED])
@pytest.mark.parametrize(("policy", "count"), [(ChecksumPolicy.WARN, 1), (ChecksumPolicy.IGNORE, 0)])
async def test_the_warning_comes_once_a_connection(
    serve: Serve, caplog: pytest.LogCaptureFixture, style: ChecksumStyle, policy: ChecksumPolicy, count: int
) -> None:
    caplog.set_level(logging.DEBUG, "cti_mqtt.client")
    server = await serve(4, checksum=style)
    for connection in (1, 2):
        async with connect(server, checksum=policy) as cycler:
            for _ in range(3):
                await cycler.read_channels()
        warnings = [record for record in caplog.records if f"{style.value} checksum" in record.getMessage()]
        assert [record.levelno for record in warnings] == [logging.WARNING] * count * connection


# --- gates ---


def withdrawn() -> None:
    raise WithdrawnError("too late", "expired")


async def test_behind_a_closed_gate_nothing_is_sent(serve: Serve) -> None:
    server = await serve(4)
    async with connect(server) as cycler:
        for attempt in (
            cycler.assign(1, "Rest.sdx", gate=withdrawn),
            cycler.start([1, 2], "T", gate=withdrawn),
            cycler.set_meta_variable(1, 1, 0.0, gate=withdrawn),
        ):
            with pytest.raises(WithdrawnError, match="too late") as caught:
                await attempt
            assert caught.value.reason == "expired"
        await cycler.ping()
    assert [entry["command"] for entry in server.recorder.entries] == ["login", "connect"]


async def test_the_gate_is_asked_when_the_turn_has_come(script: Script, spawn: Spawn) -> None:
    asked: list[str] = []
    closed = False

    def gate(name: str) -> None:
        asked.append(name)
        if closed:
            withdrawn()

    async with script.session(pipelining=False) as (cycler, peer):
        ping = spawn(cycler.ping())
        writes = [
            spawn(cycler.set_meta_variable(channel, 1, 0.0, gate=partial(gate, str(channel)))) for channel in (1, 2)
        ]
        assert await peer.receive() == [ConnectRequest()]
        assert asked == []
        peer.send(ConnectFeedback(0, ConnectResult.ACCEPTED))
        await ping
        await peer.receive()
        assert asked == ["1"]
        closed = True
        peer.send(SetMetaVariableFeedback(0, SET_OK))
        assert await writes[0] is SET_OK
        with pytest.raises(WithdrawnError):
            await writes[1]
        assert asked == ["1", "2"]
        assert await peer.waiting() == []


async def test_a_gate_with_a_bug_hurts_its_caller_only(script: Script, spawn: Spawn) -> None:
    def bug() -> None:
        raise KeyError("bug")

    async with script.session(pipelining=False) as (cycler, peer):
        first = spawn(cycler.set_meta_variable(1, 1, 0.0))
        second = spawn(cycler.set_meta_variable(2, 1, 0.0, gate=bug))
        third = spawn(cycler.set_meta_variable(3, 1, 0.0))
        await peer.receive()
        peer.send(SetMetaVariableFeedback(0, SET_OK))
        assert await first is SET_OK
        with pytest.raises(KeyError, match="bug"):
            await second
        (request,) = await peer.receive()
        assert request.channel == 2
        peer.send(SetMetaVariableFeedback(2, SET_OK))
        assert await third is SET_OK


# --- a stop goes first ---


async def test_one_in_flight_and_a_stop_is_next(script: Script, spawn: Spawn) -> None:
    async with script.session(pipelining=False) as (cycler, peer):
        poll = spawn(cycler.read_channels())
        await peer.receive()
        writes = [spawn(cycler.set_meta_variable(channel, 1, 0.0)) for channel in (1, 2, 3)]
        stops = [spawn(cycler.stop(1)), spawn(cycler.stop_all())]
        assert await peer.waiting() == []
        peer.send(readings(0, 1, 2, 3))
        assert len(await poll) == 4
        assert await peer.receive() == [StopRequest(0)]
        assert await peer.waiting() == []
        peer.send(StopFeedback(0, STOPPED))
        assert await peer.receive() == [StopRequest(0, all_channels=True)]
        peer.send(*(StopFeedback(channel, STOPPED) for channel in range(4)))
        assert await asyncio.gather(*stops) == [0, dict.fromkeys(range(1, 5), 0)]
        for channel in range(3):
            (request,) = await peer.receive()
            assert request.channel == channel
            assert await peer.waiting() == []
            peer.send(SetMetaVariableFeedback(channel, SET_OK))
        assert await asyncio.gather(*writes) == [0, 0, 0]


async def test_an_urgent_write_overtakes_the_others(script: Script, spawn: Spawn) -> None:
    async with script.session(pipelining=False) as (cycler, peer):
        writes = [spawn(cycler.set_meta_variable(channel, 1, 1.0)) for channel in (1, 2, 3)]
        await turns()
        urgent = spawn(cycler.set_meta_variable(3, 1, 0.0, priority=URGENT))
        for expected in ((0, 1.0), (2, 0.0), (1, 1.0), (2, 1.0)):
            (request,) = await peer.receive()
            assert (request.channel, request.value) == expected
            peer.send(SetMetaVariableFeedback(request.channel, SET_OK))
        assert await asyncio.gather(*writes, urgent) == [0, 0, 0, 0]


async def test_a_stop_overtakes_all_that_a_full_socket_has_not_taken(script: Script, spawn: Spawn) -> None:
    handed: list[int] = []
    async with script.session(4000) as (cycler, peer):
        peer.stall(cycler)
        assignments = [
            spawn(cycler.assign(channel, "Rest.sdx", gate=partial(handed.append, channel)))
            for channel in range(1, 2001)
        ]
        await turns()
        count = len(handed)
        assert 0 < count < 2000
        assert 0 < peer.client.get_write_buffer_size() <= len(pack_message(AssignRequest(0, False, "")))
        stop = spawn(cycler.stop(2500))
        await turns()
        assert len(handed) == count
        peer.resume()
        requests = await peer.receive(2001)
        kinds = [type(request) for request in requests]
        assert kinds.index(StopRequest) == count
        assert kinds.count(AssignRequest) == 2000
        assert [request.channel for request in requests if isinstance(request, AssignRequest)] == list(range(2000))
        peer.send(StopFeedback(2499, STOPPED))
        assert await stop == 0
        assert not any(task.done() for task in assignments)


async def test_a_socket_that_takes_nothing_more_ends_the_session(script: Script, spawn: Spawn) -> None:
    """What was handed over is unknown; what waits was never sent."""
    handed: list[int] = []
    async with script.session(4000, timeout_s=SHORT_S) as (cycler, peer):
        peer.stall(cycler)
        tasks = [
            spawn(cycler.assign(channel, "Rest.sdx", gate=partial(handed.append, channel)))
            for channel in range(1, 1001)
        ]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert 0 < len(handed) < 1000
        unknown, unsent = found[: len(handed)], found[len(handed) :]
        assert all(isinstance(each, OutcomeUnknownError) for each in unknown)
        assert all(isinstance(each, NotConnectedError) for each in unsent)
        await until(lambda: peer.client.get_extra_info("socket").fileno() == -1)  # not kept to be emptied some day


async def test_everything_at_once(serve: Serve) -> None:
    """A cycler that answers late and in any order of commands: each caller gets its own."""
    delays = {"channels_info": 0.03, "set_meta_variable": 0.02, "assign": 0.01, "start": 0.005}
    server = await serve(16, delays_s=delays, record_delay_s=0.001)
    async with connect(server) as cycler:
        found: list[Any] = await asyncio.gather(
            *(cycler.assign(channel, f"{channel}.sdx") for channel in cycler.channels),
            *(cycler.set_meta_variable(channel, 1, 1.0) for channel in cycler.channels),
            *(cycler.stop(channel) for channel in cycler.channels),
            cycler.start([1, 2], "A"),
            cycler.start([3, 4], "B"),
            cycler.stop_all(),
            cycler.read_channels(),
        )
    assert [int(result) for result in found[:16]] == [0x13] * 16
    assert [int(result) for result in found[16:48]] == [0x12] * 32
    assert [list(results) for results in found[48:50]] == [[1, 2], [3, 4]]
    assert list(found[50]) == sorted(found[51]) == list(range(1, 17))
    await until(lambda: server.connection_count == 0)


async def test_a_thousand_answered_requests_leave_nothing_behind(serve: Serve) -> None:
    """Neither timers, which would keep the readings until their time-out, nor anything in flight."""
    server = await serve(16)
    async with connect(server) as cycler:
        for _ in range(50):
            await asyncio.gather(cycler.read_channels(), *(cycler.stop(channel) for channel in cycler.channels))
        loop: Any = asyncio.get_running_loop()
        live = [timer for timer in loop._scheduled if not timer.cancelled() and "_check_time" in repr(timer)]
        assert live == []
        assert not any(cycler._connection._in_flight.values())
