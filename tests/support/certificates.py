"""The ready-made Mosquitto of examples/mosquitto, as its scripts leave it; and a lab that runs on it."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.mqtt.session import cut
from cti_mqtt.config import Config
from cti_mqtt.simulator import SimulatedServer
from tests.support.brokers import HOST, MOSQUITTO, SEARCH_PATH, Mosquitto, free_port
from tests.support.observer import Observer
from tests.support.programs import ROOT
from tests.support.rig import CONTROL, QUICK, quick_backoff, settings, simulated

SCRIPTS = ROOT / "examples/mosquitto"

COMMANDS = ("assign", "start", "stop", "set_meta_variable", "update_meta_variables", "resume", "continue", "jump")
needs_scripts = pytest.mark.skipif(
    MOSQUITTO is None or os.name == "nt" or shutil.which("openssl") is None, reason="needs mosquitto, openssl and sh"
)


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts; nothing is raised for its exit status."""
    return subprocess.run(
        [str(SCRIPTS / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": SEARCH_PATH},
    )


@dataclass(frozen=True)
class TryFolder:
    """What make-certificates.sh made."""

    path: Path

    @classmethod
    def make(cls, path: Path, host: str = HOST) -> "TryFolder":
        """A new one, for a broker that is reached under this name or address."""
        done = script("make-certificates.sh", path, host)
        assert done.returncode == 0, done.stderr
        return cls(path)

    def add_user(self, role: str, name: str) -> None:
        """One more user."""
        done = script("add-user.sh", self.path, role, name)
        assert done.returncode == 0, done.stderr

    @property
    def ca_file(self) -> Path:
        return self.path / "ca.pem"

    def password(self, user: str) -> str:
        """As the scripts noted it."""
        lines = (self.path / "credentials.txt").read_text().splitlines()
        return dict(line.split() for line in lines)[user]

    def login(self, user: str) -> dict[str, Any]:
        """The part of `mqtt` in a configuration for a user with a password."""
        return {"username": user, "password": self.password(user), "tls": {"ca_file": self.ca_file}}

    def certificate(self, user: str) -> dict[str, Any]:
        """The part of `mqtt` in a configuration for a user with a certificate."""
        files = {"cert_file": self.path / f"{user}.pem", "key_file": self.path / f"{user}.key"}
        return {"tls": {"ca_file": self.ca_file, **files}}


class SecuredMosquitto(Mosquitto):
    """Runs with the folder's own configuration; only address and port are other ones.

    Args:
        mutual: whether the commented lines for mutual TLS are switched on.
    """

    def __init__(self, folder: TryFolder, *, mutual: bool = False) -> None:
        self.port = free_port()
        self._config = folder.path / "mosquitto.conf"
        self._log = folder.path / "mosquitto.log"
        self._process = None
        text, listeners = re.subn(
            "^listener 8883$", f"listener {self.port} {HOST}", self._config.read_text(), flags=re.MULTILINE
        )
        assert listeners == 1
        if mutual:
            text, lines = re.subn("^#(require_certificate|use_identity_as_username)", r"\1", text, flags=re.MULTILINE)
            assert lines == 2
        if os.geteuid() == 0:
            text += "user root\n"  # else it could not read a folder of root's
        self._config.write_text(text)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def reload(self) -> None:
        """Let it read password and access files again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)


@asynccontextmanager
async def secured_broker(folder: TryFolder, *, mutual: bool = False) -> AsyncIterator[SecuredMosquitto]:
    """The folder's broker, running."""
    broker = SecuredMosquitto(folder, mutual=mutual)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def make_folder(path: Path, host: str = HOST) -> TryFolder:
    """A new folder; the scripts take a moment."""
    return await asyncio.to_thread(TryFolder.make, path, host)


# --- people ---


def new_client(protocol: object, folder: TryFolder, who: dict[str, Any], client_id: str = "") -> Client:
    """A paho client that trusts the folder's authority; `who` as in a configuration's `mqtt` section."""
    version = MQTTProtocolVersion.MQTTv5 if protocol == 5 else MQTTProtocolVersion.MQTTv311
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False)
    if "username" in who:
        client.username_pw_set(who["username"], who.get("password"))
    tls = {"ca_file": folder.ca_file, "cert_file": None, "key_file": None, **who.get("tls", {})}
    ca_file, cert_file, key_file = (file and str(file) for file in tls.values())
    client.tls_set(ca_file, cert_file, key_file)
    return client


class Person(Observer):
    """Somebody with a login, who sees what the broker says to each message."""

    def __init__(self, port: int, protocol: object, folder: TryFolder, who: dict[str, Any], hears: str = "#") -> None:
        super().__init__(port, protocol)
        callbacks = self._client.on_message, self._client.on_subscribe
        self._client = new_client(protocol, folder, who)
        self._client.on_message, self._client.on_subscribe = callbacks
        self._client.on_connect = lambda client, *_: client.subscribe(hears, 1)  # what may be read of it is delivered
        self._client.on_publish = self._on_publish
        self._answers: dict[int, asyncio.Future[str]] = {}

    @classmethod
    @asynccontextmanager
    async def log_in(
        cls, port: int, protocol: object, folder: TryFolder, who: dict[str, Any], hears: str = "#"
    ) -> AsyncIterator[Self]:
        person = cls(port, protocol, folder, who, hears)
        await asyncio.to_thread(person._client.connect, HOST, port, 60)
        person._client.loop_start()
        try:
            async with asyncio.timeout(10):
                await person._subscribed.wait()
            yield person
        finally:
            person._client.disconnect()
            await asyncio.to_thread(person._client.loop_stop)

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties) -> None:
        self._loop.call_soon_threadsafe(self._acknowledge, mid, str(reason))

    def _acknowledge(self, mid: int, reason: str) -> None:
        if answer := self._answers.pop(mid, None):
            answer.set_result(reason)

    async def put(self, topic: str, body: Any = b"", *, retain: bool = False, response: str | None = None) -> str:
        """Publish on a whole topic; what the broker answers (on 3.1.1 it has no word for "no")."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties = None
        if response is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = response
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        answer: asyncio.Future[str] = self._loop.create_future()
        self._answers[info.mid] = answer
        async with asyncio.timeout(10):
            return await answer


@dataclass
class Lab:
    """A secured broker, a bridge that is online, and an auditor who reads everything.

    Attributes:
        auditor: a viewer with one line more in `acl`: `topic read #`.
    """

    folder: TryFolder
    broker: SecuredMosquitto
    server: SimulatedServer
    auditor: Person
    protocol: object
    mutual: bool

    @asynccontextmanager
    async def person(self, name: str) -> AsyncIterator[Person]:
        """Somebody with the login of this name."""
        who = self.folder.certificate(name) if self.mutual else self.folder.login(name)
        async with Person.log_in(self.broker.port, self.protocol, self.folder, who) as person:
            yield person

    @property
    def carried_out(self) -> list[tuple[str, Any]]:
        """What the cycler was asked to do, and with which channel."""
        recorder = self.server.recorder
        assert recorder is not None
        return [(entry["command"], entry["arguments"].get("channel")) for entry in recorder.commands(*COMMANDS)]

    def refused(self, answer: str) -> None:
        """The broker's answer to something forbidden; on 3.1.1 nobody is told."""
        assert answer == ("Not authorized" if self.protocol == 5 else "Success")

    async def allowed(self, person: Person, name: str, channel: int = 4) -> dict[str, Any]:
        """An allowed command, after which nothing of what was said before can be on its way any more."""
        command = f"allowed-{len(person.heard)}-{name}"
        topic = f"cti/arbin1/channel/{channel}/command/assign/{name}"
        assert await person.put(topic, {"id": command, "schedule": "Rest.sdx"}) == "Success"
        for each in (person, self.auditor):
            heard = await each.wait(f"arbin1/channel/{channel}/result", lambda heard: heard.json["id"] == command)
        result = heard.json
        assert isinstance(result, dict)
        return result

    def results(self) -> list[dict[str, Any]]:
        """All results that anybody was given."""
        return [heard.json for heard in self.auditor.heard if heard.topic.endswith("/result")]


@asynccontextmanager
async def lab(
    path: Path, protocol: object, *, mutual: bool = False, stored: tuple[str, bytes] | None = None
) -> AsyncIterator[Lab]:
    """Everything of a test; `stored`: a retained message that an operator leaves before the bridge comes."""
    folder = await make_folder(path / "mosquitto")
    await asyncio.to_thread(folder.add_user, "viewer", "auditor")
    with (folder.path / "acl").open("a") as acl:
        acl.write("topic read #\n")
    logins = folder.certificate if mutual else folder.login
    async with secured_broker(folder, mutual=mutual) as broker, simulated(4) as server:
        if stored:
            async with Person.log_in(broker.port, protocol, folder, logins("operator")) as operator:
                assert await operator.put(*stored, retain=True) == "Success"
        configuration = settings(
            broker.port,
            protocol,
            {"arbin1": server},
            {"control": {**CONTROL, "require_user": True}},
            mqtt=logins("bridge"),
            data_dir=path / "data",
        )
        async with Person.log_in(broker.port, protocol, folder, logins("auditor")) as auditor, running(configuration):
            await auditor.wait("arbin1/readings")
            await auditor.wait("bridge/availability", lambda heard: heard.payload == b"online", 30)
            yield Lab(folder, broker, server, auditor, protocol, mutual)


@asynccontextmanager
async def running(configuration: Config) -> AsyncIterator[Bridge]:
    """A bridge, ended in order."""
    stop = asyncio.Event()
    bridge = Bridge(configuration, backoff=quick_backoff, timing=QUICK)
    task = asyncio.create_task(bridge.run(stop), name="bridge under test")
    try:
        yield bridge
    finally:
        stop.set()
        await task


async def attempt(broker: SecuredMosquitto, protocol: object, folder: TryFolder, who: dict[str, Any]) -> str:
    """What comes of a login: `Success`, the broker's answer, or `cut` where it gives none.

    Raises:
        ssl.SSLError: no common understanding of who the other is.
    """
    async with connection(broker, new_client(protocol, folder, who)) as answer:
        return answer


@asynccontextmanager
async def connection(broker: SecuredMosquitto, client: Client) -> AsyncIterator[str]:
    """A client's attempt to connect, once; what the broker said, as in `attempt`."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[str] = loop.create_future()

    def settle(text: str) -> None:
        if not outcome.done():
            outcome.set_result(text)

    def on_connect(_client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        loop.call_soon_threadsafe(settle, str(reason))

    def on_disconnect(*_: Any) -> None:
        loop.call_soon_threadsafe(settle, "cut")

    client.on_connect, client.on_disconnect = on_connect, on_disconnect
    await asyncio.to_thread(client.connect, HOST, broker.port, 60)
    client.loop_start()
    try:
        async with asyncio.timeout(10):
            answer = await outcome
        yield answer
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


async def until_accepted(it: Lab, name: str) -> None:
    """Until the broker has read its files again; a client of a name that it does not know is refused."""
    async with asyncio.timeout(10):
        while await attempt(it.broker, it.protocol, it.folder, it.folder.login(name)) != "Success":  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def die(it: Lab, name: str, topic: str) -> None:
    """A client that leaves a command as its will, and goes without a word."""
    client = new_client(it.protocol, it.folder, it.folder.login(name), f"dying-{name}")
    client.will_set(topic, b'{"id": "will", "schedule": "CCCV.sdx"}', qos=1)
    async with connection(it.broker, client) as answer:
        assert answer == "Success"
        cut(cast("socket.socket", client.socket()))
        async with asyncio.timeout(10):
            while f"Client dying-{name} closed its connection" not in it.broker.log:  # noqa: ASYNC110  # a file
                await asyncio.sleep(0.02)
