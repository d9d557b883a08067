"""The later commands of the control port on a real socket: quirks, forced results, the record."""

from dataclasses import replace
from typing import Any

import pytest

from cti_mqtt.cti.messages.extended import (
    ExtendedStart,
    GetResumeDataRequest,
    GetStartDataRequest,
    StartExtendedRequest,
)
from cti_mqtt.cti.messages.files import BrowseRequest
from cti_mqtt.cti.messages.service import (
    GetSerialRequest,
    SendMessageRequest,
    StartCalibrationRequest,
    UnknownCommandFeedback,
)
from cti_mqtt.cti.messages.tests import (
    AssignRequest,
    ContinueRequest,
    JumpRequest,
    ResumeRequest,
    StartRequest,
    StopRequest,
)
from cti_mqtt.cti.messages.variables import MetaVariableUpdate, UpdateHeader, UpdateMetaVariablesRequest, Updates
from cti_mqtt.simulator import Document, ForcedResult, ManualClock, TextStyle, UpdateAnswer

from .conftest import READ_ONE, Connect, Serve, start_test

BOTH = UpdateMetaVariablesRequest(Updates((MetaVariableUpdate(0, 52, 1.0), MetaVariableUpdate(1, 52, 1.0))))


async def test_a_life_with_every_verb(serve: Serve, connect: Connect, clock: ManualClock) -> None:
    client = await connect(await serve())
    await start_test(client, "Pause.sdx")
    clock.advance(10.0)
    (reading,) = await client.ask(READ_ONE)
    assert reading.records[0].status.text == "Pause"
    assert [(f.channel, int(f.result)) for f in await client.ask(ContinueRequest((0, 1)), count=2)] == [
        *((0, 0), (1, 0x15))
    ]
    assert [int(f.result) for f in await client.ask(StopRequest(0), ResumeRequest(0), count=2)] == [0, 0]
    assert (await client.ask(ResumeRequest(0, True), count=4))[0].result == 0x12
    (jumped,) = await client.ask(JumpRequest(3, 0))
    assert (jumped.channel, jumped.result) == (0, 0)
    (reading,) = await client.ask(READ_ONE)
    assert reading.records[0].exit_condition == "Jump past the last step"


@pytest.mark.parametrize(("names", "channel"), [(True, 0), (False, -1)])
async def test_continue_is_answered_with_its_channel_or_none(
    serve: Serve, connect: Connect, clock: ManualClock, names: bool, channel: int
) -> None:
    client = await connect(await serve(start_names_channel=names))
    await start_test(client, "Pause.sdx")
    clock.advance(10.0)
    feedbacks = await client.ask(ContinueRequest((0, 1)), count=2)
    assert [feedback.channel for feedback in feedbacks] == [channel, 1]


@pytest.mark.parametrize(("style", "channels"), [(UpdateAnswer.PACKET, [0]), (UpdateAnswer.CHANNEL, [0, 1])])
@pytest.mark.parametrize(("document", "code"), [(Document.V11, 0x14), (Document.V45, 0x13)])
async def test_advanced_updates(
    serve: Serve, connect: Connect, style: UpdateAnswer, channels: list[int], document: Document, code: int
) -> None:
    client = await connect(await serve(advanced_answer=style, advanced_limit=document))
    await client.ask(AssignRequest(0, True, "ClosedLoop.sdx"), count=4)
    await client.ask(StartRequest("T", (0, 1)), count=2)
    for result in (0, code):
        feedbacks = await client.ask(BOTH, count=len(channels))
        assert [(feedback.channel, feedback.result) for feedback in feedbacks] == [(i, result) for i in channels]
    assert await client.silent()


async def test_a_server_that_does_not_know_advanced_updates(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(unknown=frozenset({"update_meta_variables"})))
    assert await client.ask(BOTH) == [UnknownCommandFeedback(0xBB150002, 0)]


@pytest.mark.parametrize(("document", "code"), [(Document.V11, 0), (Document.V45, 2)])
async def test_calibration(serve: Serve, connect: Connect, document: Document, code: int) -> None:
    client = await connect(await serve(calibration=document))
    assert (await client.ask(StartCalibrationRequest()))[0].result == 1
    await start_test(client)
    assert (await client.ask(StartCalibrationRequest()))[0].result == code


async def test_forced_results_change_nothing(serve: Serve, connect: Connect) -> None:
    names = ("resume", "jump", "start_calibration", "send_message", "get_serial", "update_meta_variables", "start")
    server = await serve(results=tuple(ForcedResult(name, 0x11) for name in (*names, "start_extended")))
    client = await connect(server)
    requests: list[Any] = [
        *(ResumeRequest(0), JumpRequest(0, 0), StartCalibrationRequest(), SendMessageRequest("x"), GetSerialRequest()),
        *(UpdateMetaVariablesRequest(Updates(BOTH.updates.entries[:1])), StartRequest("T", (0,))),
        StartExtendedRequest((ExtendedStart(0, "T", "CCCV.sdx"),)),
    ]
    feedbacks = await client.ask(*requests, count=len(requests))
    assert [int(feedback.result) for feedback in feedbacks] == [0x11] * len(requests)
    assert not server.cycler.messages
    assert not server.cycler.calibrations
    assert not server.cycler.channel(0).active


async def test_file_requests_belong_on_the_other_port(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve())
    assert await client.ask(BrowseRequest("")) == [UnknownCommandFeedback(0xCC130001, 0)]


@pytest.mark.parametrize("text", [TextStyle.STALE, TextStyle.BROKEN])
async def test_texts_in_records_are_dirty_too(serve: Serve, connect: Connect, text: TextStyle) -> None:
    server = await serve()
    client = await connect(server)
    await start_test(client)
    server.faults = replace(server.faults, text=text)
    expected = "CCCV.sdx" if text is TextStyle.STALE else "\N{REPLACEMENT CHARACTER}CCV.sdx"
    for request in (GetStartDataRequest((0,)), GetResumeDataRequest((0,))):
        (feedback,) = await client.ask(request)
        assert feedback.records[0].schedule == expected
    stale = "stale".encode("utf-16-le") in client.received_bytes
    assert stale is (text is TextStyle.STALE)


async def test_what_was_asked_is_recorded(serve: Serve, connect: Connect) -> None:
    server = await serve()
    client = await connect(server)
    await start_test(client, "ClosedLoop.sdx", 1)
    values = Updates((MetaVariableUpdate(1, 105, 0.5),), UpdateHeader.V45)
    await client.ask(UpdateMetaVariablesRequest(values))
    await client.ask(JumpRequest(0, 1))
    await client.ask(ContinueRequest((1, 2)), count=2)
    await client.ask(GetSerialRequest())
    await client.ask(GetStartDataRequest((1, 2)))
    await client.ask(StartExtendedRequest((ExtendedStart(2, "T2", "Rest.sdx", start_step=0),)))
    await client.ask(StartCalibrationRequest())
    await client.ask(SendMessageRequest("[now]<-->[hello]"))
    entries = server.recorder.entries[3:]
    assert [entry["command"] for entry in entries] == [
        *("update_meta_variables", "jump", "continue", "get_serial", "get_start_data", "start_extended"),
        *("start_calibration", "send_message"),
    ]
    update, jump, go_on, serial, data, start, calibration, message = entries
    assert update["arguments"] == {
        "updates": {"entries": [{"channel": 2, "meta_code": 105, "value": 0.5, "index": 5}], "header": "v45"}
    }
    assert update["results"] == [{"channel": 2, "code": 0, "reason": "ok"}]
    assert jump["arguments"] == {"step": 0, "channel": 2}
    assert (go_on["arguments"], go_on["results"][0]["reason"]) == ({"channels": [2, 3]}, "running")
    assert (serial["arguments"], serial["results"]) == ({"first": 0, "second": 0}, [{"serial": 1, "code": 0}])
    assert data["results"] == [
        {
            "channels": [
                {"channel": 2, "code": 0, "reason": "ok"},
                {"channel": 3, "code": 35, "reason": "empty_test_name"},
            ]
        }
    ]
    (record,) = start["arguments"]["records"]
    assert (record["channel"], record["test_name"], record["start_step"]) == (3, "T2", 0)
    assert record["state"]["cycle"] == 1
    assert calibration["arguments"] == {}
    assert calibration["results"] == [{"code": 0, "reason": "failed"}]
    assert message["arguments"] == {"message": "[now]<-->[hello]"}
