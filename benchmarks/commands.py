"""How long a write of a meta variable takes from command topic to result, beside the least that it must take.

Three round trips, in turn, each always one at a time:

- `command`: `set_mv` with an id is published at QoS 1; the same client hears the result;
- `mqtt`: the same client publishes the same bytes at the same QoS; an echo, a process that does nothing else, answers
  with as many bytes as a result has;
- `cti`: `Cycler.set_meta_variable` on a session of its own with the same simulated cycler.

Broker (Mosquitto), simulated cycler, bridge and echo are processes of their own. Everything is measured twice: with
Mosquitto as it is installed, which holds back small packets (Nagle's algorithm), and with `set_tcp_nodelay true`.

All the while the bridge polls 128 channels at 1 Hz and publishes what it reads. The bridge has a data directory, so ids
and audit are on. What counts is the median of the rounds' ratios of `command` to `mqtt` plus `cti`, at p50: the times
depend on the machine and on what else it does.
"""

import asyncio
import itertools
import json
import queue
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from parties import BASE, CYCLER, HOST, PASSWORD, START_S, USER, PartyError, broker, controlling_bridge, echo
from parties import simulator as simulated_cycler
from plain_paho import plain_client
from plan import Plan
from reporting import ms, percentile

from cti_mqtt.client import Credentials, Cycler, Endpoint

CHANNELS = 128
CHANNEL = 1
COMMANDS = f"{BASE}/{CYCLER}/channel/{CHANNEL}/command"
RESULTS = f"{BASE}/{CYCLER}/channel/{CHANNEL}/result"
PING, PONG = "bench/ping", "bench/pong"
AVAILABILITY, POLLS = f"{BASE}/bridge/availability", f"{BASE}/{CYCLER}/readings"
ANSWER_S = 20.0
SIDES = ("command", "mqtt", "cti")
BROKERS = {"default": False, "nodelay": True}  # whether set_tcp_nodelay is on


@dataclass(slots=True)
class Asker:
    """An MQTT client that asks one thing at a time.

    Attributes:
        heard: when (performance counter, s), topic and payload of each message.
    """

    port: int
    heard: queue.SimpleQueue[tuple[float, str, bytes]] = field(default_factory=queue.SimpleQueue)
    client: Client = field(init=False)

    def __enter__(self) -> Self:
        """Connect, and hear the answers."""
        self.client = plain_client()
        self.client.on_message = self._hear
        self.client.connect(HOST, self.port)
        self.client.loop_start()
        self.client.subscribe([(topic, 1) for topic in (RESULTS, PONG, AVAILABILITY, POLLS)])
        return self

    def __exit__(self, *_: object) -> None:
        """Part."""
        self.client.disconnect()
        self.client.loop_stop()

    def _hear(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.heard.put((time.perf_counter(), message.topic, bytes(message.payload)))

    def wait(self, topic: str, payload: bytes | None = None) -> tuple[float, bytes]:
        """The next message on a topic: when it came, and what."""
        while True:
            try:
                at, came_on, came = self.heard.get(timeout=ANSWER_S)
            except queue.Empty:
                raise TimeoutError(f"nothing on {topic} within {ANSWER_S:g} s") from None
            if came_on == topic and payload in {None, came}:
                return at, came

    def quiet(self) -> None:
        """From now on nothing but answers: what else there is would cost time in this process."""
        self.client.unsubscribe([AVAILABILITY, POLLS])

    def ask(self, topic: str, payload: bytes, answered_on: str) -> tuple[float, bytes]:
        """Publish, and wait for the answer: how long that took (s), and what it was."""
        began = time.perf_counter()
        self.client.publish(topic, payload, qos=1)
        at, answer = self.wait(answered_on)
        return at - began, answer


_numbers = itertools.count()


def next_value() -> float:
    """Another one each time; a current (A) that charges next to nothing."""
    return 0.001 * (1 + next(_numbers) % 100)


def next_command() -> bytes:
    """A `set_mv` as a careful controller sends it."""
    body = {"id": f"bench-{next(_numbers):09}", "issued_at": datetime.now(UTC).isoformat(), "ttl_s": 10}
    return json.dumps({**body, "values": {"1": next_value()}}).encode()


def succeeded(result: bytes) -> dict[str, Any]:
    """A result, which must be good: a refusal is quick."""
    body: dict[str, Any] = json.loads(result)
    if body["outcome"] != "succeeded":
        raise PartyError(f"{body['command']} was {body['outcome']} ({body['reason']}): {body['message']}")
    return body


# --- the three round trips, in seconds ---


def command_s(asker: Asker) -> float:
    """From command topic to result."""
    seconds, answer = asker.ask(f"{COMMANDS}/set_mv", next_command(), RESULTS)
    succeeded(answer)
    return seconds


def mqtt_s(asker: Asker) -> float:
    """To the echo and back."""
    return asker.ask(PING, next_command(), PONG)[0]


async def cti_s(cycler: Cycler) -> float:
    """To the cycler and back."""
    value, began = next_value(), time.perf_counter()
    code = await cycler.set_meta_variable(CHANNEL, 1, value)
    seconds = time.perf_counter() - began
    if code != 0:
        raise PartyError(f"the cycler answered {code.text}")
    return seconds


def repeated(measure: Callable[[], float], seconds: float) -> list[float]:
    """One after the other, until the time is over."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        found.append(measure())
    return found


async def one_round(asker: Asker, cycler: Cycler, seconds: float) -> dict[str, list[float]]:
    """Each side for so long."""
    command = await asyncio.to_thread(repeated, lambda: command_s(asker), seconds)
    mqtt = await asyncio.to_thread(repeated, lambda: mqtt_s(asker), seconds)
    cti: list[float] = []
    end = time.perf_counter() + seconds
    while not cti or time.perf_counter() < end:
        cti.append(await cti_s(cycler))
    return {"command": command, "mqtt": mqtt, "cti": cti}


# --- the measurement ---


@asynccontextmanager
async def lab(mosquitto: str, *, nodelay: bool) -> AsyncIterator[tuple[Asker, Cycler]]:
    """Everybody there, a test running on the channel that is written to."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cti-mqtt-bench-")))
        mqtt_port = stack.enter_context(broker(mosquitto, folder, nodelay=nodelay))
        cti_port = stack.enter_context(simulated_cycler(CHANNELS, folder))
        asker = stack.enter_context(Asker(mqtt_port))
        stack.enter_context(controlling_bridge(folder, mqtt_port, cti_port))
        asker.wait(AVAILABILITY, b"online")
        asker.wait(POLLS)
        asker.quiet()
        start = json.dumps({"test_name": "bench", "schedule": "ClosedLoop.sdx", "values": {"1": 0.001}}).encode()
        succeeded(asker.ask(f"{COMMANDS}/start", start, RESULTS)[1])
        size = len(asker.ask(f"{COMMANDS}/set_mv", next_command(), RESULTS)[1])
        stack.enter_context(echo(folder, mqtt_port, PING, PONG, size))
        endpoint = Endpoint("bare", HOST, cti_port, START_S)
        async with Cycler.connect(endpoint, Credentials(USER, PASSWORD)) as cycler:
            yield asker, cycler


def measure(plan: Plan) -> dict[str, Any]:
    """With both settings of the broker."""
    brokers = {name: asyncio.run(measure_with(plan, nodelay=nodelay)) for name, nodelay in BROKERS.items()}
    return {"brokers": brokers, "channels": CHANNELS, "poll_interval_s": 1.0}


async def measure_with(plan: Plan, *, nodelay: bool) -> dict[str, Any]:
    """All rounds; what they say together, and each."""
    async with lab(plan.mosquitto, nodelay=nodelay) as (asker, cycler):
        for _ in range(plan.warm_up):
            command_s(asker)
            mqtt_s(asker)
            await cti_s(cycler)
        found = [await one_round(asker, cycler, plan.seconds) for _ in range(plan.rounds)]
        remembers = _remembers_ids(asker)
    return {**summary(found), "ids": remembers}


def _remembers_ids(asker: Asker) -> bool:
    """Whether a repeated command is answered with its first result: whether the store was part of it all."""
    command = next_command()
    succeeded(asker.ask(f"{COMMANDS}/set_mv", command, RESULTS)[1])
    return bool(json.loads(asker.ask(f"{COMMANDS}/set_mv", command, RESULTS)[1])["duplicate"])


def summary(rounds: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    """p50 and the ratio as medians over the rounds; p99 over all that was measured."""
    p50 = {side: [statistics.median(each[side]) for each in rounds] for side in SIDES}
    ratios = [command / (mqtt + cti) for command, mqtt, cti in zip(*p50.values(), strict=True)]
    everything = {side: [seconds for each in rounds for seconds in each[side]] for side in SIDES}
    sums = [mqtt + cti for mqtt, cti in zip(p50["mqtt"], p50["cti"], strict=True)]
    result: dict[str, Any] = {}
    for side in SIDES:
        result[f"{side}_p50_ms"] = ms(statistics.median(p50[side]))
        result[f"{side}_p99_ms"] = ms(percentile(everything[side], 0.99))
        result[f"{side}_count"] = len(everything[side])
    return {
        **result,
        "sum_p50_ms": ms(statistics.median(sums)),
        "sum_p99_ms": ms(percentile(everything["mqtt"], 0.99) + percentile(everything["cti"], 0.99)),
        "command_to_sum_p50": round(statistics.median(ratios), 3),
        "command_to_sum_p50_rounds": [round(ratio, 3) for ratio in ratios],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    text = [f"a command, while {found['channels']} channels are polled at 1 Hz"]
    for name, of_broker in found["brokers"].items():
        text += ["", *_lines_of(name, of_broker)]
    return text


def _lines_of(name: str, found: dict[str, Any]) -> list[str]:
    """What was found with one setting of the broker."""
    ids = "are" if found["ids"] else "are NOT"
    setting = "set_tcp_nodelay true" if BROKERS[name] else "as it is installed"
    text = [f"Mosquitto {setting}; ids {ids} remembered", "             p50         p99"]
    what = ("command topic to result", "to an echo and back", "to the cycler and back")
    for side, said in zip(SIDES, what, strict=True):
        text.append(f"{side:<8}{found[f'{side}_p50_ms']:>8} ms {found[f'{side}_p99_ms']:>8} ms   {said}")
    text.append(f"sum     {found['sum_p50_ms']:>8} ms {found['sum_p99_ms']:>8} ms   mqtt and cti")
    text.append(f"ratio   {found['command_to_sum_p50']:>8}                 command to sum at p50, median of the rounds")
    return text
