"""Applying a changed configuration to the bridge that runs, without touching what did not change.

Nothing here awaits between the look at what is unfinished and the change itself, so no command slips in between.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cti_mqtt import config
from cti_mqtt.bridge.bus import Bus, Happening
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.commands import Commander
from cti_mqtt.bridge.fleet import Fleet
from cti_mqtt.bridge.reload import Change, CyclerChange, Report, compare, shortened, switches_off, with_cyclers
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import Store

log = logging.getLogger(__name__)

TAKEN_UP_S = 5.0  # how long a reload waits for what an earlier run left unfinished
_NOT_NOW = "everything: what an earlier run left unfinished is not taken up yet, or the bridge is ending"


class CyclerTopics(Protocol):
    """Whoever clears retained topics of cyclers that are not configured."""

    def add_cycler(self, name: str) -> None:
        """It is configured from now on, and has said nothing yet."""

    def drop_cycler(self, name: str) -> None:
        """It is not configured any more, and has said farewell."""


@dataclass(slots=True)
class _Progress:
    """One reload under way."""

    who: str
    cyclers: dict[str, config.Cycler]
    applied: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


class Reloader:
    """Applies what can be applied; everything else stays as it runs, and is named.

    Args:
        settings: what the bridge runs with.
        stations: the cyclers, by id.
        fleet: keeps them polled.
        commander: deals with their commands.
        store: where changes of control are put on record.
        bus: where it is told.
        clock: stamps.
        make: a station for a new cycler.
        follow: told what each cycler has from now on, before that begins and after it ends.
        topics: what is retained of cyclers that come and go.
        speaks: whether no elder bridge is there, whose cyclers they are.
    """

    def __init__(
        self,
        settings: config.Config,
        stations: Mapping[str, Station],
        fleet: Fleet,
        commander: Commander,
        store: Store,
        bus: Bus,
        clock: Clock,
        *,
        make: Callable[[str, config.Cycler], Station],
        follow: Callable[[Mapping[str, config.Cycler]], None],
        topics: CyclerTopics,
        speaks: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self._stations = stations
        self._fleet = fleet
        self._commander = commander
        self._store = store
        self._bus = bus
        self._clock = clock
        self._make = make
        self._follow = follow
        self._topics = topics
        self._speaks = speaks
        self._turn = asyncio.Lock()

    async def reload(self, wanted: config.Config, who: str) -> Report:
        """Apply a configuration that is valid as a whole.

        Args:
            wanted: the file as it is now.
            who: what asked for it: `SIGHUP` or `file`.
        """
        async with self._turn:
            if not await self._commander.taken_up(TAKEN_UP_S):
                report = Report(held=(_NOT_NOW,))
            else:
                report = await self._apply(wanted, who)
            log.warning("configuration reloaded (%s): %s", who, report)
            self._tell("reloaded", f"{who}: {shortened(str(report))}")
            return report

    def failed(self, problems: Collection[str], who: str) -> None:
        """The file is wrong, or gone: nothing changes."""
        for problem in problems:
            log.error("configuration not reloaded (%s): %s", who, problem)
        self._tell("reload_failed", shortened(f"{who}: nothing changes: {'; '.join(problems)}"))

    async def _apply(self, wanted: config.Config, who: str) -> Report:
        plan = compare(self.settings, wanted)
        progress = _Progress(who, dict(self.settings.cyclers))
        for change in plan.changed:
            self._change(change, progress)
        for name in plan.removed:
            await self._remove(name, progress)
        for name, settings in (plan.added or {}).items():
            self._add(name, settings, progress, plan.removed)
        return Report(tuple(progress.applied), tuple(progress.held), plan.restart)

    # --- one cycler ---

    def _change(self, change: CyclerChange, progress: _Progress) -> None:
        station, settings, changes = self._stations[change.name], change.settings, change.changes
        if switches_off(station.settings.control, settings.control) and (
            why := self._commander.desks.unfinished(change.name, also_commands=False)
        ):
            progress.held.append(f"cyclers.{change.name}.control is not switched off: {why}")
            settings = settings.model_copy(update={"control": station.settings.control})
            changes = tuple(each for each in changes if each not in change.control_changes)
        if not changes:
            return
        recorded = [each for each in changes if each in change.control_changes]
        if recorded:
            self._record("control_changed", station.name, recorded, progress.who)
        self._settle(change.name, settings, progress)
        station.apply(settings)
        progress.applied += [*map(str, changes), *self._commander.desks.beyond_limits(change.name)]

    async def _remove(self, name: str, progress: _Progress) -> None:
        if why := self._commander.desks.unfinished(name, also_commands=True):
            progress.held.append(f"cyclers.{name} is not removed: {why}")
            return
        control = self._stations[name].settings.control
        self._commander.desks.remove(name)
        self._record("cycler_removed", name, [Change(f"cyclers.{name}.control", _dump(control), None)], progress.who)
        station = await self._fleet.remove(name)
        if self._speaks():
            station.farewell()
        self._topics.drop_cycler(name)
        self._settle(name, None, progress)
        progress.applied.append(f"cyclers.{name} is removed")

    def _add(self, name: str, settings: config.Cycler, progress: _Progress, gone: Collection[str]) -> None:
        for other in gone:
            kept = progress.cyclers.get(other)
            if kept is not None and (kept.host, kept.port) == (settings.host, settings.port):
                progress.held.append(f"cyclers.{name} is not added: cyclers.{other}, which stays, has its address")
                return
        after = _dump(settings.control)
        self._record("cycler_added", name, [Change(f"cyclers.{name}.control", None, after)], progress.who)
        self._settle(name, settings, progress)
        self._topics.add_cycler(name)
        station = self._make(name, settings)
        self._commander.add(station)
        self._fleet.add(station)
        progress.applied.append(f"cyclers.{name} is added")

    def _settle(self, name: str, settings: config.Cycler | None, progress: _Progress) -> None:
        """What one cycler has from now on; at once, since whatever comes next may be cut short."""
        if settings is None:
            del progress.cyclers[name]
        else:
            progress.cyclers[name] = settings
        self.settings = with_cyclers(self.settings, progress.cyclers)
        self._follow(self.settings.cyclers)

    # --- told ---

    def _record(self, what: str, cycler: str, changes: list[Change], who: str) -> None:
        """So that the audit tells under which limits commands were carried out."""
        entry = {
            "ts": stamp(self._clock.now()),
            "who": who,
            "what": what,
            "cycler": cycler,
            "channel": None,
            "before": {change.path: change.before for change in changes},
            "after": {change.path: change.after for change in changes},
            "message": "; ".join(map(str, changes)),
        }
        self._store.audit([entry])

    def _tell(self, kind: str, message: str) -> None:
        self._bus.publish(Happening(stamp(self._clock.now()), kind, message))


def _dump(control: config.Control) -> dict[str, object]:
    return control.model_dump(mode="json", exclude_none=True)
