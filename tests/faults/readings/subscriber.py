"""The consumer: plain paho with a persistent session, in a thread of its own; it keeps what it hears."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.faults.readings.seen import KINDS, AlteredError, Collection, understand
from tests.support.brokers import HOST

SESSION_S = 7 * 24 * 3600
LOOK_S = 0.05
KEEPALIVE_S = 5
AGAIN_S = 3.0  # by when a command has an answer


class Subscriber:
    """Hears readings, late readings, events, results and the health of one base topic, at QoS 1.

    Its session outlives its connections, as far as the broker keeps it. What it hears is acknowledged once it is kept.

    Attributes:
        heard: the readings.
        altered: what could not be read.
        events: of the bridge and its cyclers.
        results: by the command's id.
        health: the last; None before the first.
        drain: to be counted up when a new drain of the backlog may begin.
        sessions_lost: how often the broker did not know the session any more.
    """

    def __init__(self, base: str, port: int, protocol: object) -> None:
        self.heard = Collection()
        self.altered: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.health: dict[str, Any] | None = None
        self.drain = 0
        self.sessions_lost = 0
        self._base = base
        self._port = port
        self._five = protocol == 5
        self._connections = 0
        self._subscribed = False
        self._client = self._new_client()

    def _new_client(self) -> Client:
        """One for each time that it comes: paho can start its thread only once."""
        version = MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"consumer-{self._base}",
            protocol=version,
            clean_session=None if self._five else False,
        )
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    # --- there and away ---

    async def come(self) -> None:
        """Connect, as soon as the broker is there; returns when the subscriptions stand.

        Raises:
            AssertionError: that took too long.
        """
        self._subscribed = False
        self._client = self._new_client()
        if self._five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_S
            self._client.connect_async(HOST, self._port, KEEPALIVE_S, clean_start=False, properties=properties)
        else:
            self._client.connect_async(HOST, self._port, KEEPALIVE_S)
        self._client.loop_start()
        await self.until(lambda: self._subscribed, 30, "the subscriber's subscriptions")

    async def go(self) -> None:
        """Disconnect; the session stays."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def until(self, condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        """Until something is so.

        Raises:
            AssertionError: that took too long.
        """
        if not await self.happens(condition, timeout_s):
            raise AssertionError(f"did not happen within {timeout_s:g} s: {what}")

    @staticmethod
    async def happens(condition: Callable[[], Any], timeout_s: float) -> bool:
        """Whether something is so, within a time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not condition():
            if loop.time() > end:
                return False
            await asyncio.sleep(LOOK_S)
        return True

    def quiet(self) -> Callable[[], bool]:
        """A condition: nothing new came since it was last asked, ten times in a row."""
        known, times = len(self.heard.seen), 0

        def look() -> bool:
            nonlocal known, times
            times = times + 1 if len(self.heard.seen) == known else 0
            known = len(self.heard.seen)
            return times >= 10

        return look

    # --- said ---

    async def ask(self, cycler: str, verb: str, body: dict[str, Any], timeout_s: float = 30.0) -> dict[str, Any]:
        """Send a command, again until it is answered: a bridge that has just come back hears none yet.

        Raises:
            AssertionError: there was none in time.
        """
        identity = uuid.uuid4().hex
        payload = json.dumps({"id": identity, **body}).encode()
        for _ in range(round(timeout_s / AGAIN_S)):
            self._client.publish(f"{self._base}/{cycler}/command/{verb}", payload, qos=1)
            if await self.happens(lambda: identity in self.results, AGAIN_S):
                return self.results[identity]
        raise AssertionError(f"no result of {verb} {body} within {timeout_s:g} s")

    # --- heard; in paho's thread ---

    def _on_connect(self, client: Client, _data: Any, flags: Any, _code: Any, _properties: Any) -> None:
        self.sessions_lost += self._connections > 0 and not flags.session_present
        self._connections += 1
        topics = ("+/readings", "+/backfill", "+/event", "+/result", "bridge/health")
        client.subscribe([(f"{self._base}/{topic}", 1) for topic in topics])

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed = True

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        cycler, _, kind = message.topic.removeprefix(f"{self._base}/").partition("/")
        if kind in KINDS:
            try:
                self.heard.add(understand(kind, cycler, bytes(message.payload), self.drain))
            except AlteredError as error:
                self.altered.append(f"{message.topic}: {error}")
            return
        try:
            body = json.loads(message.payload)
        except ValueError as error:
            self.altered.append(f"{message.topic}: {error}")
            return
        if kind == "event":
            self.events.append(body)
        elif kind == "health":
            self.health = body
        elif kind == "result":
            self.results[str(body.get("id"))] = body
