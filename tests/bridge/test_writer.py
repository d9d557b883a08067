"""Fast writes of meta variables, on a simulated cycler over TCP, seen in its record."""

import asyncio
import itertools
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bus import Bus, Item, MetaVariables
from cti_mqtt.bridge.clock import SystemClock
from cti_mqtt.bridge.variables import VariableBook
from cti_mqtt.bridge.verdict import Outcome, Verdict
from cti_mqtt.bridge.writer import VariableWriter
from cti_mqtt.client import Credentials, Cycler, Endpoint
from cti_mqtt.cti.messages.variables import SetMetaVariableFeedback, SetMetaVariableRequest
from cti_mqtt.cti.results import SetMetaVariableResult
from cti_mqtt.errors import NotConnectedError, WithdrawnError
from cti_mqtt.simulator import NO_FAULTS, Faults, ForcedResult, SimulatedServer, UpdateAnswer
from tests.client.conftest import HOST, Script, turns
from tests.support.brokers import AMQTT, broker_of_kind
from tests.support.rig import PASSWORD, Rig, rig, simulated

SINGLE, UPDATE = "set_meta_variable", "update_meta_variables"
DONE = Outcome.SUCCEEDED
LONG_S = 5.0  # no machine is so busy
LATE = {SINGLE: 0.2, UPDATE: 0.2}  # so that what comes next finds it under way


def any_time(channel: int) -> None:
    """A gate that is open."""


@dataclass
class Bench:
    """A writer at work.

    Attributes:
        told: what the book said of each channel, the last word.
        answers: what `write` told channel by channel.
    """

    server: SimulatedServer
    cycler: Cycler
    writer: VariableWriter
    worker: asyncio.Task[None]
    told: dict[int, Mapping[int, float]] = field(default_factory=dict)
    answers: list[tuple[int, str, str]] = field(default_factory=list)
    tasks: list[asyncio.Task[dict[int, Verdict]]] = field(default_factory=list)

    def write(
        self, values: Mapping[int, Mapping[int, float]], gate: Callable[[int], None] = any_time
    ) -> asyncio.Task[dict[int, Verdict]]:
        """In the background."""

        def answer(channel: int, verdict: Verdict) -> None:
            self.answers.append((channel, verdict.outcome.text, verdict.reason))

        self.tasks.append(asyncio.create_task(self.writer.write(values, gate, answer)))
        return self.tasks[-1]

    @property
    def wire(self) -> list[str]:
        """The commands that were seen, in order."""
        return [entry["command"] for entry in self.asked()]

    def asked(self) -> list[dict[str, Any]]:
        return self.server.recorder.commands(SINGLE, UPDATE)

    def entries(self, position: int) -> dict[tuple[int, int], float]:
        """What one request carried, by channel and wire code."""
        arguments = self.asked()[position]["arguments"]
        updates = arguments["updates"]["entries"] if "updates" in arguments else [arguments]
        return {(each["channel"], each["index"]): each["value"] for each in updates}

    def times_s(self, command: str) -> list[float]:
        return [datetime.fromisoformat(entry["time"]).timestamp() for entry in self.server.recorder.commands(command)]

    async def arrived(self, count: int = 1) -> None:
        """Until so many requests were seen."""
        while len(self.asked()) < count:  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)


@asynccontextmanager
async def bench(
    faults: Faults = NO_FAULTS, *, channels: int = 16, running: int | None = None, **endpoint: Any
) -> AsyncIterator[Bench]:
    """A writer on a simulated cycler whose channels run ClosedLoop.sdx, all of them or the first so many."""
    async with (
        simulated(channels, faults) as server,
        Cycler.connect(Endpoint("arbin1", HOST, server.port, **endpoint), Credentials("admin", PASSWORD)) as cycler,
    ):
        await cycler.assign_all("ClosedLoop.sdx")
        await cycler.start(cycler.channels[:running], "T")
        async with at_work(server, cycler) as it:
            yield it


@asynccontextmanager
async def at_work(server: Any, cycler: Cycler) -> AsyncIterator[Bench]:
    bus = Bus()
    writer = VariableWriter(lambda: cycler, VariableBook("arbin1", {}, bus, SystemClock()))
    worker = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    it = Bench(server, cycler, writer, worker)

    def hear(item: Item) -> None:
        if isinstance(item, MetaVariables):
            it.told[item.channel] = item.values

    bus.subscribe(hear)
    try:
        yield it
    finally:
        for task in (worker, *it.tasks):
            task.cancel()
        await asyncio.gather(worker, *it.tasks, return_exceptions=True)


def ends(verdicts: Mapping[int, Verdict]) -> dict[int, tuple[str, str]]:
    return {channel: (verdict.outcome.text, verdict.reason) for channel, verdict in verdicts.items()}


# --- at once, or gathered ---


@pytest.mark.parametrize("answer", UpdateAnswer)
async def test_a_burst_is_one_single_write_and_one_update(answer: UpdateAnswer) -> None:
    async with bench(Faults(advanced_answer=answer)) as it:
        tasks = [it.write({channel: {1: channel / 16}}) for channel in range(1, 17)]
        for channel, task in enumerate(tasks, 1):
            (verdict,) = (await task).values()
            assert verdict == Verdict(DONE, 0, "ok", f"MV_UD1 = {channel / 16:g}")
        assert it.wire == [SINGLE, UPDATE]
        assert it.entries(1) == {(channel, 1): channel / 16 for channel in range(2, 17)}
        assert it.told == {channel: {1: channel / 16} for channel in range(1, 17)}


async def test_whoever_waits_for_each_result_never_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.writer.GATHER_S", LONG_S)
    async with bench() as it:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for value in range(10):
            assert ends(await it.writer.write({1: {1: value / 10}}, any_time)) == {1: ("succeeded", "ok")}
        assert loop.time() - began < LONG_S
        assert it.wire == [SINGLE] * 10


async def test_several_values_on_an_idle_line_are_an_update_at_once() -> None:
    async with bench() as it:
        verdicts = await it.writer.write({1: {1: 2.5, 16: 1.0}, 2: {3: 4.0}, 5: {}}, any_time)
        assert {channel: verdict.message for channel, verdict in verdicts.items()} == {
            1: "MV_UD1 = 2.5; MV_UD16 = 1",
            2: "MV_UD3 = 4",
        }
        assert it.wire == [UPDATE]


async def test_one_value_that_waited_goes_single_and_not_too_soon() -> None:
    loop = asyncio.get_running_loop()
    asked: dict[str, float] = {}
    async with bench() as it:
        first = it.write({1: {1: 1.0}}, lambda channel: asked.update(first=loop.time()))
        second = it.write({1: {1: 2.0}}, lambda channel: asked.update(second=loop.time()))
        await asyncio.gather(first, second)
        assert it.wire == [SINGLE, SINGLE]
        assert asked["second"] - asked["first"] >= 0.199  # when they were sent; the loop's clock is not exact
        assert it.told == {1: {1: 2.0}}


async def test_updates_keep_their_distance() -> None:
    """Two channels, written every 10 ms for a second and more: no update is refused for coming too soon."""
    async with bench() as it:
        tasks = []
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(120):
            tasks.append(it.write({1: {1: number / 100}, 2: {1: number / 50}}))
            await asyncio.sleep(0.01)
        found = [verdict for task in tasks for verdict in (await task).values()]
        assert {verdict.reason for verdict in found} == {"ok", "superseded"}
        times = it.times_s(UPDATE)
        assert 2 < len(times) <= 2 + (loop.time() - began) / 0.2
        assert min(after - before for before, after in itertools.pairwise(times)) >= 0.199
        assert it.told == {1: {1: pytest.approx(1.19)}, 2: {1: pytest.approx(2.38)}}


async def test_128_channels_with_16_values() -> None:
    """2048 values in packets of 160; meanwhile a later value takes the place of one that waits."""
    async with bench(channels=128) as it:
        values = {channel: {index: channel + index / 16 for index in range(1, 17)} for channel in range(1, 129)}
        all_of_them = it.write(values)
        await it.arrived()
        later = it.write({128: {16: 0.5}})
        verdicts = await all_of_them
        assert {verdict.outcome for verdict in verdicts.values()} == {DONE}
        assert verdicts[128].message.endswith("MV_UD15 = 128.938; a later write of MV_UD16 took its place")
        assert ends(await later) == {128: ("succeeded", "ok")}
        assert it.wire == [UPDATE] * 13
        assert it.told == {**values, 128: {**values[128], 16: 0.5}}


# --- the last value wins ---


async def test_the_last_value_wins_and_the_overtaken_hear_of_it_at_once() -> None:
    async with bench(Faults(delays_s=LATE)) as it:
        first = it.write({1: {1: 1.0}})
        await it.arrived()
        second, third, fourth = (it.write({1: {1: value}}) for value in (2.0, 3.0, 4.0))
        text = "a later write of MV_UD1 took its place"
        for overtaken in (second, third):
            assert await overtaken == {1: Verdict(Outcome.REFUSED, None, "superseded", text)}
        assert not first.done()
        assert ends(await fourth) == ends(await first) == {1: ("succeeded", "ok")}
        assert [it.entries(0), it.entries(1)] == [{(1, 1): 1.0}, {(1, 1): 4.0}]


async def test_what_was_overtaken_in_part_goes_out_in_part() -> None:
    async with bench(Faults(delays_s=LATE)) as it:
        it.write({1: {1: 1.0}})
        await it.arrived()
        older = it.write({1: {1: 2.0, 2: 2.0}, 3: {1: 2.0}})
        newer = it.write({1: {1: 3.0}, 3: {1: 3.0}})
        await turns()
        assert it.answers == [(3, "refused", "superseded")]  # told before the rest is known
        verdicts = await older
        assert verdicts[1] == Verdict(DONE, 0, "ok", "MV_UD2 = 2; a later write of MV_UD1 took its place")
        assert ends(await newer) == {1: ("succeeded", "ok"), 3: ("succeeded", "ok")}
        assert it.entries(1) == {(1, 1): 3.0, (1, 2): 2.0, (3, 1): 3.0}
        assert it.told == {1: {1: 3.0, 2: 2.0}, 3: {1: 3.0}}


# --- gates ---


async def test_behind_a_closed_gate_nothing_goes_out() -> None:
    closed: set[int] = set()

    def gate(channel: int) -> None:
        if channel in closed:
            raise WithdrawnError("too late", "expired")

    async with bench(Faults(delays_s=LATE)) as it:
        it.write({1: {1: 1.0}})
        await it.arrived()
        waiting = it.write({2: {1: 2.0, 2: 2.0}, 3: {1: 3.0}}, gate)
        await turns()
        closed.add(2)
        verdicts = await waiting
        assert verdicts[2] == Verdict(Outcome.REFUSED, None, "expired", "too late")
        assert verdicts[3].outcome is DONE
        assert [it.entries(0), it.entries(1)] == [{(1, 1): 1.0}, {(3, 1): 3.0}]
        closed.add(4)  # on an idle line, too
        assert ends(await it.writer.write({4: {1: 1.0}}, gate)) == {4: ("refused", "expired")}
        assert len(it.wire) == 2


async def test_what_may_not_go_out_overtakes_nothing() -> None:
    def closed(channel: int) -> None:
        raise WithdrawnError("too late", "expired")

    async with bench(Faults(delays_s=LATE)) as it:
        it.write({1: {1: 1.0}})
        await it.arrived()
        good, late = it.write({1: {1: 2.0}}), it.write({1: {1: 3.0}}, closed)
        assert ends(await late) == {1: ("refused", "expired")}
        assert ends(await good) == {1: ("succeeded", "ok")}
        assert it.told == {1: {1: 2.0}}


@pytest.mark.parametrize("idle", [True, False])
async def test_a_gate_with_a_bug_hurts_its_caller_only(idle: bool, caplog: pytest.LogCaptureFixture) -> None:
    armed = idle

    def bug(channel: int) -> None:
        if armed:
            raise KeyError("bug")

    async with bench(Faults(delays_s=LATE)) as it:
        if not idle:
            it.write({1: {1: 1.0}})
            await it.arrived()
        bad, good = it.write({2: {1: 1.0}, 3: {1: 1.0}}, bug), it.write({4: {1: 2.0}})
        await turns()
        armed = True
        with pytest.raises(KeyError, match="bug"):
            await bad
        assert ends(await good) == {4: ("succeeded", "ok")}
        assert not it.worker.done()
        assert {channel for channel, _ in it.entries(-1)} == {4}
    assert [record for record in caplog.records if record.name == "asyncio"] == []


# --- no, and nobody knows ---


async def test_a_packet_that_is_refused_is_refused_for_all() -> None:
    async with bench(Faults(results=(ForcedResult(UPDATE, 0x12),), delays_s=LATE)) as it:
        it.write({1: {1: 1.0}})
        await it.arrived()
        two, three = it.write({2: {1: 2.0, 2: 2.0}}), it.write({3: {1: 3.0}})
        (verdict,) = (await two).values()
        assert (verdict.outcome, verdict.code) == (Outcome.FAILED, 0x12)
        assert verdict.message.startswith("MV_UD1, MV_UD2: the cycler answered: ")
        assert (await three)[3].outcome is Outcome.FAILED
        assert it.told == {1: {1: 1.0}}


async def test_channels_answer_for_themselves() -> None:
    async with bench(Faults(advanced_answer=UpdateAnswer.CHANNEL), running=2) as it:
        verdicts = await it.writer.write({1: {1: 1.0}, 2: {1: 2.0}, 3: {1: 3.0}}, any_time)
        assert ends(verdicts) == {1: ("succeeded", "ok"), 2: ("succeeded", "ok"), 3: ("failed", "not_running")}
        assert it.told == {1: {1: 1.0}, 2: {1: 2.0}}


async def test_what_cannot_be_sent_spoils_nothing_for_the_others() -> None:
    async with bench() as it:
        verdicts = await it.writer.write({1: {1: 1.0}, 2: {1: 1e39}, 3: {1: 3.0}}, any_time)
        assert ends(verdicts) == {1: ("succeeded", "ok"), 2: ("refused", "malformed"), 3: ("succeeded", "ok")}
        with pytest.raises(ValueError, match="no MV_UD17"):
            await it.writer.write({1: {1: 1.0, 17: 1.0}}, any_time)
        assert it.wire == [SINGLE, SINGLE]  # each speaks for itself


async def test_a_server_that_knows_no_updates_gets_single_writes() -> None:
    async with bench(Faults(unknown=frozenset({UPDATE})), running=2) as it:
        for _ in range(2):
            verdicts = await it.writer.write({1: {1: 1.0, 2: 2.0}, 2: {1: 2.0}, 3: {1: 3.0}}, any_time)
            assert ends(verdicts) == {1: ("succeeded", "ok"), 2: ("succeeded", "ok"), 3: ("failed", "not_running")}
            assert verdicts[1].message == "MV_UD1 = 1; MV_UD2 = 2"
        assert it.wire == [UPDATE, *[SINGLE] * 8]


async def test_a_server_that_knows_neither() -> None:
    async with bench(Faults(unknown=frozenset({UPDATE, SINGLE}))) as it:
        verdicts = await it.writer.write({1: {1: 1.0, 2: 2.0}, 2: {1: 2.0}}, any_time)
        assert ends(verdicts) == dict.fromkeys((1, 2), ("failed", "unsupported"))
        assert it.wire == [UPDATE, *[SINGLE] * 3]


@pytest.mark.parametrize(("command", "count"), [(SINGLE, 1), (UPDATE, 2)])
async def test_silence_is_unknown_and_the_rest_was_never_sent(command: str, count: int) -> None:
    async with bench(Faults(mute=frozenset({command})), timeout_s=0.15) as it:
        sent = it.write({channel: {1: 1.0} for channel in range(1, count + 1)})
        await it.arrived()
        waiting = it.write({5: {1: 2.0}, 6: {1: 2.0}})
        assert set(ends(await sent).values()) == {("unknown", "timeout")}
        assert set(ends(await waiting).values()) == {("refused", "not_connected")}
        assert it.wire == [command]
        assert it.told == {}


async def test_a_lost_connection_is_unknown() -> None:
    async with bench(Faults(mute=frozenset({UPDATE}))) as it:
        sent = it.write({1: {1: 1.0}, 2: {1: 1.0}})
        await it.arrived()
        it.server.disconnect_all()
        assert ends(await sent) == dict.fromkeys((1, 2), ("unknown", "connection_lost"))
        assert it.wire == [UPDATE]


async def test_without_a_session_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.writer.GATHER_S", LONG_S)

    def nobody() -> Cycler:
        raise NotConnectedError("arbin1: not connected")

    writer = VariableWriter(nobody, VariableBook("arbin1", {}, Bus(), SystemClock()))
    assert ends(await writer.write({1: {1: 1.0}}, any_time)) == {1: ("refused", "not_connected")}  # before it runs
    worker = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for values in ({1: {1: 1.0}}, {1: {1: 1.0, 2: 2.0}}):
        both = await asyncio.gather(writer.write(values, any_time), writer.write({2: {1: 1.0}}, any_time))
        assert [ends(each) for each in both] == [{1: ("refused", "not_connected")}, {2: ("refused", "not_connected")}]
    assert (await writer.write_first(1, {1: 0.0})).reason == "not_connected"
    assert loop.time() - began < LONG_S
    worker.cancel()
    await asyncio.wait([worker])


# --- discarded ---


async def test_discard_answers_at_once_what_has_not_gone_out() -> None:
    async with bench(Faults(delays_s=LATE)) as it:
        sent = it.write({1: {1: 1.0}})
        await it.arrived()
        waiting = it.write({1: {1: 2.0, 2: 2.0}, 2: {1: 2.0}})
        await turns()
        it.writer.discard([1, 7], "a stop of channel 1 came first")
        await turns()
        assert it.answers == [(1, "refused", "superseded")]
        verdicts = await waiting
        assert verdicts[1].message == "a stop of channel 1 came first"
        assert verdicts[2].outcome is (await sent)[1].outcome is DONE  # what is on the wire stays there
        assert it.told == {1: {1: 1.0}, 2: {1: 2.0}}
        assert len(it.wire) == 2


async def test_a_channel_of_which_part_had_gone_out_has_failed() -> None:
    async with bench(Faults(delays_s=LATE)) as it:
        values = {channel: dict.fromkeys(range(1, 16), 1.0) for channel in range(1, 13)}  # 160 end within channel 11
        task = it.write(values)
        await it.arrived()
        it.writer.discard([11, 12], "a stop came first")
        verdicts = await task
        assert ends({channel: verdicts[channel] for channel in (10, 11, 12)}) == {
            10: ("succeeded", "ok"),
            11: ("failed", "superseded"),
            12: ("refused", "superseded"),
        }
        rest = ", ".join(f"MV_UD{index}" for index in range(11, 16))
        assert verdicts[11].message.endswith(f"MV_UD10 = 1; {rest}: a stop came first")
        assert it.told[11] == dict.fromkeys(range(1, 11), 1.0)
        assert len(it.wire) == 1


async def test_an_emptied_queue_leaves_an_idle_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.writer.GATHER_S", LONG_S)
    async with bench() as it:
        it.write({1: {1: 1.0}})
        waiting = it.write({2: {1: 1.0}})
        await it.tasks[0]
        it.writer.discard([2], "no")
        await waiting
        loop = asyncio.get_running_loop()
        began = loop.time()
        await it.writer.write({1: {1: 2.0}}, any_time)
        assert loop.time() - began < LONG_S
        assert it.wire == [SINGLE, SINGLE]


async def test_discard_takes_back_what_waits_in_the_connection() -> None:
    """One request at a time, and a poll is in flight: the update has left the queue, but not the house."""
    async with bench(Faults(delays_s={"channels_info": 0.2}), pipelining=False) as it:
        poll = asyncio.create_task(it.cycler.read_channels())
        await turns()
        update = it.write({1: {1: 1.0}, 2: {1: 2.0}, 3: {1: 3.0}})
        await turns()
        it.writer.discard([2], "a stop of channel 2 came first")
        await turns()
        assert it.answers == [(2, "refused", "superseded")]
        assert not poll.done()
        verdicts = await update
        assert ends(verdicts) == {
            1: ("succeeded", "ok"),
            2: ("refused", "superseded"),
            3: ("succeeded", "ok"),
        }
        assert it.entries(0) == {(1, 1): 1.0, (3, 1): 3.0}
        assert len(it.wire) == 1
        await poll


# --- first ---


async def test_write_first_goes_beside_what_is_under_way() -> None:
    async with bench(Faults(delays_s={UPDATE: 0.3})) as it:
        sent = it.write({1: {1: 5.0}, 2: {1: 5.0}})
        await it.arrived()
        waiting = it.write({1: {1: 6.0}, 3: {1: 6.0}})
        await turns()
        first = await it.writer.write_first(1, {1: 0.0, 2: 0.5})
        assert first == Verdict(DONE, 0, "ok", "MV_UD1 = 0; MV_UD2 = 0.5")
        assert not sent.done()
        assert it.wire == [UPDATE, SINGLE, SINGLE]
        assert it.told == {1: {1: 0.0, 2: 0.5}}
        assert ends(await sent) == dict.fromkeys((1, 2), ("succeeded", "ok"))
        assert ends(await waiting) == {1: ("refused", "superseded"), 3: ("succeeded", "ok")}
        assert it.told == {1: {1: 0.0, 2: 0.5}, 2: {1: 5.0}, 3: {1: 6.0}}  # not what was answered last: what came last


async def test_write_first_has_a_gate_and_tells_the_worst() -> None:
    def closed(channel: int) -> None:
        raise WithdrawnError(f"the lease of channel {channel} was renewed")

    async with bench(running=1) as it:
        verdict = await it.writer.write_first(1, {1: 0.0, 2: 0.0}, closed)
        assert verdict == Verdict(Outcome.REFUSED, None, "superseded", "the lease of channel 1 was renewed")
        assert it.wire == []
        assert (await it.writer.write_first(2, {1: 0.0})).reason == "not_running"
        with pytest.raises(ValueError, match="no values"):
            await it.writer.write_first(1, {})


async def test_write_first_overtakes_500_writes_on_a_stalled_server() -> None:
    script = Script()
    listener = socket.create_server((HOST, 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with await asyncio.start_server(script.connected, sock=listener):
        script.port = listener.getsockname()[1]
        async with script.session(600) as (cycler, peer), at_work(None, cycler) as it:
            peer.stall(cycler)
            handed: list[int] = []
            writes = [
                asyncio.create_task(cycler.set_meta_variable(n, 1, 1.0, gate=lambda n=n: handed.append(n)))  # type: ignore[misc]
                for n in range(1, 501)
            ]
            await turns()
            it.write({600: {1: 9.0}, 599: {1: 9.0}})
            count = -1
            while count != len(handed):  # until the kernel takes no more
                count = len(handed)
                await asyncio.sleep(0.1)
            assert 0 < count < 500
            first = asyncio.create_task(it.writer.write_first(600, {1: 0.0}))
            await turns()
            peer.resume()
            requests = await peer.receive(502)
            assert {type(each) for each in requests} == {SetMetaVariableRequest}
            channels = [each.channel + 1 for each in requests]
            assert channels == [*range(1, count + 1), 600, *range(count + 1, 501), 599]  # of 600 nothing but this
            assert requests[count].value == 0.0
            peer.send(SetMetaVariableFeedback(599, SetMetaVariableResult.OK))
            assert (await first).outcome is DONE
            assert it.answers == [(600, "refused", "superseded")]
            for task in writes:
                task.cancel()
            await asyncio.wait(writes)
        for each in script.peers:
            each.writer.transport.abort()


# --- cancelled ---


async def test_a_caller_that_goes_leaves_nothing_behind() -> None:
    async with bench(Faults(delays_s=LATE)) as it:
        sent = it.write({1: {1: 1.0}})
        await it.arrived()
        gone, stays = it.write({2: {1: 2.0}, 3: {1: 2.0}}), it.write({3: {2: 3.0}})
        await turns()
        for task in (sent, gone):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # Of what was sent nobody can say how it ended; what was not sent never will be.
        assert sorted(it.answers) == [(2, "refused", "not_connected"), (3, "refused", "not_connected")]
        assert ends(await stays) == {3: ("succeeded", "ok")}
        assert [it.entries(0), it.entries(1)] == [{(1, 1): 1.0}, {(3, 2): 3.0}]
        assert it.told == {1: {1: 1.0}, 3: {2: 3.0}}  # what the cycler took counts, whoever waits for it


async def test_a_caller_that_goes_before_its_packet_has_left() -> None:
    async with bench(Faults(delays_s={"channels_info": 0.2}), pipelining=False) as it:
        poll = asyncio.create_task(it.cycler.read_channels())
        await turns()
        gone = it.write({1: {1: 1.0}, 2: {1: 1.0}})
        stays = it.write({3: {1: 3.0}})
        await turns()
        gone.cancel()
        await poll
        assert ends(await stays) == {3: ("succeeded", "ok")}
        assert [it.entries(0), len(it.wire)] == [{(3, 1): 3.0}, 1]


async def test_the_end_of_the_writer_is_the_end_of_all() -> None:
    async with bench(Faults(mute=frozenset({UPDATE}))) as it:
        sent = it.write({1: {1: 1.0}, 2: {1: 1.0}})
        await it.arrived()
        waiting = it.write({1: {1: 2.0}, 3: {1: 1.0}})
        await turns()
        it.worker.cancel()
        assert ends(await sent) == dict.fromkeys((1, 2), ("unknown", "shutdown"))
        assert ends(await waiting) == dict.fromkeys((1, 3), ("refused", "not_connected"))
        assert ends(await it.write({1: {1: 2.0}})) == {1: ("refused", "not_connected")}
        it.server.faults = NO_FAULTS
        it.tasks.append(asyncio.create_task(it.writer.run()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert ends(await it.write({1: {1: 2.0}})) == {1: ("succeeded", "ok")}
        assert it.wire == [UPDATE, SINGLE]


# --- all of it at once ---


@dataclass
class Chaos:
    """Writes whose every value is another, gates that close, callers that go; and what must be true of it all."""

    it: Bench
    dice: random.Random
    value: int = 1
    closed: set[int] = field(default_factory=set)
    wanted: list[tuple[asyncio.Task[dict[int, Verdict]], Mapping[int, Mapping[int, float]], dict[int, str]]] = field(
        default_factory=list
    )

    def gate(self, channel: int) -> None:
        if channel in self.closed:
            raise WithdrawnError("closed", "expired")

    def write(self) -> None:
        values: dict[int, dict[int, float]] = {}
        for channel in self.dice.sample(range(1, 9), self.dice.choice([1, 1, 1, 3])):
            for variable in self.dice.sample(range(1, 4), self.dice.choice([1, 1, 2])):
                self.value += 1
                values.setdefault(channel, {})[variable] = float(self.value)
        answers: dict[int, str] = {}

        def answer(channel: int, verdict: Verdict) -> None:
            assert channel not in answers
            answers[channel] = verdict.outcome.text

        self.wanted.append((asyncio.create_task(self.it.writer.write(values, self.gate, answer)), values, answers))

    async def write_first(self) -> None:
        self.value += 1
        values = {self.dice.randint(1, 3): float(self.value)}
        ((channel, verdict),) = {1: await self.it.writer.write_first(1, values)}.items()
        assert (channel, verdict.outcome) == (1, DONE)

    async def run(self, turns_left: int) -> None:
        for _ in range(turns_left):
            match self.dice.randint(0, 30):
                case 0:
                    self.closed ^= {self.dice.randint(1, 8)}
                case 1:
                    self.it.writer.discard([self.dice.randint(1, 8)], "discarded")
                case 2 if self.wanted:
                    self.dice.choice(self.wanted)[0].cancel()
                case 3:
                    await self.write_first()
                case 4:
                    await asyncio.sleep(0.05 * self.dice.random())
                case _:
                    self.write()
                    await asyncio.sleep(self.dice.choice([0, 0, 0.003]))
        await asyncio.gather(*(task for task, _, _ in self.wanted), return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("known", [True, False])
async def test_whatever_happens_nothing_goes_out_twice_and_every_answer_is_true(seed: int, known: bool) -> None:
    unknown = frozenset[str]() if known else frozenset({UPDATE})
    async with bench(Faults(unknown=unknown, delays_s={SINGLE: 0.01, UPDATE: 0.02}), channels=8) as it:
        chaos = Chaos(it, random.Random(seed))
        await chaos.run(400)
        await it.writer.write({1: {4: 1.0}, 2: {4: 1.0}}, any_time)  # behind all that was under way
        seen: list[tuple[tuple[int, int], float]] = []
        for position, entry in enumerate(it.asked()):
            if known or entry["command"] == SINGLE:  # an unknown command was not carried out
                seen += it.entries(position).items()
        numbers = {number for _, number in seen if number > 1.0}
        assert len(numbers) == len([number for _, number in seen if number > 1.0])
        ended = set()
        for task, values, answers in chaos.wanted:
            verdicts = {} if task.cancelled() else task.result()
            assert task.cancelled() or answers == {channel: each.outcome.text for channel, each in verdicts.items()}
            for channel, outcome in answers.items():
                ended.add(outcome)
                out = {number for number in values[channel].values() if number in numbers}
                overtaken = channel in verdicts and "a later write" in verdicts[channel].message
                if outcome == "refused":
                    assert not out
                elif outcome == "succeeded" and not task.cancelled() and not overtaken:
                    assert out == set(values[channel].values())
                else:
                    assert out
        assert ended >= {"succeeded", "refused"}
        last = dict(seen)
        assert {(channel, n): v for channel, told in it.told.items() for n, v in told.items()} == last


# --- from topic to result ---


async def started(it: Rig) -> None:
    await it.ready()
    body = {"channels": "all", "test_name": "T", "schedule": "ClosedLoop.sdx"}
    assert (await it.observer.ask("arbin1", "start", body))["outcome"] == "succeeded"


def results(it: Rig, command: str = "set_mv") -> dict[int, dict[str, Any]]:
    heard = [each.json for each in it.observer.heard if each.topic.endswith("/result")]
    return {each["channel"]: each for each in heard if each["command"] == command and each["channel"]}


async def test_a_burst_of_commands(tmp_path: Path) -> None:
    async with broker_of_kind(AMQTT, tmp_path) as port, rig(port, AMQTT.protocol, faults=Faults(delays_s=LATE)) as it:
        await started(it)
        for channel in range(1, 17):
            it.observer.say(f"arbin1/channel/{channel}/command/mv/1", f"{channel / 16}".encode())
        await it.observer.until(lambda: len(results(it)) == 16)
        assert {result["outcome"] for result in results(it).values()} == {"succeeded"}
        assert [each["command"] for each in it.asked(SINGLE, UPDATE)] == [SINGLE, UPDATE]
        await it.observer.wait("arbin1/channel/16/state", lambda heard: heard.json["current_a"] == 1.0)


async def test_a_stop_and_the_end_of_the_bridge_find_writes_that_wait(tmp_path: Path) -> None:
    faults = Faults(delays_s={SINGLE: 5.0})
    async with broker_of_kind(AMQTT, tmp_path) as port, rig(port, AMQTT.protocol, faults=faults) as it:
        await started(it)
        for channel in (1, 2, 3):
            it.observer.say(f"arbin1/channel/{channel}/command/set_mv", {"values": {"1": 1.0}})
        await it.observer.until(lambda: it.asked(SINGLE))
        assert (await it.observer.ask("arbin1/channel/2", "stop"))["outcome"] == "succeeded"
        assert results(it)[2]["message"] == "a stop of channel 2 came first"
        it.stop.set()
        await it.observer.until(lambda: len(results(it)) == 3)
        found = {channel: (result["outcome"], result["reason"]) for channel, result in results(it).items()}
        assert found == {1: ("unknown", "shutdown"), 2: ("refused", "superseded"), 3: ("refused", "not_connected")}
        assert len(it.asked(SINGLE, UPDATE)) == 1
