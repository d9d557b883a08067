"""Which feedback belongs to which request, as tables; no sockets."""

from typing import Any

import pytest

from cti_mqtt.client.exchange import ManyChannelsExchange, ReadExchange, SingleExchange, open_gate
from cti_mqtt.cti.messages.channels import ChannelsInfoRequest
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest
from cti_mqtt.cti.messages.tests import (
    AssignFeedback,
    AssignRequest,
    StartFeedback,
    StartRequest,
    StopFeedback,
    StopRequest,
)
from cti_mqtt.cti.results import AssignResult, ConnectResult, StartResult, StopResult
from cti_mqtt.cti.stream import Checksum
from cti_mqtt.errors import ChecksumError, ConnectionLostError, FeedbackTimeoutError, NotConnectedError

from .conftest import readings

GOOD, MISPLACED, WRONG = Checksum.GOOD, Checksum.MISPLACED, Checksum.WRONG
SILENCE = FeedbackTimeoutError("silence")


def settled(exchange: Any) -> Any:
    """What the caller gets: a value, or the class of an error; None: nothing yet."""
    if not exchange.outcome.done():
        return None
    error = exchange.outcome.exception()
    return type(error) if error else exchange.outcome.result()


# --- one feedback ---


@pytest.mark.parametrize(
    ("channel", "named", "taken"),
    [(3, 3, True), (3, -1, True), (3, 2, False), (0, 0, True), (0, 1, False)],
)
async def test_a_single_feedback_is_for_its_channel_or_for_none(channel: int, named: int, taken: bool) -> None:
    exchange = SingleExchange(StopRequest(channel), channel)
    feedback = StopFeedback(named, StopResult.NOT_RUNNING)
    assert exchange.offer(feedback, GOOD) is taken
    assert exchange.finished is taken
    assert settled(exchange) == (feedback if taken else None)


async def test_a_feedback_without_a_channel_fits_the_command() -> None:
    exchange = SingleExchange(ConnectRequest())
    feedback = ConnectFeedback(0, ConnectResult.ACCEPTED)
    assert exchange.offer(feedback, WRONG)  # it moves nothing: damage is the stream's matter
    assert settled(exchange) is feedback


@pytest.mark.parametrize(("checksum", "believed"), [(GOOD, True), (MISPLACED, True), (WRONG, False)])
async def test_a_damaged_answer_to_a_control_request_proves_nothing(checksum: Checksum, believed: bool) -> None:
    exchange = SingleExchange(AssignRequest(2, False, "a.sdx"), 2)
    feedback = AssignFeedback(2, AssignResult.OK)
    assert exchange.offer(feedback, checksum)
    assert exchange.finished
    assert settled(exchange) == (feedback if believed else ChecksumError)


async def test_a_caller_that_has_gone_disturbs_nothing() -> None:
    answered, failed = (SingleExchange(StopRequest(0), 0) for _ in range(2))
    for exchange in (answered, failed):
        exchange.outcome.cancel()
    assert answered.offer(StopFeedback(0, StopResult.OK), GOOD)
    failed.run_out(SILENCE)
    assert answered.finished
    assert failed.finished


# --- one feedback a channel ---

OK, RUNNING, DAQ = StartResult.OK, StartResult.RUNNING_OR_UNSAFE, StartResult.NOT_CONNECTED_TO_DAQ
UNKNOWN = "unknown"
MANY: list[tuple[str, list[tuple[int, int, Checksum]], dict[int, Any]]] = [
    ("each names its channel", [(1, OK, GOOD), (2, RUNNING, GOOD), (3, OK, GOOD)], {1: OK, 2: RUNNING, 3: OK}),
    ("in any order", [(3, OK, GOOD), (1, OK, MISPLACED), (2, DAQ, GOOD)], {1: OK, 2: DAQ, 3: OK}),
    ("none names its channel", [(-1, OK, GOOD)] * 3, {1: OK, 2: OK, 3: OK}),
    ("a failure named, successes not", [(-1, OK, GOOD), (2, DAQ, GOOD), (-1, OK, GOOD)], {1: OK, 2: DAQ, 3: OK}),
    ("a success named, the others not", [(2, OK, GOOD), (-1, OK, GOOD), (-1, OK, GOOD)], {1: OK, 2: OK, 3: OK}),
    ("failures that agree", [(2, OK, GOOD), (-1, DAQ, GOOD), (-1, DAQ, GOOD)], {1: DAQ, 2: OK, 3: DAQ}),
    ("one of two unnamed failed", [(2, OK, GOOD), (-1, DAQ, GOOD), (-1, OK, GOOD)], {1: UNKNOWN, 2: OK, 3: UNKNOWN}),
    ("an unnamed one is damaged", [(2, OK, GOOD), (-1, OK, WRONG), (-1, OK, GOOD)], {1: UNKNOWN, 2: OK, 3: UNKNOWN}),
    ("a named one is damaged", [(2, OK, WRONG), (1, OK, GOOD), (3, OK, GOOD)], {1: OK, 2: ChecksumError, 3: OK}),
    ("an unknown code", [(2, 0x99, GOOD), (1, OK, GOOD), (3, OK, GOOD)], {1: OK, 2: 0x99, 3: OK}),
]


def plain(results: dict[int, Any]) -> dict[int, Any]:
    """Errors as their class, the unspecific one as UNKNOWN."""
    specific = (ChecksumError, FeedbackTimeoutError)
    return {
        channel: (type(result) if isinstance(result, specific) else UNKNOWN)
        if isinstance(result, Exception)
        else result
        for channel, result in results.items()
    }


@pytest.mark.parametrize(("answers", "expected"), [case[1:] for case in MANY], ids=[case[0] for case in MANY])
async def test_a_start_of_several_channels(
    answers: list[tuple[int, int, Checksum]], expected: dict[int, StartResult]
) -> None:
    exchange = ManyChannelsExchange(StartRequest("T", (1, 2, 3)), [1, 2, 3])
    for index, (channel, result, checksum) in enumerate(answers):
        assert not exchange.finished, index
        assert exchange.offer(StartFeedback(channel, StartResult(result)), checksum)
    assert exchange.finished
    assert plain(settled(exchange)) == expected


@pytest.mark.parametrize("result", [OK, DAQ])
@pytest.mark.parametrize("named", [5, -1])
async def test_a_start_of_one_channel(named: int, result: StartResult) -> None:
    exchange = ManyChannelsExchange(StartRequest("T", (5,)), [5])
    assert exchange.offer(StartFeedback(named, result), GOOD)
    assert settled(exchange) == {5: result}


@pytest.mark.parametrize("named", [7, 1])
async def test_a_stranger_and_a_second_answer_are_left_for_others(named: int) -> None:
    exchange = ManyChannelsExchange(StartRequest("T", (1, 2)), [1, 2])
    assert exchange.offer(StartFeedback(1, OK), GOOD)
    assert not exchange.offer(StartFeedback(named, RUNNING), GOOD)
    assert not exchange.finished
    assert exchange.offer(StartFeedback(2, OK), GOOD)
    assert settled(exchange) == {1: OK, 2: OK}


FEW: list[tuple[str, list[int], bool, Exception, Any]] = [
    ("some named", [1], True, SILENCE, {1: OK, 2: FeedbackTimeoutError, 3: FeedbackTimeoutError}),
    ("some named, some not", [1, -1], True, SILENCE, {1: OK, 2: FeedbackTimeoutError, 3: FeedbackTimeoutError}),
    ("the connection ended", [1, 2], True, ConnectionLostError("lost"), {1: OK, 2: OK, 3: UNKNOWN}),
    ("none named", [-1, -1], True, SILENCE, FeedbackTimeoutError),
    ("nothing came", [], True, SILENCE, FeedbackTimeoutError),
    ("never sent", [], False, NotConnectedError("gone"), NotConnectedError),
]


@pytest.mark.parametrize(
    ("named", "sent", "error", "expected"), [case[1:] for case in FEW], ids=[case[0] for case in FEW]
)
async def test_too_few_answers(named: list[int], sent: bool, error: Any, expected: Any) -> None:
    exchange = ManyChannelsExchange(StartRequest("T", (1, 2, 3)), [1, 2, 3])
    exchange.sent = sent
    for channel in named:
        assert exchange.offer(StartFeedback(channel, OK), GOOD)
    exchange.run_out(error)
    assert exchange.finished
    outcome = settled(exchange)
    assert (plain(outcome) if isinstance(outcome, dict) else outcome) == expected


# --- readings ---

READ: list[tuple[str, list[int], list[list[int]], list[bool], list[int] | None]] = [
    ("one frame a channel", [0, 1, 2], [[0], [1], [2]], [True] * 3, [0, 1, 2]),
    ("in any order", [0, 1, 2], [[2], [0], [1]], [True] * 3, [2, 0, 1]),
    ("one frame with all", [0, 1, 2], [[0, 1, 2]], [True], [0, 1, 2]),
    ("any split", [0, 1, 2], [[0, 1], [2]], [True] * 2, [0, 1, 2]),
    ("a frame twice", [0, 1], [[0], [0], [1]], [True, False, True], [0, 1]),
    ("an overlap", [0, 1, 2], [[0, 1], [1, 2]], [True, True], [0, 1, 2]),
    ("more than wanted", [0, 1], [[0, 7], [1]], [True, True], [0, 7, 1]),
    ("not all", [0, 1, 2], [[0], [2]], [True, True], None),
    ("one of them", [2], [[2]], [True], [2]),
    ("one of them, all came", [2], [[0, 1, 2]], [True], [0, 1, 2]),
    ("another one", [2], [[1], [2]], [False, True], [2]),
    ("nobody there", [2], [[]], [True], []),
    ("nothing for all", [0, 1], [[]], [True], None),
    ("nobody knows how many", [], [[0], [4]], [True, True], None),
    ("nobody knows how many: none", [], [[]], [True], None),
]


@pytest.mark.parametrize(
    ("wanted", "frames", "taken", "expected"), [case[1:] for case in READ], ids=[case[0] for case in READ]
)
async def test_readings_in_any_split(
    wanted: list[int], frames: list[list[int]], taken: list[bool], expected: list[int] | None
) -> None:
    exchange = ReadExchange(ChannelsInfoRequest(), wanted)
    assert [exchange.offer(readings(*frame), WRONG) for frame in frames] == taken
    assert exchange.finished is (expected is not None)
    records = settled(exchange)
    assert (None if records is None else [record.channel for record in records]) == expected
    assert exchange.missing == set(wanted) - {channel for frame in frames for channel in frame}


@pytest.mark.parametrize(
    ("wanted", "frames", "expected"),
    [
        ([0, 1, 2], [[0], [2]], [0, 2]),
        ([0, 1, 2], [[]], []),
        ([0, 1, 2], [], FeedbackTimeoutError),
        ([], [[4]], [4]),
        ([], [[]], []),
        ([], [], FeedbackTimeoutError),  # silence does not say that no channel is running
        ([1], [], FeedbackTimeoutError),
    ],
)
async def test_readings_that_end_early(wanted: list[int], frames: list[list[int]], expected: Any) -> None:
    exchange = ReadExchange(ChannelsInfoRequest(), wanted)
    for frame in frames:
        assert exchange.offer(readings(*frame), GOOD)
    exchange.run_out(SILENCE)
    assert exchange.finished
    records = settled(exchange)
    assert ([record.channel for record in records] if isinstance(records, list) else records) == expected


def test_an_open_gate_lets_everything_through() -> None:
    open_gate()
