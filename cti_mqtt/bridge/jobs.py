"""An order on its way, and the look for its effect."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cti_mqtt.bridge.bus import Reading
from cti_mqtt.bridge.life import Life
from cti_mqtt.bridge.orders import Order
from cti_mqtt.bridge.payloads import parse_step_and_cycle
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.verdict import Verdict
from cti_mqtt.errors import CtiMqttError

VERIFY_PAUSE_S = 0.2  # between polls that look for the effect of a command


@dataclass(frozen=True, slots=True)
class Job:
    """An order on some channels of a cycler.

    Attributes:
        order: what to do.
        channels: where; every one passed its checks.
        life: to be told how it goes on each channel, and asked just before each request goes out.
        admitted_s: when it was heard, monotonic.
        number: counts commands in the order in which they were heard.
        every_channel: whether these are all channels of the cycler, so that CTI's own all-channels flag may be used.
    """

    order: Order
    channels: tuple[int, ...]
    life: Life
    admitted_s: float
    number: int
    every_channel: bool = False

    def end(self, channel: int, verdict: Verdict) -> None:
        """The verdict on a channel."""
        self.life.end(channel, verdict)


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
    began_s = station.monotonic()
    deadline = loop.time() + station.settings.verify_timeout_s
    pending = list(channels)
    while pending:
        with contextlib.suppress(CtiMqttError, TimeoutError):  # no reading this time: what counts is the deadline
            async with asyncio.timeout_at(deadline):
                await station.refresh(pending[0] if len(pending) == 1 else None)
        for channel in tuple(pending):
            reading = station.book.asked_after(began_s, channel)
            if reading is not None and is_seen(reading):
                pending.remove(channel)
                tell(channel, seen=True)
        if loop.time() >= deadline:
            for channel in pending:
                tell(channel, seen=False)
            return
        if pending:
            await asyncio.sleep(VERIFY_PAUSE_S)
