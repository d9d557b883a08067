"""Applying a changed configuration to the bridge that runs, without touching what did not change.

Nothing here awaits between the look at what is unfinished and the change itself, so no command slips in between. Each
cycler is taken by itself: what goes wrong with one is named, leaves it as it was or as it is wanted, and keeps no other
from its change. What cannot be applied yet is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cti_mqtt import config
from cti_mqtt.bridge.bus import Bus, Happening
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.commands import Commander
from cti_mqtt.bridge.fleet import Fleet
from cti_mqtt.bridge.reload import (
    Change,
    CyclerChange,
    Report,
    compare,
    differences,
    for_farewell,
    may_send,
    same_address,
    shortened,
    switches_off,
    with_cyclers,
)
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import Store

log = logging.getLogger(__name__)

TAKEN_UP_S = 5.0  # how long a reload waits for what an earlier run left unfinished
AGAIN_S = 2.0  # between attempts at what could not be applied yet
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
    applied: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


class Reloader:
    """Applies what can be applied; everything else stays as it runs, and is named. `run` must be running.

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
        on_change: called when something was applied, or tried to be.
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
        on_change: Callable[[], None],
    ) -> None:
        self._settings = settings
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
        self._on_change = on_change
        self._turn = asyncio.Lock()
        self._left: tuple[config.Config, str] | None = None
        self._held: tuple[str, ...] = ()
        self._errors: dict[str, str] = {}
        self._file_was_wrong = False

    @property
    def settings(self) -> config.Config:
        """What the bridge runs with; of the cyclers, what they themselves have."""
        return with_cyclers(self._settings, {name: station.settings for name, station in self._stations.items()})

    def reasons(self) -> list[str]:
        """What of the configuration is not applied yet, for the health message."""
        return [f"configuration: {text}" for text in self._held]

    async def run(self) -> None:
        """Try again what could not be applied yet, until cancelled."""
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                await self._try_again()
            except Exception:  # a bug here must not take the bridge down
                log.exception("what is left of the configuration cannot be applied just now")

    async def reload(self, wanted: config.Config, who: str) -> Report:
        """Apply a configuration that is valid as a whole.

        Args:
            wanted: the file as it is now.
            who: what asked for it: `SIGHUP` or `file`.
        """
        async with self._turn:
            if await self._commander.taken_up(TAKEN_UP_S):
                report = await self._apply(wanted, who)
            else:
                report = self._keep(Report(held=(_NOT_NOW,)), wanted, who)
            self._say(report, who)
            return report

    def failed(self, problems: Collection[str], who: str) -> None:
        """The file is wrong, or gone: nothing changes."""
        self._file_was_wrong = True
        for problem in problems:
            log.error("configuration not reloaded (%s): %s", who, problem)
        self._tell("reload_failed", shortened(f"{who}: nothing changes: {'; '.join(problems)}"))

    async def _try_again(self) -> None:
        async with self._turn:
            if self._left is None or not await self._commander.taken_up(0):
                return
            wanted, who = self._left
            report = await self._apply(wanted, who)
            if report.applied:
                self._say(report, f"{who}, later")

    async def _apply(self, wanted: config.Config, who: str) -> Report:
        self._tidy()
        plan = compare(self.settings, wanted)
        progress = _Progress(who)
        for change in plan.changed:
            await self._guarded(change.name, "changed", self._change(change, progress), progress)
        for name in plan.removed:
            await self._guarded(name, "removed", self._remove(name, progress), progress)
        for name, settings in (plan.added or {}).items():
            await self._guarded(name, "added", self._add(name, settings, progress), progress)
        return self._keep(Report(tuple(progress.applied), tuple(progress.held), plan.restart), wanted, who)

    def _keep(self, report: Report, wanted: config.Config, who: str) -> Report:
        self._held = report.held
        self._left = (wanted, who) if report.held else None
        return report

    # --- one cycler ---

    async def _guarded(self, name: str, done: str, step: Awaitable[None], progress: _Progress) -> None:
        """One step for one cycler; what goes wrong is told once, and tried again."""
        try:
            await step
        except Exception as error:
            text = f"{name} is not {done} yet (an unexpected error: {error!r})"
            if self._errors.get(name) != text:
                log.exception("%s", text)
            self._errors[name] = text
            progress.held.append(text)
        else:
            self._errors.pop(name, None)
        finally:
            self._follow(self.settings.cyclers)

    def _tidy(self) -> None:
        """No desk is left of a cycler that is gone."""
        for name in self._commander.desks:
            if name not in self._stations:
                self._commander.desks.remove(name)

    async def _change(self, change: CyclerChange, progress: _Progress) -> None:
        """At once for whatever is sent from now on; what was agreed with the holder of a lease is still done."""
        station, desks = self._stations[change.name], self._commander.desks
        before, after = station.settings.control, change.settings.control
        if change.control_changes:
            self._record("control_changed", station.name, change.control_changes, progress.who)
        progress.applied += map(str, change.changes)
        if switches_off(before, after):
            progress.applied += desks.wind_down(change.name)
        elif may_send(after):
            desks[change.name].authority.wind_down(())
        station.apply(change.settings)
        progress.applied += desks.beyond_limits(change.name)

    async def _remove(self, name: str, progress: _Progress) -> None:
        desks, station = self._commander.desks, self._stations[name]
        control = station.settings.control
        if why := desks.unfinished(name):
            self._take_stops_only(station, control, progress)
            progress.held.append(f"{name} is not removed yet ({why})")
            return
        alarms = desks[name].standing_alarms
        _set_control(station, for_farewell(control, stops=False))  # until it is gone
        try:
            await self._fleet.remove(name)
        except BaseException:  # it stays, and goes later
            self._take_stops_only(station, control, progress)
            raise
        desks.remove(name)
        self._record("cycler_removed", name, [Change(f"cyclers.{name}.control", _dump(control), None)], progress.who)
        progress.applied.append(f"cyclers.{name} is removed")
        progress.applied += [
            f"the alarm {alarm} of channel {channel} of {name} still stands, until {name} is configured again and "
            "the channel is seen at rest"
            for channel, alarm in alarms
        ]
        if self._speaks():
            station.farewell()
        self._topics.drop_cycler(name)

    def _take_stops_only(self, station: Station, control: config.Control, progress: _Progress) -> None:
        """What goes as soon as it can takes no other command any more; so a lease cannot be renewed, and runs out."""
        narrowed = for_farewell(control, stops=True)
        changes = differences(f"cyclers.{station.name}.control", control, narrowed)
        if changes:
            self._record("control_changed", station.name, changes, progress.who)
        _set_control(station, narrowed)

    async def _add(self, name: str, settings: config.Cycler, progress: _Progress) -> None:
        for other, station in self._stations.items():
            if same_address(station.settings, settings):
                progress.held.append(f"{name} is not added yet ({other}, which runs, has its address)")
                return
        self._follow({**self.settings.cyclers, name: settings})
        self._topics.add_cycler(name)
        try:
            station = self._make(name, settings)
            self._commander.add(station)
            self._fleet.add(station)
        except BaseException:
            await self._take_back(name)
            raise
        after = _dump(settings.control)
        self._record("cycler_added", name, [Change(f"cyclers.{name}.control", None, after)], progress.who)
        progress.applied.append(f"cyclers.{name} is added")

    async def _take_back(self, name: str) -> None:
        """What there is of a cycler that could not be added."""
        self._commander.desks.remove(name)
        if name in self._stations:
            await self._fleet.remove(name)
        self._topics.drop_cycler(name)

    # --- told ---

    def _say(self, report: Report, who: str) -> None:
        """Where nothing differs nobody needs an event, unless the last one said that the file is wrong."""
        if report.applied or report.held:
            self._on_change()
        if report == Report() and not self._file_was_wrong:
            log.info("configuration read again (%s): %s", who, report)
            return
        self._file_was_wrong = False
        log.warning("configuration reloaded (%s): %s", who, report)
        self._tell("reloaded", f"{who}: {shortened(str(report))}")

    def _record(self, what: str, cycler: str, changes: Collection[Change], who: str) -> None:
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


def _set_control(station: Station, control: config.Control) -> None:
    station.apply(station.settings.model_copy(update={"control": control}))
