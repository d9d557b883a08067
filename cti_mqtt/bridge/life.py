"""The life of a command: received, checked, sent, answered, verified; and one end, whatever happens.

::

    RECEIVED --> CHECKED --> SENT --> ANSWERED --> VERIFIED
        |           |          |          |
        +-----------+----------+----------+--> the end: one verdict a channel

A command of several requests (a start that assigns first) goes from ANSWERED back to SENT with each of them.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from enum import IntEnum

from cti_mqtt.bridge.verdict import Outcome, Verdict, refused

Answer = Callable[[int, Verdict], None]


class Stage(IntEnum):
    """How far a command has come on a channel."""

    RECEIVED = 0
    CHECKED = 1  # nothing stands against it; it may wait for its turn
    SENT = 2  # handed to the socket: from here on silence means unknown
    ANSWERED = 3  # the cycler said yes
    VERIFIED = 4  # and a poll has shown the effect


def _take_no_notice(channel: int) -> None:
    """Nobody wants to know."""


class Life:
    """One command on its channels.

    Args:
        channels: where it is to be carried out.
        objections: asked just before each request goes out, with its channels and whether the command's age counts;
            raises WithdrawnError where it must not.
        answer: told the verdict, once a channel.
        on_sent: told each time when a request with which the command begins on a channel is about to go out.
    """

    def __init__(
        self,
        channels: Iterable[int],
        objections: Callable[[Collection[int], bool], None],
        answer: Answer,
        on_sent: Callable[[int], None] = _take_no_notice,
    ) -> None:
        self._stages = dict.fromkeys(channels, Stage.RECEIVED)
        self._accepted: dict[int, Verdict] = {}
        self._objections = objections
        self._answer = answer
        self._on_sent = on_sent

    @property
    def open(self) -> tuple[int, ...]:
        """The channels that have no verdict yet."""
        return tuple(self._stages)

    def stage(self, channel: int) -> Stage | None:
        """How far it has come, None where it has ended."""
        return self._stages.get(channel)

    def checked(self, channel: int) -> None:
        """Every check has passed."""
        self._advance(channel, Stage.CHECKED)

    def may_go(self, *channels: int) -> None:
        """Whether a request might go out, if it were its turn.

        Raises:
            WithdrawnError: it must not go out any more.
        """
        self._objections(channels, True)  # noqa: FBT003  # its age counts

    def gate(self, *channels: int) -> None:
        """A request is about to be handed to the socket.

        Raises:
            WithdrawnError: it must not go out any more.
        """
        self.may_go(*channels)
        for channel in channels:
            self._on_sent(channel)
            self._send(channel)

    def gate_again(self, *channels: int) -> None:
        """The same for what follows once a command has been carried out so far: half of it would be worse than late.

        Raises:
            WithdrawnError: it must not go out any more.
        """
        self._objections(channels, False)  # noqa: FBT003  # its age does not count
        for channel in channels:
            self._send(channel)

    def _send(self, channel: int) -> None:
        self._accepted.pop(channel, None)
        self._advance(channel, Stage.SENT)

    def accepted(self, channel: int, verdict: Verdict) -> None:
        """The cycler said yes; the effect is still to be seen."""
        self._accepted[channel] = verdict
        self._advance(channel, Stage.ANSWERED)

    def verified(self, channel: int) -> None:
        """A poll has shown the effect."""
        self._advance(channel, Stage.VERIFIED)

    def end(self, channel: int, verdict: Verdict) -> None:
        """The verdict on a channel; the first counts."""
        if self._stages.pop(channel, None) is not None:
            self._answer(channel, verdict)

    def cut(self, reason: str, why: str) -> None:
        """Whatever has not ended, ends now, with what is known of it.

        Args:
            reason: for an outcome that is not known, in snake case.
            why: a clause such as "the bridge ended".
        """
        for channel, stage in tuple(self._stages.items()):
            self.end(channel, self._verdict_so_far(channel, stage, reason, why))

    def _verdict_so_far(self, channel: int, stage: Stage, reason: str, why: str) -> Verdict:
        if stage < Stage.SENT:
            return refused("not_connected", f"{why}; nothing was sent")
        if stage is Stage.SENT:
            return Verdict(Outcome.UNKNOWN, None, reason, f"{why} before the outcome was known")
        verdict = self._accepted[channel]
        seen = stage is Stage.VERIFIED
        return (
            verdict
            if seen
            else replace(verdict, verified=False, message=f"accepted, but {why} before a poll showed it")
        )

    def _advance(self, channel: int, stage: Stage) -> None:
        if channel in self._stages:
            self._stages[channel] = stage
