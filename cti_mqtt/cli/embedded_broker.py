"""A broker inside the process, for the demo and for tests: amqtt, MQTT 3.1.1."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from amqtt.broker import Broker
from amqtt.errors import BrokerError


@asynccontextmanager
async def embedded_broker(host: str = "127.0.0.1", port: int = 1883) -> AsyncIterator[None]:
    """A broker that lets everybody in, as long as the block lasts.

    Raises:
        OSError: the port is taken.
    """
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    broker = Broker(
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
