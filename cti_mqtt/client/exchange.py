"""A request on its way, and what has come back of it.

CTI has no request ids. A feedback belongs to the oldest request that its command code (and channel, where it has one)
fits. An exchange decides that for one request; it knows neither sockets nor clocks.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from cti_mqtt.cti.codes import Code
from cti_mqtt.cti.commands import BY_REQUEST_CLASS
from cti_mqtt.cti.messages.channels import ChannelRecord, ChannelsInfoFeedback
from cti_mqtt.cti.messages.tests import NO_CHANNEL
from cti_mqtt.cti.stream import Checksum
from cti_mqtt.errors import ChecksumError, CtiMqttError, OutcomeUnknownError

T = TypeVar("T")

URGENT, NORMAL = 0, 1
READINGS_QUIET_S = 2.0  # silence after part of the readings that means: no more of them are coming
READINGS_REST_S = 8.0  # how long after that they are still told from the next poll's, should they come after all
UPDATES_QUIET_S = 0.1  # the same for the answers to an advanced update

Gate = Callable[[], None]


def open_gate() -> None:
    """Nothing stands against sending."""


class Exchange(ABC, Generic[T]):
    """One request and the feedback that answers it.

    It outlives its caller: a feedback that comes after the caller has gone must still find its request.

    Args:
        request: the message to send.
        priority: URGENT overtakes NORMAL where requests have to wait.
        gate: asked when the request's turn has come; raises NotSentError where it must not go out any more.

    Attributes:
        outcome: what the caller waits for.
        sent: whether the request was handed to the socket.
        finished: whether nothing more is expected.
        quiet_s: how long a silence after part of the answer ends it; None where only the time-out does.
        rest_s: how long, after such an end, what is `owed` keeps the next of its command waiting.
        alone: whether it waits while another of its command is in flight: nobody could tell whose an answer is.
    """

    quiet_s: float | None = None
    rest_s = 0.0
    alone = False

    def __init__(self, request: Any, priority: int = NORMAL, gate: Gate = open_gate) -> None:
        self.request = request
        self.command = BY_REQUEST_CLASS[type(request)]
        self.priority = priority
        self.gate = gate
        self.outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.sent = False
        self.finished = False

    @property
    def owed(self) -> bool:
        """Whether more may still come although it is settled, which must not be taken for the next one's answer."""
        return False

    @abstractmethod
    def offer(self, feedback: Any, checksum: Checksum) -> bool:
        """Take a feedback of this command's code, or leave it for a younger exchange."""

    def run_out(self, error: CtiMqttError) -> None:
        """No more will come: settle with what there is, or fail with `error`."""
        self.fail(error)

    def succeed(self, value: T) -> None:
        """Settle."""
        self.finished = True
        if not self.outcome.done():
            self.outcome.set_result(value)

    def fail(self, error: Exception) -> None:
        """Settle with an error."""
        self.finished = True
        if not self.outcome.done():
            self.outcome.set_exception(error)


def _damaged() -> ChecksumError:
    return ChecksumError("the feedback arrived with a wrong checksum, which proves nothing")


class SingleExchange(Exchange[Any]):
    """One feedback answers it.

    Args:
        channel: the wire channel that the feedback must name; None where it names none.
    """

    def __init__(
        self, request: Any, channel: int | None = None, priority: int = NORMAL, gate: Gate = open_gate
    ) -> None:
        super().__init__(request, priority, gate)
        self._channel = channel

    def offer(self, feedback: Any, checksum: Checksum) -> bool:
        """Settles with the feedback; a damaged feedback to a control request proves nothing."""
        if self._channel is not None and feedback.channel not in {self._channel, NO_CHANNEL}:
            return False
        if self.command.control and checksum is Checksum.WRONG:
            self.fail(_damaged())
        else:
            self.succeed(feedback)
        return True


ChannelOutcome = Code | OutcomeUnknownError


class ManyChannelsExchange(Exchange[Mapping[int, ChannelOutcome]]):
    """One feedback a channel answers it: a start of several channels, a stop or an assignment of all.

    Feedbacks that name their channel count first. Successes that name none fill the rest only if as many feedbacks came
    as channels were asked; a rest without proof is an error value a channel, not a failure of the whole. The same goes
    for refusals that name none, as long as all of them say the same.

    Args:
        channels: the wire channels that are asked, each once.
        alone: for a command whose feedbacks may name no channel.
    """

    def __init__(
        self,
        request: Any,
        channels: Collection[int],
        priority: int = NORMAL,
        gate: Gate = open_gate,
        *,
        alone: bool = False,
    ) -> None:
        super().__init__(request, priority, gate)
        self.alone = alone
        self._channels = list(channels)
        self._results: dict[int, ChannelOutcome] = {}
        self._unnamed: list[tuple[Code, Checksum]] = []

    def offer(self, feedback: Any, checksum: Checksum) -> bool:
        """Collects; settles with the last expected feedback."""
        if feedback.channel == NO_CHANNEL:
            self._unnamed.append((feedback.result, checksum))
        elif feedback.channel in self._channels and feedback.channel not in self._results:
            self._results[feedback.channel] = _damaged() if checksum is Checksum.WRONG else feedback.result
        else:
            return False
        if len(self._results) + len(self._unnamed) == len(self._channels):
            self._fill_rest()
            self.succeed(self._results)
        return True

    def _fill_rest(self) -> None:
        sound = all(checksum is not Checksum.WRONG for _, checksum in self._unnamed)
        proven = sound and len({result for result, _ in self._unnamed}) == 1
        for channel in self._channels:
            if channel not in self._results:
                self._results[channel] = (
                    self._unnamed[0][0]
                    if proven
                    else OutcomeUnknownError("the cycler's answers do not say which channel they are for")
                )

    def run_out(self, error: CtiMqttError) -> None:
        """What is proven counts; the rest is unknown."""
        if not self.sent or not self._results or not isinstance(error, OutcomeUnknownError):
            self.fail(error)
            return
        for channel in self._channels:
            self._results.setdefault(channel, error)
        self.succeed(self._results)


class ReadExchange(Exchange[list[ChannelRecord]]):
    """Readings, in whatever way the server splits them; settles with all that came, wanted or not.

    One at a time: of two in flight, one that lacks channels would take what the other waits for.

    Args:
        wanted: the wire channels that complete it; empty where only the server knows (running, unsafe).
    """

    quiet_s = READINGS_QUIET_S
    rest_s = READINGS_REST_S
    alone = True

    def __init__(self, request: Any, wanted: Collection[int]) -> None:
        super().__init__(request)
        self._missing = set(wanted)
        self._last = max(wanted, default=None)
        self._open_ended = not wanted
        self._one = len(self._missing) == 1
        self._heard = False
        self._records: dict[int, ChannelRecord] = {}

    @property
    def missing(self) -> frozenset[int]:
        """Wanted channels that did not come."""
        return frozenset(self._missing)

    @property
    def owed(self) -> bool:
        """Whether the last channel is missing: where it came, those before it are lost, not late."""
        return self._last in self._missing

    def offer(self, feedback: ChannelsInfoFeedback, checksum: Checksum) -> bool:
        """Takes every frame in which there is something for it."""
        del checksum  # a reading moves nothing: the stream's policy has decided
        new = {record.channel: record for record in feedback.records if record.channel not in self._records}
        if self._one and new and not self._missing.intersection(new):
            return False
        if feedback.records and not new:
            return False
        self._heard = True
        self._records.update(new)
        self._missing.difference_update(new)
        nobody_there = self._one and not feedback.records
        if (not self._missing and not self._open_ended) or nobody_there:
            self.succeed(list(self._records.values()))
        return True

    def run_out(self, error: CtiMqttError) -> None:
        """Part of an answer is worth having; silence is none, whatever was asked."""
        if self._heard:
            self.succeed(list(self._records.values()))
        else:
            self.fail(error)


class UpdatesExchange(Exchange[Mapping[int, ChannelOutcome]]):
    """The answers to an advanced update: one a packet or one a channel, the documents do not say.

    Done with the first feedback plus a short silence. A single feedback counts for all channels, several count by
    channel.
    """

    quiet_s = UPDATES_QUIET_S
    alone = True

    def __init__(self, request: Any, channels: Collection[int], gate: Gate = open_gate) -> None:
        super().__init__(request, NORMAL, gate)
        self._channels = list(channels)
        self._answers: list[tuple[int, ChannelOutcome]] = []

    def offer(self, feedback: Any, checksum: Checksum) -> bool:
        """Takes what is for its channels; ends at once when each of them has answered."""
        if feedback.channel not in self._channels and feedback.channel != NO_CHANNEL:
            return False
        outcome = _damaged() if checksum is Checksum.WRONG else feedback.result
        self._answers.append((feedback.channel, outcome))
        if len(self._channels) == 1 or {channel for channel, _ in self._answers} >= set(self._channels):
            self._settle()
        return True

    def run_out(self, error: CtiMqttError) -> None:
        """Silence after an answer is its end; silence alone is none."""
        if self._answers:
            self._settle()
        else:
            self.fail(error)

    def _settle(self) -> None:
        missing = OutcomeUnknownError("the cycler answered for other channels, not for this one")
        by_channel = dict(self._answers)
        single = self._answers[0][1] if len(self._answers) == 1 else missing
        self.succeed({channel: by_channel.get(channel, single) for channel in self._channels})
