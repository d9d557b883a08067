"""A fault that lasts must not fill the disk with log: what repeats itself is told a few times, then summed up."""

import logging
import math
import re
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from cti_mqtt.config import MAX_CHANNELS

FIRST = 5  # records of one kind that are told one by one
WINDOW_S = 600.0
ALIKE = 500  # records of one message in a window, whomever they are about: 16 cyclers x 5 come nowhere near
MOST_KINDS = 2000  # that are remembered
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
    """

    def __init__(self, room: int, room_after: int) -> None:
        self._room = room
        self._room_after = room_after
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

    def summaries(self, now: float) -> Iterator[logging.LogRecord]:
        """What is to be told of windows that are over."""
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))
            if now < kind.began_at + WINDOW_S:
                return
            del self._kinds[key]
            if kind.latest is not None:
                self._kinds[key] = _Kind(now, self._room_after)
                yield _summary(kind.latest, kind.held, now - kind.began_at)


class RepeatLimit(logging.Handler):
    """Hands records on to another handler, but no more than a few of each kind.

    A kind is a message (logger, level, template) about somebody: its first argument, and the words and channel numbers
    that follow it. The first five of a kind go through; the others are counted, and told once in ten minutes, with the
    latest text, until there were ten minutes without any. Bounded also where each record is of another kind: by 500 of
    a message in ten minutes, whomever they are about. DEBUG goes through: whoever switches that on wants it all.

    Summaries go out with the next record of any kind. Thread-safe, as every handler is.

    Args:
        target: writes.
        clock: seconds that never jump.
    """

    def __init__(self, target: logging.Handler, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._target = target
        self._clock = clock
        self._kinds = _Kinds(FIRST, 0)  # the fault lasts: its summary is enough
        self._messages = _Kinds(ALIKE, ALIKE)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`, one record at a time."""
        try:
            now = self._clock()
            for table in (self._kinds, self._messages):
                for summary in table.summaries(now):
                    self._target.handle(summary)
            if record.levelno <= logging.DEBUG or self._admit(record, now):
                self._target.handle(record)
        except Exception:  # noqa: BLE001  # what logging does itself with a record that cannot be told
            self.handleError(record)

    def flush(self) -> None:
        """Write what is buffered."""
        self._target.flush()

    def close(self) -> None:
        """End the target too."""
        self._target.close()
        super().close()

    def _admit(self, record: logging.LogRecord, now: float) -> bool:
        message = record.name, record.levelno, _template(record)
        kind = *message, *_names(record)
        if self._kinds.knows(kind) and not self._kinds.admit(kind, record, now):
            return False
        return self._messages.admit(message if self._messages.knows(message) else _OTHERS, record, now)


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
    return _copy(latest, f"{latest.getMessage()} (… {held} more like this in the last {math.ceil(seconds / 60)} min)")
