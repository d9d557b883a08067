"""An MQTT client that has nothing in common with ours: plain paho, everything kept."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.brokers import HOST


@dataclass(frozen=True)
class Heard:
    """A message as it came."""

    topic: str
    payload: bytes
    retain: bool
    correlation: bytes | None = None
    expiry_s: int | None = None

    @cached_property
    def json(self) -> Any:
        """What it says; the same object each time, for many look at it again with each message that comes."""
        return json.loads(self.payload, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


class Observer:
    """Hears everything below a base topic, and says what it is told to."""

    def __init__(self, port: int, protocol: object, base: str = "cti") -> None:
        self.heard: list[Heard] = []
        self.base = base
        self._port = port
        self._five = protocol == 5
        self._loop = asyncio.get_running_loop()
        self._by_topic: dict[str, list[Heard]] = {}
        self._news = asyncio.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
        )
        self._client.on_message = self._on_message
        self._subscribed = asyncio.Event()
        self._client.on_connect = lambda client, *_: client.subscribe([(f"{base}/#", 1), ("reply/#", 1)])
        self._client.on_subscribe = self._on_subscribe

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int, protocol: object, base: str = "cti") -> AsyncIterator[Self]:
        """Connected and subscribed."""
        observer = cls(port, protocol, base)
        await asyncio.to_thread(observer._client.connect, HOST, port, 60)
        observer._client.loop_start()
        try:
            async with asyncio.timeout(10):
                await observer._subscribed.wait()
            yield observer
        finally:
            observer._client.disconnect()
            await asyncio.to_thread(observer._client.loop_stop)

    def _on_subscribe(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._subscribed.set)

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        properties = message.properties
        heard = Heard(
            message.topic,
            bytes(message.payload),
            message.retain,
            getattr(properties, "CorrelationData", None),
            getattr(properties, "MessageExpiryInterval", None),
        )
        self._loop.call_soon_threadsafe(self._keep, heard)

    def _keep(self, heard: Heard) -> None:
        self.heard.append(heard)
        self._by_topic.setdefault(heard.topic, []).append(heard)
        self._news.set()

    # --- hearing ---

    def forget(self) -> None:
        """As if nothing had been heard so far."""
        self.heard.clear()
        self._by_topic.clear()

    def on(self, topic: str) -> list[Heard]:
        """All messages on a topic (without the base)."""
        return self._by_topic.get(f"{self.base}/{topic}", [])[:]

    def last(self, topic: str) -> Heard | None:
        """The last message on a topic (without the base)."""
        messages = self._by_topic.get(f"{self.base}/{topic}")
        return messages[-1] if messages else None

    async def until(self, condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "") -> Any:
        """The first true value of a condition that is looked at after each message."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (value := condition()):
                    self._news.clear()
                    await self._news.wait()
                return value
        except TimeoutError:
            tail = "\n".join(f"{heard.topic} {heard.payload[:200]!r}" for heard in self.heard[-25:])
            raise AssertionError(f"did not happen within {timeout_s} s: {what}\nlast heard:\n{tail}") from None

    async def wait(
        self,
        topic: str,
        condition: Callable[[Heard], Any] = lambda heard: True,
        timeout_s: float = 15.0,
        *,
        after: int = 0,
    ) -> Heard:
        """The first message on a topic (without the base) that fulfils a condition, past ones included.

        Where it could have been fulfilled before what the test does, say after how many messages it counts
        (`len(observer.heard)` then), or take `wait_last`.
        """
        whole, place = f"{self.base}/{topic}", after

        def look() -> Heard | None:
            nonlocal place
            while place < len(self.heard):
                heard, place = self.heard[place], place + 1
                if heard.topic == whole and condition(heard):
                    return heard
            return None

        found = await self.until(look, timeout_s, topic)
        assert isinstance(found, Heard)
        return found

    async def wait_last(self, topic: str, condition: Callable[[Heard], Any], timeout_s: float = 15.0) -> Heard:
        """The last message on a topic (without the base), once it fulfils a condition: how things are, not were."""

        def look() -> Heard | None:
            last = self.last(topic)
            return last if last is not None and condition(last) else None

        found = await self.until(look, timeout_s, topic)
        assert isinstance(found, Heard)
        return found

    async def until_last(self, topic: str, payload: bytes, timeout_s: float = 15.0) -> None:
        """Until the last message on a topic (without the base) is this one."""
        await self.wait_last(topic, lambda heard: heard.payload == payload, timeout_s)

    # --- saying ---

    def say(self, topic: str, payload: Any = b"", *, retain: bool = False, **properties: Any) -> None:
        """Publish below the base topic; a dictionary goes as JSON."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        extra = None
        if properties:
            extra = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(extra, name, value)
        self._client.publish(f"{self.base}/{topic}", data, qos=1, retain=retain, properties=extra)

    async def ask(self, target: str, verb: str, body: Any = None, **properties: Any) -> dict[str, Any]:
        """Send a command to `arbin1` or `arbin1/channel/7` and wait for its result (found by its id)."""
        body = {"id": f"{verb}-{len(self.heard)}-{self._loop.time()}", **(body or {})}
        self.say(f"{target}/command/{verb}", body, **properties)
        heard = await self.wait(f"{target}/result", lambda heard: heard.json["id"] == body["id"])
        result = heard.json
        assert isinstance(result, dict)
        return result
