"""What only a full MQTT broker shows: response topics, expiry, TLS, passwords, restarts, packet limits."""

import asyncio
import logging
import subprocess
from pathlib import Path

import pytest

from tests.support.brokers import HOST, MOSQUITTO_5, Mosquitto, broker_of_kind, free_port, needs_mosquitto
from tests.support.observer import Observer
from tests.support.rig import rig

pytestmark = needs_mosquitto


class TestResponseTopic:
    async def test_the_result_goes_there_too(self, tmp_path: Path) -> None:
        async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5) as it:
            await it.ready()
            it.observer.say(
                "arbin1/channel/1/command/assign",
                {"id": "r", "schedule": "CCCV.sdx"},
                ResponseTopic="reply/me",
                CorrelationData=b"\x00\x01c",
            )
            await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "r")
            reply = await it.observer.until(lambda: [heard for heard in it.observer.heard if heard.topic == "reply/me"])
            assert reply[0].correlation == b"\x00\x01c"
            assert reply[0].json["outcome"] == "succeeded"

    @pytest.mark.parametrize(
        ("topic", "correlation"),
        [
            pytest.param("cti/arbin1/channel/2/command/stop", b"", id="a command topic of ours"),
            pytest.param("cti", b"", id="the base itself"),
            pytest.param("homeassistant/sensor/x/config", b"", id="Home Assistant's"),
            pytest.param("spBv1.0/Lab/NCMD/x", b"", id="Sparkplug's"),
            pytest.param("reply/me", b"c" * 1025, id="too much correlation data"),
        ],
    )
    async def test_it_is_ignored_where_it_could_do_harm(self, tmp_path: Path, topic: str, correlation: bytes) -> None:
        async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5) as it:
            await it.ready()
            it.observer.say(
                "arbin1/channel/1/command/assign",
                {"id": "r", "schedule": "CCCV.sdx"},
                ResponseTopic=topic,
                CorrelationData=correlation,
            )
            await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "r")
            await it.observer.ask(
                "arbin1/channel/1", "assign", {"schedule": "CCCV.sdx"}
            )  # in order: nothing came before
            assert [heard.payload for heard in it.observer.heard if heard.topic == topic] == []
            assert it.asked("stop") == []


async def test_states_expire(tmp_path: Path) -> None:
    async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5) as it:
        await it.ready()
        async with Observer.connect(port, 5) as newcomer:
            state = await newcomer.wait("arbin1/channel/1/state", lambda heard: heard.retain)
            assert state.expiry_s is not None
            assert 0 < state.expiry_s <= 60


async def test_message_expiry_counts_as_age(tmp_path: Path) -> None:
    async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5) as it:
        await it.ready()
        result = await it.observer.ask("arbin1/channel/1", "assign", {"schedule": "CCCV.sdx"}, MessageExpiryInterval=5)
        assert result["outcome"] == "succeeded"


async def test_broker_restart(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path)
    await mosquitto.start()
    try:
        async with rig(mosquitto.port, 5) as it:
            await it.ready()
            await mosquitto.stop()
            polls = len(it.asked("channels_info"))
            async with asyncio.timeout(10):
                while len(it.asked("channels_info")) < polls + 5:  # noqa: ASYNC110  # polling goes on meanwhile
                    await asyncio.sleep(0.02)
            await mosquitto.start()
            async with Observer.connect(mosquitto.port, 5) as newcomer:
                await newcomer.wait("bridge/availability", lambda heard: heard.payload == b"online", 30)
                for topic in ("bridge/info", "arbin1/info", "arbin1/availability", "arbin1/channel/16/availability"):
                    await newcomer.wait(topic)
                # What was read while the broker was away comes too: every number, none twice out of order.
                await newcomer.wait("arbin1/readings")
                seen = sorted({heard.json["seq"] for heard in newcomer.on("arbin1/readings")})
                assert seen == list(range(seen[0], seen[-1] + 1))
                answered = await newcomer.ask("arbin1/channel/1", "assign", {"schedule": "CCCV.sdx"})
                assert answered["outcome"] == "succeeded"
    finally:
        await mosquitto.stop()


async def test_the_broker_says_offline_when_the_connection_is_cut(tmp_path: Path) -> None:
    """The last will."""
    from cti_mqtt.bridge.mqtt.session import cut

    async with broker_of_kind(MOSQUITTO_5, tmp_path) as port, rig(port, 5) as it:
        await it.ready()
        client = it.bridge._link._client
        assert client is not None
        cut(client.socket())
        await it.observer.wait("bridge/availability", lambda heard: heard.payload == b"offline")
        await it.observer.until_last("bridge/availability", b"online")


async def test_packet_limit_of_the_broker(tmp_path: Path) -> None:
    async with broker_of_kind(MOSQUITTO_5, tmp_path, extra="max_packet_size 6000") as port, rig(port, 5) as it:
        poll = (await it.observer.wait("arbin1/readings")).json
        assert poll["parts"] > 1


def _password_file(folder: Path, user: str, password: str) -> Path:
    path = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(path), user, password], check=True, capture_output=True)
    path.chmod(0o644)
    return path


async def test_user_name_and_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extra = f"password_file {_password_file(tmp_path, 'lab', 'right')}"
    mosquitto = Mosquitto(tmp_path, extra, anonymous=True)
    await mosquitto.start()
    try:
        async with rig(mosquitto.port, 5, mqtt={"username": "lab", "password": "right"}) as it:
            await it.ready()
        with caplog.at_level(logging.WARNING):
            async with rig(mosquitto.port, 5, mqtt={"username": "lab", "password": "wrong-secret"}) as it:
                await _logged(caplog, "refused the connection")
                assert it.observer.on("arbin1/readings") == []
        assert "Not authorized" in caplog.text
        assert "wrong-secret" not in caplog.text
    finally:
        await mosquitto.stop()


def _certificates(folder: Path) -> None:
    """A certificate authority, and a server and a client that it vouches for."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        (folder / "ext").write_text(f"subjectAltName=IP:{HOST}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-extfile", "ext", "-days", "2"),
        )


async def test_mutual_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _certificates(tmp_path)
    tls_port = free_port()
    listener = (
        f"listener {tls_port} {HOST}\ncafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\n"
        f"keyfile {tmp_path}/server.key\nrequire_certificate true\nallow_anonymous true\n"
    )
    tls = {"ca_file": tmp_path / "ca.pem", "cert_file": tmp_path / "client.pem", "key_file": tmp_path / "client.key"}
    # The observer speaks plain MQTT to the same broker.
    async with broker_of_kind(MOSQUITTO_5, tmp_path, listener=listener) as port:
        async with rig(port, 5, mqtt={"port": tls_port, "tls": tls}) as it:
            await it.ready()
        nobody = {"port": tls_port, "tls": {"ca_file": tmp_path / "ca.pem"}}
        with caplog.at_level(logging.WARNING):
            async with rig(port, 5, mqtt=nobody) as it:
                await _logged(caplog, f"{HOST}:{tls_port}")
                assert it.observer.on("arbin1/readings") == []


async def _logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(10):
        while text not in caplog.text:  # noqa: ASYNC110  # a log has no event
            await asyncio.sleep(0.02)
