"""examples/mosquitto as it stands, on a real broker with TLS, with a real bridge: not by the wrong hand."""

import asyncio
import gc
import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.brokers import HOST
from tests.support.certificates import (
    Lab,
    Person,
    TryFolder,
    attempt,
    die,
    lab,
    make_folder,
    needs_scripts,
    running,
    script,
    secured_broker,
    until_accepted,
)
from tests.support.programs import ROOT
from tests.support.rig import settings, simulated

pytestmark = [
    needs_scripts,
    # paho leaves the socket of a failed handshake, and its own pair, to the interpreter, which closes them and says so
    pytest.mark.filterwarnings(r"ignore:unclosed <(ssl\.SSLSocket|socket\.socket):ResourceWarning"),
]

SECURITY = (ROOT / "docs/security.md").read_text(encoding="utf-8")
both_protocols = pytest.mark.parametrize("protocol", [5, "3.1.1"])
FORGERIES = """
    cti/bridge/availability cti/bridge/health cti/bridge/info cti/bridge/event cti/bridge/result
    cti/bridge/heartbeat cti/arbin1/availability cti/arbin1/info cti/arbin1/readings cti/arbin1/backfill
    cti/arbin1/result cti/arbin1/event cti/arbin1/schedules cti/arbin1/channel/1/availability
    cti/arbin1/channel/1/state cti/arbin1/channel/1/mv cti/arbin1/channel/1/event cti/arbin1/channel/1/result
    cti/arbin1/channel/1/lease cti/arbin1/channel/1/alarm/stop_failed cti/arbin1/channel/1/value/voltage_v
    cti/arbin1/channel/1/ack/code cti/arbin1/channel/1/operator cti reply/operator/1 spBv1.0/lab/NCMD/x
    homeassistant/sensor/x/config elsewhere
""".split()


@pytest.fixture(autouse=True)
def _forgotten_sockets() -> Iterator[None]:
    """Collected here, where the warning about them is expected."""
    yield
    gc.collect()


# --- viewers ---


@both_protocols
async def test_a_viewer_reads_everything_and_moves_nothing(tmp_path: Path, protocol: object) -> None:
    async with lab(tmp_path, protocol) as it, it.person("viewer") as viewer, it.person("operator") as operator:
        await viewer.wait("arbin1/channel/1/state", lambda heard: heard.json["voltage_v"] > 0)
        for level in ("", "/viewer", "/operator"):
            on_channel = f"cti/arbin1/channel/1/command/{{}}{level}"
            it.refused(await viewer.put(on_channel.format("stop")))
            it.refused(await viewer.put(on_channel.format("start"), {"test_name": "t", "schedule": "CCCV.sdx"}))
            it.refused(await viewer.put(on_channel.format("set_mv"), {"values": {"1": 1.0}}))
            it.refused(await viewer.put(on_channel.format("mv/1"), 1.0))
            it.refused(await viewer.put(f"cti/arbin1/command/stop{level}"))
        assert (await it.allowed(operator, "operator"))["outcome"] == "succeeded"
        assert it.carried_out == [("assign", 4)]
        assert len(it.results()) == 1
        await viewer.wait("arbin1/channel/4/result")


@both_protocols
async def test_a_will_is_held_to_the_rules_too(tmp_path: Path, protocol: object) -> None:
    async with lab(tmp_path, protocol) as it, it.person("operator") as operator:
        await die(it, "viewer", "cti/arbin1/channel/1/command/assign/viewer")
        await die(it, "viewer", "cti/arbin1/channel/1/command/assign/operator")
        await die(it, "operator", "cti/arbin1/channel/2/command/assign/operator")
        await operator.wait("arbin1/channel/2/result")
        await it.allowed(operator, "operator")
        assert it.carried_out == [("assign", 2), ("assign", 4)]


# --- operators ---


@both_protocols
async def test_an_operator_commands_under_its_own_name_only(tmp_path: Path, protocol: object) -> None:
    async with lab(tmp_path, protocol) as it, it.person("operator") as operator:
        for level in ("", "/viewer", "/bridge", "/alice", "/operator2", "/operator/operator", "/"):
            it.refused(await operator.put(f"cti/arbin1/channel/1/command/assign{level}", {"schedule": "CCCV.sdx"}))
            it.refused(await operator.put(f"cti/arbin1/channel/1/command/stop{level}"))
            it.refused(await operator.put(f"cti/arbin1/channel/1/command/mv/1{level}", 1.0))
            it.refused(await operator.put(f"cti/arbin1/command/stop{level}"))
        result = await it.allowed(operator, "operator")
        assert (result["outcome"], result["user"]) == ("succeeded", "operator")
        assert it.carried_out == [("assign", 4)]
        assert len(it.results()) == 1


@both_protocols
async def test_every_kind_of_command_topic_is_open_to_an_operator(tmp_path: Path, protocol: object) -> None:
    async with lab(tmp_path, protocol) as it, it.person("operator") as operator:
        own = "cti/arbin1/channel/1/command/{}/operator"
        body = {"id": "s", "test_name": "t", "schedule": "ClosedLoop.sdx"}
        assert await operator.put(own.format("start"), body) == "Success"
        started = await operator.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "s")
        assert started.json["outcome"] == "succeeded"
        assert await operator.put(own.format("mv/1"), 1.5) == "Success"
        written = await operator.wait("arbin1/channel/1/result", lambda heard: heard.json["command"] == "set_mv")
        assert (written.json["outcome"], written.json["user"]) == ("succeeded", "operator")
        assert await operator.put("cti/arbin1/command/stop/operator", {"channels": [1]}) == "Success"
        stopped = await operator.wait("arbin1/result")
        assert (stopped.json["outcome"], stopped.json["user"]) == ("succeeded", "operator")


@both_protocols
@pytest.mark.parametrize("name", ["viewer", "operator"])
async def test_nobody_but_the_bridge_speaks_for_the_bridge(tmp_path: Path, protocol: object, name: str) -> None:
    forged = b'"forged"'
    async with lab(tmp_path, protocol) as it, it.person(name) as forger, it.person("operator") as operator:
        for topic in FORGERIES:
            for retain in (False, True):
                it.refused(await forger.put(topic, forged, retain=retain))
        await it.allowed(operator, "operator")
        await it.auditor.wait("arbin1/channel/4/result")
        assert [heard.topic for heard in it.auditor.heard if heard.payload == forged] == []
        async with it.person("auditor") as newcomer:  # nothing was stored either
            await newcomer.wait("bridge/availability")
            assert [heard.topic for heard in newcomer.heard if heard.payload == forged] == []


# --- who does not come in ---


@both_protocols
async def test_without_a_right_name_nobody_comes_in(tmp_path: Path, protocol: object) -> None:
    folder = await make_folder(tmp_path / "mosquitto")
    no = "Not authorized"
    async with secured_broker(folder) as broker:
        assert await attempt(broker, protocol, folder, folder.login("viewer")) == "Success"
        assert await attempt(broker, protocol, folder, {}) == no
        assert await attempt(broker, protocol, folder, {"username": "viewer"}) == no
        for user, password in [("viewer", "wrong"), ("viewer", ""), ("nobody", "x"), ("", ""), ("bridge", "bridge")]:
            assert await attempt(broker, protocol, folder, {"username": user, "password": password}) == no
        others = {"username": "operator", "password": folder.password("viewer")}
        assert await attempt(broker, protocol, folder, others) == no


async def test_without_tls_there_is_no_answer(tmp_path: Path) -> None:
    folder = await make_folder(tmp_path / "mosquitto")
    connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"
    async with secured_broker(folder) as broker:
        reader, writer = await asyncio.open_connection(HOST, broker.port)
        writer.write(connect)
        answer = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(10):
                answer = await reader.read()
        writer.close()
        assert not answer.startswith(b"\x20")  # no CONNACK: at most a TLS alert
        assert len(answer) <= 7


@both_protocols
async def test_a_client_refuses_a_broker_that_another_authority_vouches_for(tmp_path: Path, protocol: object) -> None:
    folder = await make_folder(tmp_path / "mosquitto")
    stranger = await make_folder(tmp_path / "stranger")
    async with secured_broker(folder) as broker:
        with pytest.raises(ssl.SSLCertVerificationError):
            await attempt(broker, protocol, stranger, {"username": "viewer", "password": folder.password("viewer")})


@both_protocols
async def test_a_password_without_rights_opens_nothing(tmp_path: Path, protocol: object) -> None:
    async with lab(tmp_path, protocol) as it, it.person("operator") as operator:
        acl = it.folder.path / "acl"
        everybody = acl.read_text()
        await asyncio.to_thread(it.folder.add_user, "operator", "newcomer")
        acl.write_text(everybody)  # the block is gone, the password stays
        it.broker.reload()
        await until_accepted(it, "newcomer")
        async with it.person("newcomer") as newcomer:
            it.refused(await newcomer.put("cti/arbin1/channel/1/command/assign/newcomer", {"schedule": "CCCV.sdx"}))
            await it.allowed(operator, "operator")
            assert it.carried_out == [("assign", 4)]
            assert newcomer.heard == []


# --- one more operator ---


@both_protocols
async def test_a_new_operator(tmp_path: Path, protocol: object) -> None:
    async with lab(tmp_path, protocol) as it, it.person("operator") as operator:
        await asyncio.to_thread(it.folder.add_user, "operator", "alice-2")
        it.broker.reload()
        await until_accepted(it, "alice-2")
        async with it.person("alice-2") as alice:
            it.refused(await alice.put("cti/arbin1/channel/1/command/assign/operator", {"schedule": "CCCV.sdx"}))
            it.refused(await operator.put("cti/arbin1/channel/1/command/assign/alice-2", {"schedule": "CCCV.sdx"}))
            assert (await it.allowed(alice, "alice-2"))["user"] == "alice-2"
            assert (await it.allowed(operator, "operator", 3))["user"] == "operator"
            assert it.carried_out == [("assign", 4), ("assign", 3)]


@both_protocols
async def test_stop_alone_as_the_documentation_shows_it(tmp_path: Path, protocol: object) -> None:
    lines = re.findall(r"`(topic write cti/[^`]*/stop/alice)`", SECURITY)
    assert len(lines) == 2
    async with lab(tmp_path, protocol) as it:
        await asyncio.to_thread(it.folder.add_user, "viewer", "alice")
        with (it.folder.path / "acl").open("a") as acl:
            acl.write("\n".join(lines) + "\n")
        it.broker.reload()
        await until_accepted(it, "alice")
        async with it.person("alice") as alice:
            it.refused(await alice.put("cti/arbin1/channel/1/command/assign/alice", {"schedule": "CCCV.sdx"}))
            it.refused(await alice.put("cti/arbin1/channel/1/command/mv/1/alice", 1.0))
            assert await alice.put("cti/arbin1/channel/1/command/stop/alice") == "Success"
            stopped = await alice.wait("arbin1/channel/1/result")
            assert (stopped.json["command"], stopped.json["user"]) == ("stop", "alice")
            assert await alice.put("cti/arbin1/command/stop/alice") == "Success"
            await alice.wait("arbin1/result")
        assert {command for command, _ in it.carried_out} == {"stop"}


def test_the_documentation_shows_the_block_that_the_script_adds(tmp_path: Path) -> None:
    folder = TryFolder.make(tmp_path / "try")
    folder.add_user("operator", "alice")
    block = (folder.path / "acl").read_text().rpartition("\n\n")[2]
    assert f"```text\n{block}```" in SECURITY


# --- what the bridge may do besides ---


async def test_an_answer_goes_below_reply_and_nowhere_else(tmp_path: Path) -> None:
    async with lab(tmp_path, 5) as it, it.person("operator") as operator, it.person("viewer") as viewer:
        topic = "cti/arbin1/channel/1/command/assign/operator"
        for number, response in enumerate(("plant/valve/open", "operator", "reply/operator/1")):
            await operator.put(topic, {"id": str(number), "schedule": "CCCV.sdx"}, response=response)
        await operator.until(lambda: [heard for heard in operator.heard if heard.topic == "reply/operator/1"])
        assert (await it.allowed(operator, "operator"))["outcome"] == "succeeded"
        await viewer.wait("arbin1/channel/4/result")
        elsewhere = [heard.topic for heard in it.auditor.heard if not heard.topic.startswith("cti/")]
        assert elsewhere == ["reply/operator/1"]
        assert [heard for heard in viewer.heard if not heard.topic.startswith("cti/")] == []


async def test_a_retained_command_is_cleared(tmp_path: Path) -> None:
    topic, body = "cti/arbin1/channel/1/command/assign/operator", {"id": "r", "schedule": "CCCV.sdx"}
    async with lab(tmp_path, 5) as it, it.person("operator") as operator:
        await operator.put(topic, body, retain=True)
        await refused_as_retained_and_cleared(it, topic)


async def test_a_stored_command_is_cleared(tmp_path: Path) -> None:
    topic, body = "cti/arbin1/channel/1/command/assign/operator", b'{"id": "r", "schedule": "CCCV.sdx"}'
    async with lab(tmp_path, "3.1.1", stored=(topic, body)) as it:
        await refused_as_retained_and_cleared(it, topic)


async def refused_as_retained_and_cleared(it: Lab, topic: str) -> None:
    refused = await it.auditor.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "r")
    assert refused.json["reason"] == "retained"
    await it.auditor.wait(topic.removeprefix("cti/"), lambda heard: heard.payload == b"")
    async with it.person("auditor") as newcomer:
        await newcomer.wait("bridge/availability")
        await newcomer.wait("arbin1/readings")
        assert newcomer.on(topic.removeprefix("cti/")) == []
    assert it.carried_out == []


# --- the bridge and the broker's certificate ---


@pytest.mark.parametrize(
    ("host", "other_authority", "complaint"),
    [
        pytest.param("elsewhere.example", False, f"certificate is not valid for '{HOST}'", id="another name"),
        pytest.param(HOST, True, "certificate verify failed", id="another authority"),
    ],
)
async def test_the_bridge_refuses_a_broker_that_it_cannot_trust(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str, other_authority: bool, complaint: str
) -> None:
    folder = await make_folder(tmp_path / "mosquitto", host)
    trusted = await make_folder(tmp_path / "stranger") if other_authority else folder
    login = {**folder.login("bridge"), "tls": {"ca_file": trusted.ca_file}}
    async with secured_broker(folder) as broker, simulated(1) as server:
        configuration = settings(broker.port, 5, {"arbin1": server}, mqtt=login, data_dir=tmp_path / "data")
        with caplog.at_level(logging.WARNING):
            async with running(configuration) as bridge, asyncio.timeout(10):
                while complaint not in caplog.text:  # noqa: ASYNC110  # a log has no event
                    await asyncio.sleep(0.02)
                assert not bridge.ready.is_set()
        assert f"cannot connect to the broker at {HOST}:{broker.port}: " in caplog.text
        assert "bridge-under-test" not in broker.log  # never came as far as a login
        assert folder.password("bridge") not in caplog.text


# --- mutual TLS ---


@both_protocols
async def test_mutual_tls(tmp_path: Path, protocol: object) -> None:
    async with lab(tmp_path, protocol, mutual=True) as it:
        async with it.person("viewer") as viewer, it.person("operator") as operator:
            it.refused(await viewer.put("cti/arbin1/channel/1/command/assign/viewer", {"schedule": "CCCV.sdx"}))
            it.refused(await viewer.put("cti/arbin1/channel/1/command/assign/operator", {"schedule": "CCCV.sdx"}))
            it.refused(await operator.put("cti/arbin1/channel/1/command/assign/viewer", {"schedule": "CCCV.sdx"}))
            it.refused(await operator.put("cti/arbin1/channel/1/state", b"{}"))
            assert (await it.allowed(operator, "operator"))["user"] == "operator"
        borrowed = {**it.folder.login("operator"), **it.folder.certificate("viewer")}
        async with Person.log_in(it.broker.port, protocol, it.folder, borrowed) as viewer:
            it.refused(await viewer.put("cti/arbin1/channel/1/command/assign/operator", {"schedule": "CCCV.sdx"}))
        async with it.person("operator") as operator:
            await it.allowed(operator, "operator", 3)
        assert it.carried_out == [("assign", 4), ("assign", 3)]


@both_protocols
async def test_mutual_tls_wants_a_certificate_of_the_authority(tmp_path: Path, protocol: object) -> None:
    folder = await make_folder(tmp_path / "mosquitto")
    stranger = await make_folder(tmp_path / "stranger")
    async with secured_broker(folder, mutual=True) as broker:
        assert await attempt(broker, protocol, folder, folder.certificate("bridge")) == "Success"
        foreign = {"tls": {**stranger.certificate("bridge")["tls"], "ca_file": folder.ca_file}}
        for who in (folder.login("operator"), foreign):
            with suppress(OSError):  # TLS 1.3: the client may hear of it only after its own handshake
                assert await attempt(broker, protocol, folder, who) == "cut"


async def test_a_certificate_of_a_client_is_no_broker_certificate(tmp_path: Path) -> None:
    """Whoever got one to connect with must not be able to play the broker."""
    folder = await make_folder(tmp_path / "mosquitto")
    for ending in ("pem", "key"):
        (folder.path / f"viewer.{ending}").replace(folder.path / f"server.{ending}")
    async with secured_broker(folder) as broker:
        with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
            await attempt(broker, 5, folder, folder.login("operator"))


# --- the scripts ---


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = TryFolder.make(tmp_path / "try")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    again = script("make-certificates.sh", folder.path, HOST)
    assert (again.returncode, again.stdout) == (1, "")
    assert "exists already" in again.stderr
    for role, name in [("operator", "operator"), ("operator", "viewer"), ("viewer", "bridge"), ("bridge", "bridge")]:
        assert script("add-user.sh", folder.path, role, name).returncode == 1
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def test_what_was_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = TryFolder.make(tmp_path / "try")
    assert {path.stat().st_mode & 0o077 for path in [folder.path, *folder.path.iterdir()]} == {0}
    assert folder.password("bridge") not in (folder.path / "passwords").read_text()


@pytest.mark.parametrize("name", ["", "7", "42x", "-a", "a b", "a/b", "a+", "#", "A", "ä", "a\nuser b", "a:b", "%u"])
def test_names_that_are_no_topic_level(tmp_path: Path, name: str) -> None:
    folder = TryFolder.make(tmp_path / "try")
    rules = (folder.path / "acl").read_text()
    done = script("add-user.sh", folder.path, "operator", name)
    assert done.returncode == 1
    assert "a name is of" in done.stderr
    assert (folder.path / "acl").read_text() == rules


@pytest.mark.parametrize("host", ["a b", "a/b", "-x", "a\nDNS:b", "a,DNS:b"])
def test_hosts_that_are_none(tmp_path: Path, host: str) -> None:
    done = script("make-certificates.sh", tmp_path / "try", host)
    assert done.returncode == 1
    assert not (tmp_path / "try").exists()


def test_each_role_has_the_same_rights_under_each_name(tmp_path: Path) -> None:
    folder = TryFolder.make(tmp_path / "try")
    for role in ("viewer", "operator"):
        folder.add_user(role, f"new-{role}")
    blocks = (folder.path / "acl").read_text().split("\n\n")
    for role in ("viewer", "operator"):
        block = next(block for block in blocks if f"user {role}\n" in block).partition(f"user {role}\n")[2]
        new = next(block for block in blocks if f"user new-{role}\n" in block).partition(f"user new-{role}\n")[2]
        assert new.strip().splitlines() == [
            line.replace(f"/{role}", f"/new-{role}") for line in block.strip().splitlines()
        ]
