"""What waits in the file, in memory too: so that it can be told what was lost when the file is."""

from collections.abc import Iterable

from cti_mqtt.bridge.journal.ranges import Range, Ranges
from cti_mqtt.bridge.journal.records import Gap
from cti_mqtt.bridge.journal.survey import Survey

NAMED = 10_000  # numbers that are known by name: those that came, or were read, last


class Holdings:
    """What waits: known to be in the file, or in doubt since that was opened anew and may be another one.

    Numbers mean nothing without the file; so those that may be delivered next are remembered by name.
    """

    def __init__(self) -> None:
        self._held = Ranges()
        self._doubted = Ranges()
        self._names: dict[int, tuple[str, str, int]] = {}

    @property
    def in_doubt(self) -> bool:
        """Whether anything is in doubt."""
        return any(True for _ in self._doubted)

    def name(self, number: int, cycler: str, boot: str, seq: int) -> None:
        """This poll has that number, and may soon be delivered."""
        self._names.pop(number, None)
        self._names[number] = cycler, boot, seq
        if len(self._names) > NAMED:
            del self._names[next(iter(self._names))]

    def add(self, cycler: str, boot: str, seq: int) -> None:
        """This one was written."""
        self._held.add(cycler, boot, seq, seq)
        self._doubted.remove(cycler, boot, seq, seq)

    def remove(self, cycler: str, boot: str, seq: int) -> None:
        """This one waits no longer."""
        for ranges in (self._held, self._doubted):
            ranges.remove(cycler, boot, seq, seq)

    def delivered(self, numbers: Iterable[int]) -> None:
        """Nor do these, as far as they are known by name."""
        for number in numbers:
            if (named := self._names.get(number)) is not None:
                self.remove(*named)

    def doubt(self) -> None:
        """Nothing is known of the file now."""
        for each in self._held:
            self._doubted.add(*each)
        self._held = Ranges()

    def found(self, survey: Survey) -> None:
        """This stands in the file."""
        for each in survey.there:
            self._doubted.remove(*each)
        for each in survey.waiting:
            self._held.add(*each)

    def take_doubted(self, why: str) -> list[Gap]:
        """What is still in doubt is lost; it is in doubt no longer."""
        lost, self._doubted = self._doubted, Ranges()
        return [_gap(each, why) for each in lost]


def _gap(lost: Range, why: str) -> Gap:
    cycler, boot, first, last = lost
    return Gap(cycler, boot, first, last, last - first + 1, why)
