"""Following the configuration while the bridge runs: at SIGHUP, and when the file or the `.env` beside it changes."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from cti_mqtt import config
from cti_mqtt.errors import ConfigurationError

log = logging.getLogger(__name__)

LOOK_S = 2.0  # between two looks at the file; a change is taken when two in a row show the same
PAUSE_S = 0.2  # between two looks when it is to be read in any case
MOST_LOOKS = 50
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

    What it hands out is what those looks showed, so what is read is what was looked at.

    Args:
        path: the YAML file; the `.env` beside it counts too. As it is now it counts as taken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = ""
        self._taken: config.Content | None = None
        with contextlib.suppress(ConfigurationError):  # whoever reads it will say so
            self._taken = config.read_content(path)
        self._seen = self._taken

    @property
    def taken(self) -> config.Content | None:
        """What was taken last; None where there was nothing."""
        return self._taken

    def changed(self) -> config.Content | None:
        """Look; what is new to take, if there is something. Each content is offered once.

        Raises:
            ConfigurationError: the file is gone or cannot be read; once, until it can be again.
        """
        try:
            seen = config.read_content(self._path)
        except ConfigurationError as error:
            if str(error) == self._told:
                return None
            self._told = str(error)
            raise
        self._told = ""
        settled, self._seen = seen == self._seen, seen
        if not settled or seen == self._taken:
            return None
        self._taken = seen
        return seen

    def take(self) -> config.Content:
        """Whatever is there now, as soon as two looks in a row show the same; takes a moment.

        Raises:
            ConfigurationError: the file cannot be read, or does not come to rest.
        """
        content = config.read_content(self._path)
        for _ in range(MOST_LOOKS):
            time.sleep(PAUSE_S)
            before, content = content, config.read_content(self._path)
            if before == content:
                self._taken = self._seen = content
                return content
        raise ConfigurationError(str(self._path), ["is being written all the time"])


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
            _failed(bridge, [f"{error.source}: {problem}" for problem in error.problems], who)
        except Exception as error:  # a bug here must not keep the next change from being followed
            log.exception("the configuration cannot be followed just now")
            _failed(bridge, [f"an unexpected error ({type(error).__name__}); the log has it"], who)


def _failed(bridge: Reloadable, problems: list[str], who: str) -> None:
    try:
        bridge.reload_failed(problems, who)
    except Exception:  # as above
        log.exception("nobody could be told that the configuration was not reloaded")


def _read(path: Path, watch: ConfigWatch, who: str) -> config.Config | None:
    """The configuration if there is reason to read it.

    Raises:
        ConfigurationError: it is wrong, or cannot be read.
    """
    content = watch.take() if who == BY_SIGNAL else watch.changed()
    return None if content is None else config.load(path, content=content)


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
