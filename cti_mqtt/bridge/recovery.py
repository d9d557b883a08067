"""What is and is not on record: commands that the bridge did not live to answer, results that could not be kept."""

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cti_mqtt.bridge.answers import Command, request_text, settle
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.examination import Plan, body_digest
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.store import CommandKey, KnownCommand, Newest, ReceivedCommand, Store
from cti_mqtt.bridge.topics import CommandTopic
from cti_mqtt.bridge.verdict import Outcome, Verdict
from cti_mqtt.errors import StorageError

log = logging.getLogger(__name__)

MAX_REPEATS = 100  # of one command that wait for its result
MAX_UNWRITTEN = 1000  # commands; of more, a repeat would be answered by what the record says
FORGET_INTERVAL_S = 600.0
FORGET_PAUSE_S = 0.1  # between two portions: others want to write too
KEEP_IDS_S = 7 * 24 * 3600.0
OWN_SUFFIX = "#"  # behind it: what makes a stop's key its own, since a stop may be repeated

INTERRUPTED = Verdict(
    Outcome.UNKNOWN, None, "restarted", "the bridge ended before the outcome was known; it is not sent again"
)


def received(command: Command, key: CommandKey, plan: Plan, *, keep: bool) -> ReceivedCommand:
    """A command as it is put on record; `keep` where its id is its own."""
    return ReceivedCommand(
        key,
        body_digest(command) or "",
        stamp(command.received_at),
        command.topic.user,
        (*plan.channels, *plan.refused),
        request_text(command.incoming.payload),
        keep,
    )


def rebuild(known: KnownCommand, now: datetime, now_s: float) -> Command:
    """A command as it was heard, as far as the record tells; one that cannot be read was received now."""
    kept = known.command
    key = kept.key
    channel_text = None if key.channel is None else str(key.channel)
    identifier = key.id.rpartition(OWN_SUFFIX)[0] if key.verb == "stop" else key.id
    command = Command(
        CommandTopic(key.cycler, channel_text, key.verb, user=kept.user),
        Incoming("", str(kept.request).encode(), retain=False),
        _moment(kept.received_at) or now,
        now_s,
        identifier,
        key=key,
    )
    command.results = said_of(known)
    return command


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None


def said_of(known: KnownCommand) -> list[tuple[int | None, Mapping[str, Any]]]:
    """What was said of a command, without what the record holds of it but nobody can read."""
    found = []
    for stored in known.results:
        try:
            body = json.loads(stored.body)
            _verdict(body)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            log.exception("%s: a result on record cannot be read: %.200r", known.command.key, stored.body)
        else:
            found.append((stored.channel, body))
    return found


def verdicts_of(command: Command) -> dict[int, Verdict]:
    """How the channels ended that have their results."""
    return {channel: _verdict(body) for channel, body in command.results if channel is not None}


def _verdict(body: Mapping[str, Any]) -> Verdict:
    return Verdict(Outcome[body["outcome"].upper()], body["code"], str(body["reason"]), str(body["message"]))


class Underway:
    """The commands of this run that have no end on record, and who sent one of them again meanwhile."""

    def __init__(self) -> None:
        self._commands: dict[CommandKey, tuple[str, list[Command]]] = {}

    def __contains__(self, key: CommandKey) -> bool:
        return key in self._commands

    def begin(self, key: CommandKey, digest: str | None) -> None:
        """A command is on its way; `digest`: of its body."""
        self._commands.setdefault(key, (digest or "", []))

    def is_repeat(self, key: CommandKey, digest: str | None) -> bool:
        """Whether this is one of them once more, with the same body."""
        return key in self._commands and self._commands[key][0] == digest

    def wait(self, key: CommandKey, repeat: Command) -> None:
        """It gets what is said of the first.

        Raises:
            Refusal: too many wait for it, or there is no such command.
        """
        if key not in self._commands:
            raise Refusal("storage", "it was received before, but what is on record of it cannot be read")
        _, repeats = self._commands[key]
        if len(repeats) >= MAX_REPEATS:
            why = f"it was received before and is not finished; {MAX_REPEATS} repeats of it wait for its result already"
            raise Refusal("busy", why)
        repeats.append(repeat)

    def end(self, key: CommandKey | None) -> list[Command]:
        """Its results are said; who waits for them."""
        if key is None:
            return []
        _, repeats = self._commands.pop(key, ("", []))
        return repeats


class Unwritten:
    """Commands that were answered, but whose record lacks some of it: kept until it is made good.

    Args:
        store: where they belong.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._commands: dict[CommandKey, Command] = {}

    def add(self, command: Command) -> None:
        """It has its last result, and one of them could not be written."""
        assert command.key is not None  # noqa: S101  # else there was nothing to write
        if command.unsure and command.key in self._commands:
            return  # only a repeat, then
        self._commands[command.key] = command
        if len(self._commands) > MAX_UNWRITTEN:
            self._commands.pop(next(iter(self._commands)))

    def results(self, known: KnownCommand) -> list[tuple[int | None, Mapping[str, Any]]] | None:
        """What was said of a command; None where the record knows."""
        command = self._commands.get(known.command.key)
        if command is None or (command.unsure and known.finished):
            return None
        return command.results

    def same(self, key: CommandKey, digest: str | None) -> list[tuple[int | None, Mapping[str, Any]]] | None:
        """What was said of a command with this body, while the record cannot be asked; None where nobody knows."""
        command = self._commands.get(key)
        return None if command is None or body_digest(command) != digest else command.results

    async def write(self) -> None:
        """Make good what can be.

        Raises:
            StorageError: it still does not work.
        """
        for key, command in tuple(self._commands.items()):
            await settle(self._store, command)
            self._commands.pop(key, None)


class Age:
    """Which commands on record are a week old, whatever the time of day says in between.

    Those of this run by a clock that never jumps. Those of earlier runs by their stamps, held against the time of day
    and against the newest stamp that this run found: a clock that was wrong must not make them older than they are.

    Args:
        newest: when this run began.
    """

    def __init__(self, newest: Newest) -> None:
        self._first = newest
        self._marks: deque[tuple[float, int]] = deque()

    def old(self, now: datetime, now_s: float, newest: Newest) -> list[tuple[int, str | None]]:
        """What to forget: up to which number, and received before when (None: whenever)."""
        found: list[tuple[int, str | None]] = []
        while self._marks and now_s - self._marks[0][0] >= KEEP_IDS_S:
            found = [(self._marks.popleft()[1], None)]
        if newest.number and (not self._marks or self._marks[-1][1] != newest.number):
            self._marks.append((now_s, newest.number))
        if last := _moment(self._first.received_at or ""):
            found.append((self._first.number, stamp(min(now, last) - timedelta(seconds=KEEP_IDS_S))))
        return found


async def forget_old_ids(store: Store, clock: Clock) -> None:
    """Ids are kept for a week; until cancelled."""
    age: Age | None = None
    while True:
        with contextlib.suppress(StorageError):
            newest = await store.newest()
            age = age or Age(newest)
            for up_to, before in age.old(clock.now(), clock.monotonic(), newest):
                while await store.forget(up_to, before):  # noqa: ASYNC110  # portion by portion
                    await asyncio.sleep(FORGET_PAUSE_S)
        await asyncio.sleep(FORGET_INTERVAL_S)
