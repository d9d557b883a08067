"""A simulated cycler that numbers its polls: each answer bears its number in every channel, and is the truth."""

import struct
import time
from collections.abc import Callable
from typing import Any

from cti_mqtt.cti.messages.channels import ALL_CHANNELS, ChannelRecord, ChannelsInfoFeedback, ChannelsInfoRequest
from cti_mqtt.simulator import Session, SimulatedClock, SimulatedCycler, User
from tests.support.rig import PASSWORD

MARK = "p"
FIRST = (ALL_CHANNELS, 0)  # what a poll begins with; after bad answers the bridge asks for the channels one by one


def mark(number: int) -> str:
    """The barcode that all channels show in a poll."""
    return f"{MARK}{number}"


def number_of(barcode: object) -> int | None:
    """The poll that a barcode names; None where it names none."""
    digits = barcode[len(MARK) :] if isinstance(barcode, str) and barcode.startswith(MARK) else ""
    return int(digits) if digits.isascii() and digits.isdigit() else None


def voltage_v(number: int, channel: int) -> float:
    """What a channel (from 1) shows in a poll: exact as a 32-bit float, and no two are alike."""
    return number / 8 + (channel - 1) / 1024


def shows(voltage: float, number: int, channel: int) -> bool:
    """Whether a voltage, with the digits that a 32-bit float has, is what a channel shows in a poll."""
    return struct.pack("<f", voltage) == struct.pack("<f", voltage_v(number, channel))


class CountedCycler(SimulatedCycler):
    """Answers polls of all channels with marked readings.

    Attributes:
        answered: when it answered each poll (seconds since 1970); the first has number 1.
        on_answer: called with each, just before the answer goes out.
    """

    def __init__(self, channels: int) -> None:
        self.answered: list[float] = []
        self.on_answer: Callable[[], None] = lambda: None
        super().__init__(channels, clock=SimulatedClock(), users=[User("admin", PASSWORD, super_user=True)])

    def _channels_info(self, request: ChannelsInfoRequest, session: Session) -> list[ChannelsInfoFeedback]:
        if request.channel in FIRST:
            self.answered.append(time.time())
            self.on_answer()
        number = len(self.answered)
        return [
            ChannelsInfoFeedback(tuple(_marked(record, number) for record in feedback.records))
            for feedback in super()._channels_info(request, session)
        ]


def _marked(record: ChannelRecord, number: int) -> Any:
    return record._replace(barcode=mark(number), voltage=voltage_v(number, record.channel + 1))
