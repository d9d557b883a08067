"""The HTTP port: real requests over loopback to a real bridge."""

import asyncio
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from cti_mqtt import __version__
from cti_mqtt.bridge.health import HealthVerdict, JournalState
from cti_mqtt.bridge.monitoring.http_port import EXCHANGE_S, MOST_CLIENTS, Answer, HttpPort, Page
from cti_mqtt.bridge.monitoring.monitoring import pages
from cti_mqtt.config import Http
from tests.bridge.bench import until
from tests.bridge.test_health import WELL
from tests.support.brokers import AMQTT, HOST, broker_of_kind
from tests.support.rig import Rig, rig

START = {"test_name": "T", "schedule": "CCCV.sdx"}
Got = tuple[int, Mapping[str, str], bytes]


def fetch(port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Got:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


async def ask(port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Got:
    return await asyncio.to_thread(fetch, port, path, method, headers)


def samples(families: Any) -> dict[str, float]:
    """By name, with a cycler's behind it."""
    found = {}
    for family in families:
        assert isinstance(family, Metric)
        for sample in family.samples:
            found[" ".join([sample.name, *(sample.labels[key] for key in sample.labels if key == "cycler")])] = (
                sample.value
            )
    return found


# --- the port alone ---


@dataclass
class Told:
    """A verdict that a test changes."""

    verdict: HealthVerdict = field(default_factory=lambda: WELL)

    def __call__(self) -> HealthVerdict:
        return self.verdict


@contextmanager
def listening(given: Mapping[str, Page], port: int = 0) -> Iterator[HttpPort]:
    it = HttpPort(Http(port=port), given)
    it.start()
    try:
        wait_for(lambda: it.port or it.problem)
        yield it
    finally:
        it.stop()
        assert not it._thread.is_alive()


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exchange(port: int, request: bytes) -> bytes:
    """Bytes to the port, and all that comes back."""
    with socket.create_connection((HOST, port), 10) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(4096), b""))


def port_of(it: HttpPort) -> int:
    assert it.port
    return it.port


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET /healthz?verbose=1 HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /../healthz HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /healthz HTTP/1.1\r\n\r\n", 405),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\n\r\n", 400),
        (b"\xff\xfe\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_requests(request_bytes: bytes, status: int) -> None:
    with listening(pages(Told())) as it:
        answer = exchange(port_of(it), request_bytes)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head
        assert (b"Allow: GET, HEAD" in head) is (status == 405)
        assert bool(body) is not request_bytes.startswith(b"HEAD")


def test_a_bug_in_a_page_is_that_pages(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_accept: str) -> Answer:
        raise ValueError("secret")

    with listening({**pages(Told()), "/broken": broken}) as it:
        status, _, body = fetch(port_of(it), "/broken")
        assert (status, b"secret" in body) == (500, False)
        assert fetch(port_of(it), "/healthz")[0] == 200
    assert "HTTP: /broken" in caplog.text


def test_slow_clients_are_cut_off_and_hold_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.monitoring.http_port.EXCHANGE_S", 0.5)
    with listening(pages(Told())) as it:
        threads = threading.active_count()
        idlers = [socket.create_connection((HOST, port_of(it)), 10) for _ in range(MOST_CLIENTS + 4)]
        try:
            for each in idlers:
                each.sendall(b"GET /hea")  # and never the rest
            wait_for(lambda: it._clients >= MOST_CLIENTS)
            assert threading.active_count() == threads
            status, _, body = fetch(port_of(it), "/healthz")
            assert (status, body) in {(503, b"too many clients at once\n"), (200, body)}
            for each in idlers:
                assert each.recv(4096)[:12] in {b"", b"HTTP/1.1 503"}  # cut off
            wait_for(lambda: it._clients == 0)
            assert fetch(port_of(it), "/healthz")[0] == 200
        finally:
            for each in idlers:
                each.close()


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.monitoring.http_port.EXCHANGE_S", 0.5)
    large = Answer(pages(Told())["/healthz"]("").status, "text/plain", bytes(30_000_000))
    with listening({"/large": lambda _: large}) as it, socket.create_connection((HOST, port_of(it)), 10) as client:
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        wait_for(lambda: it._clients == 1)
        wait_for(lambda: it._clients == 0)


def test_ending_does_not_wait_for_clients() -> None:
    with listening(pages(Told())) as it, socket.create_connection((HOST, port_of(it)), 10) as client:
        client.sendall(b"GET /")
        wait_for(lambda: it._clients == 1)
        began = time.monotonic()
        it.stop()
        assert time.monotonic() - began < EXCHANGE_S / 2
        assert not it._thread.is_alive()


def test_a_port_in_use_is_tried_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.monitoring.http_port.AGAIN_S", 0.05)
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        it = HttpPort(Http(port=port), pages(Told()))
        it.start()
        wait_for(lambda: it.problem)
        assert it.problem.startswith(f"cannot listen on {HOST}:{port}: ")
        assert "in use" in it.problem
        time.sleep(0.2)  # several attempts
    try:
        wait_for(lambda: it.port)
        assert (it.problem, fetch(port, "/healthz")[0]) == ("", 200)
    finally:
        it.stop()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_bug_ends_the_port_and_nothing_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("cti_mqtt.bridge.monitoring.http_port.asyncio.start_server", broken)
    it = HttpPort(Http(port=0), pages(Told()))
    it.start()
    wait_for(lambda: it.problem)
    it.stop()
    assert it.problem == "unexpected error: ValueError('a bug')"
    assert "health and metrics cannot be asked for any more" in caplog.text


def test_a_port_can_be_stopped_before_it_began() -> None:
    HttpPort(Http(port=0), {}).stop()


# --- what it says ---


def test_healthz_is_the_verdict() -> None:
    told = Told()
    with listening(pages(told)) as it:
        status, headers, body = fetch(port_of(it), "/healthz")
        assert (status, headers["Content-Type"], json.loads(body)) == (200, "application/json", WELL.body)
        assert headers["Cache-Control"] == "no-store"
        told.verdict = WELL.after(20)
        status, _, body = fetch(port_of(it), "/healthz")
        assert (status, json.loads(body)["healthy"]) == (503, False)
        assert json.loads(body)["reasons"] == ["the last verdict is 20 s old: the bridge hangs"]
        assert fetch(port_of(it), "/healthz", "HEAD")[0] == 503


def test_metrics() -> None:
    told = Told()
    with listening(pages(told)) as it:
        status, headers, body = fetch(port_of(it), "/metrics")
        assert (status, headers["Content-Type"][:10]) == (200, "text/plain")
        families = list(parse(body.decode()))
        assert {family.type for family in families} <= {"gauge", "counter"}
        found = samples(families)
        expected = {
            "cti_mqtt_healthy": 1, "cti_mqtt_broker_connected": 1, "cti_mqtt_queue_messages": 0,
            "cti_mqtt_dropped_total": 0, "cti_mqtt_cycler_connected arbin1": 1, "cti_mqtt_polls_total arbin1": 991,
            "cti_mqtt_poll_duration_seconds arbin1": 0.021, "cti_mqtt_last_poll_age_seconds arbin1": 0.4,
            "cti_mqtt_errors_total arbin1": 0, "cti_mqtt_reconnects_total arbin1": 0, "cti_mqtt_build_info": 1,
        }  # fmt: skip
        assert {name: found[name] for name in expected} == expected
        assert not any("journal" in name for name in found)
        assert f'version="{__version__}"' in body.decode()

        told.verdict = HealthVerdict("", "", "", ("why",), 7, 2, {}, False, JournalState("full", 5, 1, 0.25)).after(1)
        _, headers, body = fetch(port_of(it), "/metrics", headers={"Accept": "application/openmetrics-text"})
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        found = samples(parse_open(body.decode()))  # type: ignore[no-untyped-call]
        expected = {
            "cti_mqtt_healthy": 0, "cti_mqtt_verdict_age_seconds": 1, "cti_mqtt_queue_messages": 7,
            "cti_mqtt_dropped_total": 2, "cti_mqtt_journal_waiting_polls": 5, "cti_mqtt_journal_filled_ratio": 0.25,
            "cti_mqtt_journal_writable": 0, "cti_mqtt_journal_dropped_polls_total": 1,
        }  # fmt: skip
        assert {name: found[name] for name in expected} == expected


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="process figures come from /proc")
def test_figures_of_the_process() -> None:
    with listening(pages(Told())) as it:
        found = samples(parse(fetch(port_of(it), "/metrics")[2].decode()))
        assert found["process_resident_memory_bytes"] > 1e6
        assert found["process_open_fds"] > 3


# --- with a bridge ---


@asynccontextmanager
async def watched(tmp_path: Path, port: int = 0) -> AsyncIterator[Rig]:
    async with (
        broker_of_kind(AMQTT, tmp_path) as broker,
        rig(broker, AMQTT.protocol, channels=2, http={"port": port}) as it,
    ):
        await it.ready()
        yield it


def http_port(it: Rig) -> HttpPort:
    assert it.bridge._monitoring.http
    return it.bridge._monitoring.http


async def test_a_bridge_tells(tmp_path: Path) -> None:
    async with watched(tmp_path) as it:
        await until(lambda: it.bridge._health.current().healthy)
        status, _, body = await ask(port_of(http_port(it)), "/healthz")
        told = json.loads(body)
        heard = (await it.observer.wait("bridge/health", lambda heard: heard.json["ts"] >= told["ts"])).json
        assert (status, told["boot"], list(told)) == (200, heard["boot"], list(heard))
        found = samples(parse((await ask(port_of(http_port(it)), "/metrics"))[2].decode()))
        assert found["cti_mqtt_healthy"] == 1
        assert 0 < found["cti_mqtt_polls_total arbin1"] <= it.bridge._health.current().cyclers["arbin1"].polls
        it.stop.set()
        await until(lambda: http_port(it).port is None)


async def test_a_bridge_that_hangs_is_not_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_mqtt.bridge.health.OLD_S", 1.0)
    async with watched(tmp_path) as it:
        await until(lambda: it.bridge._health.current().healthy)
        port = port_of(http_port(it))
        answers: list[Got] = []

        def look() -> None:
            time.sleep(1.7)
            answers.append(fetch(port, "/healthz"))

        looking = threading.Thread(target=look)
        looking.start()
        looking.join()  # the bridge's loop stands still meanwhile
        status, _, body = answers[0]
        assert status == 503
        reason = json.loads(body)["reasons"][0]
        assert re.fullmatch("the last verdict is ([2-9]|[1-9][0-9]) s old: the bridge hangs", reason), reason
        await until(lambda: it.bridge._health.current().healthy)
        assert (await ask(port, "/healthz"))[0] == 200


async def test_a_bridge_without_its_port_runs_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        async with watched(tmp_path, port) as it:
            heard = await it.observer.wait(
                "bridge/health", lambda heard: any(each.startswith("http: ") for each in heard.json["reasons"])
            )
            assert f"http: cannot listen on {HOST}:{port}" in heard.json["reasons"][0]
            assert (await it.observer.ask("arbin1/channel/1", "start", START))["outcome"] == "succeeded"
