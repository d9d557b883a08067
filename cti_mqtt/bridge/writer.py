"""Fast writes of meta variables: at once where the line is idle, else gathered, and the last value of each wins.

A cycler takes an advanced update (many values of many channels in one packet) every 200 ms at the most. So a write that
finds another one under way waits, together with whatever else comes, and all of it goes out as one update. Whoever
waits for each result before sending the next value never waits for anything else. Nothing is ever sent twice.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from cti_mqtt.bridge.variables import VariableBook
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_answer, of_code, of_error, refused
from cti_mqtt.client import Cycler
from cti_mqtt.client.exchange import NORMAL, URGENT
from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.cti.messages.variables import MAX_UPDATES
from cti_mqtt.errors import CtiMqttError, InvalidRequestError, UnsupportedCommandError, WithdrawnError

GATHER_S = 0.2  # between a write and the next that had to wait: a server takes no more updates than that

ChannelGate = Callable[[int], None]
Answer = Callable[[int, Verdict], None]

_NEVER_SENT = refused("not_connected", "the bridge ended before its turn came; nothing was sent")
_LOST = Verdict(Outcome.UNKNOWN, None, "shutdown", "sent, but the bridge ended before the outcome was known")


def _open_gate(channel: int) -> None:
    """Nothing stands against sending."""


def _ignore(channel: int, verdict: Verdict) -> None:
    """Whoever waits for the whole needs no word about each channel."""


@dataclass(slots=True, eq=False)
class _Write:
    """What one command writes on one channel, and how far that has come.

    Attributes:
        values: by variable, from 1.
        gate: raises where they must not go out any more.
        may_wait: the same, asked when they have to wait.
        number: of the command, in the order in which they were heard; the greater is the later.
        answer: the end; set once every value has come to its own.
        sent: the variables that were handed to the socket, with their place in the order of all that was.
        verdicts: how the values ended.
        overtaken: the variables whose place a later write took.
    """

    channel: int
    values: Mapping[int, float]
    gate: ChannelGate
    may_wait: ChannelGate
    number: int
    answer: "asyncio.Future[Verdict]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    sent: dict[int, int] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    overtaken: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"no values for channel {self.channel}")
        strangers = [index for index in self.values if not 1 <= index <= META_VARIABLE_COUNT]
        if strangers:
            raise ValueError(f"there are MV_UD1 to MV_UD{META_VARIABLE_COUNT}, no {_names(strangers)}")

    def settle(self, index: int, verdict: Verdict | None) -> None:
        """A value has come to its end; None: it was overtaken."""
        if self.answer.done():  # nobody waits any more
            return
        if verdict is None:
            self.overtaken.append(index)
        else:
            self.verdicts[index] = verdict
        if len(self.verdicts) + len(self.overtaken) == len(self.values):
            self.answer.set_result(self._verdict())

    def _verdict(self) -> Verdict:
        """The worst of the values that were not overtaken; refused only where none of them was sent."""
        if not self.verdicts:
            return refused("superseded", self._overtaken_text())
        worst = max(self.verdicts.values(), key=lambda verdict: verdict.outcome)
        outcome = worst.outcome
        if outcome is Outcome.REFUSED and self.sent:
            outcome = Outcome.FAILED
        return replace(worst, outcome=outcome, message=self._text())

    def _text(self) -> str:
        """What happened to which value; one objection to all of them stands alone."""
        taken: list[str] = []
        others: dict[str, list[int]] = {}
        for index, verdict in self.verdicts.items():
            if verdict.outcome is Outcome.SUCCEEDED:
                taken.append(f"MV_UD{index} = {self.values[index]:g}")
            else:
                others.setdefault(verdict.message, []).append(index)
        if len(others) == 1 and not self.sent and not self.overtaken:
            return next(iter(others))
        texts = [*taken, *(f"{_names(indices)}: {message}" for message, indices in others.items())]
        return "; ".join([*texts, self._overtaken_text()] if self.overtaken else texts)

    def _overtaken_text(self) -> str:
        return f"a later write of {_names(self.overtaken)} took its place"


def _names(indices: Iterable[int]) -> str:
    return ", ".join(f"MV_UD{index}" for index in indices)


class _Value(NamedTuple):
    """One variable of a write."""

    write: _Write
    variable: int

    @property
    def channel(self) -> int:
        return self.write.channel

    @property
    def number(self) -> float:
        return self.write.values[self.variable]

    @property
    def unsent(self) -> bool:
        """Whether it still has to go out."""
        write, index = self
        ended = index in write.verdicts or index in write.overtaken or write.answer.done()
        return not ended and index not in write.sent


class VariableWriter:
    """Writes the meta variables of a cycler's channels; `run` must be running.

    Args:
        cycler: the session of the moment; raises NotConnectedError where there is none.
        variables: told of every value that the cycler took.
    """

    def __init__(self, cycler: Callable[[], Cycler], variables: VariableBook) -> None:
        self._cycler = cycler
        self._variables = variables
        self._running = False
        self._wake = asyncio.Event()
        self._flying: list[_Value] = []  # handed to the session, or about to be
        self._queue: dict[tuple[int, int], _Value] = {}  # by channel and variable; in the order of their first values
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0  # loop time
        self._order = itertools.count()
        self._numbers: dict[tuple[int, int], int] = {}  # of the latest command, by channel and variable
        self._latest = 0
        self._newest: dict[tuple[int, int], int] = {}  # which of the values sent the book knows

    async def run(self) -> None:
        """Send what is to be written, until cancelled: then what waits was never sent, what is under way is unknown."""
        self._running = True
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._fly()
                self._flying = []
                if self._queue:
                    due = self._sent_at + GATHER_S
                    self._timer = asyncio.get_running_loop().call_at(due, self._take_off)
        finally:
            self._end()

    # --- asked for ---

    async def write(
        self,
        values: Mapping[int, Mapping[int, float]],
        gate: ChannelGate,
        answer: Answer = _ignore,
        *,
        number: int | None = None,
        may_wait: ChannelGate | None = None,
    ) -> dict[int, Verdict]:
        """Write values, by channel and then by variable (1 to 16); a channel without any is left out.

        A value that overtakes a waiting one does so for good, even if its own gate closes before its turn comes.

        Args:
            values: what to write.
            gate: asked for each channel just before sending; raises WithdrawnError, or another error of the client,
                where the values must not go out any more.
            number: counts commands in the order in which they were heard: a value that comes here behind that of a
                later command is overtaken already. None: the latest so far.
            may_wait: asked like `gate` when a write has to wait; if it objects, the write overtakes nothing.
            answer: called for each channel as soon as its end is known; at a cancellation also for those of which
                nothing was sent, and never will be.

        Returns:
            how it ended, by channel.

        Raises:
            ValueError: no such variable; nothing was sent.
        """
        if number is None:
            number = self._latest
        writes = [
            _Write(channel, dict(variables), gate, may_wait or gate, number)
            for channel, variables in values.items()
            if variables
        ]
        waiting = {write.answer: write for write in writes}
        verdicts = {}
        self._admit(writes)
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    write = waiting.pop(future)
                    verdicts[write.channel] = future.result()
                    answer(write.channel, verdicts[write.channel])
        finally:
            for write in waiting.values():
                self._abandon(write, answer)
        return verdicts

    async def write_first(self, channel: int, values: Mapping[int, float], gate: ChannelGate = _open_gate) -> Verdict:
        """Write values of one channel, single, at once, ahead of everything that waits; waiting ones are discarded.

        Raises:
            ValueError: no such variable, or none at all; nothing was sent.
        """
        write = _Write(channel, dict(values), gate, gate, self._latest)
        self.discard([channel], "a write that goes first took its place")
        async with asyncio.TaskGroup() as tasks:
            for index in write.values:
                tasks.create_task(self._send_one(_Value(write, index), URGENT), name=f"urgent MV_UD{index}, {channel}")
        return write.answer.result()

    def discard(self, channels: Collection[int], why: str) -> None:
        """Answer what has not gone out yet of these channels with `superseded` at once; `why` is its message."""
        for value in [*self._flying, *self._queue.values()]:
            if value.channel in channels and value.unsent:
                self._close(value.write, refused("superseded", why))

    # --- waiting ---

    def _admit(self, writes: Sequence[_Write]) -> None:
        idle = not self._flying and not self._queue
        for write in writes:
            if not self._running:
                self._close(write, _NEVER_SENT)
            elif idle or not self._objects(write, write.may_wait):
                self._enqueue(write)
        if idle:
            self._take_off()

    def _enqueue(self, write: _Write) -> None:
        """Each value takes the place of the one that waits there already: who writes often must not wait for ever.

        One that comes behind that of a later command, because its own had to wait for something, is overtaken already.
        """
        for index in write.values:
            key = write.channel, index
            if write.number < self._numbers.get(key, write.number):
                write.settle(index, None)
                continue
            self._numbers[key] = write.number
            self._latest = max(self._latest, write.number)
            before, self._queue[key] = self._queue.get(key), _Value(write, index)
            if before:
                before.write.settle(index, None)

    def _take_off(self) -> None:
        """As much as one packet holds goes on its way; not while something else is."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._queue and not self._flying:
            self._flying = [self._queue.pop(key) for key in list(self._queue)[:MAX_UPDATES]]
            self._wake.set()

    def _objects(self, write: _Write, gate: ChannelGate) -> bool:
        """Ask a gate of it; whether it was closed."""
        try:
            gate(write.channel)
        except CtiMqttError as error:
            self._close(write, of_error(error))
        except Exception as error:  # noqa: BLE001 - a bug in a gate belongs to whoever brought it
            self._dequeue(write)
            if not write.answer.done():
                write.answer.set_exception(error)
        else:
            return False
        return True

    def _close(self, write: _Write, verdict: Verdict) -> None:
        """This is how everything of it ends that has not gone out."""
        self._dequeue(write)
        for index in write.values:
            if _Value(write, index).unsent:
                write.settle(index, verdict)

    def _dequeue(self, write: _Write) -> None:
        for index in write.values:
            key = write.channel, index
            if key in self._queue and self._queue[key].write is write:
                del self._queue[key]

    def _abandon(self, write: _Write, answer: Answer) -> None:
        """Nobody waits for it any longer: what has not gone out stays here."""
        self._close(write, _NEVER_SENT)
        if not write.answer.cancel() and write.answer.exception() is None:
            answer(write.channel, write.answer.result())

    def _end(self) -> None:
        self._running = False
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for value in [*self._flying, *self._queue.values()]:
            self._close(value.write, _NEVER_SENT)
            if value.variable in value.write.sent and value.variable not in value.write.verdicts:
                value.write.settle(value.variable, _LOST)
        self._flying = []

    # --- under way ---

    async def _fly(self) -> None:
        """Until each value has come to its end; every turn settles one at the least."""
        while values := [value for value in self._flying if value.unsent]:
            if len(values) == 1:
                await self._send_one(values[0])
            elif not await self._send_update(values):
                async with asyncio.TaskGroup() as tasks:
                    for value in values:
                        tasks.create_task(self._send_one(value), name=f"MV_UD{value.variable}, {value.channel}")

    async def _send_one(self, value: _Value, priority: int = NORMAL) -> None:
        gate = partial(self._clear, [value])
        try:
            code = await self._cycler().set_meta_variable(
                value.channel, value.variable, value.number, priority=priority, gate=gate
            )
        except CtiMqttError as error:
            self._land(value, of_error(error))
        else:
            self._land(value, of_code(code))

    async def _send_update(self, values: Sequence[_Value]) -> bool:
        """Send one packet; whether the cycler takes such a one. After an objection the rest is still to be sent."""
        packet: dict[int, dict[int, float]] = {}
        for value in values:
            packet.setdefault(value.channel, {})[value.variable] = value.number
        try:
            answers = await self._cycler().update_meta_variables(
                packet, gate=partial(self._clear, values), fall_back=False
            )
        except (UnsupportedCommandError, InvalidRequestError):  # the latter: let each value speak for itself
            for value in values:
                value.write.sent.pop(value.variable, None)
            return False
        except WithdrawnError:
            pass
        except CtiMqttError as error:
            for value in values:
                self._land(value, of_error(error))
        else:
            for value in values:
                self._land(value, of_answer(answers[value.channel]))
        return True

    def _clear(self, values: Sequence[_Value]) -> None:
        """The gate of a request: open if all of its values may go out, and then they are as good as sent.

        Raises:
            WithdrawnError: some may not; those have been settled, and nothing was sent.
        """
        for write in dict.fromkeys(value.write for value in values if value.unsent):
            self._objects(write, write.gate)
        if not all(value.unsent for value in values):
            raise WithdrawnError("taken back before its turn came")
        self._sent_at = asyncio.get_running_loop().time()
        for value in values:
            value.write.sent[value.variable] = next(self._order)

    def _land(self, value: _Value, verdict: Verdict) -> None:
        """A value has come to its end; what the cycler took is noted, unless the book knows a later one."""
        write, index = value
        if verdict.outcome is Outcome.SUCCEEDED:
            key, place = (write.channel, index), write.sent[index]
            if place > self._newest.get(key, -1):
                self._newest[key] = place
                self._variables.accepted(write.channel, index, value.number)
        if index not in write.verdicts:
            write.settle(index, verdict)
