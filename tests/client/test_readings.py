"""Readings: every channel, however the server splits its answer and whatever is wrong with its bytes."""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from cti_mqtt.client import Cycler
from cti_mqtt.client.exchange import ReadExchange
from cti_mqtt.cti.codes import ChannelStatus, Selection
from cti_mqtt.cti.messages.channels import AuxOption, ChannelRecord, ChannelsInfoRequest
from cti_mqtt.cti.messages.tests import StopFeedback, StopRequest
from cti_mqtt.cti.stream import ChecksumPolicy
from cti_mqtt.errors import FeedbackTimeoutError, InvalidRequestError, NotSentError
from cti_mqtt.simulator import BUILT_IN, AnswerStyle, ChecksumStyle, SimulatedServer, TextStyle

from .conftest import SHORT_S, Script, Serve, Spawn, connect, damaged, readings, until

SPLITS = [AnswerStyle.PER_CHANNEL, AnswerStyle.ONE, AnswerStyle.ALWAYS_ALL]
Check = Callable[[dict[int, ChannelRecord]], object]


def polls(server: SimulatedServer) -> list[int | None]:
    """The channel of each request for readings; None for all."""
    return [entry["arguments"]["channel"] for entry in server.recorder.commands("channels_info")]


def assigned(server: SimulatedServer) -> None:
    """Texts in one record: schedule, barcode, test name and a running status."""
    channel = server.cycler.channel(2)
    channel.assign(BUILT_IN["CCCV.sdx"], "B-1")
    channel.start("Test 1")


def clean(records: dict[int, ChannelRecord]) -> None:
    record = records[3]
    assert (record.schedule, record.barcode, record.test_name) == ("CCCV.sdx", "B-1", "Test 1")
    assert record.status.known
    assert record.extras.aux["temperature"]
    assert len(record.extras.bms) == len(record.extras.smb) == 2


def without_units(records: dict[int, ChannelRecord]) -> None:
    assert [entry.unit for entry in records[3].extras.bms] == ["", ""]


def broken(records: dict[int, ChannelRecord]) -> None:
    assert records[3].schedule == "\N{REPLACEMENT CHARACTER}CCV.sdx"


def strange(records: dict[int, ChannelRecord]) -> None:
    assert records[1].status.text == "Unknown 99"
    assert records[2].status == -5


def no_numbers(records: dict[int, ChannelRecord]) -> None:
    assert math.isnan(records[1].voltage)
    assert records[2].current == math.inf
    assert records[4].comm_failure


QUIRKS: dict[str, tuple[dict[str, Any], Check]] = {
    "none": ({}, clean),
    "stale text": ({"text": TextStyle.STALE}, clean),
    "broken text": ({"text": TextStyle.BROKEN}, broken),
    "misplaced checksum": ({"checksum": ChecksumStyle.MISPLACED}, clean),
    "wrong checksum": ({"checksum": ChecksumStyle.WRONG}, clean),
    "no units": ({"units": False}, without_units),
    "a picture": ({"picture_bytes": 100_000}, clean),
    "junk": ({"junk_bytes": 13}, clean),
    "frame by frame": ({"merge": False}, clean),
    "segments of 61": ({"segment_bytes": 61, "merge": False}, clean),
    "segments of 1460": ({"segment_bytes": 1460}, clean),
    "pauses between the frames": ({"record_delay_s": 0.001}, clean),
    "a late answer": ({"delay_s": 0.05}, clean),
    "strange statuses": ({"statuses": {0: 99, 1: -5}}, strange),
    "no numbers": (
        {"nan": frozenset({0}), "infinite": frozenset({1}), "comm_failures": frozenset({3})},
        no_numbers,
    ),
    "everything": (
        {
            "text": TextStyle.STALE,
            "checksum": ChecksumStyle.MISPLACED,
            "units": False,
            "picture_bytes": 77,
            "junk_bytes": 5,
            "segment_bytes": 333,
            "record_delay_s": 0.0005,
            "statuses": {0: 99, 1: -5},
        },
        strange,
    ),
}


@pytest.mark.parametrize("style", SPLITS)
@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.parametrize(("faults", "check"), QUIRKS.values(), ids=QUIRKS.keys())
async def test_one_request_brings_every_channel(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    style: AnswerStyle,
    channels: int,
    faults: dict[str, Any],
    check: Check,
) -> None:
    server = await serve(channels, extras=2, answer=style, **faults)
    assigned(server)
    async with connect(server) as cycler:
        assert cycler.channels == range(1, channels + 1)
        for count in (1, 2):
            records = await cycler.read_channels()
            assert sorted(records) == list(cycler.channels)
            assert all(record.channel == channel - 1 for channel, record in records.items())
            check(records)
            assert polls(server) == [None] * count
    assert "asking for each one" not in caplog.text


@pytest.mark.parametrize("style", SPLITS)
@pytest.mark.parametrize("size", [1, 3, 7])
async def test_the_smallest_segments(serve: Serve, style: AnswerStyle, size: int) -> None:
    server = await serve(4, answer=style, segment_bytes=size)
    async with connect(server) as cycler:
        assert sorted(await cycler.read_channels(AuxOption.NONE)) == [1, 2, 3, 4]
    assert polls(server) == [None]


@pytest.mark.parametrize("style", SPLITS)
async def test_values_arrive_as_they_are(serve: Serve, style: AnswerStyle) -> None:
    server = await serve(16, answer=style)
    assigned(server)
    async with connect(server) as cycler:
        records = await cycler.read_channels()
    assert records[3].status is server.cycler.channel(2).status is not ChannelStatus.IDLE
    for channel, record in records.items():
        assert record.voltage == pytest.approx(server.cycler.channel(channel - 1).voltage_v)


@pytest.mark.parametrize("policy", [ChecksumPolicy.IGNORE, ChecksumPolicy.STRICT])
async def test_other_policies_read_a_sound_server(serve: Serve, policy: ChecksumPolicy) -> None:
    server = await serve(16, junk_bytes=3)
    async with connect(server, checksum=policy) as cycler:
        assert len(await cycler.read_channels()) == 16


@pytest.mark.parametrize("aux", [AuxOption.NONE, AuxOption.BMS])
async def test_options_reach_the_server(serve: Serve, aux: AuxOption) -> None:
    server = await serve(2, extras=3)
    async with connect(server) as cycler:
        records = await cycler.read_channels(aux)
        one = await cycler.read_channel(2, aux)
    assert len(records[1].extras.bms) == len(one[2].extras.bms) == (3 if aux else 0)
    assert not records[1].extras.aux


# --- one channel, or some ---


@pytest.mark.parametrize("style", list(AnswerStyle))
async def test_one_channel(serve: Serve, style: AnswerStyle) -> None:
    server = await serve(4, answer=style)
    async with connect(server) as cycler:
        records = await cycler.read_channel(3)
        assert sorted(records) == ([1, 2, 3, 4] if style is AnswerStyle.ALWAYS_ALL else [3])
    assert polls(server) == [3]


async def test_a_channel_that_is_not_there(serve: Serve) -> None:
    async with connect(await serve(4)) as cycler:
        assert await cycler.read_channel(9) == {}
        assert len(await cycler.read_channels()) == 4


@pytest.mark.parametrize("channel", [0, -1])
async def test_channels_are_numbered_from_1(serve: Serve, channel: int) -> None:
    server = await serve(4)
    async with connect(server) as cycler:
        for attempt in (
            cycler.read_channel(channel),
            cycler.stop(channel),
            cycler.assign(channel, "CCCV.sdx"),
            cycler.start([1, channel], "T"),
            cycler.set_meta_variable(channel, 1, 1.0),
        ):
            with pytest.raises(InvalidRequestError, match="from 1"):
                await attempt
        assert [entry["command"] for entry in server.recorder.entries] == ["login"]


@pytest.mark.parametrize("style", [AnswerStyle.PER_CHANNEL, AnswerStyle.ONE])
async def test_running_channels(serve: Serve, monkeypatch: pytest.MonkeyPatch, style: AnswerStyle) -> None:
    monkeypatch.setattr(ReadExchange, "quiet_s", 0.05)
    server = await serve(4, answer=style)
    async with connect(server) as cycler:
        assert await cycler.read_selected(Selection.RUNNING) == {}
        assigned(server)
        assert sorted(await cycler.read_selected(Selection.RUNNING)) == [3]
        assert await cycler.read_selected(Selection.UNSAFE) == {}
        assert len(await cycler.read_channels()) == 4


async def test_silence_does_not_say_that_nothing_runs(serve: Serve) -> None:
    server = await serve(4, drop=frozenset({"channels_info"}))
    async with connect(server, timeout_s=SHORT_S) as cycler:
        with pytest.raises(FeedbackTimeoutError):
            await cycler.read_selected(Selection.RUNNING)


async def test_a_damaged_channel_number_makes_no_channel(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadExchange, "quiet_s", 0.05)
    async with script.session(2) as (cycler, peer):
        poll = asyncio.create_task(cycler.read_channels())
        await peer.receive()
        peer.send(readings(0), damaged(readings(4_000_000_000)))
        assert list(await poll) == [1]


# --- several at once ---


@pytest.mark.parametrize("style", SPLITS)
@pytest.mark.parametrize("record_delay_s", [0.0, 0.001])
async def test_many_reads_at_once_get_what_they_asked_for(
    serve: Serve, style: AnswerStyle, record_delay_s: float
) -> None:
    server = await serve(16, answer=style, record_delay_s=record_delay_s)
    async with connect(server) as cycler:
        found = await asyncio.gather(
            cycler.read_channels(),
            cycler.read_channel(3),
            cycler.read_channels(),
            cycler.read_channel(3),
            cycler.read_channel(16),
            cycler.read_channels(),
        )
    assert [len(found[index]) for index in (0, 2, 5)] == [16] * 3
    assert [wanted in found[index] for index, wanted in ((1, 3), (3, 3), (4, 16))] == [True] * 3
    assert polls(server) == [None, 3, None, 3, 16, None]


async def test_an_incomplete_poll_does_not_take_a_single_reading(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, spawn: Spawn
) -> None:
    """A poll that lacks channels and waits for them in silence would take the other's only answer."""
    monkeypatch.setattr(ReadExchange, "quiet_s", 0.1)
    server = await serve(4, answer=AnswerStyle.FIRST_ONLY)
    async with connect(server, timeout_s=2.0) as cycler:
        poll = spawn(cycler.read_channels())
        await until(lambda: polls(server))
        assert sorted(await cycler.read_channel(3)) == [3]
        assert sorted(await poll) == [1]


async def test_a_selection_does_not_take_the_poll(serve: Serve, monkeypatch: pytest.MonkeyPatch, spawn: Spawn) -> None:
    """Nobody knows how many channels a selection has: it would take whatever comes."""
    monkeypatch.setattr(ReadExchange, "quiet_s", 0.1)
    server = await serve(4)
    async with connect(server, timeout_s=2.0) as cycler:
        selection = spawn(cycler.read_selected(Selection.RUNNING))
        await until(lambda: polls(server))
        assert len(await cycler.read_channels()) == 4
        assert await selection == {}


async def test_a_stop_does_not_wait_behind_reads(serve: Serve, spawn: Spawn) -> None:
    server = await serve(4, delays_s={"channels_info": 0.2})
    async with connect(server) as cycler:
        reads = [spawn(cycler.read_channels()), spawn(cycler.read_channel(1)), spawn(cycler.read_channel(2))]
        await until(lambda: polls(server))
        await cycler.stop(1)
        assert not any(read.done() for read in reads)
        assert polls(server) == [None]
        await asyncio.gather(*reads)


@pytest.mark.parametrize("faults", [{"record_delay_s": 0.005}, {"delays_s": {"channels_info": 0.4}}])
async def test_a_stop_goes_past_a_slow_poll(serve: Serve, spawn: Spawn, faults: dict[str, Any]) -> None:
    server = await serve(128, **faults)
    assigned(server)
    async with connect(server) as cycler:
        poll = spawn(cycler.read_channels())
        await until(lambda: polls(server))
        assert await cycler.stop(3) == 0
        assert not poll.done()
        assert [entry["command"] for entry in server.recorder.entries] == ["login", "channels_info", "stop"]
        assert not server.cycler.channel(2).active
        assert len(await poll) == 128
        assert polls(server) == [None]


# --- servers that cannot answer "all" ---


@pytest.fixture
def _short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadExchange, "quiet_s", 0.05)
    monkeypatch.setattr(ReadExchange, "rest_s", 0.1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def fall_back(cycler: Cycler) -> None:
    """Two polls of a server that answers with the first channel only."""
    for _ in range(2):
        assert sorted(await cycler.read_channels()) == [1]


@pytest.mark.usefixtures("_short_quiet")
async def test_after_two_incomplete_answers_each_channel_is_asked(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(16, answer=AnswerStyle.FIRST_ONLY)
    async with connect(server) as cycler:
        await fall_back(cycler)
        for _ in range(2):
            assert sorted(await cycler.read_channels()) == list(range(1, 17))
    assert polls(server) == [None, None, *range(1, 17), *range(1, 17)]
    (warning,) = warnings(caplog)
    assert warning.startswith("cycler-1: twice not all channels")


async def test_waiting_for_more_readings_takes_no_longer_than_the_time_out(serve: Serve) -> None:
    server = await serve(4, answer=AnswerStyle.FIRST_ONLY)
    async with connect(server, timeout_s=0.5) as cycler, asyncio.timeout(1.5):
        assert sorted(await cycler.read_channels()) == [1]
        assert await cycler.ping()


@pytest.mark.usefixtures("_short_quiet")
async def test_one_incomplete_answer_is_forgiven(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = await serve(4)
    async with connect(server) as cycler:
        for style, count in [
            (AnswerStyle.FIRST_ONLY, 1),
            (AnswerStyle.ONE, 4),
            (AnswerStyle.FIRST_ONLY, 1),
            (AnswerStyle.PER_CHANNEL, 4),
        ]:
            server.faults = type(server.faults)(answer=style)
            assert len(await cycler.read_channels()) == count
    assert polls(server) == [None] * 4
    assert warnings(caplog) == []


@pytest.mark.usefixtures("_short_quiet")
async def test_an_empty_answer_is_an_incomplete_one(script: Script, spawn: Spawn) -> None:
    async with script.session(1) as (cycler, peer):
        for _ in range(2):
            poll = spawn(cycler.read_channels())
            await peer.receive()
            peer.send(readings())
            assert await poll == {}
        spawn(cycler.read_channels())
        (request,) = await peer.receive()
        assert request.channel == 0


@pytest.mark.usefixtures("_short_quiet")
async def test_polls_in_flight_while_falling_back_warn_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = await serve(4, answer=AnswerStyle.FIRST_ONLY)
    async with connect(server) as cycler:
        await asyncio.gather(*(cycler.read_channels() for _ in range(4)))
        assert len(await cycler.read_channels()) == 4
    assert len(warnings(caplog)) == 1


@pytest.mark.usefixtures("_short_quiet")
async def test_then_a_server_that_drops_what_comes_together_loses_nothing(serve: Serve) -> None:
    server = await serve(8, answer=AnswerStyle.FIRST_ONLY, first_of_segment_only=True)
    for index in range(8):
        server.cycler.channel(index).assign(BUILT_IN["CCCV.sdx"])
        server.cycler.channel(index).start("T")
    async with connect(server) as cycler:
        await fall_back(cycler)
        found: list[Any] = await asyncio.gather(
            cycler.read_channels(),
            *(cycler.set_meta_variable(channel, 1, 1.0) for channel in cycler.channels),
            cycler.read_channel(5),
            cycler.ping(),
            *(cycler.stop(channel) for channel in cycler.channels),
            cycler.read_channels(),
        )
    assert sorted(found[0]) == sorted(found[-1]) == list(range(1, 9))
    assert found[-9:-1] == [0] * 8
    assert [result.reason for result in found[1:9]] == ["not_running"] * 8  # the stops went ahead
    assert all(entry["answered"] for entry in server.recorder.entries)
    assert len(server.recorder.entries) == 1 + 2 + 8 + 8 + 1 + 1 + 8 + 8


@pytest.mark.usefixtures("_short_quiet")
async def test_then_one_request_is_in_flight_and_a_stop_is_next(script: Script, spawn: Spawn) -> None:
    async with script.session(3) as (cycler, peer):
        for _ in range(2):
            poll = spawn(cycler.read_channels())
            await peer.receive()
            peer.send(readings(0))
            await poll
        poll = spawn(cycler.read_channels())
        assert await peer.receive() == [ChannelsInfoRequest(0)]
        other, stop = spawn(cycler.ping()), spawn(cycler.stop(2))
        assert await peer.waiting() == []
        peer.send(readings(0))
        (request,) = await peer.receive()
        assert isinstance(request, StopRequest)
        assert await peer.waiting() == []
        peer.send(StopFeedback(1, 0))  # type: ignore[arg-type]
        assert await stop == 0
        assert not other.done()
        assert not poll.done()


@pytest.mark.usefixtures("_short_quiet")
async def test_a_new_connection_starts_afresh(serve: Serve) -> None:
    server = await serve(4, answer=AnswerStyle.FIRST_ONLY)
    async with connect(server) as cycler:
        await fall_back(cycler)
        assert len(await cycler.read_channels()) == 4
    server.faults = type(server.faults)(answer=AnswerStyle.ONE)
    async with connect(server) as cycler:
        assert len(await cycler.read_channels()) == 4
    assert polls(server) == [None, None, 1, 2, 3, 4, None]


async def test_a_poll_that_the_end_cuts_short(serve: Serve, spawn: Spawn, caplog: pytest.LogCaptureFixture) -> None:
    """What came is worth having, and says nothing about the server's habits."""
    server = await serve(64, record_delay_s=0.01)
    async with connect(server) as cycler:
        cycler._incomplete = 1
        poll = spawn(cycler.read_channels())
        await until(lambda: polls(server))
        await cycler.stop(1)
        server.disconnect_all()
        assert 1 <= len(await poll) < 64
        with pytest.raises(NotSentError):
            await cycler.read_channels()
    assert warnings(caplog) == []
