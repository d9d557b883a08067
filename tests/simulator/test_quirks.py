"""Each quirk and fault is visible on the wire."""

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from cti_mqtt.cti.messages.channels import ChannelsInfoRequest
from cti_mqtt.cti.messages.service import UnknownCommandFeedback
from cti_mqtt.cti.messages.session import ConnectRequest, LoginFeedback
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest, StopFeedback, StopRequest
from cti_mqtt.cti.stream import Checksum
from cti_mqtt.simulator import (
    AnswerStyle,
    ChecksumStyle,
    ForcedResult,
    ManualClock,
    SimulatedCycler,
    SimulatedServer,
    TextStyle,
)

from .conftest import LOGIN, PLAIN, READ_ALL, READ_ONE, Connect, Serve, start_test

# --- readings ---


@pytest.mark.parametrize(
    ("style", "all_frames", "one_frames"),
    [
        (AnswerStyle.PER_CHANNEL, [[0], [1], [2], [3]], [[2]]),
        (AnswerStyle.ONE, [[0, 1, 2, 3]], [[2]]),
        (AnswerStyle.ALWAYS_ALL, [[0, 1, 2, 3]], [[0, 1, 2, 3]]),
        (AnswerStyle.FIRST_ONLY, [[0]], [[2]]),
    ],
)
async def test_answer_styles(
    serve: Serve, connect: Connect, style: AnswerStyle, all_frames: list[list[int]], one_frames: list[list[int]]
) -> None:
    client = await connect(await serve(answer=style))
    for request, frames in ((READ_ALL, all_frames), (ChannelsInfoRequest(2), one_frames)):
        feedbacks = await client.ask(request, count=len(frames))
        assert [[record.channel for record in feedback.records] for feedback in feedbacks] == frames
    assert await client.silent()


async def test_a_selection_of_none_is_answered_with_none(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve())
    (feedback,) = await client.ask(ChannelsInfoRequest(99))
    assert feedback.records == ()


async def test_values_and_states_that_should_not_be(serve: Serve, connect: Connect) -> None:
    quirks: dict[str, Any] = {"statuses": {0: 99}, "nan": frozenset({1}), "infinite": frozenset({2})}
    client = await connect(await serve(answer=AnswerStyle.ONE, comm_failures=frozenset({3}), **quirks))
    (feedback,) = await client.ask(READ_ALL)
    strange, nan, infinite, lost = feedback.records
    assert strange.status.text == "Unknown 99"
    assert math.isnan(nan.voltage)
    assert math.isnan(nan.extras.aux["temperature"][0].value)
    assert infinite.current == math.inf
    assert [record.comm_failure for record in feedback.records] == [False, False, False, True]
    assert lost.voltage > 3.0


@pytest.mark.parametrize("units", [True, False])
async def test_units(serve: Serve, connect: Connect, clock: ManualClock, units: bool) -> None:
    client = await connect(await serve(SimulatedCycler(2, clock=clock, bms_count=3, smb_count=2), units=units))
    (feedback,) = await client.ask(READ_ONE)
    extras = feedback.records[0].extras
    assert [entry.unit for entry in extras.bms] == (["V", "degC", "%"] if units else [""] * 3)
    assert extras.smb[1].value == ("simulated" if units else "")


# --- the bytes ---


@pytest.mark.parametrize(
    ("style", "verdict"),
    [
        (ChecksumStyle.GOOD, Checksum.GOOD),
        (ChecksumStyle.MISPLACED, Checksum.MISPLACED),
        (ChecksumStyle.WRONG, Checksum.WRONG),
    ],
)
async def test_checksums(serve: Serve, connect: Connect, style: ChecksumStyle, verdict: Checksum) -> None:
    client = await connect(await serve(checksum=style), login=False)
    client.send(LOGIN, READ_ONE)
    events = await client.events(2)
    assert [event.checksum for event in events] == [verdict, verdict]
    extra = 4 if style is ChecksumStyle.MISPLACED else 0
    assert len(client.received_bytes) == 8678 + 1787 + extra
    assert client.skipped == []


async def test_a_wrong_checksum_for_one_command(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(checksum=ChecksumStyle.WRONG, checksum_of=frozenset({"stop"})))
    client.send(StopRequest(0), READ_ONE)
    assert [event.checksum for event in await client.events(2)] == [Checksum.WRONG, Checksum.GOOD]


async def test_stale_bytes_behind_the_text(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(text=TextStyle.STALE))
    await client.ask(AssignRequest(0, False, "CCCV.sdx"))
    (feedback,) = await client.ask(PLAIN)
    assert feedback.records[0].schedule == "CCCV.sdx"
    assert feedback.records[0].test_name == ""
    assert client.received_bytes.count("stale".encode("utf-16-le")) > 100
    assert len(client.received_bytes) == 8678 + 128 + 1779
    (login,) = await client.ask(LOGIN)
    assert login.nickname == "Simulated cycler"


async def test_text_that_does_not_decode(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(text=TextStyle.BROKEN), login=False)
    (login,) = await client.ask(LOGIN)
    assert login.nickname == "\N{REPLACEMENT CHARACTER}imulated cycler"
    assert login.serial == "\N{REPLACEMENT CHARACTER}IM-000001"
    assert login.ip == "127.0.0.1"


async def test_a_picture(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(picture_bytes=1000), login=False)
    (login,) = await client.ask(LOGIN)
    assert isinstance(login, LoginFeedback)
    assert len(login.picture) == 1000
    assert len(client.received_bytes) == 9678


async def test_junk_between_frames(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(junk_bytes=13))
    assert len(await client.ask(READ_ALL, count=4)) == 4
    assert sum(skipped.size for skipped in client.skipped) == 5 * 13


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_small_segments(serve: Serve, connect: Connect, size: int) -> None:
    client = await connect(await serve(segment_bytes=size), login=False)
    client.send(LOGIN)
    assert len(await client.reader.read(1 << 16)) < 8678
    assert await client.reader.readexactly(1)


@pytest.mark.parametrize("merge", [True, False])
async def test_merged_or_not_all_feedbacks_come(serve: Serve, connect: Connect, merge: bool) -> None:
    client = await connect(await serve(merge=merge))
    assert len(await client.ask(READ_ALL, StopRequest(0), READ_ONE, count=6)) == 6


# --- the conversation ---


async def test_a_stop_overtakes_delayed_readings(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(delays_s={"channels_info": 0.05}))
    first, second = await client.ask(READ_ONE, StopRequest(0), count=2)
    assert isinstance(first, StopFeedback)
    assert second.records


async def test_delays_of_everything_and_between_frames(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(delay_s=0.05, record_delay_s=0.05))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await client.ask(READ_ALL, count=4)
    assert loop.time() - began >= 0.1


async def test_a_delay_does_not_hold_up_others(serve: Serve, connect: Connect) -> None:
    server = await serve()
    slow, quick = await connect(server), await connect(server)
    server.faults = replace(server.faults, delays_s={"channels_info": 1000.0})
    slow.send(READ_ALL)
    assert await quick.ask(StopRequest(0))


async def test_dropped_is_not_done_muted_is(serve: Serve, connect: Connect) -> None:
    server = await serve()
    client = await connect(server)
    await client.ask(AssignRequest(0, False, "Rest.sdx"))
    server.faults = replace(server.faults, drop=frozenset({"start"}))
    client.send(StartRequest("T1", (0,)))
    assert await client.silent()
    assert not server.cycler.channel(0).active
    server.faults = replace(server.faults, drop=frozenset(), mute=frozenset({"start"}))
    client.send(StartRequest("T1", (0,)))
    assert await client.silent()
    assert server.cycler.channel(0).active
    dropped, muted = server.recorder.commands("start")
    assert (dropped["answered"], dropped["results"]) == (False, [])
    assert (muted["answered"], muted["results"]) == (False, [{"channel": 1, "code": 0, "reason": "ok"}])


async def test_every_third_request_is_lost(serve: Serve, connect: Connect) -> None:
    server = await serve(drop_every=3)
    client = await connect(server)
    client.send(*(StopRequest(channel) for channel in (0, 1, 2, 3)))
    assert [event.message.channel for event in await client.events(3)] == [0, 2, 3]


async def test_of_two_requests_in_a_segment_one_is_served(serve: Serve, connect: Connect) -> None:
    server = await serve(first_of_segment_only=True)
    client = await connect(server)
    assert (await client.ask(StopRequest(0), StopRequest(1)))[0].channel == 0
    assert (await client.ask(StopRequest(2)))[0].channel == 2
    assert [entry["answered"] for entry in server.recorder.commands("stop")] == [True, False, True]


async def test_commands_that_the_server_does_not_know(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(unknown=frozenset({"stop"})))
    assert await client.ask(StopRequest(0)) == [UnknownCommandFeedback(0xBB310001, 0)]


async def test_a_start_answered_with_no_channel(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(start_names_channel=False))
    await client.ask(AssignRequest(0, False, "Rest.sdx"))
    feedbacks = await client.ask(StartRequest("T1", (0, 1)), count=2)
    assert [(feedback.channel, feedback.result.reason) for feedback in feedbacks] == [
        (-1, "ok"),
        (1, "no_schedule_assigned"),
    ]


async def test_a_result_for_some_times(serve: Serve, connect: Connect) -> None:
    server = await serve(results=(ForcedResult("stop", 0x11, times=2),))
    client = await connect(server)
    await start_test(client, "Rest.sdx")
    answers = [(await client.ask(StopRequest(0)))[0].result.reason for _ in range(3)]
    assert answers == ["monitor_window_in_use", "monitor_window_in_use", "ok"]
    server.faults = replace(server.faults)  # counts anew
    feedbacks = await client.ask(StopRequest(0, True), count=4)
    assert [(feedback.channel, feedback.result) for feedback in feedbacks] == [(i, 0x11) for i in range(4)]


async def test_a_result_for_some_time(connect: Connect, cycler: SimulatedCycler) -> None:
    real_time = ManualClock(500.0)
    async with SimulatedServer(cycler, monotonic=real_time) as server:
        server.faults = replace(server.faults, results=(ForcedResult.parse("stop=0x11:10s"),))
        client = await connect(server)
        real_time.advance(100.0)
        for seconds, reason in ((0.0, "monitor_window_in_use"), (9.9, "monitor_window_in_use"), (0.2, "not_running")):
            real_time.advance(seconds)
            assert (await client.ask(StopRequest(0)))[0].result.reason == reason


async def test_results_of_login_and_connect(serve: Serve, connect: Connect) -> None:
    server = await serve(
        results=(ForcedResult("login", 3, times=1), ForcedResult("login", 2), ForcedResult("connect", 1))
    )
    client = await connect(server, login=False)
    assert (await client.ask(ConnectRequest(0)))[0].result.reason == "refused"
    (login,) = await client.ask(LOGIN)
    assert (login.result.reason, login.allow_control) == ("already_logged_in", True)
    assert await client.ask(READ_ONE)
    assert (await client.ask(LOGIN))[0].result.reason == "failed"
    client.send(READ_ONE)
    assert await client.silent()


async def test_cut_in_the_middle_of_a_frame(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(cut_after_frames=2))
    client.send(StopRequest(0), StopRequest(1))
    assert len(await client.ended()) == 128 + 64


async def test_cut_with_a_request(serve: Serve, connect: Connect) -> None:
    server = await serve(cut_after_requests=2)
    client = await connect(server)
    client.send(StopRequest(0), StopRequest(1))
    assert len(await client.ended()) == 128
    assert [entry["answered"] for entry in server.recorder.commands("stop")] == [True, False]
    server.faults = replace(server.faults, cut_after_requests=None)
    assert await (await connect(server)).ask(StopRequest(0), StopRequest(1), StopRequest(2), count=3)


async def test_faults_change_while_connected(serve: Serve, connect: Connect) -> None:
    server = await serve()
    client = await connect(server)
    server.faults = replace(server.faults, answer=AnswerStyle.ONE)
    (feedback,) = await client.ask(READ_ALL)
    assert len(feedback.records) == 4
