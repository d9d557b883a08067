"""A broker inside the process, for the demo and for tests: amqtt, MQTT 3.1.1."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from amqtt.broker import Broker
from amqtt.errors import BrokerError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler

HAND_ON_S = 0.05
CLOSE_S = 1.0  # for what is still to be written


class _Handler(BrokerProtocolHandler):  # type: ignore[misc]  # amqtt brings no types
    """amqtt forgets what a client published right before it disconnected; this one hands that on first.

    `mosquitto_pub` does just that: one message, and gone.
    """

    async def wait_disconnect(self) -> Any:
        """The disconnect packet, once everything before it has been handed on."""
        packet = await super().wait_disconnect()
        while self.session is not None and not self.session.delivered_message_queue.empty():  # noqa: ASYNC110  # amqtt
            await asyncio.sleep(HAND_ON_S)
        await asyncio.sleep(HAND_ON_S)  # the last one is out of the queue, and in hand
        return packet


class _TidyBroker(Broker):  # type: ignore[misc]  # as above
    """amqtt's broker, with two faults mended.

    It sends every newcomer all stored messages that anybody subscribed to; a client that only publishes, and reads
    nothing, then has its connection reset, and what it published is lost. And it leaves connections open when it ends.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._writers: set[asyncio.StreamWriter] = set()

    async def _init_handler(self, session: Any, reader: Any, writer: Any) -> _Handler:
        handler = _Handler(self.plugins_manager, loop=asyncio.get_running_loop())
        handler.attach(session, reader, writer)
        return handler

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        """Stored messages go to whoever subscribed to them."""
        if any(subscriber is session for subscriber, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """A client came; once it has gone its connection is closed."""
        self._writers.add(writer)
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            writer.close()
            if not writer.transport.get_write_buffer_size():  # else it is closed when the client has read that
                self._writers.discard(writer)

    async def shutdown(self) -> None:
        """End, and close what is open, also where the client no longer reads."""
        await super().shutdown()
        for writer in tuple(self._writers):
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()
            writer.transport.abort()
        await asyncio.sleep(0)  # what was aborted is closed then


@asynccontextmanager
async def embedded_broker(host: str = "127.0.0.1", port: int = 1883) -> AsyncIterator[None]:
    """A broker that lets everybody in, as long as the block lasts.

    Raises:
        OSError: the port is taken.
    """
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    broker = _TidyBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    try:
        await broker.start()
    except BrokerError as error:
        raise OSError(f"the broker cannot listen on {host}:{port}: {error.__cause__ or error}") from error
    try:
        yield
    finally:
        await broker.shutdown()
