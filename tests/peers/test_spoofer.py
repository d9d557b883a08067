"""Our clients and our bridge against pycti-arbin's ArbinSpoofer.

It puts its checksum behind the message, answers "all channels" with one record, drops the second of two requests in one
segment, says nothing to commands it does not know, grants no right to control and claims to be a MITS 7, as its login
feedback is zeros; and whatever it is told, its readings stay as they are.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyctiarbin import Msg
from pyctiarbin.arbinspoofer import ArbinSpoofer

from cti_mqtt import ChannelInterface, CyclerInterface
from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.client import Credentials, Cycler, Endpoint
from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.results import AssignResult, SetMetaVariableResult, StartResult, StopResult
from tests.peers.conftest import SPOOFED_CHANNELS, incumbent
from tests.support.brokers import AMQTT, HOST, broker_of_kind
from tests.support.observer import Observer
from tests.support.rig import QUICK, quick_backoff, settings

CHANNELS = range(1, SPOOFED_CHANNELS + 1)


def config(spoofer: Any, **more: Any) -> dict[str, Any]:
    names = {"test_name": "T1", "schedule_name": "CCCV.sdx"}
    return {"ip_address": HOST, "port": spoofer.port, "timeout_s": 2, **names, **more}


def reading(spoofer: ArbinSpoofer, channel: int, **values: float) -> None:
    spoofer.update_channel_status(channel - 1, values)


# --- the asyncio client ---


async def test_cycler(spoofer: Any) -> None:
    reading(spoofer, 2, voltage_v=3.5, status=2)
    endpoint = Endpoint("spoofer", HOST, spoofer.port, timeout_s=5)
    async with Cycler.connect(endpoint, Credentials("a", "b")) as cycler:
        assert list(cycler.channels) == list(CHANNELS)
        record = (await cycler.read_channel(2))[2]
        assert (record.voltage, record.status) == (3.5, ChannelStatus.CHARGE)
        assert [len(await cycler.read_channels()) for _ in range(3)] == [1, 1, SPOOFED_CHANNELS]
        assert await cycler.assign(2, "CCCV.sdx") is AssignResult.OK
        assert await cycler.start([2], "T1") == {2: StartResult.OK}
        assert await cycler.set_meta_variable(2, 1, 2.5) is SetMetaVariableResult.OK
        assert await cycler.stop(2) is StopResult.OK


# --- the synchronous API ---


def test_reads(spoofer: Any) -> None:
    with CyclerInterface(config(spoofer)) as cycler:
        assert cycler.get_num_channels() == SPOOFED_CHANNELS
        for channel in CHANNELS:
            reading(spoofer, channel, voltage_v=channel / 2)
        assert {n: status["voltage_v"] for n, status in cycler.read_all_channels().items()} == {1: 0.5, 2: 1, 3: 1.5}
        assert cycler.read_channel_status(2)["voltage_v"] == 1


def test_controls(spoofer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It says to be a MITS 7 and does not tell what values it holds, which takes two time-outs to find out."""
    with ChannelInterface(config(spoofer, channel=2, timeout_s=0.5)) as channel:
        assert channel.assign_schedule() is True
        assert channel.start_test() is True
        assert channel.set_meta_variable(16, 2.5) is True
        assert channel.stop_test() is True
    assert "does not tell its meta variables" in caplog.text


def test_dictionaries_are_those_of_pycti(spoofer: Any) -> None:
    with incumbent(config(spoofer)) as theirs, CyclerInterface(config(spoofer)) as ours:
        one, other = theirs.get_login_feedback(), ours.get_login_feedback()
        assert (one.pop("ip_address"), other.pop("ip_address")) == ("0000", "48.48.48.48")
        assert list(one.items()) == list(other.items())
        for channel in CHANNELS:
            one, other = theirs.read_channel_status(channel), ours.read_channel_status(channel)
            assert list(one.items()) == list(other.items())
            assert list(map(type, one.values())) == list(map(type, other.values()))


# --- the bridge ---


@asynccontextmanager
async def bridged(spoofer: Any, folder: Path, **cycler: Any) -> AsyncIterator[Observer]:
    """A bridge for it; who hears and commands."""
    async with broker_of_kind(AMQTT, folder) as port, Observer.connect(port, AMQTT.protocol) as observer:
        servers: Any = {"arbin1": SimpleNamespace(port=spoofer.port, file_port=spoofer.port)}
        chosen = settings(port, AMQTT.protocol, servers, cycler, data_dir=folder / "data")
        bridge = Bridge(chosen, backoff=quick_backoff, timing=QUICK)
        stop = asyncio.Event()
        task = asyncio.create_task(bridge.run(stop), name="bridge under test")
        try:
            yield observer
        finally:
            stop.set()
            await task


async def test_bridge_publishes_all_its_channels(spoofer: Any, tmp_path: Path) -> None:
    reading(spoofer, 3, voltage_v=3.25, status=4)
    async with bridged(spoofer, tmp_path) as observer:
        whole = await observer.wait(
            "arbin1/readings", lambda heard: len(heard.json["channels"]) == SPOOFED_CHANNELS, 20
        )
        last = whole.json["channels"][-1]
        assert (last["channel"], last["voltage_v"], last["status"]) == (3, 3.25, "Rest")
        await observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
        refused = await observer.ask("arbin1/channel/3", "start", {"test_name": "T1"})
        assert (refused["outcome"], refused["reason"]) == ("refused", "no_control_right")


async def test_bridge_controls_it(spoofer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its login feedback grants the right to control, which it does not by itself.

    Commands are given just after a poll: one in the segment of a poll's request would be dropped.
    """
    monkeypatch.setitem(Msg.Login.Server.msg_specific_template["allow_control"], "value", 1)
    async with bridged(spoofer, tmp_path, poll_interval_s=1) as observer:

        async def ask(verb: str, body: dict[str, Any]) -> Any:
            polls = len(observer.on("arbin1/readings"))
            await observer.until(lambda: len(observer.on("arbin1/readings")) > polls)
            return await observer.ask("arbin1/channel/3", verb, body)

        await observer.wait("bridge/availability", lambda heard: heard.payload == b"online")
        mits_7 = {"schedule": "CCCV.sdx", "capacity_ah": 2.5, "values": {str(n): 0.0 for n in range(1, 17)}}
        for verb, body in (("assign", mits_7), ("set_mv", {"values": {"1": 2.5}}), ("start", {"test_name": "T1"})):
            result = await ask(verb, body)
            assert (result["outcome"], result["code"]) == ("succeeded", 0), result
        assert result["verified"] is False  # its readings stay as they are
        stopped = await ask("stop", {})
        assert stopped["code"] == 0, stopped
