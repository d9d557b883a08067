"""With a stalled server, a stop is on the wire before every write that had not been handed to the socket."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.client.connection import Connection
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.session import LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest, StopRequest
from cti_mqtt.cti.messages.variables import SetMetaVariableRequest, UpdateMetaVariablesRequest
from cti_mqtt.cti.stream import ChecksumPolicy, Received, Stream, pack_message
from cti_mqtt.simulator import ManualClock, Session, SimulatedCycler, SimulatedServer, User
from tests.support.brokers import HOST, MOSQUITTO_5, MOSQUITTO_311, BrokerKind, broker_of_kind, needs_mosquitto
from tests.support.observer import Observer
from tests.support.rig import PASSWORD, quick_backoff, settings

pytestmark = needs_mosquitto

CHANNELS = 128
WRITES = 500
STOPPED = 77
LEFT_BEHIND = 200  # writes that the buffers between the two must not have swallowed
SMALL_BUFFER = 2048  # bytes; the system makes of it what it deems the least
SETTLED_S = 0.6  # three times as long as the bridge gathers writes


@dataclass(eq=False)
class Stalling(asyncio.Protocol):
    """A server that answers properly, and at a word stops reading, as if its PC hung.

    Attributes:
        requests: in the order in which they came off the wire.
    """

    cycler: SimulatedCycler
    requests: list[Any] = field(default_factory=list)
    port: int = 0
    file_port: int = 1  # nobody asks for files

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.session: Session = self.cycler.open_session()
        self.stream = Stream(Direction.REQUEST, ChecksumPolicy.STRICT)

    def data_received(self, data: bytes) -> None:
        for event in self.stream.feed(data):
            assert isinstance(event, Received)
            self.requests.append(event.message)
            for feedback in self.cycler.handle(event.message, self.session):
                self.transport.write(pack_message(feedback))

    def stall(self) -> None:
        self.transport.pause_reading()
        self.requests.clear()

    def wake(self) -> None:
        self.transport.resume_reading()


@asynccontextmanager
async def stalling_server() -> AsyncIterator[Stalling]:
    """A cycler on which every channel runs a test."""
    cycler = SimulatedCycler(CHANNELS, clock=ManualClock(), users=[User("admin", PASSWORD, super_user=True)])
    operator = cycler.open_session()
    for request in (
        LoginRequest("admin", PASSWORD),
        AssignRequest(0, all_channels=True, schedule="ClosedLoop.sdx"),
        StartRequest("T1", tuple(range(CHANNELS))),
    ):
        assert all(feedback.result in {0, 1} for feedback in cycler.handle(request, operator))
    server = Stalling(cycler)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)  # what it accepts has the same
    listening.bind((HOST, 0))
    server.port = listening.getsockname()[1]
    async with await asyncio.get_running_loop().create_server(lambda: server, sock=listening):
        yield server


@asynccontextmanager
async def bridge_on(server: Stalling, kind: BrokerKind, folder: Path) -> AsyncIterator[tuple[Observer, Connection]]:
    """A bridge that has begun to poll, and its session with the server; who hears what it says."""
    servers = {"arbin1": cast("SimulatedServer", server)}
    async with broker_of_kind(kind, folder) as port, Observer.connect(port, kind.protocol) as observer:
        slow = {"poll_interval_s": 1.0, "timeout_s": 40.0}
        configured = settings(port, kind.protocol, servers, slow, data_dir=str(folder / "data"))
        bridge, stop = Bridge(configured, backoff=quick_backoff), asyncio.Event()
        task = asyncio.create_task(bridge.run(stop), name="bridge under test")
        try:
            await observer.wait("arbin1/readings")
            await observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
            yield observer, bridge._stations["arbin1"].cycler._connection
        finally:
            server.wake()
            stop.set()
            await task


def writes_in(requests: Iterable[Any]) -> list[tuple[int, int]]:
    """Channel (on the wire) and code of every variable that these requests write, singly or many at once."""
    found = []
    for request in requests:
        match request:
            case SetMetaVariableRequest(channel=channel, meta_code=code):
                found.append((channel, code))
            case UpdateMetaVariablesRequest(updates=updates):
                found += [(entry.channel, entry.meta_code) for entry in updates.entries]
    return found


def note_handed_over(connection: Connection) -> list[Any]:
    """From now on: what goes to the socket, which is made to hold little."""
    assert connection._transport is not None
    peer: socket.socket = connection._transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    handed: list[Any] = []
    send = connection._send

    def noted(transport: asyncio.Transport, waiting: Any) -> None:
        send(transport, waiting)
        if waiting.exchange.sent:
            handed.append(waiting.exchange.request)

    connection._send = noted  # type: ignore[method-assign]
    return handed


def say_writes(observer: Observer) -> None:
    """Every one for another variable, so that none supersedes another; on both kinds of topic."""
    for number in range(WRITES):
        channel, variable, value = 1 + number % CHANNELS, 1 + number // CHANNELS, 0.001 * (number + 1)
        command = f"arbin1/channel/{channel}/command"
        if number % 2:
            observer.say(f"{command}/set_mv", {"id": f"w{number}", "values": {str(variable): value}})
        else:
            observer.say(f"{command}/mv/{variable}", json.dumps(value).encode())


async def settled(count: Callable[[], int]) -> int:
    """A number that has stopped growing."""
    while True:
        before = count()
        await asyncio.sleep(SETTLED_S)
        if count() == before:
            return before


@pytest.mark.parametrize("kind", [MOSQUITTO_5, MOSQUITTO_311], ids=str)
async def test_a_stop_overtakes_what_was_not_handed_to_the_socket(kind: BrokerKind, tmp_path: Path) -> None:
    async with stalling_server() as server, bridge_on(server, kind, tmp_path) as (observer, connection):
        server.stall()
        handed = note_handed_over(connection)
        say_writes(observer)
        # The broker keeps the order: once this one is refused, all before it were heard.
        observer.say("arbin1/channel/1/command/nonsense", {"id": "last"})
        await observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "last")
        gone = await settled(lambda: len(writes_in(handed)))
        assert gone <= WRITES - LEFT_BEHIND, "the buffers took so much that there was nothing to overtake"

        observer.say(f"arbin1/channel/{STOPPED}/command/stop", {"id": "stop"})
        observer.say("arbin1/channel/1/command/nonsense", {"id": "after"})
        await observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "after")
        server.wake()
        stopped = await observer.wait(f"arbin1/channel/{STOPPED}/result", lambda heard: heard.json["id"] == "stop")
        assert stopped.json["outcome"] == "succeeded"

        def answered() -> bool:
            results = [heard for heard in observer.heard if heard.topic.endswith("/result")]
            return len([heard for heard in results if heard.json["command"] in {"set_mv", "mv"}]) == WRITES

        await observer.until(answered, 30, "every write has its result")
        position = server.requests.index(StopRequest(STOPPED - 1))
        assert len(writes_in(server.requests[:position])) == gone
        after = writes_in(server.requests[position:])
        assert len(after) >= LEFT_BEHIND
        assert len(set(after)) == len(after)
