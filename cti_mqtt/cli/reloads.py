"""Following the configuration while the bridge runs: at SIGHUP, and when the file or the `.env` beside it changes."""

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from cti_mqtt import config
from cti_mqtt.errors import ConfigurationError

log = logging.getLogger(__name__)

LOOK_S = 2.0  # between two looks at the file; a change is taken when two in a row show the same
BY_SIGNAL, BY_FILE = "SIGHUP", "file"

T = TypeVar("T")


class Reloadable(Protocol):
    """What takes a configuration while it runs."""

    async def reload(self, wanted: config.Config, who: str) -> object:
        """Apply what can be applied."""

    def reload_failed(self, problems: list[str], who: str) -> None:
        """It is wrong, so nothing changes."""


class ConfigWatch:
    """Says when a configuration has changed and is whole: two looks in a row showed the same content.

    Args:
        path: the YAML file; the `.env` beside it counts too. As it is now it counts as taken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = self._seen = b""
        self._told = ""
        self.take()

    def changed(self) -> bool:
        """Look; whether there is something new to take. Each content is offered once.

        Raises:
            ConfigurationError: the file is gone or cannot be read; once, until it can be again.
        """
        try:
            seen = self._print()
        except OSError as error:
            self._complain(error.strerror or str(error))
            return False
        self._told = ""
        settled, self._seen = seen == self._seen, seen
        if not settled or seen == self._taken:
            return False
        self._taken = seen
        return True

    def take(self) -> None:
        """Whatever is there now is about to be read."""
        try:
            self._taken = self._seen = self._print()
        except OSError:
            return  # whoever reads it will say so

    def _complain(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            raise ConfigurationError(str(self._path), [f"cannot be read: {problem}"])

    def _print(self) -> bytes:
        secrets = self._path.parent / ".env"
        try:
            beside = hashlib.sha256(secrets.read_bytes()).digest()
        except OSError:
            beside = b""
        return hashlib.sha256(self._path.read_bytes()).digest() + beside


async def follow(
    bridge: Reloadable, path: Path, watch: ConfigWatch, asked: asyncio.Event, look_s: float = LOOK_S
) -> None:
    """Reload until cancelled.

    Args:
        bridge: what takes the configuration.
        path: the file.
        watch: looks at it.
        asked: set when it is to be read in any case.
        look_s: how often to look.
    """
    while True:
        try:
            async with asyncio.timeout(look_s):
                await asked.wait()
        except TimeoutError:
            pass
        who = BY_SIGNAL if asked.is_set() else BY_FILE
        asked.clear()
        try:
            if wanted := await aside(partial(_read, path, watch, who)):
                await bridge.reload(wanted, who)
        except ConfigurationError as error:
            bridge.reload_failed([f"{error.source}: {problem}" for problem in error.problems], who)
        except Exception:  # a bug here must not take the bridge down
            log.exception("the configuration cannot be followed just now")


def _read(path: Path, watch: ConfigWatch, who: str) -> config.Config | None:
    """The configuration if there is reason to read it.

    Raises:
        ConfigurationError: it is wrong, or cannot be read.
    """
    if who == BY_SIGNAL:
        watch.take()
    elif not watch.changed():
        return None
    return config.load(path)


async def aside(call: Callable[[], T]) -> T:
    """What a call returns or raises; in a thread that keeps nobody from ending: a file may lie on a disk that hangs."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # one of the two is there

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as problem:  # noqa: BLE001  # belongs to whoever awaits
            error = problem
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            log.debug("the loop has ended before a look at the configuration")

    threading.Thread(target=run, name="configuration", daemon=True).start()
    return await done
