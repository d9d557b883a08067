"""Polls that were given up, told as gaps."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from cti_mqtt.bridge.journal.records import Gap, Lost

GATHER_S = 1.0  # so that a long gap is told in few pieces

_log = logging.getLogger(__name__)


class Gaps:
    """Puts together what follows in a row, and tells it a moment later.

    Args:
        on_gap: told of each, in the event loop.
    """

    def __init__(self, on_gap: Callable[[Gap], None]) -> None:
        self._on_gap = on_gap
        self._found: dict[tuple[str, str, str], list[Gap]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, lost: Iterable[Lost]) -> None:
        """These are lost, oldest first."""
        for each in lost:
            row = self._found.setdefault((each.cycler, each.boot, each.why), [])
            if row and row[-1].to_seq + 1 == each.seq:
                row[-1] = Gap(each.cycler, each.boot, row[-1].from_seq, each.seq, row[-1].polls + 1, each.why)
            else:
                row.append(Gap(each.cycler, each.boot, each.seq, each.seq, 1, each.why))
        self._tell_soon()

    def put(self, gaps: Iterable[Gap]) -> None:
        """These are lost."""
        for gap in gaps:
            self._found.setdefault((gap.cycler, gap.boot, gap.why), []).append(gap)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._found and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.tell)

    def tell(self) -> None:
        """Tell what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        found, self._found = self._found, {}
        for row in found.values():
            for gap in row:
                _log.warning(
                    "%s: polls %d to %d of run %s are given up undelivered: %s",
                    gap.cycler, gap.from_seq, gap.to_seq, gap.boot, gap.why,
                )  # fmt: skip
                try:
                    self._on_gap(gap)
                except Exception:  # noqa: BLE001  # the journal goes on
                    _log.exception("%s was not told", gap)
