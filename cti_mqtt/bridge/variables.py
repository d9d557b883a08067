"""What this bridge wrote into meta variables, and what it may write."""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from cti_mqtt.bridge.bus import Bus, MetaVariables
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.config import Limit

_F32 = struct.Struct("<f")
_F32_EPSILON = 2.0**-23


def to_float32(value: float) -> float:
    """The 32-bit float that goes on the wire.

    Raises:
        ValueError: the value is not finite, or too large for one.
    """
    try:
        rounded: float = _F32.unpack(_F32.pack(value))[0]
    except OverflowError as error:
        raise ValueError(f"{value!r} does not fit into a 32-bit float") from error
    if rounded - rounded != 0:  # NaN or infinity
        raise ValueError(f"{value!r} is not a finite number")
    return rounded


def _distance(a: float, b: float) -> float:
    """How far apart two 32-bit floats are at the least, given that each was rounded: 1.1 - 1.0 is one step of 0.1."""
    return max(0.0, abs(a - b) - _F32_EPSILON * max(abs(a), abs(b)))


@dataclass(frozen=True, slots=True)
class _Written:
    value: float
    at_s: float


class VariableBook:
    """The meta variables of a cycler's channels, as far as this bridge wrote them in the running test.

    Args:
        cycler: its id.
        limits: by variable; where there are any, variables without one may not be written.
        bus: where changes are published.
        clock: for rates.
        deadman: the variable that only the bridge itself writes; None: there is none.
        later: calls something in a moment: a value that was taken is published behind the command's result.

    Attributes:
        limits: may be set anew; the next check counts by them.
    """

    def __init__(
        self,
        cycler: str,
        limits: Mapping[int, Limit],
        bus: Bus,
        clock: Clock,
        deadman: int | None = None,
        later: Callable[[Callable[[], None]], object] = lambda call: call(),
    ) -> None:
        self._cycler = cycler
        self.limits = limits
        self._deadman = deadman
        self._later = later
        self._unpublished: set[int] = set()
        self._bus = bus
        self._clock = clock
        self._written: dict[int, dict[int, _Written]] = {}
        self._on_their_way: dict[tuple[int, int], list[_Written]] = {}
        self._own_start: set[int] = set()

    def accepted(self, channel: int, index: int, value: float) -> None:
        """The cycler took a value."""
        self._written.setdefault(channel, {})[index] = _Written(to_float32(value), self._clock.monotonic())
        if channel not in self._unpublished:
            self._unpublished.add(channel)
            self._later(partial(self.publish, channel))

    def publish(self, channel: int) -> None:
        """Say what was written."""
        self._unpublished.discard(channel)
        values = {index: written.value for index, written in self._written.get(channel, {}).items()}
        self._bus.publish(MetaVariables(self._cycler, channel, values))

    def test_started(self, channel: int) -> None:
        """The cycler accepted our start: what was written belongs to the test before."""
        self._own_start.add(channel)
        self._forget(channel)

    def start_settled(self, channel: int) -> None:
        """Our start has been seen, or will not be waited for any longer."""
        self._own_start.discard(channel)

    def test_seen(self, channel: int) -> None:
        """A poll shows a new test; unless it is our own, what was written is past."""
        if channel not in self._own_start:
            self._forget(channel)

    def _forget(self, channel: int) -> None:
        if self._written.pop(channel, None):
            self.publish(channel)

    def reserve(self, channel: int, values: Mapping[int, float]) -> None:
        """These values are on their way: until `release`, others are held against them as well."""
        for index, value in values.items():
            self._on_their_way.setdefault((channel, index), []).append(
                _Written(to_float32(value), self._clock.monotonic())
            )

    def release(self, channel: int, values: Mapping[int, float]) -> None:
        """They have arrived, or will not."""
        for index, value in values.items():
            reserved = self._on_their_way.get((channel, index), [])
            for written in reserved:
                if written.value == to_float32(value):
                    reserved.remove(written)
                    break
            if not reserved:
                self._on_their_way.pop((channel, index), None)

    def objection(self, reason: str, channel: int, index: int, value: float, *, fresh: bool = False) -> str | None:
        """Why a value may not be written, None if it may; compared as the 32-bit float that would be sent.

        Args:
            reason: `rate` for how fast it changes, `limit` for everything else.
            channel: from 1.
            index: of the meta variable.
            value: to be written.
            fresh: whether it is for a new test, in which nothing has been written yet.
        """
        limit = self.limits.get(index)
        if reason == "limit" and (objection := self.range_objection(index, value)):
            return objection
        if limit is None:
            return None
        number, before = to_float32(value), self._before(channel, index, limit, fresh=fresh)
        if reason == "rate":
            return self._rate_objection(index, number, limit, before)
        return self._step_objection(index, number, limit, before)

    def range_objection(self, index: int, value: float) -> str | None:
        """Why a variable may never hold a value, None if it may."""
        if index == self._deadman:
            return f"MV_UD{index} is the dead man's variable (control.deadman_mv), which only the bridge writes"
        limit = self.limits.get(index)
        if limit is None:
            return f"MV_UD{index} is not among the limits, so it may not be written" if self.limits else None
        number = to_float32(value)
        if limit.min is not None and number < to_float32(limit.min):
            return f"MV_UD{index} = {number:g} is below its minimum {limit.min:g}"
        if limit.max is not None and number > to_float32(limit.max):
            return f"MV_UD{index} = {number:g} is above its maximum {limit.max:g}"
        return None

    def _before(self, channel: int, index: int, limit: Limit, *, fresh: bool) -> list[_Written]:
        """What the variable may hold when a value arrives: accepted last, else `initial`, and what is on its way."""
        accepted = None if fresh else self._written.get(channel, {}).get(index)
        last = [] if accepted is None else [accepted]
        if accepted is None and limit.initial is not None:
            last = [_Written(limit.initial, -math.inf)]
        return last + self._on_their_way.get((channel, index), [])

    @staticmethod
    def _step_objection(index: int, number: float, limit: Limit, before: list[_Written]) -> str | None:
        for last in before:
            if limit.max_step is not None and _distance(number, last.value) > limit.max_step:
                return f"MV_UD{index}: from {last.value:g} to {number:g} is more than one step of {limit.max_step:g}"
        return None

    def _rate_objection(self, index: int, number: float, limit: Limit, before: list[_Written]) -> str | None:
        for last in before:
            if limit.max_rate_per_s is None or last.at_s == -math.inf:
                continue
            elapsed_s = self._clock.monotonic() - last.at_s
            if _distance(number, last.value) > limit.max_rate_per_s * elapsed_s:
                rate = f"{limit.max_rate_per_s:g} per second"
                return f"MV_UD{index}: from {last.value:g} to {number:g} is faster than {rate}"
        return None
