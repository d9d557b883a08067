"""A bridge in this event loop, on a simulated cycler and a real broker."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.presence import Timing
from cti_mqtt.client import Backoff
from cti_mqtt.config import Config
from cti_mqtt.simulator import (
    NO_FAULTS,
    Faults,
    Identity,
    Recorder,
    SimulatedClock,
    SimulatedCycler,
    SimulatedServer,
    User,
)
from tests.support.brokers import HOST, free_port
from tests.support.observer import Observer

PASSWORD = "s3cret-Pa55"
QUICK = Timing(listen_extra_s=0.1, settle_s=0.05, taken_wait_s=(0.5, 1.0))  # tests are impatient
CONTROL = {"enabled": True, "verbs": "all", "channels": "all"}


def quick_backoff() -> Backoff:
    """Hardly any wait: tests are impatient."""
    return Backoff(0.05, 0.2)


@dataclass
class Rig:
    """Everything of a test.

    Attributes:
        servers: the simulated cyclers, by id.
        observer: hears everything.
        stop: ends the bridge.
    """

    servers: Mapping[str, SimulatedServer]
    observer: Observer
    stop: asyncio.Event
    bridge: Bridge
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def server(self) -> SimulatedServer:
        return self.servers["arbin1"]

    def asked(self, *commands: str, cycler: str = "arbin1") -> list[dict[str, Any]]:
        """What the simulated cycler was asked."""
        recorder = self.servers[cycler].recorder
        assert recorder is not None
        return recorder.commands(*commands)

    async def ready(self, cycler: str = "arbin1") -> None:
        """Until the first reading is out and the bridge says that it is there."""
        await self.observer.wait(f"{cycler}/readings")
        await self.observer.wait("bridge/availability", lambda heard: heard.payload == b"online")


@asynccontextmanager
async def simulated(
    channels: int = 16, faults: Faults = NO_FAULTS, *, speed: float = 1.0, version: int = 1, **options: Any
) -> AsyncIterator[SimulatedServer]:
    """A simulated cycler whose user is `admin` with this module's password."""
    cycler = SimulatedCycler(
        channels,
        clock=SimulatedClock(speed),
        users=[User("admin", PASSWORD, super_user=True)],
        identity=Identity(version=version),
        **options,
    )
    port, file_port = free_port(), free_port()
    async with SimulatedServer(cycler, port=port, file_port=file_port, faults=faults, recorder=Recorder()) as server:
        yield server


def settings(
    broker_port: int,
    protocol: object,
    servers: Mapping[str, SimulatedServer],
    cycler: Mapping[str, Any] | None = None,
    **top: Any,
) -> Config:
    """A configuration for these servers; `cycler` overrides what every cycler has."""
    base = {"username": "admin", "password": PASSWORD, "poll_interval_s": 0.1, "control": CONTROL}
    mqtt = {"host": HOST, "port": broker_port, "protocol": protocol, "client_id": "bridge-under-test"}
    return Config.model_validate(
        {
            "mqtt": {**mqtt, **top.pop("mqtt", {})},
            "cyclers": {
                name: {**base, "host": HOST, "port": server.port, "file_port": server.file_port, **(cycler or {})}
                for name, server in servers.items()
            },
            "health_interval_s": 0.2,
            **top,
        }
    )


@asynccontextmanager
async def rig(
    broker_port: int,
    protocol: object,
    *,
    channels: int = 16,
    faults: Faults = NO_FAULTS,
    cycler: Mapping[str, Any] | None = None,
    cyclers: tuple[str, ...] = ("arbin1",),
    simulator: Mapping[str, Any] | None = None,
    timing: Timing = QUICK,
    **top: Any,
) -> AsyncIterator[Rig]:
    """A running bridge with everything around it."""
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(simulated(channels, faults, **(simulator or {}))) for name in cyclers
        }
        top.setdefault("data_dir", Path(stack.enter_context(TemporaryDirectory(prefix="cti-mqtt-test-"))))
        base = top.get("mqtt", {}).get("base_topic", "cti")
        observer = await stack.enter_async_context(Observer.connect(broker_port, protocol, base))
        stop = asyncio.Event()
        bridge = Bridge(settings(broker_port, protocol, servers, cycler, **top), backoff=quick_backoff, timing=timing)
        task = asyncio.create_task(bridge.run(stop), name="bridge under test")
        try:
            yield Rig(servers, observer, stop, bridge)
        finally:
            stop.set()
            await task
