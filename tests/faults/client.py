"""An MQTT client that has nothing in common with ours: plain paho; what it hears goes into the event loop at once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.brokers import HOST
from tests.support.observer import Heard


class Voice:
    """Says what it is told to, at QoS 1, and keeps nothing.

    Args:
        protocol: 5, else 3.1.1.
        filters: what to hear.
        hear: called in the event loop with each message.
    """

    def __init__(self, protocol: object, filters: Sequence[str], hear: Callable[[Heard], None]) -> None:
        self.five = protocol == 5
        self._filters = filters
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._subscribed = asyncio.Event()
        version = MQTTProtocolVersion.MQTTv5 if self.five else MQTTProtocolVersion.MQTTv311
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=version)
        self._client.on_connect = lambda client, *_: client.subscribe(self._subscriptions())
        self._client.on_subscribe = lambda *_: self._call(self._subscribed.set)
        self._client.on_message = self._on_message

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, port: int, protocol: object, filters: Sequence[str], hear: Callable[[Heard], None] = lambda _: None
    ) -> AsyncIterator[Self]:
        """Connected and subscribed."""
        voice = cls(protocol, filters, hear)
        await asyncio.to_thread(voice._client.connect, HOST, port, 60)
        voice._client.loop_start()
        try:
            async with asyncio.timeout(10):
                await voice._subscribed.wait()
            yield voice
        finally:
            voice._client.disconnect()
            await asyncio.to_thread(voice._client.loop_stop)

    def _subscriptions(self) -> list[tuple[str, Any]]:
        """MQTT 5: without what is said here."""
        return [(each, SubscribeOptions(qos=1, noLocal=True) if self.five else 1) for each in self._filters]

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        self._call(self._hear, Heard(message.topic, bytes(message.payload), message.retain, correlation))

    def say(self, topic: str, payload: bytes, *, retain: bool = False, **properties: Any) -> None:
        """Publish; properties under the names that paho has for them, MQTT 5 only."""
        extra = None
        if properties:
            extra = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(extra, name, value)
        self._client.publish(topic, payload, qos=1, retain=retain, properties=extra)
