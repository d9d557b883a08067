"""The names of all topics, and what a command topic says; pure text."""

import re
from dataclasses import dataclass

from cti_mqtt.cti.codes import META_VARIABLE_COUNT

COMMAND = "command"
SET_MV_SHORTCUT = "mv"
_CHANNEL_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_FORBIDDEN_REPLY_PREFIXES = ("$", "homeassistant/", "spBv1.0/")


@dataclass(frozen=True, slots=True)
class CommandTopic:
    """What the topic of a command says.

    Attributes:
        channel_text: the channel level as it was written; None for a command to the cycler.
        verb: as it was written; for the meta-variable shortcut `set_mv`.
        variable: the meta variable of the shortcut.
        user: the optional last level.
    """

    cycler: str
    channel_text: str | None
    verb: str
    variable: int | None = None
    user: str | None = None

    @property
    def channel(self) -> int | None:
        """The channel, from 1; None where the text is no channel number."""
        if self.channel_text is None or not _CHANNEL_NUMBER.fullmatch(self.channel_text):
            return None
        return int(self.channel_text)


class Topics:
    """All topics below one base topic."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.bridge = f"{base}/bridge"

    def cycler(self, cycler: str, leaf: str) -> str:
        """A topic of a cycler."""
        return f"{self.base}/{cycler}/{leaf}"

    def channel(self, cycler: str, channel: int | str, leaf: str) -> str:
        """A topic of a channel; a result may go to a channel that does not exist, under the name it was called by."""
        return f"{self.base}/{cycler}/channel/{channel}/{leaf}"

    @property
    def subscriptions(self) -> tuple[str, str]:
        """Where commands are heard; any depth, so that a mistyped command is refused and not passed over."""
        return f"{self.base}/+/{COMMAND}/#", f"{self.base}/+/channel/+/{COMMAND}/#"

    def parse_command(self, topic: str) -> CommandTopic | None:
        """What a command topic says, None if it is none."""
        if not topic.startswith(self.base + "/"):
            return None
        match topic[len(self.base) + 1 :].split("/"):
            case [cycler, "channel", channel, "command", *rest]:
                return _parse_rest(cycler, channel, rest)
            case [cycler, "command", *rest]:
                return _parse_rest(cycler, None, rest)
        return None

    def may_reply_to(self, topic: str) -> bool:
        """Whether a response topic is somebody's own business, not a topic of ours or of another system."""
        own = topic == self.base or topic.startswith(self.base + "/")
        return (
            bool(topic) and not own and not topic.startswith(_FORBIDDEN_REPLY_PREFIXES) and not set(topic) & set("+#\0")
        )


def _parse_rest(cycler: str, channel: str | None, rest: list[str]) -> CommandTopic:
    match rest:
        case ["mv", index] if channel is not None and _is_variable(index):
            return CommandTopic(cycler, channel, "set_mv", variable=int(index))
        case ["mv", index, user] if channel is not None and _is_variable(index):
            return CommandTopic(cycler, channel, "set_mv", variable=int(index), user=user)
        case [verb]:
            return CommandTopic(cycler, channel, verb)
        case [verb, user] if verb != SET_MV_SHORTCUT:
            return CommandTopic(cycler, channel, verb, user=user)
    return CommandTopic(cycler, channel, "/".join(rest))


def _is_variable(text: str) -> bool:
    return bool(_CHANNEL_NUMBER.fullmatch(text)) and int(text) <= META_VARIABLE_COUNT
