"""Leases: who gets one, who renews it, who is kept out, and how it ends before it runs out."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.errors import StorageError
from cti_mqtt.simulator import NO_FAULTS, Faults
from tests.bridge.bench import Bench, bench, forced, until
from tests.support.brokers import needs_mosquitto

pytestmark = needs_mosquitto

CHANNEL = "arbin1/channel/1"
ZERO = {"set_mv": {"1": 0.0}}
LONG = {"ttl_s": 30, "on_expiry": ZERO}


def set_mv(value: float = 0.5, lease: object = LONG, **more: Any) -> dict[str, Any]:
    body = {"values": {"1": value}, **more}
    return body if lease is None else {**body, "lease": lease}


def reason(result: dict[str, Any]) -> tuple[str, str]:
    return result["outcome"], result["reason"]


async def lease_of(it: Bench, number: int = 1) -> dict[str, Any] | None:
    """What the topic says, once everything before has arrived."""
    marker = await it.observer.ask(f"arbin1/channel/{number}", "nonsense")
    assert marker["reason"] == "unknown_command"
    last = it.observer.last(f"arbin1/channel/{number}/lease")
    assert last is not None
    return last.json if last.payload else None


def expires(lease: dict[str, Any] | None) -> datetime:
    assert lease is not None
    return datetime.fromisoformat(lease["expires_at"])


# --- granted ---


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_granted_with_a_variable(protocol: object, tmp_path: Path) -> None:
    async with bench(tmp_path, protocol=protocol) as it, it.running():
        await it.start(1)
        result = await it.observer.ask(CHANNEL, "set_mv/ann", set_mv(0.5))
        assert reason(result) == ("succeeded", "ok")
        lease = await lease_of(it)
        assert lease is not None
        assert list(lease) == ["holder", "lease_id", "granted_at", "expires_at", "on_expiry"]
        assert (lease["holder"], lease["lease_id"], lease["on_expiry"]) == ("ann", result["lease_id"], ZERO)
        length = expires(lease) - datetime.fromisoformat(lease["granted_at"])
        assert length.total_seconds() == pytest.approx(30, abs=0.002)
        assert (await it.event(1, "lease_granted"))["message"] == "leased for 30 s, then MV_UD1 = 0 is written"
        assert it.variable(1, 1) == 0.5


async def test_granted_with_a_start(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        result = await it.start(1, values={"1": 1.5}, lease={"ttl_s": 30, "on_expiry": "stop"})
        lease = await lease_of(it)
        assert lease is not None
        assert (lease["holder"], lease["lease_id"], lease["on_expiry"]) == (None, result["lease_id"], "stop")
        assert it.variable(1, 1) == 1.5


async def test_the_time_of_a_start_counts_from_when_it_was_carried_out(tmp_path: Path) -> None:
    async with bench(tmp_path, faults=Faults(delays_s={"start": 1.5})) as it, it.running():
        await it.start(1, lease={"ttl_s": 1, "on_expiry": "stop"})
        assert "lease_expired" not in it.events(1)
        lease = await lease_of(it)
        assert lease is not None
        assert (expires(lease) - datetime.fromisoformat(lease["granted_at"])).total_seconds() > 2.4
        await it.event(1, "lease_settled")
        assert not it.channel(1).active


async def test_many_channels_by_one_command(tmp_path: Path) -> None:
    async with bench(tmp_path, channels=32) as it, it.running():
        await it.start(*range(1, 33))
        order = {"channels": "all", "values": {"1": 0.5}, "lease": {"ttl_s": 2, "on_expiry": ZERO}}
        result = await it.observer.ask("arbin1", "set_mv/ann", order)
        assert result["outcome"] == "succeeded"
        topics = [f"arbin1/channel/{number}/lease" for number in range(1, 33)]
        for topic in topics:
            heard = await it.observer.wait(topic, lambda heard: heard.payload)
            assert heard.json["lease_id"] == result["lease_id"]
        for number, topic in enumerate(topics, 1):
            await it.observer.until_last(topic, b"")
            await it.event(number, "lease_settled")
            assert it.variable(number, 1) == 0.0
            assert it.channel(number).active


# --- renewed ---


async def renewed(it: Bench, verb: str, body: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether a command moved the end of the lease, and its result."""
    before = await lease_of(it)
    await asyncio.sleep(0.02)
    result = await it.observer.ask(CHANNEL, verb, body)
    after = await lease_of(it)
    assert before is not None
    assert after is not None
    assert after["lease_id"] == before["lease_id"]
    assert after["granted_at"] == before["granted_at"]
    return expires(after) > expires(before), result


async def test_renewed_by_its_holders_user_level(tmp_path: Path) -> None:
    async with bench(tmp_path, control={"limits": {1: {"min": 0, "max": 5}}}) as it, it.running():
        await it.start(1)
        first = await it.observer.ask(CHANNEL, "set_mv/ann", set_mv(id="first"))
        moved, result = await renewed(it, "set_mv/ann", set_mv(0.6))
        assert (moved, result["lease_id"]) == (True, first["lease_id"])
        for verb, body, expected in (
            ("set_mv/bob", set_mv(0.7), ("refused", "leased")),
            ("set_mv/bob", set_mv(0.7, lease_id=first["lease_id"]), ("refused", "leased")),
            ("set_mv", set_mv(0.7), ("refused", "leased")),
            ("start/bob", {"test_name": "U"}, ("refused", "leased")),
            ("set_mv/ann", set_mv(6.0), ("refused", "limit")),
            ("set_mv/ann", set_mv(0.7, dry_run=True), ("succeeded", "ok")),
            ("set_mv/ann", set_mv(0.7, expect={"status": "Idle"}), ("refused", "expectation")),
            ("set_mv/ann", set_mv(0.7, None), ("succeeded", "ok")),
            ("set_mv/ann", set_mv(id="first"), ("succeeded", "ok")),
        ):
            moved, result = await renewed(it, verb, body)
            assert (moved, reason(result)) == (False, expected), (verb, body)


async def test_a_duplicate_does_not_renew(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        await it.observer.ask(CHANNEL, "set_mv/ann", set_mv(id="same"))
        before = await lease_of(it)
        it.observer.say(f"{CHANNEL}/command/set_mv/ann", set_mv(id="same"))
        await until(lambda: len(it.results("same")) == 2)
        assert it.results("same")[1]["duplicate"] is True
        assert await lease_of(it) == before


@pytest.mark.parametrize("place", ["lease", "top"])
async def test_renewed_without_a_user_by_the_lease_id(place: str, tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        identity = (await it.observer.ask(CHANNEL, "set_mv", set_mv()))["lease_id"]

        def said(lease_id: str) -> dict[str, Any]:
            if place == "top":
                return set_mv(0.6, lease_id=lease_id)
            return set_mv(0.6, {**LONG, "lease_id": lease_id})

        assert (await renewed(it, "set_mv", said(identity)))[0]
        moved, result = await renewed(it, "set_mv", said("another"))
        assert (moved, reason(result)) == (False, ("refused", "leased"))
        moved, result = await renewed(it, "set_mv", set_mv(0.6))
        assert (moved, reason(result)) == (False, ("refused", "leased"))
        moved, result = await renewed(it, "set_mv", set_mv(0.6, None, lease_id=identity))
        assert (moved, reason(result)) == (False, ("succeeded", "ok"))


async def test_a_bare_number_is_a_write_of_the_holder_but_no_renewal(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        await it.observer.ask(CHANNEL, "set_mv/ann", set_mv())
        before = await lease_of(it)
        for user, outcome in (("ann", "succeeded"), ("bob", "refused")):
            known = len(it.observer.on(f"{CHANNEL}/result"))
            it.observer.say(f"{CHANNEL}/command/mv/1/{user}", b"0.75")
            await until(lambda known=known: len(it.observer.on(f"{CHANNEL}/result")) > known)  # type: ignore[misc]
            result = it.observer.on(f"{CHANNEL}/result")[-1].json
            assert (result["user"], result["outcome"]) == (user, outcome)
        assert await lease_of(it) == before
        assert it.variable(1, 1) == 0.75


# --- refused ---


@pytest.mark.parametrize(
    "lease",
    [
        {},
        {"ttl_s": 5},
        {"on_expiry": "stop"},
        {"ttl_s": 0, "on_expiry": "stop"},
        {"ttl_s": -1, "on_expiry": "stop"},
        {"ttl_s": "5", "on_expiry": "stop"},
        {"ttl_s": 1e9, "on_expiry": "stop"},
        {"ttl_s": 5, "on_expiry": "explode"},
        {"ttl_s": 5, "on_expiry": {"set_mv": {}}},
        {"ttl_s": 5, "on_expiry": {"set_mv": {"17": 0}}},
        {"ttl_s": 5, "on_expiry": {"set_mv": {"1": 1e39}}},
        {"ttl_s": 5, "on_expiry": {"set_mv": {"1": "0"}}},
        {"ttl_s": 5, "on_expiry": {"set_mv": {"1": 0}, "stop": True}},
        {"ttl_s": 5, "on_expiry": "stop", "more": 1},
        5,
        "stop",
    ],
)  # fmt: skip
async def test_terms_that_are_malformed(lease: object, tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        result = await it.observer.ask(CHANNEL, "set_mv", {"values": {"1": 0.5}, "lease": lease})
        assert reason(result) == ("refused", "malformed")
        assert await lease_of(it) is None
        assert it.written(1, 1) == []


async def test_a_fallback_out_of_bounds_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path, control={"limits": {1: {"min": 0.5, "max": 5}}}) as it, it.running():
        await it.start(1)
        for fallback in ({"1": 0.0}, {"1": 6.0}, {"2": 0.0}):
            lease = {"ttl_s": 5, "on_expiry": {"set_mv": fallback}}
            result = await it.observer.ask(CHANNEL, "set_mv", set_mv(1.0, lease))
            assert reason(result) == ("refused", "limit")
            assert "lease.on_expiry" in result["message"]
        assert await lease_of(it) is None
        assert it.written(1, 1) == []


async def test_a_lease_that_cannot_be_put_on_record_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as it, it.running() as bridge:
        await it.start(1)

        def fails(*_: object, **__: object) -> "asyncio.Future[None]":
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageError("the disk is full"))
            return future

        with monkeypatch.context() as patched:
            patched.setattr(bridge._store, "put_lease", fails)
            assert reason(await it.observer.ask(CHANNEL, "set_mv", set_mv())) == ("refused", "storage")
        assert await lease_of(it) is None
        assert it.written(1, 1) == []
        assert reason(await it.observer.ask(CHANNEL, "set_mv", set_mv())) == ("succeeded", "ok")


@pytest.mark.parametrize("verb", ["set_mv", "start"])
async def test_taken_back_where_the_command_fails(verb: str, tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running() as bridge:
        if verb == "set_mv":
            await it.start(1)
        it.server.faults = forced("set_meta_variable=0x11" if verb == "set_mv" else "start=0x11")
        body = set_mv() if verb == "set_mv" else {"test_name": "T", "lease": LONG}
        result = await it.observer.ask(CHANNEL, verb, body)
        assert result["outcome"] == "failed"
        assert "lease_id" not in result
        assert await lease_of(it) is None
        await bridge._commander.settle()
        assert await bridge._store.leases() == ()
        assert it.events(1)[-1] == "lease_ended"


async def test_an_unknown_outcome_keeps_the_lease(tmp_path: Path) -> None:
    """It may have been carried out: then somebody has to vouch for it."""
    async with bench(tmp_path, timeout_s=0.5) as it, it.running():
        await it.start(1)
        it.server.faults = Faults(mute=frozenset({"set_meta_variable"}))
        result = await it.observer.ask(CHANNEL, "set_mv", set_mv(0.5, {"ttl_s": 1.5, "on_expiry": ZERO}))
        assert result["outcome"] == "unknown"
        assert it.variable(1, 1) == 0.5
        it.server.faults = NO_FAULTS
        await it.event(1, "lease_settled")
        assert it.variable(1, 1) == 0.0


async def test_a_renewal_that_fails_leaves_the_lease_running(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        await it.observer.ask(CHANNEL, "set_mv/ann", set_mv())
        it.server.faults = forced("set_meta_variable=0x11")
        assert (await it.observer.ask(CHANNEL, "set_mv/ann", set_mv(0.6)))["outcome"] == "failed"
        assert await lease_of(it) is not None


# --- ended ---


async def test_released_by_its_holder_only(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        await it.observer.ask(CHANNEL, "set_mv/ann", set_mv())
        assert reason(await it.observer.ask(CHANNEL, "release/bob")) == ("refused", "leased")
        assert reason(await it.observer.ask(CHANNEL, "release")) == ("refused", "leased")
        assert await lease_of(it) is not None
        assert (await it.observer.ask(CHANNEL, "release/ann"))["message"] == "released"
        assert await lease_of(it) is None
        again = await it.observer.ask(CHANNEL, "release/ann")
        assert (reason(again), again["message"]) == (("succeeded", "ok"), "there was no lease to release")
        assert reason(await it.observer.ask(CHANNEL, "set_mv/bob", set_mv(0.7, None))) == ("succeeded", "ok")
        assert it.asked("stop") == []


async def test_released_without_a_user_by_the_lease_id(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        identity = (await it.observer.ask(CHANNEL, "set_mv", set_mv()))["lease_id"]
        assert reason(await it.observer.ask(CHANNEL, "release", {"lease_id": "another"})) == ("refused", "leased")
        assert reason(await it.observer.ask(CHANNEL, "release", {"lease_id": identity})) == ("succeeded", "ok")
        assert await lease_of(it) is None


async def test_a_stop_is_allowed_to_everybody_and_ends_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running() as bridge:
        await it.start(1)
        await it.observer.ask(CHANNEL, "set_mv/ann", set_mv())
        assert (await it.observer.ask(CHANNEL, "stop/bob"))["outcome"] == "succeeded"
        assert await lease_of(it) is None
        await bridge._commander.settle()
        assert await bridge._store.leases() == ()


async def test_a_stop_of_a_channel_that_ended_by_itself_ends_it_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, it.running():
        await it.start(1)
        await it.observer.ask(CHANNEL, "set_mv/ann", set_mv())
        it.channel(1).stop()
        await it.observer.wait(f"{CHANNEL}/event", lambda heard: heard.json["type"] == "test_finished")
        assert (await it.observer.ask(CHANNEL, "stop"))["reason"] == "not_running"
        assert await lease_of(it) is None
