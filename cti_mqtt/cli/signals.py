"""Ending in order when asked to."""

import asyncio
import signal
from collections.abc import Awaitable, Callable


def run_until_signalled(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main` in a new event loop; SIGINT and SIGTERM set the event that it gets."""

    async def with_signals() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, stop.set)
            except NotImplementedError:  # Windows: there the signal comes through the interpreter
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        await main(stop)

    # Windows would choose a loop that cannot watch a socket for somebody else, here: for the MQTT client.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(with_signals())
