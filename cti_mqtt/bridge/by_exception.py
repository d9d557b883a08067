"""Report by exception: whether a reading says something new, or is not worth a message.

It counts for what shows how things stand (`state`), and for nothing that must have every reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import isnan
from typing import Any

from cti_mqtt.bridge.bus import CyclerState, Item, Poll, Reading, StaleReading
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.fragments import NUMBERS
from cti_mqtt.cti.messages.channels import STEADY, AuxReading, BmsReading, ChannelRecord, Extras, SmbReading
from cti_mqtt.publishing import DeadBands, Publish

_EXTRAS = ChannelRecord._fields.index("extras")
_Aux = Mapping[str, tuple[AuxReading, ...]]
_Entry = BmsReading | SmbReading


class NewsJudge:
    """Tells whether a record says something new; pure.

    Args:
        bands: how far each number may move unnoticed.
    """

    def __init__(self, bands: DeadBands) -> None:
        self._bands = tuple(float(getattr(bands, name)) for name in NUMBERS.values())  # in a record's order
        self._aux: dict[str, float] = {str(kind): band for kind, band in bands.aux.items()}
        self._bms, self._smb = bands.bms, bands.smb

    def is_news(self, published: ChannelRecord, previous: ChannelRecord, record: ChannelRecord) -> bool:
        """Whether `record` is worth a message.

        Args:
            published: the last one of the channel that was.
            previous: the one before `record`, published or not: a new test may begin within all dead bands.
            record: of the same channel.
        """
        if record.test_time < previous.test_time or record.step_time < previous.step_time:
            return True  # a test's and a step's time only grow
        return record != published and self._differs(published, record)

    def _differs(self, before: ChannelRecord, after: ChannelRecord) -> bool:
        if before[:STEADY] != after[:STEADY]:
            return True
        numbers: tuple[tuple[Any, ...], tuple[Any, ...]] = before[STEADY:_EXTRAS], after[STEADY:_EXTRAS]
        for was, now, band in zip(*numbers, self._bands, strict=True):
            if was != now and moved(was, now, band):
                return True
        return before.extras != after.extras and self._extras_differ(before.extras, after.extras)

    def _extras_differ(self, before: Extras, after: Extras) -> bool:
        if before.aux != after.aux and self._aux_differ(before.aux, after.aux):
            return True
        if before.bms != after.bms and _entries_differ(before.bms, after.bms, self._bms):
            return True
        return before.smb != after.smb and _entries_differ(before.smb, after.smb, self._smb)

    def _aux_differ(self, before: _Aux, after: _Aux) -> bool:
        if before.keys() != after.keys():
            return True
        for kind, inputs in after.items():
            known, band = before[kind], self._aux.get(kind, 0.0)
            if len(known) != len(inputs):
                return True
            for was, now in zip(known, inputs, strict=True):
                if was != now and (moved(was[0], now[0], band) or moved(was[1], now[1], band)):
                    return True
        return False


def moved(was: float, now: float, band: float) -> bool:
    """Whether a number is further than `band` from what it was; from or to NaN it is, from NaN to NaN it is not."""
    return was != now and not abs(now - was) <= band and not (isnan(was) and isnan(now))


def _entries_differ(before: Sequence[_Entry], after: Sequence[_Entry], band: float) -> bool:
    return len(before) != len(after) or any(map(_entry_differs, before, after, repeat(band)))


def _entry_differs(before: _Entry, after: _Entry, band: float) -> bool:
    was, now = before.value, after.value
    if (before.index, before.unit) != (after.index, after.unit):
        return True
    if isinstance(was, str) or isinstance(now, str):
        return was != now
    return moved(was, now, band)


@dataclass(slots=True)
class _Channel:
    """What was last published, when, and the record that came last, published or not."""

    published: Reading
    at_s: float
    latest: ChannelRecord


class ReportByException:
    """Picks from each poll the readings that are worth a message; all outputs that thin out share its choice.

    Published are: the first of a channel, also after its cycler came back, after it was stale, and after `begin_anew`;
    what is new; and what is not, when the last one published has become as old as the longest silence.

    Args:
        settings: dead bands and heartbeat; without either every reading is published.
        clock: how old the last one is.

    Attributes:
        longest_silence_s: so old what was last published may get, and a poll more; None: nothing is held back.
    """

    def __init__(self, settings: Publish, clock: Clock) -> None:
        self.longest_silence_s = settings.longest_silence_s
        self._judge = NewsJudge(settings.dead_bands or DeadBands())
        self._clock = clock
        self._channels: dict[str, dict[int, _Channel]] = {}
        self._chosen: tuple[Poll, Sequence[Reading]] | None = None

    def worth_telling(self, poll: Poll) -> Sequence[Reading]:
        """The readings of a poll that are to be published, in its order; asked again, the same."""
        silence_s = self.longest_silence_s
        if silence_s is None:
            return poll.readings
        if self._chosen is None or self._chosen[0] is not poll:
            now_s = self._clock.monotonic()
            known = self._channels.setdefault(poll.cycler, {})
            chosen = tuple([each for each in poll.readings if self._take(known, each, now_s, silence_s)])
            self._chosen = poll, poll.readings if len(chosen) == len(poll.readings) else chosen
        return self._chosen[1]

    def _take(self, known: dict[int, _Channel], reading: Reading, now_s: float, silence_s: float) -> bool:
        """Take note of a reading; whether it is to be published."""
        record = reading.record
        channel = known.get(reading.channel)
        if channel is None:
            known[reading.channel] = _Channel(reading, now_s, record)
            return True
        previous, channel.latest = channel.latest, record
        published = channel.published
        if (
            now_s - channel.at_s < silence_s
            and reading.quality is published.quality
            and not self._judge.is_news(published.record, previous, record)
        ):
            return False
        channel.published, channel.at_s = reading, now_s
        return True

    def begin_anew(self) -> None:
        """Every channel's next reading is worth telling: whoever was told so far may have forgotten."""
        self._channels.clear()

    def follow(self, item: Item) -> None:
        """Take note of what makes a channel's next reading its first again."""
        match item:
            case CyclerState(cycler):
                self._channels.pop(cycler, None)
            case StaleReading(cycler, reading):
                self._channels.get(cycler, {}).pop(reading.channel, None)
