"""The order of refusals: a command that breaks every rule is refused for the first; mended rule by rule, for the next.

No cycler and no broker: what a check looks at is set by hand.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cti_mqtt import config
from cti_mqtt.bridge.bus import Bus, Item, Result
from cti_mqtt.bridge.commands import MAX_UNFINISHED, Commander
from cti_mqtt.bridge.delivery import Replayer
from cti_mqtt.bridge.delivery.late import LateSender
from cti_mqtt.bridge.delivery.marks import Marks
from cti_mqtt.bridge.delivery.pace import Pace
from cti_mqtt.bridge.delivery.sending import Sender
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.retained import RetainedGuard
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.topics import Topics
from cti_mqtt.cti.codes import UserType
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.results import LoginResult
from tests.bridge.test_payloads import RECORD

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOGIN = LoginFeedback(
    LoginResult.SUCCESS, "127.0.0.1", "1", "", "", "", "", "", "", "", 0, 1, True, 16, UserType.SUPER_USER
)


@dataclass
class FakeClock:
    """Time that stands until it is moved."""

    seconds: float = 1000.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds - 1000.0)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Bench:
    """A commander whose surroundings can be set."""

    commander: Commander
    station: Station
    clock: FakeClock
    results: list[Result] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)

    async def tell(
        self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None, passes_s: float = 0.0
    ) -> Result:
        """Send a command, let time pass, wait for its (last) result."""
        self.results.clear()
        self.commander.hear(Incoming(topic, payload, retain, expiry_s=expiry_s))
        self.clock.seconds += passes_s
        async with asyncio.timeout(5):
            while not self.results:  # noqa: ASYNC110  # results arrive from a task
                await asyncio.sleep(0)
        return self.results[-1]


def control(**changes: Any) -> dict[str, Any]:
    base = {
        "enabled": True,
        "verbs": ["start", "stop", "set_mv"],
        "channels": [1, 2, 3],
        "require_user": True,
        "limits": {1: {"min": 0, "max": 5, "max_rate_per_s": 1.0}},
    }
    return {**base, **changes}


@contextlib.asynccontextmanager
async def bench(**changes: Any) -> AsyncIterator[Bench]:
    clock = FakeClock()
    bus = Bus()
    settings = config.Cycler.model_validate(
        {"host": "h", "username": "u", "password": "p", "control": control(**changes)}
    )
    station = Station("arbin1", settings, bus, clock)
    cleared: list[str] = []
    guard = RetainedGuard(clock.monotonic, protocol_5=True)
    store = Store(None)
    await store.open()
    sender = Sender(Topics("cti"), lambda message, settled: False, None, lambda: None, clock.monotonic, lambda *_: None)
    replayer = Replayer(LateSender(sender, Pace(1), lambda: False), None, Marks(None), lambda *_: None)
    commander = Commander(
        Topics("cti"), {"arbin1": station}, bus, clock, guard, cleared.append, store, lambda: True, replayer
    )
    it = Bench(commander, station, clock, cleared=cleared)

    def keep(item: Item) -> None:
        if isinstance(item, Result):
            it.results.append(item)

    bus.subscribe(keep)
    running = asyncio.create_task(commander.run())
    await asyncio.sleep(0)
    try:
        yield it
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await store.close()


# --- the ladder: each rung mends one thing, the next refusal shows ---


@dataclass(frozen=True)
class Attempt:
    """A set_mv, and everything around it, as wrong as can be."""

    retain: bool = True
    cycler: str = "nobody"
    enabled: bool = False
    verb: str = "explode"
    login: LoginFeedback | None = None
    channel: str = "99"
    verbs: tuple[str, ...] = ()
    user: str = "/17"
    payload: bytes = b"{"
    late: bool = True
    skewed: bool = True
    online: bool = False
    load: int = MAX_UNFINISHED
    expected: str = "Discharge"
    value: float = 9.0


def _body(attempt: Attempt) -> bytes:
    issued = NOW + timedelta(seconds=-60 if attempt.late else 60 if attempt.skewed else 0)
    return (
        f'{{"id": "x", "values": {{"1": {attempt.value}}}, "expect": {{"status": "{attempt.expected}"}}, '
        f'"issued_at": "{issued.isoformat()}"}}'
    ).encode()


NO_CONTROL = replace(LOGIN, allow_control=False)
RUNGS: list[tuple[str, dict[str, Any]]] = [
    ("retained", {}),
    ("unknown_cycler", {"retain": False}),
    ("not_allowed", {"cycler": "arbin1"}),
    ("unknown_command", {"enabled": True}),
    ("not_connected", {"verb": "set_mv"}),
    ("unknown_channel", {"login": NO_CONTROL}),
    ("not_allowed", {"channel": "9"}),
    ("not_allowed", {"verbs": ("set_mv",)}),
    ("not_allowed", {"user": "/alice"}),
    ("malformed", {"channel": "2"}),
    ("expired", {"payload": b"body"}),
    ("clock_skew", {"late": False}),
    ("no_control_right", {"skewed": False}),
    ("not_connected", {"login": LOGIN}),
    ("busy", {"online": True}),
    ("expectation", {"load": 0}),
    ("rate", {"expected": "Charge"}),
    ("limit", {"value": 5.5}),
]


@pytest.mark.parametrize("rung", range(len(RUNGS)), ids=[f"{n}-{reason}" for n, (reason, _) in enumerate(RUNGS)])
async def test_the_first_that_applies(rung: int) -> None:
    attempt = Attempt()
    for _, mended in RUNGS[: rung + 1]:
        attempt = replace(attempt, **mended)
    async with bench(enabled=attempt.enabled, verbs=attempt.verbs) as it:
        it.station.info = attempt.login
        it.station.book.record({2: RECORD._replace(channel=1)})
        it.station.variables.accepted(2, 1, 5.0)
        # From one value to the next within the rate: the last rung is about the range alone.
        if RUNGS[rung][0] == "limit":
            it.clock.seconds += 1.5
        if attempt.online:
            it.station._up.set()
        it.commander._desks["arbin1"].unfinished = attempt.load
        topic = f"cti/{attempt.cycler}/channel/{attempt.channel}/command/{attempt.verb}{attempt.user}"
        payload = _body(attempt) if attempt.payload == b"body" else attempt.payload
        result = await it.tell(topic, payload, retain=attempt.retain)
        assert (result.body["outcome"], result.body["reason"]) == ("refused", RUNGS[rung][0])
        assert result.body["code"] is None
        assert result.body["message"]


# --- where a refusal goes ---


@pytest.mark.parametrize(
    ("topic", "cycler", "channel_text", "channel"),
    [
        ("cti/arbin1/channel/7/command/start", "arbin1", "7", 7),
        ("cti/arbin1/channel/99/command/start", "arbin1", "99", 99),
        ("cti/arbin1/channel/abc/command/start", "arbin1", "abc", None),
        ("cti/arbin1/command/start", "arbin1", None, None),
        ("cti/nobody/command/start", None, None, None),
        ("cti/nobody/channel/7/command/start", None, None, 7),
        ("cti/bridge/command/start", None, None, None),
    ],
)
async def test_it_goes_where_the_command_was_sent(
    topic: str, cycler: str | None, channel_text: str | None, channel: int | None
) -> None:
    async with bench(enabled=False) as it:
        result = await it.tell(topic, b'{"id": "mine"}')
        assert (result.cycler, result.channel_text, result.body["channel"]) == (cycler, channel_text, channel)
        assert result.body["id"] == "mine"


class TestSwitchedOff:
    @pytest.mark.parametrize("verb", ["start", "stop", "assign", "set_mv", "mv/1", "nonsense"])
    async def test_everything_is_refused(self, verb: str) -> None:
        async with bench(enabled=False) as it:
            result = await it.tell(f"cti/arbin1/channel/1/command/{verb}", b"{}")
            assert (result.body["outcome"], result.body["reason"]) == ("refused", "not_allowed")


STOP = "cti/arbin1/channel/1/command/stop"


class TestStopIsEasy:
    @pytest.mark.parametrize(
        "payload",
        [b"", b"garbage", b'{"issued_at": "2001-01-01T00:00:00Z"}', b'{"expect": {"status": "Nonsense"}}'],
    )
    async def test_only_who_and_where_count(self, payload: bytes) -> None:
        """Never refused for age, expectation or load: here it gets as far as the missing connection."""
        async with bench(require_user=False) as it:
            it.station.info = LOGIN
            it.station._up.set()
            it.commander._desks["arbin1"].unfinished = MAX_UNFINISHED
            result = await it.tell("cti/arbin1/channel/1/command/stop", payload, expiry_s=0, passes_s=31)
            assert (result.body["outcome"], result.body["reason"]) == ("refused", "not_connected")

    async def test_it_can_be_allowed_alone(self) -> None:
        async with bench(require_user=False, verbs=["stop"]) as it:
            it.station.info = LOGIN
            assert (await it.tell(STOP, b"", passes_s=31)).body["reason"] == "not_connected"
            start = await it.tell("cti/arbin1/channel/1/command/start", b'{"test_name": "T"}')
            assert start.body["reason"] == "not_allowed"


async def test_a_start_that_assigns_needs_both_permissions() -> None:
    async with bench(require_user=False) as it:
        it.station.info = LOGIN
        body = b'{"test_name": "T", "schedule": "CCCV.sdx"}'
        result = await it.tell("cti/arbin1/channel/1/command/start", body)
        assert (result.body["reason"], "assign" in result.body["message"]) == ("not_allowed", True)


@pytest.mark.parametrize("body", ['"barcode": "B"', '"values": {"1": 1}'])
async def test_mits_7_overwrites_so_the_capacity_must_be_given(body: str) -> None:
    async with bench(require_user=False, verbs="all") as it:
        it.station.info = replace(LOGIN, version=0)
        result = await it.tell("cti/arbin1/channel/1/command/assign", b'{"schedule": "a.sdx", %b}' % body.encode())
        assert (result.body["reason"], "MITS 7" in result.body["message"]) == ("malformed", True)


class TestDryRun:
    @pytest.mark.parametrize("shadow", [False, True])
    async def test_every_check_is_made_and_nothing_is_sent(self, shadow: bool) -> None:
        async with bench(require_user=False, mode="shadow" if shadow else "on") as it:
            it.station.info = LOGIN
            it.station._up.set()  # but there is no session: sending would fail
            extra = b"" if shadow else b', "dry_run": true'
            good = await it.tell("cti/arbin1/channel/1/command/set_mv", b'{"values": {"1": 2}%b}' % extra)
            assert (good.body["outcome"], good.body["code"], good.body["dry_run"]) == ("succeeded", None, True)
            bad = await it.tell("cti/arbin1/channel/1/command/set_mv", b'{"values": {"1": 7}%b}' % extra)
            assert (bad.body["outcome"], bad.body["reason"], bad.body["dry_run"]) == ("refused", "limit", True)
            stop = await it.tell(STOP, b"", passes_s=0 if shadow else 31)
            assert stop.body.get("dry_run", False) is shadow
            assert stop.body["outcome"] == ("succeeded" if shadow else "refused")
