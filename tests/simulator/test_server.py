"""The server on a real socket, and a reader as plain as can be."""

from dataclasses import replace

import pytest

from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.channels import ChannelsInfoRequest
from cti_mqtt.cti.messages.service import UnknownCommandFeedback
from cti_mqtt.cti.messages.session import ConnectFeedback, ConnectRequest, LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest, StopFeedback, StopRequest
from cti_mqtt.cti.messages.variables import SetMetaVariableRequest
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.simulator import (
    ADMIN,
    ControlPolicy,
    ManualClock,
    SimulatedCycler,
    SimulatedServer,
)

from .conftest import LOGIN, PLAIN, READ_ALL, READ_ONE, Client, Connect, Serve, start_test, until

# --- the ordinary ---


async def test_frame_sizes(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve())
    assert len(client.received_bytes) == 8678
    await client.ask(PLAIN)
    assert len(client.received_bytes) - 8678 == 1779
    await client.ask(READ_ONE)
    assert len(client.received_bytes) - 8678 - 1779 == 1787
    await client.ask(StopRequest(0))
    assert len(client.received_bytes) - 8678 - 1779 - 1787 == 128


async def test_a_test_from_assignment_to_stop(serve: Serve, connect: Connect, clock: ManualClock) -> None:
    client = await connect(await serve())
    await start_test(client, "ClosedLoop.sdx", 2)
    (mv,) = await client.ask(SetMetaVariableRequest.of(2, 1, 1.5))
    assert (mv.channel, mv.result) == (2, 0)
    clock.advance(60.0)
    (reading,) = await client.ask(ChannelsInfoRequest(2))
    (record,) = reading.records
    assert (record.status, record.current, record.test_time) == (ChannelStatus.CHARGE, 1.5, 60.0)
    assert await client.ask(StopRequest(2)) == [StopFeedback(2, 0)]  # type: ignore[arg-type]
    assert (await client.ask(StopRequest(0, True), count=4))[2].result.reason == "not_running"


async def test_before_login_nothing_is_answered(serve: Serve, connect: Connect) -> None:
    server = await serve()
    client = await connect(server, login=False)
    client.send(READ_ALL, StopRequest(0))
    assert await client.silent()
    assert await client.ask(ConnectRequest(5)) == [ConnectFeedback(5, 0)]  # type: ignore[arg-type]
    (failed,) = await client.ask(LoginRequest("admin", "wrong"))
    assert failed.result.reason == "failed"
    client.send(READ_ALL)
    assert await client.silent()


async def test_requests_in_any_pieces(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve())
    for byte in pack_message(StopRequest(1)):
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    (answer,) = await client.events(1)
    assert answer.message.channel == 1
    assert len(await client.ask(StopRequest(0), StopRequest(1), StopRequest(2), count=3)) == 3


async def test_damaged_requests_are_not_carried_out(serve: Serve, connect: Connect) -> None:
    server = await serve()
    client = await connect(server)
    stop = pack_message(StopRequest(0))
    client.send(stop[:-1] + bytes([stop[-1] ^ 1]), b"junk")
    assert await client.silent()
    assert not server.recorder.commands("stop")


async def test_the_file_port_controls_nothing(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(), files=True)
    assert await client.ask(ConnectRequest(0)) == [ConnectFeedback(0, 0)]  # type: ignore[arg-type]
    assert await client.ask(StopRequest(0)) == [UnknownCommandFeedback(0xBB310001, 0)]
    assert await client.silent()


async def test_two_clients_do_not_disturb_each_other(connect: Connect, serve: Serve, clock: ManualClock) -> None:
    server = await serve(SimulatedCycler(2, clock=clock, control=ControlPolicy.FIRST))
    first, second = await connect(server), await connect(server)
    assert (await second.ask(StopRequest(0)))[0].result.reason == "monitor_window_in_use"
    assert (await first.ask(StopRequest(0)))[0].result.reason == "not_running"
    first.writer.close()
    await until(lambda: server.connection_count == 1)
    (login,) = await second.ask(LOGIN)
    assert login.allow_control


async def test_a_thousand_channels(serve: Serve, connect: Connect, clock: ManualClock) -> None:
    client = await connect(await serve(SimulatedCycler(1024, clock=clock)))
    for _ in range(3):
        clock.advance(1.0)
        feedbacks = await client.ask(READ_ALL, count=1024)
        assert [feedback.records[0].channel for feedback in feedbacks] == list(range(1024))


# --- listening and not listening ---


async def test_ports_are_taken_once(serve: Serve, cycler: SimulatedCycler) -> None:
    server = await serve()
    with pytest.raises(OSError, match=r".+"):
        async with SimulatedServer(cycler, port=server.port):
            pytest.fail("two servers on one port")


async def test_disconnect_all(serve: Serve, connect: Connect) -> None:
    server = await serve()
    client = await connect(server)
    assert server.connection_count == 1
    server.disconnect_all()
    assert await client.ended() == b""
    again = await connect(server)
    assert await again.ask(StopRequest(0))


async def test_unplugged_and_replugged(serve: Serve, connect: Connect, clock: ManualClock) -> None:
    server = await serve()
    ports = (server.port, server.file_port)
    client = await connect(server)
    await start_test(client)
    await server.unplug()
    assert await client.ended() == b""
    assert server.connection_count == 0
    with pytest.raises(OSError, match=r".+"):
        await connect(server)
    clock.advance(40.0)
    await server.replug()
    await server.replug()
    assert (server.port, server.file_port) == ports
    (reading,) = await (await connect(server)).ask(READ_ONE)
    assert reading.records[0].test_time == pytest.approx(40.0)


async def test_the_end_comes_while_answers_wait(serve: Serve, connect: Connect, cycler: SimulatedCycler) -> None:
    async with SimulatedServer(cycler) as server:
        client = await connect(server)
        server.faults = replace(server.faults, delay_s=1000.0)
        client.send(READ_ALL, StopRequest(0))
        await until(lambda: len(server.recorder.entries) == 3)
    assert await client.ended() == b""
    assert cycler.sessions == []


async def test_a_client_that_goes_away_leaves_nothing(serve: Serve, connect: Connect) -> None:
    server = await serve(delays_s={"channels_info": 1000.0})
    client = await connect(server)
    client.send(READ_ALL)
    client.writer.close()
    await until(lambda: server.connection_count == 0)
    assert server.cycler.sessions == []


# --- the record ---


async def test_what_was_asked_is_recorded(serve: Serve, connect: Connect, clock: ManualClock) -> None:
    server = await serve()
    clock.advance(12.5)
    client = await connect(server)
    await client.ask(AssignRequest(1, False, "ClosedLoop.sdx", barcode="B1"))
    await client.ask(StartRequest("T1", (1, 2)), count=2)
    await client.ask(SetMetaVariableRequest.of(1, 5, 0.5))
    await client.ask(READ_ALL, count=4)
    await client.ask(StopRequest(0, True), count=4)
    assert await client.silent()
    login, assign, start, set_mv, read, stop, unknown = server.recorder.entries
    assert {key: value for key, value in login.items() if key != "time"} == {
        "sim_time_s": 12.5,
        "connection": 1,
        "port": "control",
        "user": "admin",
        "command": "login",
        "arguments": {"user": "admin"},
        "answered": True,
        "results": [{"code": 1, "reason": "success"}],
    }
    assert ADMIN.password not in str(login["arguments"].keys())
    assert (assign["arguments"]["channel"], assign["arguments"]["schedule"]) == (2, "ClosedLoop.sdx")
    assert start["arguments"] == {"test_name": "T1", "channels": [2, 3]}
    assert start["results"] == [
        {"channel": 2, "code": 0, "reason": "ok"},
        {"channel": 3, "code": 0x15, "reason": "no_schedule_assigned"},
    ]
    assert (set_mv["arguments"]["index"], set_mv["arguments"]["value"]) == (5, 0.5)
    assert read["arguments"] == {"channel": None, "selection": "all", "aux_options": ["bms", "smb", "auxiliary"]}
    assert read["results"] == [{"readings": 4, "frames": 4}]
    assert (stop["arguments"], len(stop["results"])) == ({"channel": None, "all_channels": True}, 4)
    assert (unknown["command"], unknown["arguments"]) == ("unknown", {"code": "0x11223344"})


async def test_a_client_is_a_client(serve: Serve, connect: Connect) -> None:
    """The fixture itself: an end that comes too early is an error, not a wait."""
    client = await connect(await serve(cut_after_requests=1))
    with pytest.raises((EOFError, ConnectionError)):
        await client.ask(READ_ONE)
    assert isinstance(client, Client)
