"""Answers that come late, in half or as garbage: what they are not taken for, and what is counted."""

import asyncio
import socket

import pytest

from cti_mqtt.client.exchange import ReadExchange
from cti_mqtt.client.noise import Noise
from cti_mqtt.client.vigilance import MOST_S, notice_a_dead_peer
from cti_mqtt.cti.frame import Direction, pack_frame
from cti_mqtt.cti.messages.channels import ChannelsInfoFeedback
from cti_mqtt.cti.messages.tests import StopFeedback
from cti_mqtt.cti.results import StopResult
from cti_mqtt.cti.stream import ChecksumPolicy, pack_message
from cti_mqtt.errors import FeedbackTimeoutError

from .conftest import SHORT_S, Script, Spawn, damaged, misplaced, reading, readings, until

STOPPED = StopFeedback(0, StopResult(0))


def at(voltage: float, *channels: int) -> ChannelsInfoFeedback:
    """Readings of wire channels that can be told from others."""
    return ChannelsInfoFeedback(tuple(reading(channel, voltage) for channel in channels))


@pytest.fixture(autouse=True)
def _short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadExchange, "quiet_s", 0.05)


# --- the rest of an answer ---


async def test_the_rest_is_not_taken_for_the_next_answer(script: Script, spawn: Spawn) -> None:
    async with script.session(4) as (cycler, peer):
        first = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(at(1.0, 0, 1))
        assert sorted(await first) == [1, 2]
        second = spawn(cycler.read_channels())
        assert await peer.waiting() == []  # it would be answered with what is still on its way
        peer.send(at(1.0, 2, 3))
        await peer.receive()
        peer.send(at(2.0, 0, 1, 2, 3))
        assert {record.voltage for record in (await second).values()} == {2.0}
        assert cycler.noise.late == 1


async def test_what_only_came_late_is_no_habit(script: Script, spawn: Spawn) -> None:
    async with script.session(4) as (cycler, peer):
        for _ in range(4):
            poll = spawn(cycler.read_channels())
            (request,) = await peer.receive()
            assert request.channel == -1
            peer.send(readings(0))
            assert sorted(await poll) == [1]
            peer.send(readings(1, 2, 3))


async def test_a_stop_does_not_wait_for_the_rest(script: Script, spawn: Spawn) -> None:
    async with script.session(4, pipelining=False) as (cycler, peer):
        poll = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(readings(0))
        await poll
        stop = spawn(cycler.stop(1))
        await peer.receive()
        peer.send(STOPPED)
        await stop


async def test_a_rest_that_never_comes_is_waited_for_until_the_time_out(script: Script, spawn: Spawn) -> None:
    loop = asyncio.get_running_loop()
    async with script.session(4, timeout_s=0.3) as (cycler, peer):
        began = loop.time()
        poll = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(readings(0))
        await poll
        again = spawn(cycler.read_channels())
        await peer.receive()
        assert 0.25 < loop.time() - began < 5
        peer.send(readings(0, 1, 2, 3))
        assert len(await again) == 4


async def test_what_was_lost_on_the_way_is_not_waited_for(script: Script, spawn: Spawn) -> None:
    """The last channel came, so those before it will not."""
    async with script.session(4) as (cycler, peer):
        poll = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(readings(0), readings(2, 3))
        assert sorted(await poll) == [1, 3, 4]
        again = spawn(cycler.read_channels())
        await asyncio.wait_for(peer.receive(), 2)
        peer.send(readings(0, 1, 2, 3))
        assert len(await again) == 4


async def test_the_end_while_the_rest_is_awaited(script: Script, spawn: Spawn) -> None:
    async with script.session(4) as (cycler, peer):
        poll = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(readings(0))
        await poll
        peer.writer.close()
        await cycler.wait_closed()


# --- half a message, and garbage ---


async def test_half_a_message_and_silence(script: Script, spawn: Spawn) -> None:
    async with script.session(4, timeout_s=SHORT_S) as (cycler, peer):
        poll = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(pack_message(readings(0, 1, 2, 3))[:100])
        with pytest.raises(FeedbackTimeoutError, match=r"within 0.15 s, only part of a message \(100 bytes\)"):
            await poll


async def test_what_is_of_no_use_is_counted(script: Script, spawn: Spawn) -> None:
    async with script.session(4) as (cycler, peer):
        unknown = pack_frame(Direction.FEEDBACK, 0x12345678, b"")
        for message in (b"garbage" + pack_message(STOPPED), unknown + pack_message(STOPPED), misplaced(STOPPED)):
            stop = spawn(cycler.stop(1))
            await peer.receive()
            peer.send(message)
            await stop
        poll = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(damaged(readings(0)), readings(1, 2, 3))
        await poll
        assert cycler.noise == Noise(1, 7, "no frame begins here", 1, 1, 1, 0)
        assert cycler.noise.text == (
            "7 bytes that make no message (last: no frame begins here), 1 messages of an unknown kind, "
            "1 messages with a wrong checksum, 1 messages with their checksum in the wrong place"
        )


async def test_checksums_that_are_to_be_ignored_are_not_counted(script: Script, spawn: Spawn) -> None:
    async with script.session(1, checksum=ChecksumPolicy.IGNORE) as (cycler, peer):
        poll = spawn(cycler.read_channels())
        await peer.receive()
        peer.send(damaged(readings(0)))
        await poll
        assert cycler.noise.total == 0


# --- a peer that has gone ---


@pytest.mark.parametrize(("timeout_s", "idle_s"), [(0.1, 1), (10.0, 10), (1e9, MOST_S)])
def test_the_kernel_looks_after_the_peer(timeout_s: float, idle_s: int) -> None:
    with socket.socket() as peer:
        notice_a_dead_peer(peer, timeout_s)
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle_s
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000 * idle_s


async def test_every_session_has_it(script: Script) -> None:
    async with script.line(timeout_s=7.0) as (connection, _):
        assert connection._transport
        peer = connection._transport.get_extra_info("socket")
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7


async def test_counting_goes_on_until_somebody_looks(script: Script) -> None:
    async with script.session(4) as (cycler, peer):
        peer.send(b"\0" * 1000)
        await until(lambda: cycler.noise.skipped_bytes > 900)
        assert cycler.noise.total == 1
