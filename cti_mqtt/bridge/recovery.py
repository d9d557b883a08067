"""Commands that were on record and had no result when the bridge ended."""

import json
from datetime import datetime

from cti_mqtt.bridge.answers import Command
from cti_mqtt.bridge.mqtt import Incoming
from cti_mqtt.bridge.store import KnownCommand, StoredResult
from cti_mqtt.bridge.topics import CommandTopic
from cti_mqtt.bridge.verdict import Outcome, Verdict

OWN_SUFFIX = "#"  # behind it: what makes a stop's key its own, since a stop may be repeated

INTERRUPTED = Verdict(
    Outcome.UNKNOWN, None, "restarted", "the bridge ended before the outcome was known; it is not sent again"
)


def rebuild(known: KnownCommand, now_s: float) -> Command:
    """A command as it was heard, as far as the record tells."""
    received = known.command
    key = received.key
    channel_text = None if key.channel is None else str(key.channel)
    identifier = key.id.rpartition(OWN_SUFFIX)[0] if key.verb == "stop" else key.id
    command = Command(
        CommandTopic(key.cycler, channel_text, key.verb, user=received.user),
        Incoming("", received.request.encode(), retain=False),
        datetime.fromisoformat(received.received_at),
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
