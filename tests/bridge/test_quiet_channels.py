"""Report by exception from the cycler to the subscriber: who is quiet, who is not, and what is never thinned out."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt import config
from cti_mqtt.bridge.bus import Poll, Reading
from cti_mqtt.bridge.by_exception import ReportByException
from cti_mqtt.bridge.clock import SystemClock
from cti_mqtt.bridge.mqtt.session import cut
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.outputs.plain import PlainOutput
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.topics import Topics
from tests.bridge.test_payloads import BOOT, READING
from tests.support.brokers import MOSQUITTO_5, BrokerKind, broker_of_kind, needs_mosquitto
from tests.support.observer import Heard
from tests.support.rig import Rig, rig

SELDOM = {"poll_interval_s": 20}  # the tests poll: however slow the machine is, nothing turns stale by itself


def states(it: Rig, channel: int) -> list[Heard]:
    return [heard for heard in it.observer.on(f"arbin1/channel/{channel}/state") if heard.payload]


def station(it: Rig) -> Station:
    return it.bridge._stations["arbin1"]


async def poll(it: Rig, times: int = 1) -> None:
    """Poll all channels; until the observer has what was published for it."""
    for _ in range(times):
        await station(it).refresh()
    seq = station(it).book.polls
    await it.observer.wait("arbin1/readings", lambda heard: heard.json["seq"] >= seq)


async def settled(it: Rig) -> None:
    """The bridge has connected to everything, and nothing is published for that any more."""
    await it.ready()
    await poll(it, 2)


# --- with a broker and a cycler ---


async def test_idle_channels_are_quiet_running_ones_are_not(port: int, kind: BrokerKind) -> None:
    async with rig(port, kind.protocol, channels=3, cycler=SELDOM, publish={"dead_bands": {}}) as it:
        await settled(it)
        quiet = [len(states(it, channel)) for channel in (2, 3)]
        started = await it.observer.ask("arbin1/channel/1", "start", {"test_name": "T", "schedule": "CCCV.sdx"})
        assert started["outcome"] == "succeeded"
        before = len(states(it, 1))
        await poll(it, 20)
        assert [len(states(it, channel)) for channel in (2, 3)] == quiet
        assert len(states(it, 1)) - before >= 20
        stopped = await it.observer.ask("arbin1/channel/1", "stop")
        assert stopped["verified"] is True
        await it.observer.until(lambda: states(it, 1)[-1].json["status"] == "Idle")

        # What must have everything has it.
        batches = [heard.json for heard in it.observer.on("arbin1/readings")]
        whole = [batch for batch in batches if len(batch["channels"]) > 1]  # the others looked for an effect
        assert [batch["seq"] for batch in batches] == list(range(1, len(batches) + 1))
        assert len(whole) > 20
        assert all([each["channel"] for each in batch["channels"]] == [1, 2, 3] for batch in whole)


async def test_bands_quieten_a_running_channel(port: int, kind: BrokerKind) -> None:
    publish = {"dead_bands": {"test_time_s": 0.5, "step_time_s": 1e9}}
    async with rig(port, kind.protocol, channels=1, cycler=SELDOM, publish=publish) as it:
        await settled(it)
        await it.observer.ask("arbin1/channel/1", "start", {"test_name": "T", "schedule": "Rest.sdx"})
        before = station(it).book.polls
        times: list[float] = []
        while len(times) < 3:
            await poll(it)
            times = [heard.json["test_time_s"] for heard in states(it, 1) if heard.json["status"] == "Rest"]
        assert all(later - earlier > 0.5 for earlier, later in pairwise(times))
        assert station(it).book.polls - before > 2 * len(times)


async def test_heartbeat(port: int, kind: BrokerKind) -> None:
    async with rig(port, kind.protocol, channels=2, cycler=SELDOM, publish={"heartbeat_s": 0.5}) as it:
        await settled(it)
        already, before = len(states(it, 2)), station(it).book.polls
        while len(states(it, 2)) < already + 3:
            await poll(it)
        assert station(it).book.polls - before > 6
        beats = [heard.json for heard in states(it, 2)[already - 1 :]]
        times = [datetime.fromisoformat(beat["ts"]) for beat in beats]
        gaps_s = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
        assert min(gaps_s) > 0.3  # stamped a little before they are judged
        assert {beat["quality"] for beat in beats} == {"good"}


async def test_stale_and_back(port: int, kind: BrokerKind) -> None:
    """What a quiet channel said last is not its last word once nobody can poll it; and back, with nothing else new."""
    publish = {"dead_bands": {}, "heartbeat_s": 86400}
    async with rig(port, kind.protocol, channels=2, cycler={"poll_interval_s": 0.1}, publish=publish) as it:
        await it.ready()
        first = states(it, 2)[0].json
        await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) > 5)
        await it.server.unplug()
        await it.observer.until_last("arbin1/channel/2/availability", b"offline")
        await it.observer.until(lambda: states(it, 2)[-1].json["quality"] == "stale")
        stale = states(it, 2)[-1].json
        assert stale["seq"] >= first["seq"] + 4  # the newest reading, not the last one published
        await it.server.replug()
        await it.observer.until(lambda: states(it, 2)[-1].json["quality"] == "good")
        assert states(it, 2)[-1].json["seq"] > stale["seq"]
        await it.observer.until_last("arbin1/channel/2/availability", b"online")


async def test_the_cycler_comes_back_before_anything_is_stale(port: int, kind: BrokerKind) -> None:
    async with rig(port, kind.protocol, channels=2, cycler=SELDOM, publish={"dead_bands": {}}) as it:
        await settled(it)
        before = len(states(it, 2))
        it.server.disconnect_all()
        await it.observer.wait("arbin1/event", lambda heard: heard.json["type"] == "reconnected")
        await poll(it, 3)
        assert len(states(it, 2)) == before + 1


async def test_the_broker_comes_back(port: int, kind: BrokerKind) -> None:
    """At once the last one published, with its time; then one that is new, whatever it says."""
    async with rig(port, kind.protocol, channels=2, cycler=SELDOM, publish={"dead_bands": {}}) as it:
        await settled(it)
        before = states(it, 2)
        client = it.bridge._link._client
        assert client is not None
        cut(client.socket())
        await it.observer.until(lambda: len(connections(it)) == 2)
        await poll(it, 5)
        old, fresh = (heard.json for heard in states(it, 2)[len(before) :])
        assert old == before[-1].json
        assert fresh["seq"] > old["seq"]


def connections(it: Rig) -> list[Heard]:
    return [heard for heard in it.observer.on("bridge/event") if heard.json["type"] == "broker_connected"]


@needs_mosquitto
@pytest.mark.parametrize(
    ("publish", "interval_s", "expiry_s"),
    [
        ({}, 0.1, 60),
        ({"dead_bands": {}}, 0.1, 180),
        ({"heartbeat_s": 1}, 0.1, 60),
        ({"dead_bands": {}, "heartbeat_s": 200}, 0.1, 600),
        ({"heartbeat_s": 0.7}, 6.25, 63),
    ],
)
async def test_a_quiet_channel_does_not_expire(
    publish: dict[str, Any], interval_s: float, expiry_s: int, tmp_path: Path
) -> None:
    async with (
        broker_of_kind(MOSQUITTO_5, tmp_path) as port,
        rig(port, 5, channels=1, cycler={"poll_interval_s": interval_s}, publish=publish) as it,
    ):
        heard = await it.observer.wait("arbin1/channel/1/state")
        assert heard.expiry_s is not None
        assert expiry_s - 5 < heard.expiry_s <= expiry_s  # the broker counts down


# --- what it costs ---


class Output:
    """The plain topics by themselves; counts what is made into JSON."""

    def __init__(self, publish: dict[str, Any]) -> None:
        cyclers = {"a": {"host": "127.0.0.1", "username": "u", "password": "p"}}
        settings = config.Config.model_validate({"cyclers": cyclers, "publish": publish})
        self.published: list[Message] = []
        self.delivered: list[Sequence[bytes]] = []
        self.plain = PlainOutput(
            settings,
            Topics("cti"),
            BOOT,
            ReportByException(settings.publish, SystemClock()),
            self.published.append,
            (lambda _poll, fragments: self.delivered.append(fragments)) if settings.publish.readings else None,
        )
        self.encoded: list[int] = []
        fragments = self.plain._fragments

        def counted(cycler: str, readings: Sequence[Reading]) -> list[bytes]:
            self.encoded += [reading.channel for reading in readings]
            return fragments(cycler, readings)

        self.plain._fragments = counted  # type: ignore[assignment]

    def poll(self, seq: int, voltages: Sequence[float]) -> None:
        readings = [
            Reading(channel, READING.record._replace(voltage=voltage), READING.quality, READING.ts, seq)
            for channel, voltage in enumerate(voltages, 1)
        ]
        self.plain(Poll("a", READING.ts, seq, tuple(readings)))


def test_without_readings_a_quiet_channel_costs_no_json() -> None:
    output = Output({"dead_bands": {}, "readings": False})
    output.poll(1, (1.0, 2.0, 3.0))
    output.poll(2, (1.0, 2.0, 3.0))
    output.poll(3, (1.0, 2.5, 3.0))
    assert output.encoded == [1, 2, 3, 2]
    assert [message.topic[-7:] for message in output.published] == ["1/state", "2/state", "3/state", "2/state"]


@pytest.mark.parametrize("dead_bands", [None, {}])
def test_readings_have_every_channel_and_states_their_own(dead_bands: dict[str, Any] | None) -> None:
    output = Output({"dead_bands": dead_bands})
    for seq, voltages in enumerate([(1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (1.5, 2.0, 3.5)], 1):
        output.published.clear()
        output.poll(seq, voltages)
        fragments = output.delivered[-1]
        for voltage, body in zip(voltages, fragments, strict=True):
            assert b'"voltage_v":%.1f,' % voltage in body
        told = {int(message.topic.split("/")[3]): message.payload for message in output.published}
        assert list(told) == ([1, 2, 3] if dead_bands is None or seq == 1 else [1, 3] if seq == 3 else [])
        assert all(payload.endswith(fragments[channel - 1][1:]) for channel, payload in told.items())


def test_without_state_nothing_is_judged() -> None:
    output = Output({"dead_bands": {}, "state": False})
    output.poll(1, (1.0,))
    assert (output.published, len(output.delivered)) == ([], 1)
    assert output.plain._report._channels == {}
