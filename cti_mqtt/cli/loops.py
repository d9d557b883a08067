"""Running the event loop: to an end of its own, or until a signal asks for it."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_end(main: Coroutine[Any, Any, T]) -> T:
    """Run this in a new event loop; what comes of it.

    Windows would choose a loop that cannot watch a socket for somebody else, here for the MQTT client.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main)


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

    run_to_end(with_signals())


def ignore_hangups() -> None:
    """Until `hangups` listens for them: a SIGHUP that comes too early must not end the program."""
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hangups() -> asyncio.Event:
    """An event that each SIGHUP sets, until the running loop ends; on Windows, which has none, nobody does."""
    asked = asyncio.Event()
    if sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    return asked
