"""A lease that runs out: the bridge does what was agreed, by itself, whoever else has gone."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.errors import StorageError
from cti_mqtt.simulator import NO_FAULTS, Faults
from tests.bridge.bench import Bench, bench, forced, until
from tests.bridge.store.test_group_commit import stalled
from tests.support.brokers import needs_mosquitto

pytestmark = needs_mosquitto

CHANNEL = "arbin1/channel/1"
ALARM = f"{CHANNEL}/alarm/lease_expired"
STOP_ALARM = f"{CHANNEL}/alarm/stop_failed"
SINGLE, UPDATE = "set_meta_variable", "update_meta_variables"
TTL_S = 1.5
LATE_S = 1.0  # beyond its end
ZERO: Mapping[str, Any] = {"set_mv": {"1": 0.0}}


async def leased(it: Bench, on_expiry: object = ZERO, ttl_s: float = TTL_S, value: float = 0.5) -> float:
    """A running channel with a lease; when its time began, by the loop's clock."""
    if not it.channel(1).active:
        await it.start(1)
    lease = {"ttl_s": ttl_s, "on_expiry": on_expiry}
    began = asyncio.get_running_loop().time()
    result = await it.observer.ask(CHANNEL, "set_mv/ann", {"values": {"1": value}, "lease": lease})
    assert result["outcome"] == "succeeded"
    assert it.variable(1, 1) == pytest.approx(value)
    return began


async def fallback(it: Bench, began: float, ttl_s: float = TTL_S) -> None:
    """Until the agreed value is on the channel: not before the lease has ended, and in time."""
    await until(lambda: it.variable(1, 1) == 0.0)
    elapsed_s = asyncio.get_running_loop().time() - began
    assert ttl_s <= elapsed_s < ttl_s + LATE_S


def audited(it: Bench) -> list[str]:
    return it.audited("lease_granted", "lease_expired", "lease_settled", "lease_ended", "lease_fallback_failed")


# --- what is agreed ---


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_a_value_is_written(protocol: object, tmp_path: Path) -> None:
    async with bench(tmp_path, protocol=protocol) as it, it.running() as bridge:
        began = await leased(it)
        await fallback(it, began)
        await it.observer.until_last(f"{CHANNEL}/lease", b"")
        expired = await it.event(1, "lease_expired")
        assert expired["message"] == "ann was not heard of for 1.5 s: MV_UD1 = 0 is written"
        settled = await it.event(1, "lease_settled")
        assert settled["message"] == "MV_UD1 = 0 written"
        await it.observer.wait(f"{CHANNEL}/mv", lambda heard: heard.json == {"1": 0.0})
        assert it.channel(1).active
        assert it.asked("stop") == []
        await bridge._commander.settle()
        assert audited(it) == ["lease_granted", "lease_expired", "lease_settled"]
        assert await bridge._store.leases() == ()


async def test_renewed_in_time_it_does_not_run_out(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        for value in (0.5, 0.6, 0.7, 0.8):
            began = await leased(it, ttl_s=1.0, value=value)
            await asyncio.sleep(0.5)
        assert "lease_expired" not in it.events(1)
        await fallback(it, began, 1.0)


async def test_it_passes_verbs_steps_and_rates(tmp_path: Path) -> None:
    limits = {1: {"min": 0, "max": 5, "max_step": 1, "max_rate_per_s": 0.5, "initial": 0.5}}
    async with bench(tmp_path, control={"limits": limits}) as it, it.running():
        await it.start(1)
        began = asyncio.get_running_loop().time()
        lease = {"ttl_s": TTL_S, "on_expiry": {"set_mv": {"1": 4.5}}}
        assert (await it.observer.ask(CHANNEL, "set_mv", {"values": {"1": 0.75}, "lease": lease}))["code"] == 0
        await until(lambda: it.variable(1, 1) == 4.5)
        assert asyncio.get_running_loop().time() - began < TTL_S + LATE_S


async def test_the_channel_is_stopped(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it, "stop")
        assert (await it.event(1, "lease_settled"))["message"] == "the channel was seen not running"
        assert not it.channel(1).active
        assert len(it.stops_of(1)) == 1


async def test_the_stop_is_pursued_beyond_its_time_with_the_alarm(tmp_path: Path) -> None:
    async with bench(tmp_path, control={"stop_timeout_s": 1.0}) as it, it.running():
        await leased(it, "stop", 1.0)
        it.server.faults = forced("stop=0x11:2.2s")
        heard = await it.observer.wait(STOP_ALARM, lambda heard: heard.payload)
        assert heard.json["state"] == "active"
        await it.event(1, "lease_settled")
        assert not it.channel(1).active
        await it.observer.until_last(STOP_ALARM, b"")


async def test_an_alarm_is_raised_until_somebody_vouches_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it, "alarm")
        heard = await it.observer.wait(ALARM, lambda heard: heard.payload)
        assert (heard.json["name"], heard.json["state"]) == ("lease_expired", "active")
        assert heard.json["message"] == "ann was not heard of in time"
        assert it.channel(1).active
        assert it.variable(1, 1) == 0.5
        await leased(it, "alarm", value=0.6, ttl_s=30)
        await it.observer.until_last(ALARM, b"")


async def test_an_alarm_ends_with_the_test(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it, "alarm")
        await it.observer.wait(ALARM, lambda heard: heard.payload)
        assert (await it.observer.ask(CHANNEL, "stop"))["outcome"] == "succeeded"
        await it.observer.until_last(ALARM, b"")


# --- nothing to do ---


@pytest.mark.parametrize("on_expiry", [ZERO, "stop"])
async def test_a_test_that_has_ended_by_itself_needs_nothing(on_expiry: object, tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it, on_expiry)
        it.channel(1).stop()
        assert "not run" in (await it.event(1, "lease_settled"))["message"]
        await it.observer.until_last(f"{CHANNEL}/lease", b"")
        assert "alarm_raised" not in it.events(1)
        assert len(it.stops_of(1)) <= 1


# --- against odds ---


async def test_without_the_broker(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        began = await leased(it)
        await it.broker.stop()
        await fallback(it, began)
        await it.broker.start()
        await it.until_not_retained(f"{CHANNEL}/lease")


async def test_what_the_disk_does_is_no_matter(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running() as bridge:
        began = await leased(it)
        with stalled(bridge._store):
            await fallback(it, began)
            result = await it.observer.ask(CHANNEL, "set_mv", {"values": {"1": 0.5}})
            assert result["reason"] == "storage"
            assert (await it.observer.ask(CHANNEL, "stop"))["outcome"] == "succeeded"


@pytest.mark.parametrize("away_s", [0.0, TTL_S + 0.5])
async def test_a_restart_of_the_bridge(away_s: float, tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        async with it.running():
            began = await leased(it, ttl_s=TTL_S if away_s else 3.0)
        await asyncio.sleep(away_s)
        assert it.variable(1, 1) == 0.5
        known = len(it.observer.heard)
        async with it.running():
            if away_s:  # acted on at start-up
                await until(lambda: it.variable(1, 1) == 0.0, LATE_S)
            else:  # goes on with the time left
                shown = [heard for heard in it.observer.heard[known:] if heard.topic == f"cti/{CHANNEL}/lease"]
                assert json.loads(shown[-1].payload)["holder"] == "ann"
                await fallback(it, began, 3.0)
            await it.event(1, "lease_settled")
        known = len(it.observer.heard)
        async with it.running():
            assert "lease_settled" not in [
                heard.json["type"] for heard in it.observer.heard[known:] if heard.topic.endswith("/event")
            ]


async def test_its_holder_goes_on_with_another_bridge(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        async with it.running():
            await leased(it, ttl_s=6.0)
        async with it.running():
            result = await it.observer.ask(CHANNEL, "set_mv/bob", {"values": {"1": 0.6}})
            assert result["reason"] == "leased"
            await leased(it, ttl_s=20.0, value=0.6)
            assert "lease_expired" not in it.events(1)


async def test_unplugged_when_it_runs_out(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it)
        await it.server.unplug()
        await it.event(1, "lease_expired")
        await asyncio.sleep(2.5)  # longer than a write may stay unconfirmed: it was not sent at all
        assert it.variable(1, 1) == 0.5
        await it.server.replug()
        assert (await it.event(1, "lease_settled"))["message"] == "MV_UD1 = 0 written"
        assert it.channel(1).active
        assert it.asked("stop") == []


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(forced(f"{SINGLE}=0x11"), id="refused"),
        pytest.param(Faults(drop=frozenset({SINGLE})), id="not answered"),
    ],
)
async def test_a_write_that_is_not_confirmed_becomes_a_stop(faults: Faults, tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        began = await leased(it)
        it.server.faults = faults
        await until(lambda: not it.channel(1).active)
        elapsed_s = asyncio.get_running_loop().time() - began
        assert TTL_S + 2 <= elapsed_s < TTL_S + 2 + LATE_S
        assert (await it.event(1, "lease_fallback_failed"))["message"] == "not confirmed within 2 s: it is stopped"
        await it.event(1, "lease_settled")
        assert it.written(1, 1)


async def test_refused_for_a_moment_it_is_written_a_moment_later(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it)
        it.server.faults = forced(f"{SINGLE}=0x11:1s")
        await it.event(1, "lease_settled")
        assert it.variable(1, 1) == 0.0
        assert it.channel(1).active


async def test_what_the_cycler_has_lost_contact_with_may_still_run(tmp_path: Path) -> None:
    """A reading that shows it idle proves nothing then: value, and if that is refused, stop."""
    async with bench(tmp_path) as it, it.running():
        await leased(it)
        results = forced(f"{SINGLE}=0x11").results
        it.server.faults = Faults(comm_failures=frozenset({0}), statuses={0: 0}, results=results)
        await until(lambda: not it.channel(1).active)
        await it.event(1, "lease_fallback_failed")


@pytest.mark.parametrize("on_expiry", [ZERO, "alarm"])
async def test_queued_writes_stay_here(on_expiry: object, tmp_path: Path) -> None:
    """The holder's last value waits behind a slow one when his time is over."""
    async with bench(tmp_path) as it, it.running():
        began = await leased(it, on_expiry)
        it.server.faults = Faults(delays_s={SINGLE: 2.0, UPDATE: 2.0})
        for number, value in enumerate((0.6, 0.7)):
            it.observer.say(f"{CHANNEL}/command/set_mv/ann", {"id": f"w{number}", "values": {"1": value}})
        await until(lambda: len(it.written(1, 1)) == 2)
        it.server.faults = NO_FAULTS
        assert (await it.result(CHANNEL, "w1"))["reason"] == "superseded"
        written = [0.5, 0.6]
        if on_expiry == ZERO:
            await fallback(it, began)
            written.append(0.0)
        await it.result(CHANNEL, "w0")
        assert [value for _, value in it.written(1, 1)] == [pytest.approx(value) for value in written]
        assert it.variable(1, 1) == pytest.approx(written[-1])


async def test_whoever_fails_to_take_over_does_not_keep_the_bridge_from_acting(tmp_path: Path) -> None:
    """A new lease ends what an expired one still wants; but only if it comes to something."""
    async with bench(tmp_path) as it, it.running() as bridge:
        await leased(it, ttl_s=1.0)
        it.server.faults = forced(f"{SINGLE}=0x11")
        await it.event(1, "lease_expired")
        lease = {"ttl_s": 30, "on_expiry": "alarm"}
        result = await it.observer.ask(CHANNEL, "set_mv/bob", {"values": {"1": 0.6}, "lease": lease})
        assert result["outcome"] == "failed"
        (row,) = await bridge._store.leases()
        assert (row.holder, row.state) == ("ann", "expired"), "should the bridge die now"
        await until(lambda: not it.channel(1).active)
        await it.event(1, "lease_settled")
        assert await bridge._store.leases() == ()


async def test_whoever_fails_to_take_over_does_not_end_the_alarm(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it, "alarm", 0.5)
        await it.observer.wait(ALARM, lambda heard: heard.payload)
        it.server.faults = forced(f"{SINGLE}=0x11")
        lease = {"ttl_s": 30, "on_expiry": "alarm"}
        result = await it.observer.ask(CHANNEL, "set_mv/bob", {"values": {"1": 0.6}, "lease": lease})
        assert result["outcome"] == "failed"
        last = it.observer.last(ALARM)
        assert last is not None
        assert last.payload


async def test_whoever_cannot_be_put_on_record_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as it, it.running() as bridge:
        await leased(it, ttl_s=1.0)
        it.server.faults = forced(f"{SINGLE}=0x11")
        await it.event(1, "lease_expired")

        def fails(*_: object, **__: object) -> "asyncio.Future[None]":
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageError("the disk is full"))
            return future

        monkeypatch.setattr(bridge._store, "put_lease", fails)
        lease = {"ttl_s": 30, "on_expiry": "alarm"}
        result = await it.observer.ask(CHANNEL, "set_mv/bob", {"values": {"1": 0.6}, "lease": lease})
        assert result["reason"] == "storage"
        await until(lambda: not it.channel(1).active)


async def test_whoever_takes_over_in_time_is_left_alone(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await leased(it, ttl_s=1.0)
        it.server.faults = forced(f"{SINGLE}=0x11")
        await it.event(1, "lease_expired")
        it.server.faults = NO_FAULTS
        await leased(it, ttl_s=30.0, value=0.7)
        await asyncio.sleep(2.5)
        assert it.variable(1, 1) == pytest.approx(0.7)
        assert it.channel(1).active
        assert it.asked("stop") == []
