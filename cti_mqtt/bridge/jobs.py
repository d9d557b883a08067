"""An order on its way, what may overrule it, and the look for its effect."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from cti_mqtt.bridge.bus import Reading
from cti_mqtt.bridge.orders import Order
from cti_mqtt.bridge.payloads import parse_step_and_cycle
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.verdict import Verdict
from cti_mqtt.errors import CtiMqttError, WithdrawnError

VERIFY_PAUSE_S = 0.2  # between polls that look for the effect of a command

Answer = Callable[[int, Verdict], None]


@dataclass(frozen=True, slots=True)
class Job:
    """An order on some channels of a cycler.

    Attributes:
        order: what to do.
        channels: where; every one passed its checks.
        gate: asked again just before each request goes out; raises WithdrawnError where the order is too late by then.
        guard: knows of the stops that came in since the order was admitted.
        answer: to be called once for each channel.
        every_channel: whether these are all channels of the cycler, so that CTI's own all-channels flag may be used.
    """

    order: Order
    channels: tuple[int, ...]
    gate: Callable[[], None]
    guard: "StopGuard"
    answer: Answer
    every_channel: bool = False


class StopGuard:
    """Whether a stop came in since an order was admitted: then what has not gone out by now must stay here.

    Args:
        stops: how many stops each channel has had, counted up by the executor.
        channels: those of the order.
    """

    def __init__(self, stops: Counter[int], channels: Collection[int]) -> None:
        self._stops = stops
        self._before = {channel: stops[channel] for channel in channels}

    def stopped(self, channel: int) -> bool:
        """Whether this channel had one."""
        return self._stops[channel] != self._before[channel]

    def check(self, channels: Iterable[int]) -> None:
        """Raises WithdrawnError where one of these channels had one."""
        stopped = [str(channel) for channel in channels if self.stopped(channel)]
        if stopped:
            raise WithdrawnError(f"a stop of channel {', '.join(stopped)} came first")


def status_text(reading: Reading | None) -> str:
    """What a reading shows, for a sentence."""
    return reading.record.status.text if reading else "unknown"


def shown_step(reading: Reading | None) -> int | None:
    """The step that a reading shows, from 1."""
    return parse_step_and_cycle(reading.record.step_and_cycle)[1] if reading else None


async def verify(
    station: Station, channels: Collection[int], is_seen: Callable[[Reading], bool], tell: Callable[..., None]
) -> None:
    """Poll at once, and again, until each channel shows the effect or the time is over.

    Args:
        station: the cycler.
        channels: where the cycler accepted a command.
        is_seen: whether a reading shows the effect.
        tell: called once a channel, with the channel and `seen`.
    """
    loop = asyncio.get_running_loop()
    began = station.book.mark()
    deadline = loop.time() + station.settings.verify_timeout_s
    pending = list(channels)
    while pending:
        with contextlib.suppress(CtiMqttError, TimeoutError):  # no reading this time: what counts is the deadline
            async with asyncio.timeout_at(deadline):
                await station.refresh(pending[0] if len(pending) == 1 else None)
        for channel in tuple(pending):
            reading = station.book.since(began, channel)
            if reading is not None and is_seen(reading):
                pending.remove(channel)
                tell(channel, seen=True)
        if loop.time() >= deadline:
            for channel in pending:
                tell(channel, seen=False)
            return
        if pending:
            await asyncio.sleep(VERIFY_PAUSE_S)
