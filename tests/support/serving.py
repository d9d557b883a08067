"""A simulated cycler in a thread of its own: for clients that wait."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cti_mqtt.simulator import NO_FAULTS, Faults, ManualClock, SimulatedCycler, SimulatedServer
from tests.support.brokers import free_port


class Served:
    """A server that runs elsewhere.

    Attributes:
        server: to be touched only by `do`, its recorder and its port excepted.
    """

    def __init__(self, server: SimulatedServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop

    @property
    def port(self) -> int:
        return self.server.port

    def do(self, action: Callable[[SimulatedServer], Any]) -> Any:
        """Something with the server, in its thread; what comes of it."""

        async def run() -> Any:
            value = action(self.server)
            return await value if isinstance(value, Awaitable) else value

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def set_faults(self, **faults: Any) -> None:
        """What is wrong from now on."""
        self.do(lambda server: setattr(server, "faults", Faults(**faults)))

    def asked(self, *commands: str) -> list[dict[str, Any]]:
        """What it was asked."""
        return self.server.recorder.commands(*commands)

    def count(self, command: str) -> int:
        """How often it was asked that."""
        return len(self.asked(command))


@contextmanager
def served(cycler: SimulatedCycler | None = None, faults: Faults = NO_FAULTS) -> Iterator[Served]:
    """A server in another thread; by default 4 channels whose time stands still."""
    loop = asyncio.new_event_loop()
    cycler = cycler or SimulatedCycler(4, clock=ManualClock())
    server = SimulatedServer(cycler, port=free_port(), file_port=free_port(), faults=faults)
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await stop.wait()
        for _ in range(10):  # whoever was being accepted just then is turned away
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="simulated cycler")
    thread.start()
    try:
        assert ready.wait(10)
        yield Served(server, loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
