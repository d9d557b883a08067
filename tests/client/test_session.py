"""A session's beginning and end: connecting, login, what is said when it fails, and that no password is."""

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pytest

from cti_mqtt.client import Credentials, Cycler, Endpoint
from cti_mqtt.client.exchange import Exchange, ReadExchange, SingleExchange
from cti_mqtt.cti.messages.channels import ChannelsInfoRequest
from cti_mqtt.cti.messages.session import ConnectRequest, LoginRequest
from cti_mqtt.cti.messages.tests import StopFeedback, StopRequest
from cti_mqtt.cti.stream import ChecksumPolicy, pack_message
from cti_mqtt.errors import (
    ConnectionLostError,
    CtiMqttError,
    FeedbackTimeoutError,
    InvalidRequestError,
    LoginRefusedError,
    NotConnectedError,
    NotSentError,
    ProtocolError,
    UnsupportedCommandError,
)
from cti_mqtt.simulator import ADMIN, ChecksumStyle, ForcedResult, SimulatedServer, TextStyle

from .conftest import (
    CREDENTIALS,
    HOST,
    SHORT_S,
    Script,
    Serve,
    Spawn,
    connect,
    login_feedback,
    readings,
    until,
)

SECRET = Credentials(ADMIN.name, "Pa55word-of-the-lab")


async def refusal(session: AbstractAsyncContextManager[Cycler]) -> CtiMqttError:
    """Why there is no session."""
    with pytest.raises(CtiMqttError) as caught:
        async with session:
            pytest.fail("there is a session")
    return caught.value


# --- login ---


async def test_the_login_comes_first_and_tells_of_the_cycler(serve: Serve) -> None:
    server = await serve(16, picture_bytes=1000, junk_bytes=7)
    async with connect(server) as cycler:
        await cycler.ping()
        assert (cycler.info.serial, cycler.info.channel_count, cycler.info.allow_control) == ("SIM-000001", 16, True)
        assert len(cycler.info.picture) == 1000
    assert [entry["command"] for entry in server.recorder.entries] == ["login", "connect"]


@pytest.mark.parametrize("segment_bytes", [1, 1000])
@pytest.mark.parametrize("text", list(TextStyle))
async def test_a_login_feedback_in_any_shape(serve: Serve, segment_bytes: int, text: TextStyle) -> None:
    server = await serve(2, segment_bytes=segment_bytes, text=text, picture_bytes=5)
    async with connect(server) as cycler:
        assert cycler.channels == range(1, 3)


@pytest.mark.parametrize("policy", [ChecksumPolicy.WARN, ChecksumPolicy.IGNORE])
@pytest.mark.parametrize("checksum", list(ChecksumStyle))
async def test_a_login_feedback_with_any_checksum(
    serve: Serve, policy: ChecksumPolicy, checksum: ChecksumStyle
) -> None:
    async with connect(await serve(2, checksum=checksum), checksum=policy) as cycler:
        assert cycler.channels == range(1, 3)


async def test_already_logged_in_is_usable(serve: Serve) -> None:
    async with connect(await serve(4, results=(ForcedResult("login", 3),))) as cycler:
        assert cycler.info.result.reason == "already_logged_in"
        assert len(await cycler.read_channels()) == 4


@pytest.mark.parametrize("credentials", [Credentials(ADMIN.name, "wrong"), Credentials("nobody", "admin")])
async def test_a_refused_login_says_what_to_do(serve: Serve, credentials: Credentials) -> None:
    server = await serve(4)
    error = await refusal(connect(server, credentials))
    assert isinstance(error, LoginRefusedError)
    assert str(error) == (
        f"cycler-1: login as {credentials.username!r} refused (failed); "
        "check user name and password, and that the user is registered in MITS Pro"
    )
    await until(lambda: server.connection_count == 0)


async def test_an_unknown_login_result_is_a_refusal(serve: Serve) -> None:
    error = await refusal(connect(await serve(4, results=(ForcedResult("login", 9),))))
    assert "refused (Unknown 9)" in str(error)


async def test_a_login_that_is_never_answered(serve: Serve) -> None:
    server = await serve(4, mute=frozenset({"login"}))
    error = await refusal(connect(server, timeout_s=SHORT_S))
    assert isinstance(error, NotConnectedError)  # trying again is safe
    assert str(error) == (
        "cycler-1: no answer to login within 0.15 s; is the Monitor & Control window open there, and CTI enabled?"
    )
    await until(lambda: server.connection_count == 0)


async def test_a_peer_that_hangs_up_on_the_login(script: Script, spawn: Spawn) -> None:
    attempt = spawn(refusal(connect(script)))
    peer = await script.accept()
    await peer.receive()
    peer.send(pack_message(login_feedback())[:100])
    peer.writer.close()
    error = await attempt
    assert isinstance(error, NotConnectedError)
    assert "in the middle of a message (100 bytes)" in str(error)


async def test_a_server_without_login(serve: Serve) -> None:
    error = await refusal(connect(await serve(4, unknown=frozenset({"login"}))))
    assert isinstance(error, UnsupportedCommandError)


async def test_a_login_feedback_with_an_absurd_number_of_channels(script: Script, spawn: Spawn) -> None:
    """A damaged one: believing it would cost gigabytes."""
    attempt = spawn(refusal(connect(script)))
    await (await script.accept()).accept_login(0xFFFF_FFFF)
    error = await attempt
    assert isinstance(error, ProtocolError)
    assert "4294967295 channels" in str(error)


@pytest.mark.parametrize("length", [32, 33])
async def test_a_user_name_and_a_password_fill_their_fields(script: Script, spawn: Spawn, length: int) -> None:
    text = "x" * length
    if length == 32:
        session = spawn(connect(script, Credentials(text, text)).__aenter__())
        assert await (await script.accept()).accept_login() == LoginRequest(text, text)
        await session
    else:
        error = await refusal(connect(script, Credentials(ADMIN.name, text)))
        assert isinstance(error, InvalidRequestError)
        assert text not in str(error)


# --- connecting ---


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))  # bound, so nobody else listens there either
        script = Script()
        script.port = taken.getsockname()[1]
        error = await refusal(connect(script))
    assert isinstance(error, NotConnectedError)
    assert str(error).startswith(f"cycler-1: cannot connect to {HOST}:{script.port}: ")


@pytest.mark.parametrize("host", ["no..name", "x" * 64])
async def test_a_host_that_no_name_can_be(host: str) -> None:
    error = await refusal(Cycler.connect(Endpoint("cycler-1", host), CREDENTIALS))
    assert isinstance(error, NotConnectedError)
    assert f"cannot connect to {host}:9031" in str(error)


async def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forever(*_: Any, **__: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", forever)
    error = await refusal(connect(Script(), timeout_s=0.05))
    assert isinstance(error, NotConnectedError)
    assert str(error) == f"cycler-1: no answer from {HOST}:0 within 0.05 s"


async def test_cancelled_while_logging_in(script: Script, spawn: Spawn) -> None:
    attempt = spawn(refusal(connect(script)))
    peer = await script.accept()
    await peer.receive()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert await peer.ended()


async def test_the_session_ends_with_its_block(script: Script, spawn: Spawn) -> None:
    with suppress(KeyError):
        async with script.session() as (cycler, peer):
            stop = spawn(cycler.stop(1))
            await peer.receive()
            raise KeyError
    with pytest.raises(ConnectionLostError, match="closed on this side"):
        await stop
    assert await peer.ended()
    with pytest.raises(NotConnectedError, match="closed on this side"):
        await cycler.stop(1)
    assert isinstance(await cycler.wait_closed(), NotConnectedError)


async def test_a_dead_peer_is_noticed_without_asking(script: Script) -> None:
    async with script.line() as (connection, _):
        assert connection._transport
        peer = connection._transport.get_extra_info("socket")
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# --- the end ---


async def test_the_peer_closes_in_the_middle_of_a_message(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        stop, start = spawn(cycler.stop(1)), spawn(cycler.start([1], "A"))
        waiting = spawn(cycler.start([2], "B"))
        await peer.receive(2)
        peer.send(pack_message(StopFeedback(0, 0))[:64])  # type: ignore[arg-type]
        peer.writer.close()
        for task in (stop, start):
            with pytest.raises(
                ConnectionLostError, match=r"closed the connection in the middle of a message \(64 bytes"
            ):
                await task
        with pytest.raises(NotConnectedError):
            await waiting
        assert isinstance(await cycler.wait_closed(), ConnectionLostError)


@pytest.mark.parametrize("frames", [0, 1, 7])
async def test_a_poll_that_is_cut_short(serve: Serve, frames: int) -> None:
    server = await serve(16)
    async with connect(server) as cycler:
        server.faults = type(server.faults)(cut_after_frames=frames)
        if frames:
            assert len(await cycler.read_channels()) == frames
        else:
            with pytest.raises(ConnectionLostError):
                await cycler.read_channels()
        await cycler.wait_closed()


async def test_the_peer_resets_the_connection(serve: Serve, spawn: Spawn) -> None:
    server = await serve(4, drop=frozenset({"stop"}))
    async with connect(server) as cycler:
        stop = spawn(cycler.stop(1))
        await until(lambda: server.recorder.commands("stop"))
        server.disconnect_all()
        with pytest.raises(ConnectionLostError):
            await stop


async def test_a_peer_that_fell_silent(script: Script, spawn: Spawn) -> None:
    """Half open: nothing ends the connection but the time-out of a request."""
    async with script.session(timeout_s=SHORT_S) as (cycler, _):
        closed = spawn(cycler.wait_closed())
        with pytest.raises(FeedbackTimeoutError):
            await cycler.read_channels()
        assert isinstance(await closed, FeedbackTimeoutError)
        with pytest.raises(NotSentError):
            await cycler.ping()


async def test_one_who_waits_for_the_end_may_give_up(script: Script, spawn: Spawn) -> None:
    async with script.session() as (cycler, peer):
        first, second = spawn(cycler.wait_closed()), spawn(cycler.wait_closed())
        await asyncio.sleep(0)
        first.cancel()
        peer.writer.close()
        assert isinstance(await second, ConnectionLostError)


async def test_ending_twice_is_ending_once(script: Script) -> None:
    async with script.line(timeout_s=1.0) as (connection, peer):
        connection.close(NotConnectedError("first"))
        connection.close(NotConnectedError("second"))
        assert str(connection.closed.result()) == "first"
        assert await peer.ended()
        assert str(connection.closed.result()) == "first"
        with pytest.raises(NotConnectedError, match="first"):
            await connection.ask(SingleExchange(ConnectRequest()))


async def test_what_comes_after_the_end_counts_for_nothing(script: Script, spawn: Spawn) -> None:
    async with script.line(timeout_s=1.0) as (connection, peer):
        exchange = SingleExchange(StopRequest(0), 0)
        stop = spawn(connection.ask(exchange))
        await peer.receive()
        connection.close(FeedbackTimeoutError("too late"))
        connection.data_received(pack_message(StopFeedback(0, 0)))  # type: ignore[arg-type]
        with pytest.raises(ConnectionLostError):
            await stop


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda: SingleExchange(StopRequest(0), 0), StopFeedback(0, 0)),  # type: ignore[arg-type]
        (lambda: ReadExchange(ChannelsInfoRequest(), [0, 1]), readings(0, 1)),
    ],
)
async def test_what_was_answered_does_not_time_out(
    script: Script, spawn: Spawn, make: Callable[[], Exchange[Any]], answer: Any
) -> None:
    async with script.line(timeout_s=0.05) as (connection, peer):
        asked = spawn(connection.ask(make()))
        await peer.receive()
        peer.send(answer)
        await asked
        await asyncio.sleep(0.1)
        assert not connection.closed.done()


# --- passwords ---


def test_a_password_is_not_shown() -> None:
    assert repr(SECRET) == "Credentials(username='admin')"
    assert SECRET.password not in str(SECRET)


async def attempts(server: SimulatedServer, script: Script) -> list[CtiMqttError]:
    """Everything that can go wrong with a login."""
    dead = Script()
    unfit = [Credentials(ADMIN.name, SECRET.password + tail) for tail in ("x" * 30, "\0", "\ud800")]
    cases: list[tuple[SimulatedServer | Script, Credentials]] = [
        (server, SECRET),
        (script, SECRET),
        (dead, SECRET),
        *((server, credentials) for credentials in unfit),
    ]
    return [await refusal(connect(target, credentials, timeout_s=SHORT_S)) for target, credentials in cases]


async def test_a_password_is_in_no_log_and_no_error(
    serve: Serve, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = await serve(4, junk_bytes=3, checksum=ChecksumStyle.WRONG)
    for error in await attempts(server, script):
        text = "".join(traceback.format_exception(error)) + repr(error)
        assert SECRET.password not in text
        assert SECRET.password not in str(error.__context__)
    assert len(caplog.records) > 3
    assert SECRET.password not in caplog.text
