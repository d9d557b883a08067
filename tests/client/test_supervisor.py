"""Staying connected: log in again after every end, and wait longer and longer in between."""

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from operator import ne
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.client import Backoff, Cycler, Supervisor
from cti_mqtt.client import supervisor as supervisor_module
from cti_mqtt.errors import (
    ConnectionLostError,
    CtiMqttError,
    FeedbackTimeoutError,
    LoginRefusedError,
    NotConnectedError,
)
from cti_mqtt.simulator import Faults, ForcedResult, SimulatedServer

from .conftest import SHORT_S, Serve, Spawn, connect, until


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Cycler | CtiMqttError] = []

    def connected(self, cycler: Cycler) -> None:
        self.told.append(cycler)

    def disconnected(self, reason: CtiMqttError) -> None:
        self.told.append(reason)

    @property
    def kinds(self) -> list[type[Any]]:
        return [type(each) for each in self.told]


class Waits:
    """A source of randomness that waits next to nothing and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def __call__(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return 0.001


def has(listener: Listener, kind: type[Any], count: int) -> bool:
    """Whether it was told of that so often."""
    return listener.kinds.count(kind) == count


def supervise(server: SimulatedServer, listener: Listener, **endpoint: Any) -> Supervisor:
    def session() -> AbstractAsyncContextManager[Cycler]:
        return connect(server, **endpoint)

    return Supervisor(session, listener, Backoff(0.001, 0.01))


def logins(server: SimulatedServer) -> int:
    return len(server.recorder.commands("login"))


# --- back-off ---


def test_waits_double_up_to_the_longest() -> None:
    waits = Waits()
    backoff = Backoff(uniform=waits)
    for _ in range(8):
        backoff.next_s()
    assert waits.asked == [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (30, 60), (30, 60), (30, 60)]
    backoff.reset()
    backoff.next_s()
    assert waits.asked[-1] == (1, 2)


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_every_wait_is_between_1_and_60_s(count: int, rng: Any) -> None:
    backoff = Backoff(uniform=rng.uniform)
    waits = [backoff.next_s() for _ in range(count)]
    assert all(1 <= wait <= 60 for wait in waits)
    assert all(wait >= min(2**index, 30) for index, wait in enumerate(waits))


def test_two_clients_do_not_come_at_once() -> None:
    first, second = Backoff(), Backoff()
    assert [first.next_s() for _ in range(8)] != [second.next_s() for _ in range(8)]


# --- sessions ---


async def test_before_the_first_session_there_is_no_cycler(serve: Serve) -> None:
    supervisor = supervise(await serve(4), Listener())
    with pytest.raises(NotConnectedError, match="not connected yet"):
        _ = supervisor.cycler


async def test_a_login_after_each_reconnect(serve: Serve, spawn: Spawn) -> None:
    server, listener = await serve(4), Listener()
    supervisor = supervise(server, listener)
    run = spawn(supervisor.run())
    for count in (1, 2, 3):
        await until(partial(has, listener, Cycler, count))
        assert supervisor.cycler is listener.told[-1]
        assert len(await supervisor.cycler.read_channels()) == 4
        server.disconnect_all()
        await until(partial(has, listener, ConnectionLostError, count))
    await until(lambda: listener.kinds.count(Cycler) == 4)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    sessions = [(entry["connection"], entry["command"]) for entry in server.recorder.entries]
    assert sessions == [(n, command) for n in (1, 2, 3) for command in ("login", "channels_info")] + [(4, "login")]
    await until(lambda: server.connection_count == 0)
    with pytest.raises(NotConnectedError):
        _ = supervisor.cycler


async def test_the_plug_is_pulled_for_a_while(serve: Serve, spawn: Spawn) -> None:
    server, listener = await serve(4), Listener()
    supervisor = supervise(server, listener)
    spawn(supervisor.run())
    await until(lambda: listener.told)
    await server.unplug()
    await until(lambda: listener.kinds.count(NotConnectedError) >= 3)
    with pytest.raises(NotConnectedError, match="cannot connect"):
        _ = supervisor.cycler
    assert logins(server) == 1
    await server.replug()
    await until(lambda: listener.kinds[-1] is Cycler)
    assert len(await supervisor.cycler.read_channels()) == 4
    assert logins(server) == 2


async def test_a_login_that_is_refused_is_tried_again(serve: Serve, spawn: Spawn) -> None:
    server = await serve(4, results=(ForcedResult("login", 2, times=3),))
    listener = Listener()
    supervisor = supervise(server, listener)
    spawn(supervisor.run())
    await until(lambda: Cycler in listener.kinds)
    assert listener.kinds == [LoginRefusedError] * 3 + [Cycler]
    assert supervisor.cycler.info.result.usable


async def test_a_silent_cycler_is_left_and_found_again(serve: Serve, spawn: Spawn) -> None:
    server = await serve(4)
    listener = Listener()
    supervisor = supervise(server, listener, timeout_s=SHORT_S)
    spawn(supervisor.run())
    await until(lambda: listener.told)
    server.faults = Faults(drop=frozenset({"stop"}))
    with pytest.raises(FeedbackTimeoutError):
        await supervisor.cycler.stop(1)
    await until(lambda: len(listener.told) >= 3)
    assert listener.kinds[1:3] == [FeedbackTimeoutError, Cycler]
    server.faults = Faults()
    assert await supervisor.cycler.stop(1) == 0x12
    assert len(server.recorder.commands("stop")) == 2  # the lost one was not sent again


@pytest.mark.parametrize(
    ("stable_s", "expected"),
    [(3600.0, [(1, 2), (2, 4), (4, 8), (8, 16)]), (0.0, [(1, 2)] * 4)],
)
async def test_waits_begin_anew_after_a_stable_session_only(
    serve: Serve,
    spawn: Spawn,
    monkeypatch: pytest.MonkeyPatch,
    stable_s: float,
    expected: list[tuple[float, float]],
) -> None:
    monkeypatch.setattr(supervisor_module, "STABLE_S", stable_s)
    server, listener, waits = await serve(4, cut_after_requests=1), Listener(), Waits()
    supervisor = Supervisor(lambda: connect(server), listener, Backoff(uniform=waits))
    spawn(supervisor.run())
    while len(waits.asked) < 4:
        await until(lambda: listener.told and isinstance(listener.told[-1], Cycler))
        asked = waits.asked.copy()
        with pytest.raises(ConnectionLostError):
            await supervisor.cycler.ping()
        await until(partial(ne, waits.asked, asked))
    assert waits.asked[:4] == expected


async def test_failed_attempts_do_not_count_as_stable(
    serve: Serve, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STABLE_S", 0.0)
    server, listener, waits = await serve(4, results=(ForcedResult("login", 2),)), Listener(), Waits()
    spawn(Supervisor(lambda: connect(server), listener, Backoff(uniform=waits)).run())
    await until(lambda: len(waits.asked) >= 3)
    assert waits.asked[:3] == [(1, 2), (2, 4), (4, 8)]


async def test_a_listener_with_a_bug_ends_the_session(serve: Serve) -> None:
    class Bug(Listener):
        def connected(self, cycler: Cycler) -> None:
            raise KeyError("bug")

    server = await serve(4)
    supervisor = supervise(server, Bug())
    with pytest.raises(KeyError, match="bug"):
        await supervisor.run()
    with pytest.raises(NotConnectedError):
        _ = supervisor.cycler
    await until(lambda: server.connection_count == 0)


async def test_by_default_the_first_wait_is_a_second(serve: Serve, spawn: Spawn) -> None:
    server, listener = await serve(4), Listener()
    await server.unplug()
    loop = asyncio.get_running_loop()
    began = loop.time()
    spawn(Supervisor(lambda: connect(server), listener).run())
    await until(lambda: len(listener.told) >= 2)
    assert loop.time() - began >= 0.99
