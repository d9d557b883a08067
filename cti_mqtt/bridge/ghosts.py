"""Ghosts: retained topics that nobody keeps up to date any more, and that look alive all the same.

The bridge lists in the data directory which topics it has left something on. What an earlier run left, and this
configuration does not cover, is cleared; so is what belongs to a channel or cycler that has gone. Nothing that is not
on the list is ever cleared, and nothing under another base topic: another bridge may live there now. What an earlier
configuration left there is named once, then it is off the list.
"""

import asyncio
import logging
import re
import shlex
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol

from cti_mqtt.bridge.bus import CyclerState, Item
from cti_mqtt.bridge.mqtt import LOST, SUSPECT, Settled
from cti_mqtt.errors import StorageError
from cti_mqtt.publishing import Publish

log = logging.getLogger(__name__)

NOTE_S = 0.2  # how long new topics are gathered before they are written down
IDLE_S = 1.0  # how soon it is tried again while nothing can be cleared
AGAIN_S = 5.0  # after trouble with the storage
REFUSED_AGAIN_S = 60.0  # after the broker refused to clear a topic
MOST_IN_FLIGHT = 200  # topics that are being cleared at a time

_BELOW_A_BASE = re.compile(r"(.+?)/(?:[^/]+/channel/[0-9]+/.+|[^/]+/[^/]+)")
_CHANNEL_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_CYCLER_LEAVES = frozenset({"availability", "info", "schedules"})
_CHANNEL_LEAVES = frozenset({"availability", "state", "mv", "lease"})


def is_foreign(topic: str, base: str) -> bool:
    """Whether a topic cannot be one of this base topic, so that another bridge may answer for it.

    A base topic may lie below another one: `lab/cti/bridge/info` is foreign to `lab`.
    """
    if not topic.startswith(base + "/"):
        return True
    match topic[len(base) + 1 :].split("/"):
        case [_, _]:
            return False
        case [_, "channel", number, _, *_]:
            return not number.isdecimal()
    return True


def base_of(topic: str) -> str:
    """The base topic of a bridge's topic, as far as its levels tell; the whole topic if they do not."""
    match = _BELOW_A_BASE.fullmatch(topic)
    return match[1] if match else topic


def is_ghost(topic: str, base: str, channel_counts: Mapping[str, int | None], publish: Publish) -> bool:
    """Whether a topic that this bridge once published under its base topic is none that it would publish now.

    Args:
        topic: of a retained message.
        base: the base topic.
        channel_counts: of every configured cycler; None where it has not said so yet.
        publish: which topics are published.
    """
    if is_foreign(topic, base):
        return False
    match topic[len(base) + 1 :].split("/"):
        case ["bridge", _]:
            return False
        case [cycler, leaf]:
            return cycler not in channel_counts or leaf not in _CYCLER_LEAVES
        case [cycler, "channel", channel, *leaf] if cycler in channel_counts:
            return _beyond(channel, channel_counts[cycler]) or not _is_published(leaf, publish)
    return True


def _beyond(channel: str, count: int | None) -> bool:
    return not _CHANNEL_NUMBER.fullmatch(channel) or (count is not None and int(channel) > count)


def _is_published(leaf: list[str], publish: Publish) -> bool:
    match leaf:
        case ["state"]:
            return publish.state
        case ["alarm", _]:
            return True
        case [name]:
            return name in _CHANNEL_LEAVES
    return False


class RetainedList(Protocol):
    """Where the list is kept."""

    def retained_topics(self) -> "Future[tuple[str, ...]]":
        """All of them."""

    def note_retained(self, add: Collection[str], remove: Collection[str]) -> "Future[None]":
        """Change the list."""


class Ghosts:
    """Keeps the list, and clears.

    Args:
        base: the base topic.
        cyclers: the configured ones.
        publish: which topics are published.
        store: where the list is.
        retract: clears a topic now, or not at all; `MqttLink.retract`.
        forget: keeps a topic from being published again; `MqttLink.forget`.
        may_clear: whether this bridge has the say on its topics; not while an elder one commands.
        tell: takes the type and the message of an event.
    """

    def __init__(
        self,
        base: str,
        cyclers: Collection[str],
        publish: Publish,
        store: RetainedList,
        *,
        retract: Callable[[str, Settled], bool],
        forget: Callable[[str], None],
        may_clear: Callable[[], bool],
        tell: Callable[[str, str], None] = lambda _kind, _text: None,
    ) -> None:
        self._base = base
        self._counts: dict[str, int | None] = dict.fromkeys(cyclers)
        self._publish = publish
        self._store = store
        self._retract = retract
        self._forget = forget
        self._may_clear = may_clear
        self._tell = tell
        self._loaded = False
        self._listed: set[str] = set()  # what the store knows
        self._left: set[str] = set()  # what an earlier run has published under another base topic
        self._own: set[str] = set()  # what this run has published
        self._to_add: set[str] = set()
        self._to_remove: set[str] = set()
        self._pending: dict[str, None] = {}  # ghosts to clear
        self._in_flight: set[str] = set()
        self._not_before: dict[str, float] = {}  # loop time
        self._news = asyncio.Event()
        self._idle = False
        self._problem = ""

    # --- what happens ---

    def saw(self, topic: str) -> None:
        """A retained message with a payload is about to be published."""
        self._in_flight.discard(topic)  # what is being cleared comes back behind that
        if topic not in self._own:
            self._own.add(topic)
            if topic not in self._listed:
                self._to_add.add(topic)
            self._to_remove.discard(topic)
            self._judge(topic)
            self._news.set()

    def follow(self, item: Item) -> None:
        """A cycler that logs in says how many channels it has; one that says none at all is not believed."""
        if isinstance(item, CyclerState) and item.online and item.info and item.cycler in self._counts:
            count = item.info.channel_count or None
            if count != self._counts[item.cycler]:
                self._counts[item.cycler] = count
                self._judge_all(item.cycler)

    def drop_cycler(self, name: str) -> None:
        """A cycler is no longer configured, and has said farewell: all of its topics go, once that is out."""
        self._counts.pop(name, None)
        self._judge_all()
        if not self._may_clear():  # an elder bridge may look after it: say nothing more of it
            for topic in self._pending:
                self._forget(topic)

    def add_cycler(self, name: str) -> None:
        """A cycler is configured from now on; to be called before it says anything."""
        self._counts.setdefault(name, None)
        self._judge_all()

    # --- which are ghosts ---

    def _judge_all(self, cycler: str = "") -> None:
        """All topics anew, or those of one cycler."""
        beginning = f"{self._base}/{cycler}/" if cycler else ""
        for topic in [topic for topic in self._pending if topic.startswith(beginning)]:
            del self._pending[topic]
        for topics in (self._listed, self._to_add):
            for topic in topics:
                if topic.startswith(beginning):
                    self._judge(topic)
        self._news.set()

    def _judge(self, topic: str) -> None:
        if is_ghost(topic, self._base, self._counts, self._publish) and not self._is_kept(topic):
            self._pending[topic] = None
        else:
            self._pending.pop(topic, None)

    def _is_kept(self, topic: str) -> bool:
        """Whether this run has published it and answers for it: unless its channel or cycler has gone since.

        An alarm or a lease stands until whoever raised or granted it takes it back, also on a channel that has gone;
        an alarm also on a cycler that has gone, for it is about a cell.
        """
        if topic not in self._own:
            return False
        if not topic.startswith(self._base + "/"):
            return True
        match topic[len(self._base) + 1 :].split("/"):
            case ["bridge", *_]:
                return True
            case [cycler, *leaf] if cycler not in self._counts:
                return leaf[:1] == ["channel"] and leaf[2:3] == ["alarm"]
            case [cycler, "channel", channel, *leaf]:
                return leaf[:1] in (["alarm"], ["lease"]) or not _beyond(channel, self._counts[cycler])
        return True

    # --- what is done about them ---

    async def run(self) -> None:
        """Keep the list and clear ghosts, until cancelled; what was gathered until then is still written down."""
        try:
            while True:
                await self._wait()
                try:
                    await self._step()
                    self._problem = ""
                except StorageError as error:
                    self._say_once(str(error))
                    await asyncio.sleep(AGAIN_S)
                except Exception:  # neither the list nor a ghost is worth the bridge
                    log.exception("the list of retained topics")
                    await asyncio.sleep(AGAIN_S)
        finally:
            if self._to_add or self._to_remove:
                last = self._store.note_retained(tuple(self._to_add), tuple(self._to_remove))
                last.add_done_callback(_look_away)

    def _say_once(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("the list of retained topics: %s", problem)
        self._problem = problem

    async def _wait(self) -> None:
        """Until there is something to do; not more often than new topics are to be gathered."""
        wait_s: float | None = None
        if self._pending or self._to_add or self._to_remove or not self._loaded:
            wait_s = IDLE_S if self._idle else NOTE_S
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        self._news.clear()
        await asyncio.sleep(NOTE_S)

    async def _step(self) -> None:
        if not self._loaded:
            self._listed |= set(await self._store.retained_topics())
            self._left = {topic for topic in self._listed if is_foreign(topic, self._base)}
            self._to_add -= self._listed
            self._loaded = True
            self._judge_all()
        if self._left and self._may_clear():
            self._leave_alone()
        await self._write_down()
        self._idle = not self._may_clear() or not self._clear_some()

    def _leave_alone(self) -> None:
        """Name what was left under other base topics, and take it off the list."""
        left, self._left = self._left - self._own, set()
        for base, number in Counter(map(base_of, left)).items():
            filters = " ".join(f"-t {shlex.quote(f'{base}/{below}')}" for below in ("+/+", "+/channel/#"))
            message = (
                f"{number} retained topics under {base!r} are left from an earlier configuration, and stay there: "
                "another bridge may use that base topic now; if none does, "
                f"mosquitto_sub {filters} --remove-retained -W 5 clears them"
            )
            log.warning("%s", message)
            self._tell("ghosts_left", message)
        self._listed -= left
        self._to_remove |= left

    async def _write_down(self) -> None:
        add, remove = frozenset(self._to_add), frozenset(self._to_remove)
        if not add and not remove:
            return
        await self._store.note_retained(add, remove)
        self._listed = (self._listed | add) - remove
        self._to_add -= add
        # What was published meanwhile is to be added again.
        self._to_add |= remove & self._own
        self._to_remove -= remove

    def _clear_some(self) -> int:
        """Ask the broker to clear as many as may be asked for at a time; how many that were."""
        now, asked = asyncio.get_running_loop().time(), 0
        for topic in list(self._pending):
            if len(self._in_flight) >= MOST_IN_FLIGHT:
                break
            if topic in self._in_flight or topic not in self._listed or self._not_before.get(topic, now) > now:
                continue  # one that is not written down yet comes later
            self._in_flight.add(topic)
            if self._retract(topic, partial(self._settled, topic)):
                self._own.discard(topic)
                asked += 1
            else:
                self._in_flight.discard(topic)
        return asked

    def _settled(self, topic: str, problem: str | None) -> None:
        """The broker has cleared a topic, or has not."""
        if topic not in self._in_flight:
            return  # it was published again behind that
        self._in_flight.discard(topic)
        if problem is None:
            log.info("cleared what nobody keeps up to date: %s", topic)
            self._pending.pop(topic, None)
            self._not_before.pop(topic, None)
            self._to_remove.add(topic)
            self._news.set()
        elif problem not in {LOST, SUSPECT}:
            log.warning("the broker did not clear %s: %s", topic, problem)
            self._not_before[topic] = asyncio.get_running_loop().time() + REFUSED_AGAIN_S


def _look_away(asked: "Future[None]") -> None:
    """The bridge ends; what could not be written is found out by the next run, or is no ghost."""
    if not asked.cancelled():
        asked.exception()
