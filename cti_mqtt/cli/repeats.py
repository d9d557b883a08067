"""A fault that lasts must not fill the disk with log: what repeats itself is told a few times, then summed up."""

import contextlib
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from cti_mqtt.config import MAX_CHANNELS

FIRST = 5  # records of one kind that are told one by one
FIRST_AGAIN = 1  # and in a window that follows one in which more came
WINDOW_S = 600.0
ALIKE = 500  # records of one message in a window, whomever they are about: 16 cyclers x 5 come nowhere near
MOST_KINDS = 2000  # that are remembered
ALWAYS = frozenset(  # who tells of stops, leases, alarms, commands and reloads: people bound the number of these
    f"cti_mqtt.bridge.{name}"
    for name in ("alarms", "answers", "expiry", "leases", "pursuit", "reloading", "undertaking")
)
MOST_ALWAYS = 5000  # records of one message of theirs in a window: each of 1024 channels has room for four
THREAD_NAME = "log summaries"
LEAST_WAIT_S = 0.1  # between two looks for what is to be summed up
LONGEST_NAME = 40  # characters; a UUID has 36
LONGEST_TEXT = 300
NAMES = 4  # arguments that can tell one kind from another

_BLANK = re.compile(r"\s")
_OTHERS = None  # all messages beyond those that are remembered
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


@dataclass(slots=True)
class _Kind:
    """Records that are the same but for their details.

    Attributes:
        began_at: when the window began.
        room: how many may still be told in it.
        held: how many were not.
        latest: the last of those, without what it holds on to.
    """

    began_at: float
    room: int
    held: int = 0
    latest: logging.LogRecord | None = None


class _Kinds:
    """Kinds of records and how often each came; bounded.

    Args:
        room: how many of a kind may be told in a window.
        room_after: and in one that follows a window in which more came.
        window_s: how long a window is.
    """

    def __init__(self, room: int, room_after: int, window_s: float) -> None:
        self._room = room
        self._room_after = room_after
        self._window_s = window_s
        self._kinds: dict[Hashable, _Kind] = {}  # the oldest window first

    def knows(self, key: Hashable) -> bool:
        """Whether records of this kind are counted, or can be: kinds are forgotten only when their window is over."""
        return key in self._kinds or len(self._kinds) < MOST_KINDS

    def admit(self, key: Hashable, record: logging.LogRecord, now: float) -> bool:
        """Whether a record may be told; else it is counted. Call `summaries` before."""
        kind = self._kinds.setdefault(key, _Kind(now, self._room))
        if kind.room > 0:
            kind.room -= 1
            return True
        kind.held += 1
        kind.latest = _copy(record, _shortened(record.getMessage()))
        return False

    def due_s(self) -> float:
        """When the next window is over of which something is to be told; infinity: none."""
        return next((kind.began_at + self._window_s for kind in self._kinds.values() if kind.held), math.inf)

    def rest(self, now: float) -> Iterator[logging.LogRecord]:
        """What is to be told of all windows, for they end now."""
        kinds, self._kinds = self._kinds, {}
        for kind in kinds.values():
            if kind.latest is not None:
                yield _summary(kind.latest, kind.held, now - kind.began_at)

    def summaries(self, now: float) -> Iterator[logging.LogRecord]:
        """What is to be told of windows that are over."""
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))
            if now < kind.began_at + self._window_s:
                return
            del self._kinds[key]
            if kind.latest is not None:
                self._kinds[key] = _Kind(now, self._room_after)
                yield _summary(kind.latest, kind.held, now - kind.began_at)


class RepeatLimit(logging.Handler):
    """Hands records on to another handler, but no more than a few of each kind.

    A kind is a message (logger, level, template) about somebody: its first argument, and the words and channel numbers
    that follow it. The first five of a kind go through; the others are counted, and told once in ten minutes, with the
    latest text; of the next ten minutes the first goes through again. Bounded also where each record is of another
    kind: by 500 of a message in ten minutes, whomever they are about. DEBUG goes through: whoever switches that on
    wants it all.

    What tells of stops, leases, alarms, commands and reloads (`ALWAYS`) is not held, but for an overall bound of 5000
    of a message in ten minutes, and for tracebacks that repeat themselves word by word.

    Summaries go out with the next record of any kind, else from a daemon thread, which is there only while something
    is held, and at the latest with `close`. Thread-safe, as every handler is.

    Args:
        target: writes.
        clock: seconds that never jump.
        window_s: the ten minutes.
    """

    def __init__(
        self, target: logging.Handler, clock: Callable[[], float] = time.monotonic, window_s: float = WINDOW_S
    ) -> None:
        super().__init__()
        self._target = target
        self._clock = clock
        self._kinds = _Kinds(FIRST, FIRST_AGAIN, window_s)
        self._messages = _Kinds(ALIKE, ALIKE, window_s)
        self._important = _Kinds(MOST_ALWAYS, MOST_ALWAYS, window_s)
        self._timer: threading.Timer | None = None
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`, one record at a time."""
        try:
            now = self._clock()
            self._sum_up(now)
            if record.levelno <= logging.DEBUG or self._admit(record, now):
                self._target.handle(record)
            else:
                self._wait(now)
        except Exception:  # noqa: BLE001  # what logging does itself with a record that cannot be told
            self.handleError(record)

    def flush(self) -> None:
        """Write what is buffered."""
        self._target.flush()

    def close(self) -> None:
        """Tell what is held, end the thread, and end the target too."""
        self.acquire()
        try:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            now = self._clock()
            for table in self._tables:
                for summary in table.rest(now):
                    self._target.handle(summary)
        finally:
            self.release()
        self._target.close()
        super().close()

    @property
    def _tables(self) -> tuple[_Kinds, ...]:
        return self._kinds, self._messages, self._important

    def _admit(self, record: logging.LogRecord, now: float) -> bool:
        message: Hashable = record.name, record.levelno, _template(record)
        important = record.name in ALWAYS
        if not important or record.exc_info:
            kind = message, *((_shortened(record.getMessage()),) if important else _names(record))
            if self._kinds.knows(kind) and not self._kinds.admit(kind, record, now):
                return False
        table = self._important if important else self._messages
        return table.admit(message if table.knows(message) else _OTHERS, record, now)

    # --- what is held ---

    def _sum_up(self, now: float) -> None:
        for table in self._tables:
            for summary in table.summaries(now):
                self._target.handle(summary)

    def _wait(self, now: float) -> None:
        """Have a thread sum up what is held, in case no other record comes; one at a time."""
        if self._timer is not None or self._closed:
            return
        due_s = min(table.due_s() for table in self._tables)
        if due_s == math.inf:
            return
        timer = threading.Timer(max(due_s - now, LEAST_WAIT_S), self._at_due)
        timer.name, timer.daemon = THREAD_NAME, True
        with contextlib.suppress(RuntimeError):  # no thread can be had, so it goes out with the next record
            timer.start()
            self._timer = timer

    def _at_due(self) -> None:
        self.acquire()
        try:
            if self._timer is threading.current_thread():
                self._timer = None
                now = self._clock()
                self._sum_up(now)
                self._wait(now)
        finally:
            self.release()


def _template(record: logging.LogRecord) -> str:
    """The message without its arguments; of one that was put together before, without its numbers."""
    return _NUMBER.sub("#", str(record.msg).partition("\n")[0])[:LONGEST_TEXT]


def _names(record: logging.LogRecord) -> Iterator[Hashable]:
    """Whom a record is about: its first argument whatever it is, then names until something else comes."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    for index, argument in enumerate(arguments[:NAMES]):
        if _is_name(argument):
            yield argument
        else:
            if index == 0:
                yield str(argument)[:LONGEST_TEXT]
            return


def _is_name(argument: object) -> bool:
    if isinstance(argument, int):
        return 0 <= argument <= MAX_CHANNELS
    return isinstance(argument, str) and len(argument) <= LONGEST_NAME and not _BLANK.search(argument)


def _shortened(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


def _copy(record: logging.LogRecord, text: str) -> logging.LogRecord:
    """The same with this text, and without traceback and arguments."""
    where = record.pathname, record.lineno
    return logging.LogRecord(record.name, record.levelno, *where, text, (), None, record.funcName)


def _summary(latest: logging.LogRecord, held: int, seconds: float) -> logging.LogRecord:
    return _copy(
        latest, f"{latest.getMessage()} (… {held} more like this in the last {max(1, math.ceil(seconds / 60))} min)"
    )
