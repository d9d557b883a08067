"""A line of the issue, a row: configuration, what came before, the command, and what came of it.

On Mosquitto with TLS and the ready-made access rules, with both protocols; one bridge each, whose cyclers differ in
what they let be commanded.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.clock import stamp
from cti_mqtt.config import Config
from cti_mqtt.cti.messages.session import LoginRequest
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest
from cti_mqtt.simulator import Faults, SimulatedServer
from tests.support.brokers import HOST
from tests.support.certificates import Person, SecuredMosquitto, TryFolder, make_folder, needs_scripts, secured_broker
from tests.support.rig import PASSWORD, QUICK, quick_backoff, simulated

pytestmark = [
    needs_scripts,
    pytest.mark.filterwarnings(r"ignore:unclosed <(ssl\.SSLSocket|socket\.socket):ResourceWarning"),
]

CHANNELS = {"full": 96}
FEW = 12
SENDING = (
    *("assign", "start", "stop", "resume", "continue", "jump", "set_meta_variable", "update_meta_variables"),
    "send_message",
)
LIMITS = {
    "1": {"min": 0, "max": 5},
    "2": {"max_step": 1, "initial": 0},
    "3": {"max_rate_per_s": 0.001},
    "4": {"max_step": 1},
}
CONTROLS: dict[str, dict[str, Any]] = {
    "full": {"verbs": "all", "channels": "all", "require_user": True, "limits": LIMITS},
    "stops": {"verbs": ["stop"], "channels": "all"},
    "narrow": {"verbs": ["start", "set_mv", "stop"], "channels": [1, 2], "max_age_s": 2},
    "shadow": {"verbs": "all", "channels": "all", "mode": "shadow", "limits": LIMITS},
    "off": {"enabled": False, "verbs": "all", "channels": "all"},
    "caps": {"verbs": "all", "channels": "all", "max_running": 8},
}
Body = Mapping[str, Any] | bytes | Callable[[], Mapping[str, Any]]


def issued(ago_s: float, **more: Any) -> Callable[[], Mapping[str, Any]]:
    """A write that says when it was issued."""
    return lambda: {"values": {"1": 1.0}, "issued_at": stamp(datetime.now(UTC) - timedelta(seconds=ago_s)), **more}


SET = {"values": {"1": 1.0}}
START = {"test_name": "T", "schedule": "CCCV.sdx"}


@dataclass(frozen=True)
class Row:
    """A command and what comes of it.

    Attributes:
        rule: which line it shows.
        verb: with `mv/1` and the like for the shortcut.
        expected: outcome and reason.
        sent: what the cycler was asked by it.
        cycler: which of `CONTROLS`.
        idle: on a channel that runs no test.
        channel: None: the next that no row has used; 0: to the cycler.
        before: writes that go before it, and are accepted.
        user: the last level; '' for none.
    """

    rule: str
    verb: str
    body: Body
    expected: tuple[str, str]
    sent: tuple[str, ...] = ()
    cycler: str = "full"
    idle: bool = False
    channel: int | None = None
    before: tuple[Mapping[str, Any], ...] = ()
    user: str = "operator"
    properties: Mapping[str, Any] = field(default_factory=dict)
    protocols: tuple[object, ...] = (5, "3.1.1")


OK = ("succeeded", "ok")
ONE = ("set_meta_variable",)


def no(reason: str) -> tuple[str, str]:
    return "refused", reason


def expecting(**what: Any) -> dict[str, Any]:
    return {**SET, "expect": what}


def raw(values: str) -> bytes:
    return b'{"id": "?", "values": %s}' % values.encode()


ROWS = [
    # --- not too late ---
    Row("issued just now", "set_mv", issued(0), OK, ONE),
    Row("max_age_s is 10 by default", "set_mv", issued(8), OK, ONE),
    Row("max_age_s is over", "set_mv", issued(11), no("expired")),
    Row("max_age_s as configured", "set_mv", issued(3), no("expired"), cycler="narrow", channel=1),
    Row("ttl_s counts from issued_at", "set_mv", issued(5, ttl_s=3), no("expired")),
    Row("ttl_s counts, not max_age_s", "set_mv", issued(60, ttl_s=90), OK, ONE),
    Row("ttl_s alone counts from receipt", "set_mv", {**SET, "ttl_s": 5}, OK, ONE),
    Row("no time, no age", "set_mv", SET, OK, ONE),
    Row("a clock may be a little ahead", "set_mv", issued(-1), OK, ONE),
    Row("clock skew", "set_mv", issued(-4), no("clock_skew")),
    Row("a time without a zone", "set_mv", {**SET, "issued_at": "2026-01-02T03:04:05"}, no("malformed")),
    Row("a stop is never too late", "stop", issued(3600, ttl_s=1), OK, ("stop",)),
    Row("a stop never waits for an expectation", "stop", {"expect": {"status": "Nonsense"}}, OK, ("stop",)),
    Row("message expiry in good time", "set_mv", SET, OK, ONE, properties={"MessageExpiryInterval": 9}, protocols=(5,)),
    # --- not by the wrong hand ---
    Row("require_user", "set_mv", SET, no("not_allowed"), user=""),
    Row("require_user holds for a stop", "stop", {}, no("not_allowed"), user=""),
    Row("a user that is a number", "set_mv", SET, no("not_allowed"), user="17"),
    Row("another user, where the broker lets him", "set_mv", SET, OK, ONE, user="auditor"),
    Row("control off", "set_mv", SET, no("not_allowed"), cycler="off", channel=1),
    Row("control off holds for a stop", "stop", {}, no("not_allowed"), cycler="off", channel=1),
    Row("no such cycler", "set_mv", SET, no("unknown_cycler"), cycler="nobody", channel=1),
    Row("no such channel", "set_mv", SET, no("unknown_channel"), channel=99),
    Row("no such verb", "explode", {}, no("unknown_command")),
    Row("stop alone", "stop", {}, OK, ("stop",), cycler="stops", channel=2),
    Row("stop alone: no start", "start", START, no("not_allowed"), cycler="stops", idle=True),
    Row("stop alone: no write", "mv/1", b"1.0", no("not_allowed"), cycler="stops", channel=3),
    Row("stop alone: no message", "message", {"text": "hello"}, no("not_allowed"), cycler="stops", channel=0),
    Row("a permitted channel", "set_mv", SET, OK, ONE, cycler="narrow", channel=1),
    Row("another channel", "set_mv", SET, no("not_allowed"), cycler="narrow", channel=3),
    Row("also to the cycler", "set_mv", {**SET, "channels": [3]}, no("not_allowed"), cycler="narrow", channel=0),
    Row("another channel holds for a stop", "stop", {}, no("not_allowed"), cycler="narrow", channel=3),
    Row("another verb", "jump", {"step": 1}, no("not_allowed"), cycler="narrow", channel=1),
    Row("a start that assigns needs both", "start", START, no("not_allowed"), cycler="narrow", channel=2),
    # --- not out of bounds ---
    Row("the minimum", "set_mv", {"values": {"1": 0.0}}, OK, ONE),
    Row("below it", "set_mv", {"values": {"1": -0.001}}, no("limit")),
    Row("the maximum", "mv/1", b"5.0", OK, ONE),
    Row("above it", "mv/1", b"5.001", no("limit")),
    Row("above it, with a start", "start", {**START, "values": {"1": 9.0}}, no("limit"), idle=True),
    Row("above it, assigning", "assign", {"schedule": "CCCV.sdx", "values": {"1": 9.0}}, no("limit"), idle=True),
    Row("one of several", "set_mv", {"values": {"1": 1.0, "2": 7.0}}, no("limit")),
    Row("a step from initial", "set_mv", {"values": {"2": 1.0}}, OK, ONE),
    Row("too large a step from initial", "set_mv", {"values": {"2": 1.5}}, no("limit")),
    Row("a step from the last value", "set_mv", {"values": {"2": 1.9}}, OK, ONE, before=({"2": 0.9},)),
    Row("too large a step from it", "set_mv", {"values": {"2": -0.2}}, no("limit"), before=({"2": 0.9},)),
    Row("no step without initial", "set_mv", {"values": {"4": 99.0}}, OK, ONE),
    Row("but from then on", "set_mv", {"values": {"4": 97.0}}, no("limit"), before=({"4": 99.0},)),
    Row("the first value has no rate", "set_mv", {"values": {"3": 4.0}}, OK, ONE),
    Row("too fast", "set_mv", {"values": {"3": 4.5}}, no("rate"), before=({"3": 4.0},)),
    Row("not among the limits", "set_mv", {"values": {"5": 0.0}}, no("limit")),
    Row("no limits, any number", "set_mv", {"values": {"5": -1e30}}, OK, ONE, cycler="narrow", channel=1),
    Row("NaN", "set_mv", raw('{"1": NaN}'), no("malformed")),
    Row("infinity", "set_mv", raw('{"1": Infinity}'), no("malformed")),
    Row("infinite as a double", "set_mv", raw('{"1": 1e999}'), no("malformed")),
    Row("infinite as a 32-bit float", "set_mv", raw('{"1": 1e39}'), no("malformed"), cycler="narrow", channel=1),
    Row("NaN by the shortcut", "mv/1", b"NaN", no("malformed")),
    Row("infinite by the shortcut", "mv/1", b"-1e999", no("malformed")),
    Row("a number as a text", "set_mv", {"values": {"1": "1.0"}}, no("malformed")),
    Row("variable 17", "set_mv", {"values": {"17": 1.0}}, no("malformed")),
    Row("a typing error", "set_mv", {**SET, "tlt_s": 5}, no("malformed")),
    Row("max_running", "start", START, no("limit"), cycler="caps", idle=True),
    Row("max_running holds for a resume", "resume", {}, no("limit"), cycler="caps", idle=True),
    # --- expect ---
    Row("expect status", "set_mv", expecting(status="Rest"), OK, ONE),
    Row("another status", "set_mv", expecting(status="Discharge"), no("expectation")),
    Row("expect test name", "set_mv", expecting(test_name="all"), OK, ONE),
    Row("another test name", "set_mv", expecting(test_name="mine"), no("expectation")),
    Row("expect schedule", "set_mv", expecting(schedule="Rest.sdx"), OK, ONE),
    Row("another schedule", "set_mv", expecting(schedule="CCCV.sdx"), no("expectation")),
    Row("expect step", "set_mv", expecting(step=1), OK, ONE),
    Row("another step", "set_mv", expecting(step=2), no("expectation")),
    Row("expect running", "set_mv", expecting(running=True), OK, ONE),
    Row("expect idle", "set_mv", expecting(running=False), no("expectation")),
    Row("expect idle before a start", "start", {**START, "expect": {"status": "Idle", "running": False}}, OK,
        ("assign", "start"), idle=True),
    Row("an expectation that is none", "set_mv", expecting(voltage=3), no("malformed")),
    # --- to practise ---
    Row("dry run", "set_mv", {**SET, "dry_run": True}, OK),
    Row("dry run of a start", "start", {**START, "dry_run": True}, OK, idle=True),
    Row("dry run: every check", "set_mv", {"values": {"1": 6.0}, "dry_run": True}, no("limit")),
    Row("dry run: age", "set_mv", issued(60, dry_run=True), no("expired")),
    Row("shadow", "set_mv", SET, OK, cycler="shadow", channel=1),
    Row("shadow: a start", "start", START, OK, cycler="shadow", idle=True),
    Row("shadow: a stop", "stop", {}, OK, cycler="shadow", channel=1),
    Row("shadow: stop of all", "stop", b"", OK, cycler="shadow", channel=0),
    Row("shadow: a message", "message", {"text": "hello"}, OK, cycler="shadow", channel=0),
    Row("shadow: every check", "set_mv", {"values": {"1": 6.0}}, no("limit"), cycler="shadow", channel=1),
]  # fmt: skip


@dataclass
class Table:
    """A bridge with all these cyclers on a secured broker."""

    broker: SecuredMosquitto
    servers: Mapping[str, SimulatedServer]
    people: Mapping[str, Person]
    protocol: object
    used: dict[tuple[str, bool], int] = field(default_factory=dict)
    count: int = 0

    def asked(self, cycler: str) -> list[str]:
        server = self.servers.get(cycler)
        return [] if server is None else [entry["command"] for entry in server.recorder.commands(*SENDING)]

    def channel(self, row: Row) -> int:
        if row.channel is not None:
            return row.channel
        first = first_idle(row.cycler) if row.idle else 5
        self.used[row.cycler, row.idle] = self.used.get((row.cycler, row.idle), first - 1) + 1
        return self.used[row.cycler, row.idle]

    async def tell(self, target: str, verb: str, body: Any, user: str, **properties: Any) -> dict[str, Any]:
        """Say it as the operator, or as the auditor where the rules let nobody else; the result."""
        auditor = self.people["auditor"]
        heard = len(auditor.on(f"{target}/result"))
        if isinstance(body, Mapping):
            self.count += 1
            body = {"id": f"row-{self.count}", **body}
        topic = f"{target}/command/{verb}" + (f"/{user}" if user else "")
        person = self.people["operator" if user == "operator" else "auditor"]
        person.say(topic, body, **properties)
        found = await auditor.until(lambda: auditor.on(f"{target}/result")[heard:], what=topic)
        result = found[0].json
        assert isinstance(result, dict)
        return result

    async def result(self, target: str, identity: str) -> dict[str, Any]:
        """Of the command with this id."""
        heard = await self.people["auditor"].wait(f"{target}/result", lambda heard: heard.json["id"] == identity)
        body = heard.json
        assert isinstance(body, dict)
        return body

    async def check(self, row: Row) -> list[str]:
        """What is not as the row says."""
        channel = self.channel(row)
        target = f"{row.cycler}/channel/{channel}" if channel else row.cycler
        if row.cycler == "nobody":
            target = "bridge"
        for values in row.before:
            accepted = await self.tell(target, "set_mv", {"values": values}, "operator")
            assert accepted["outcome"] == "succeeded", (row.rule, accepted)
        asked = len(self.asked(row.cycler))
        body = row.body() if callable(row.body) else row.body
        if row.cycler == "nobody":
            result = await self._tell_nobody(body)
        else:
            result = await self.tell(target, row.verb, body, row.user, **row.properties)
        wrong = []
        if (result["outcome"], result["reason"]) != row.expected:
            wrong.append(f"{row.rule}: {result['outcome']}, {result['reason']}: {result['message']}")
        if (sent := tuple(self.asked(row.cycler)[asked:])) != row.sent:
            wrong.append(f"{row.rule}: the cycler was asked {sent}")
        practice = row.cycler == "shadow" or (isinstance(body, Mapping) and body.get("dry_run", False))
        if result.get("dry_run", False) is not practice:
            wrong.append(f"{row.rule}: dry_run is {result.get('dry_run')}")
        return wrong

    async def _tell_nobody(self, body: Any) -> dict[str, Any]:
        self.people["operator"].say("nobody/channel/1/command/set_mv/operator", body)
        heard = await self.people["auditor"].wait("bridge/result")
        result = heard.json
        assert isinstance(result, dict)
        return result


@asynccontextmanager
async def table(path: Path, protocol: object) -> AsyncIterator[Table]:
    folder = await make_folder(path / "mosquitto")
    await asyncio.to_thread(folder.add_user, "viewer", "auditor")
    with (folder.path / "acl").open("a") as acl:
        acl.write("topic readwrite #\n")
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(secured_broker(folder))
        servers = {name: await stack.enter_async_context(simulated(CHANNELS.get(name, FEW))) for name in CONTROLS}
        people = {  # the operator has enough to say
            name: await stack.enter_async_context(
                Person.log_in(broker.port, protocol, folder, folder.login(name), hears)
            )
            for name, hears in (("auditor", "#"), ("operator", "nothing"))
        }
        await stack.enter_async_context(commanding(configured(broker, protocol, folder, servers, path / "data")))
        it = Table(broker, servers, people, protocol)
        for name in servers:
            await people["auditor"].wait(f"{name}/readings")
        await people["auditor"].wait("bridge/availability", lambda heard: heard.payload == b"online", 30)
        yield it


def configured(
    broker: SecuredMosquitto, protocol: object, folder: TryFolder, servers: Mapping[str, SimulatedServer], data: Path
) -> Config:
    common = {"host": HOST, "username": "admin", "password": PASSWORD, "poll_interval_s": 0.5}
    mqtt = {"host": HOST, "port": broker.port, "protocol": protocol, "client_id": "bridge-under-test"}
    cyclers = {
        name: {**common, "port": server.port, "file_port": server.file_port,
               "control": {"enabled": True, **CONTROLS[name]}}
        for name, server in servers.items()
    }  # fmt: skip
    return Config.model_validate(
        {
            "data_dir": data,
            "health_interval_s": 0.5,
            "publish": {"state": False},  # the auditor has enough to hear
            "mqtt": {**mqtt, **folder.login("bridge")},
            "cyclers": cyclers,
        }
    )


@asynccontextmanager
async def commanding(configuration: Config) -> AsyncIterator[None]:
    """A bridge, ended in order."""
    stop = asyncio.Event()
    bridge = Bridge(configuration, backoff=quick_backoff, timing=QUICK)
    task = asyncio.create_task(bridge.run(stop), name="bridge under test")
    try:
        yield
    finally:
        stop.set()
        await task


def first_idle(cycler: str) -> int:
    """The channels before run a test."""
    return CHANNELS.get(cycler, FEW) * 3 // 4


def run_tests_on(name: str, server: SimulatedServer) -> None:
    """All but the idle channels run a test, as if somebody had started them at the console."""
    console = server.cycler.open_session()
    for request in (
        LoginRequest("admin", PASSWORD),
        AssignRequest(0, all_channels=True, schedule="Rest.sdx"),
        StartRequest("all", tuple(range(first_idle(name) - 1))),
    ):
        assert all(feedback.result in {0, 1} for feedback in server.cycler.handle(request, console))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_every_rule(tmp_path: Path, protocol: object) -> None:
    async with table(tmp_path, protocol) as it:
        for name, server in it.servers.items():
            run_tests_on(name, server)
            await it.people["auditor"].wait(
                f"{name}/readings", lambda heard: heard.json["channels"][0]["status"] == "Rest"
            )
        wrong = [each for row in ROWS if protocol in row.protocols for each in await it.check(row)]
        assert not wrong, "\n".join(wrong)
        forged = "full/channel/4/command/set_mv/auditor"
        it.people["operator"].say(forged, {"id": "forged", **SET})
        it.people["operator"].say("full/channel/4/command/stop", b"")
        asked = len(it.asked("full"))
        await it.tell("full/channel/4", "set_mv", {"id": "last", **SET}, "operator")
        assert len(it.asked("full")) == asked + 1
        assert "forged" not in {heard.json["id"] for heard in it.people["auditor"].on("full/channel/4/result")}
        await late_in_the_queue(it)


async def late_in_the_queue(it: Table) -> None:
    """Checked again just before sending: what waited too long for its turn stays here."""
    target = "narrow/channel/1"
    kinds: list[dict[str, Any]] = [{"body": {"ttl_s": 0.4}}, {"body": {"issued": True, "ttl_s": 0.4}}]
    if it.protocol == 5:
        kinds.append({"properties": {"MessageExpiryInterval": 1}})
    it.servers["narrow"].faults = Faults(delays_s={"set_meta_variable": 1.6})
    for number, kind in enumerate(kinds):
        asked = len(it.asked("narrow"))
        more = dict(kind.get("body", {}))
        if more.pop("issued", False):
            more["issued_at"] = stamp(datetime.now(UTC))
        it.people["operator"].say(f"{target}/command/set_mv/operator", {"id": f"first-{number}", **SET})
        late = {"id": f"late-{number}", "values": {"2": 1.0}, **more}
        it.people["operator"].say(f"{target}/command/set_mv/operator", late, **kind.get("properties", {}))
        found = {identity: await it.result(target, identity) for identity in (f"first-{number}", late["id"])}
        assert found[f"first-{number}"]["outcome"] == "succeeded"
        assert (found[late["id"]]["outcome"], found[late["id"]]["reason"]) == ("refused", "expired"), json.dumps(found)
        assert len(it.asked("narrow")) == asked + 1
