"""What is and is not on record: commands that the bridge did not live to answer, results that could not be kept."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cti_mqtt.bridge.answers import Command, request_text, settle
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.examination import Plan, body_digest
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.store import CommandKey, KnownCommand, ReceivedCommand, Store, StoredResult
from cti_mqtt.bridge.topics import CommandTopic
from cti_mqtt.bridge.verdict import Outcome, Verdict
from cti_mqtt.errors import StorageError

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


def rebuild(known: KnownCommand, now_s: float) -> Command:
    """A command as it was heard, as far as the record tells."""
    kept = known.command
    key = kept.key
    channel_text = None if key.channel is None else str(key.channel)
    identifier = key.id.rpartition(OWN_SUFFIX)[0] if key.verb == "stop" else key.id
    command = Command(
        CommandTopic(key.cycler, channel_text, key.verb, user=kept.user),
        Incoming("", kept.request.encode(), retain=False),
        datetime.fromisoformat(kept.received_at),
        now_s,
        identifier,
        key=key,
    )
    command.results = [(each.channel, json.loads(each.body)) for each in known.results]
    return command


def verdict_of(stored: StoredResult) -> Verdict:
    """How a channel ended that has its result."""
    body = json.loads(stored.body)
    return Verdict(Outcome[body["outcome"].upper()], body["code"], body["reason"], body["message"])


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

    async def write(self) -> None:
        """Make good what can be.

        Raises:
            StorageError: it still does not work.
        """
        for key, command in tuple(self._commands.items()):
            await settle(self._store, command)
            self._commands.pop(key, None)


async def forget_old_ids(store: Store, clock: Clock) -> None:
    """Ids are kept for a week; until cancelled."""
    while True:
        before = stamp(clock.now() - timedelta(seconds=KEEP_IDS_S))
        with contextlib.suppress(StorageError):
            while await store.forget_before(before):  # noqa: ASYNC110  # portion by portion
                await asyncio.sleep(FORGET_PAUSE_S)
        await asyncio.sleep(FORGET_INTERVAL_S)
