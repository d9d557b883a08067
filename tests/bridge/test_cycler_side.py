"""What can go wrong between bridge and cycler: each fault has an event that a user sees, and readings come back.

A TCP proxy stands between them. Each test ends with polls that bring every channel again, one at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.cti.stream import ChecksumPolicy, pack_message
from cti_mqtt.simulator import NO_FAULTS, Faults, ForcedResult, Identity, SimulatedClock, SimulatedCycler, User
from cti_mqtt.simulator.faults import AnswerStyle
from tests.client.conftest import login_feedback
from tests.support.brokers import AMQTT, HOST, MOSQUITTO, MOSQUITTO_5, broker_of_kind
from tests.support.observer import Heard, Observer
from tests.support.proxy import Corrupt, Pass, Proxy, Stall, Truncate
from tests.support.rig import PASSWORD, QUICK, Rig, quick_backoff, settings, simulated

KIND = MOSQUITTO_5 if MOSQUITTO else AMQTT
CHANNELS = 4
INTERVAL_S, TIMEOUT_S = 0.2, 1.0
SLACK_S = 0.5  # for a busy machine
BUSY_S = 2.0  # the same, where nothing is concluded from less


class Line(Rig):
    """A bridge, a cycler and the proxy between them."""

    proxy: Proxy

    def events(self, *types: str) -> list[dict[str, Any]]:
        """The events of these types, the cycler's own."""
        return [heard.json for heard in self.observer.on("arbin1/event") if heard.json["type"] in types]

    async def event(self, kind: str, text: str = "", timeout_s: float = 15.0) -> dict[str, Any]:
        """The first event of a type with a text in its message."""
        heard = await self.observer.wait("arbin1/event", partial(_is_event, kind, text), timeout_s)
        found = heard.json
        assert isinstance(found, dict)
        return found

    async def polls(self, count: int, channels: int = CHANNELS) -> list[dict[str, Any]]:
        """The next so many polls; all channels are in them."""
        before = len(self.observer.on("arbin1/readings"))
        await self.observer.until(lambda: len(self.observer.on("arbin1/readings")) >= before + count)
        polls = [heard.json for heard in self.observer.on("arbin1/readings")[before:]]
        assert [len(poll["channels"]) for poll in polls] == [channels] * len(polls)
        return polls

    async def recovered(self, channels: int = CHANNELS) -> None:
        """Logged in, every channel online, and readings come."""
        await self.observer.until_last("arbin1/availability", b"online")
        await self.observer.wait("arbin1/readings", lambda heard: heard is self.observer.last("arbin1/readings"))
        for channel in range(1, channels + 1):
            await self.observer.until_last(f"arbin1/channel/{channel}/availability", b"online")
        await self.polls(2, channels)

    def check(self) -> None:
        """No poll is missing or doubled since the broker is there, none was asked for before its time."""
        numbers = [heard.json["seq"] for heard in self.observer.on("arbin1/readings")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)) if numbers else [])
        times: dict[int, list[float]] = {}
        for asked in self.asked("channels_info"):
            times.setdefault(asked["connection"], []).append(datetime.fromisoformat(asked["time"]).timestamp())
        for each in times.values():
            assert len(each) - 1 <= (each[-1] - each[0] + SLACK_S) / INTERVAL_S, "polls pile up"


@asynccontextmanager
async def line(
    folder: Path, *, faults: Faults = NO_FAULTS, cycler: Mapping[str, Any] | None = None
) -> AsyncIterator[Line]:
    """A bridge that runs, through a proxy; it need not be connected yet."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(broker_of_kind(KIND, folder))
        server = await stack.enter_async_context(simulated(CHANNELS, faults))
        proxy = await stack.enter_async_context(Proxy(HOST, server.port))
        observer = await stack.enter_async_context(Observer.connect(broker, KIND.protocol))
        stop = asyncio.Event()
        own = {"port": proxy.port, "poll_interval_s": INTERVAL_S, "timeout_s": TIMEOUT_S, **(cycler or {})}
        config = settings(broker, KIND.protocol, {"arbin1": server}, own, data_dir=folder)
        bridge = Bridge(config, backoff=quick_backoff, timing=QUICK)
        it = Line({"arbin1": server}, observer, stop, bridge)
        it.proxy = proxy
        task = asyncio.create_task(bridge.run(stop), name="bridge under test")
        try:
            yield it
            it.check()
        finally:
            stop.set()
            await task


# --- silence ---


async def test_half_open(tmp_path: Path) -> None:
    """The peer's power is gone: bytes go nowhere, and nothing ends the connection."""
    loop = asyncio.get_running_loop()
    async with line(tmp_path) as it:
        await it.ready()
        await it.polls(2)
        it.proxy.both(Stall())
        began = loop.time()
        await it.observer.wait("arbin1/channel/1/availability", lambda heard: heard.payload == b"stale")
        assert loop.time() - began < 4 * INTERVAL_S + BUSY_S
        await it.observer.wait("arbin1/channel/1/state", lambda heard: heard.json["quality"] == "stale")
        said = await it.event("disconnected", "no answer to channels info within 1 s")
        assert said["message"].startswith("arbin1: ")
        assert loop.time() - began < TIMEOUT_S + INTERVAL_S + BUSY_S
        await it.observer.until_last("arbin1/availability", b"offline")
        await it.observer.until_last("arbin1/channel/1/availability", b"offline")
        await it.event("disconnected", "no answer to login")
        await asyncio.sleep(TIMEOUT_S + 0.5)  # several attempts
        assert len(it.events("disconnected")) == 2
        it.proxy.both(Pass())
        await it.event("reconnected")
        await it.recovered()


async def test_polls_that_are_never_answered(tmp_path: Path) -> None:
    """The login is: it begins and ends again and again, and is told five times, not for ever."""
    async with line(tmp_path, cycler={"timeout_s": 0.2}) as it:
        await it.ready()
        before = len(it.observer.heard)
        it.server.faults = Faults(drop=frozenset({"channels_info"}))
        await it.event("disconnected", "no answer to channels info")
        await it.observer.until(lambda: len(it.asked("login")) >= 10)
        assert len(it.events("disconnected")) == 5
        assert len(it.events("reconnected")) == 5
        await it.observer.wait(
            "bridge/health",
            lambda heard: any(reason.startswith("arbin1: ") for reason in heard.json["reasons"]),
            after=before,
        )
        it.server.faults = NO_FAULTS
        await it.recovered()


async def test_an_answer_that_comes_too_late_counts_for_nothing(tmp_path: Path) -> None:
    """Test time and arrival grow together, unless an answer is taken for that to a later poll."""
    async with line(tmp_path) as it:
        _start_all(it.server.cycler)
        await it.ready()
        before = await it.polls(2)
        it.proxy.to_client = Stall()
        await it.event("disconnected", "no answer to channels info")
        it.proxy.to_client = Pass()  # now it comes
        await it.recovered()
        _check_attribution(before + [heard.json for heard in it.observer.on("arbin1/readings")])


async def test_the_rest_of_an_answer_that_comes_too_late_counts_for_nothing(tmp_path: Path) -> None:
    """Half of the channels come, the others when the poll is over: they are not the next poll's."""
    slow = Faults(record_delay_s=0.9)
    async with line(tmp_path, cycler={"timeout_s": 8.0}) as it:
        _start_all(it.server.cycler)
        await it.ready()
        await it.polls(1)
        it.server.faults = slow
        asked = len(it.asked("channels_info"))
        seen = it.proxy.counts.to_client
        await _until(lambda: it.proxy.counts.to_client > seen and len(it.asked("channels_info")) > asked)
        it.proxy.to_client = Stall()
        said = await it.event("readings_incomplete")
        assert "of 4 channels; missing: " in said["message"]
        it.server.faults = NO_FAULTS
        it.proxy.to_client = Pass()
        await it.event("readings_complete")
        await it.event("garbage", "parts of answers that came too late")
        await it.recovered()
        assert not it.events("disconnected")
        polls = [heard.json for heard in it.observer.on("arbin1/readings")]
        _check_attribution([poll for poll in polls if len(poll["channels"]) == CHANNELS])


# --- ends ---


async def test_half_a_message_and_the_end(tmp_path: Path) -> None:
    async with line(tmp_path) as it:
        await it.ready()
        it.proxy.to_client = Truncate(100)
        await it.event("disconnected", "closed the connection in the middle of a message (100 bytes)")
        await it.event("reconnected")
        await it.recovered()


async def test_a_reset_and_nobody_there_for_a_while(tmp_path: Path) -> None:
    async with line(tmp_path) as it:
        await it.ready()
        await it.proxy.refuse()
        it.proxy.cut()
        await it.event("disconnected", "reset")
        await it.event("disconnected", "cannot connect to 127.0.0.1")
        await it.observer.until_last("arbin1/channel/4/availability", b"offline")
        await asyncio.sleep(0.5)
        assert len(it.events("disconnected")) == 2
        await it.proxy.accept()
        assert (await it.event("reconnected"))["message"] == "logged in, 4 channels"
        await it.recovered()


async def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    async with line(tmp_path, cycler={"host": "no..name"}) as it:
        await it.event("disconnected", "cannot connect to no..name")
        await asyncio.sleep(0.5)
        assert len(it.events("disconnected")) == 1


# --- garbage ---


async def test_garbage_between_messages(tmp_path: Path) -> None:
    async with line(tmp_path) as it:
        await it.ready()
        it.server.faults = Faults(junk_bytes=33)
        said = await it.event("garbage", "bytes that make no message (last: no frame begins here)")
        assert said["after"] >= 1
        await it.polls(5)
        it.server.faults = NO_FAULTS
        await it.recovered()
        assert len(it.events("garbage")) == 1
        assert not it.events("disconnected")


async def test_flipped_bits(tmp_path: Path) -> None:
    """With `strict`, a damaged reading is no reading."""
    async with line(tmp_path, cycler={"checksum": ChecksumPolicy.STRICT.value}) as it:
        await it.ready()
        it.proxy.to_client = Corrupt(3e-4)
        await it.event("garbage", "bytes that make no message")
        it.proxy.to_client = Pass()
        await it.observer.until_last("arbin1/availability", b"online")
        await it.observer.until(
            lambda: [len(heard.json["channels"]) for heard in it.observer.on("arbin1/readings")[-3:]] == [4] * 3
        )
        await it.recovered()


# --- login ---


async def test_a_login_refused_and_later_accepted(tmp_path: Path) -> None:
    faults = Faults(results=(ForcedResult("login", 2),))
    async with line(tmp_path, faults=faults) as it:
        await it.event("login_refused", "check user name and password")
        await it.observer.until(lambda: len(it.asked("login")) >= 5)
        assert len(it.events("login_refused")) == 1
        await it.observer.until_last("arbin1/availability", b"offline")
        it.server.faults = NO_FAULTS
        await it.event("connected")
        await it.recovered()


async def test_two_reasons_that_alternate_are_each_told_once(tmp_path: Path) -> None:
    async with line(tmp_path, cycler={"timeout_s": 0.2}) as it:
        await it.ready()
        for _ in range(4):
            logins = len(it.asked("login"))
            it.server.faults = Faults(results=(ForcedResult("login", 2),))
            it.server.disconnect_all()
            await _until(lambda logins=logins: len(it.asked("login")) >= logins + 2)
            logins = len(it.asked("login"))
            it.server.faults = Faults(mute=frozenset({"login"}))
            await _until(lambda logins=logins: len(it.asked("login")) >= logins + 2)
        assert len(it.events("login_refused")) == 1
        assert len([event for event in it.events("disconnected") if "login" in event["message"]]) == 1
        it.server.faults = NO_FAULTS
        await it.recovered()


# --- another cycler, another test ---


async def test_a_server_that_starts_again_with_a_new_test(tmp_path: Path) -> None:
    async with line(tmp_path) as it:
        _start_all(it.server.cycler, "before")
        await it.ready()
        await it.server.unplug()
        await it.event("disconnected")
        it.server.cycler = _cycler()
        _start_all(it.server.cycler, "after")
        await it.server.replug()
        await it.event("reconnected")
        for channel in range(1, CHANNELS + 1):
            for kind, name in (("test_finished", "before"), ("test_started", "after")):
                await it.observer.wait(f"arbin1/channel/{channel}/event", partial(_is_event, kind, name))
        await it.recovered()


async def test_fewer_channels_and_another_serial_number(tmp_path: Path) -> None:
    async with line(tmp_path) as it:
        await it.ready()
        it.server.cycler = _cycler(2, "SIM-000002")
        it.server.disconnect_all()
        said = await it.event("channel_count_changed")
        assert (said["before"], said["after"]) == (4, 2)
        said = await it.event("cycler_changed")
        assert (said["before"], said["after"]) == ("SIM-000001", "SIM-000002")
        await it.observer.wait("arbin1/channel/4/availability", lambda heard: heard.payload == b"offline")
        await it.observer.wait(
            "arbin1/channel/4/state", lambda heard: heard.payload and heard.json["quality"] == "stale"
        )
        await it.recovered(2)
        seen = len(it.observer.heard)
        await it.polls(5, 2)  # from now on nothing is said of what is not there; topics may be cleared
        assert not [heard for heard in it.observer.heard[seen:] if "/channel/4/" in heard.topic and heard.payload]


async def test_a_cycler_that_has_no_channels_yet(tmp_path: Path) -> None:
    async def say_so(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(pack_message(login_feedback(channel_count=0)))
        await reader.read(-1)
        writer.close()

    async with line(tmp_path) as it, await asyncio.start_server(say_so, HOST, 0) as starting:
        await it.ready()
        it.proxy.target_port = starting.sockets[0].getsockname()[1]
        it.proxy.cut()
        await it.event("disconnected", "says that it has no channels")
        await it.observer.until_last("arbin1/availability", b"offline")
        it.proxy.target_port = it.server.port
        await it.event("reconnected")
        await it.recovered()
        assert not it.events("channel_count_changed")


# --- polls ---


async def test_polls_that_the_cycler_does_not_know(tmp_path: Path) -> None:
    async with line(tmp_path) as it:
        await it.ready()
        it.server.faults = Faults(unknown=frozenset({"channels_info"}))
        await it.event("poll_failed", "does not know the command channels info")
        await it.observer.until_last("arbin1/channel/1/availability", b"stale")
        why = ["arbin1: no poll for too long"]
        await it.observer.wait_last("bridge/health", lambda heard: heard.json["reasons"] == why)
        assert len(it.events("poll_failed")) == 1
        it.server.faults = NO_FAULTS
        await it.recovered()
        assert not it.events("disconnected")


async def test_polls_that_lack_channels(tmp_path: Path) -> None:
    async with line(tmp_path, cycler={"timeout_s": 0.5}) as it:
        await it.ready()
        it.server.faults = Faults(answer=AnswerStyle.FIRST_ONLY)
        said = await it.event("readings_incomplete", "a poll brought 1 of 4 channels; missing: 2-4")
        assert (said["before"], said["after"]) == (4, 1)
        await it.event("readings_complete")  # each channel is asked for by itself
        await it.observer.wait("arbin1/channel/4/availability", lambda heard: heard.payload == b"stale")
        await it.observer.until_last("arbin1/channel/4/availability", b"online")
        it.server.faults = NO_FAULTS
        it.server.disconnect_all()
        await it.event("reconnected")
        await it.recovered()


async def test_slow_polls_skip_beats(tmp_path: Path) -> None:
    async with line(tmp_path) as it:
        await it.ready()
        it.server.faults = Faults(delays_s={"channels_info": 0.5})
        said = await it.event("polls_skipped", "the interval is 0.2 s: beats are skipped")
        assert said["after"] >= 1
        await it.polls(4)
        assert len(it.events("polls_skipped")) == 1
        assert it.observer.last("arbin1/channel/1/availability").payload == b"online"  # type: ignore[union-attr]
        it.server.faults = NO_FAULTS
        said = await it.event("polls_in_time", "polls are in time again")
        assert said["before"] >= 4
        await it.recovered()


# --- helpers ---


def _is_event(kind: str, text: str, heard: Heard) -> bool:
    return heard.json["type"] == kind and text in heard.json["message"]


def _cycler(channels: int = CHANNELS, serial: str = "SIM-000001") -> SimulatedCycler:
    return SimulatedCycler(
        channels,
        clock=SimulatedClock(1.0),
        users=[User("admin", PASSWORD, super_user=True)],
        identity=Identity(serial=serial),
    )


def _start_all(cycler: SimulatedCycler, name: str = "T") -> None:
    for index in range(cycler.channel_count):
        cycler.channel(index).assign(cycler.schedules["Rest.sdx"])
        cycler.channel(index).start(name)


def _check_attribution(polls: list[dict[str, Any]]) -> None:
    """All readings of a poll were taken at one time, and that was the time of the poll."""
    ages = [
        datetime.fromisoformat(poll["ts"]).timestamp() - channel["test_time_s"]
        for poll in polls
        for channel in poll["channels"]
    ]
    assert max(ages) - min(ages) < TIMEOUT_S, sorted({round(age - min(ages), 1) for age in ages})
    assert all(first["seq"] < second["seq"] for first, second in pairwise(polls[2:]))


async def _until(condition: Any) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.01)
