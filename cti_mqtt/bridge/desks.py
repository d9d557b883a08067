"""The desks of all cyclers: cyclers come and go while the bridge runs."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from cti_mqtt.bridge.bus import Bus, Item
from cti_mqtt.bridge.desk import Desk
from cti_mqtt.bridge.station import Station
from cti_mqtt.errors import StorageError

log = logging.getLogger(__name__)

AGAIN_S = 2.0  # between attempts at a record that cannot be read


class Branch(Bus):
    """What listens to the internal stream for one cycler, and stops listening with it.

    Args:
        trunk: the stream; what is published here is published there.
        cycler: its id; nothing else is heard here.
    """

    def __init__(self, trunk: Bus, cycler: str) -> None:
        super().__init__()
        self._publish_all = trunk.publish
        self._leave = trunk.subscribe(super().publish, cycler)

    def publish(self, item: Item) -> None:
        """Hand an item to every subscriber of the whole stream."""
        self._publish_all(item)

    def close(self) -> None:
        """From now on nobody here hears anything."""
        self._leave()
        self._subscribers.clear()


class Desks(Mapping[str, Desk]):
    """Where commands are dealt with, by cycler; `run` must be running.

    Args:
        stations: the cyclers that there are from the beginning.
        bus: what all of them listen to.
        make: a desk for a cycler, listening to a stream.
    """

    def __init__(self, stations: Iterable[Station], bus: Bus, make: Callable[[Station, Bus], Desk]) -> None:
        self._bus = bus
        self._make = make
        self._desks: dict[str, Desk] = {}
        self._branches: dict[str, Branch] = {}
        self._running: dict[str, list[asyncio.Task[None]]] = {}
        self._taking_up: set[str] = set()
        self._tasks: asyncio.TaskGroup | None = None
        for station in stations:
            self._open(station)

    def __getitem__(self, name: str) -> Desk:
        return self._desks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._desks))

    def __len__(self) -> int:
        return len(self._desks)

    async def run(self) -> None:
        """Pursue stops and watch leases until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                for name in self:
                    self._start(name)
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    def add(self, station: Station) -> None:
        """A cycler is new: what is on record of it is taken up."""
        desk = self._open(station)
        self._taking_up.add(station.name)
        if self._tasks is not None:
            self._start(station.name)
            task = self._tasks.create_task(self._take_up(desk), name=f"{station.name}: leases on record")
            self._running[station.name].append(task)

    def remove(self, name: str) -> None:
        """A cycler is gone; nothing of it may be unfinished, see `unfinished`."""
        self._desks.pop(name, None)
        if branch := self._branches.pop(name, None):
            branch.close()
        self._taking_up.discard(name)
        for task in self._running.pop(name, ()):
            task.cancel()

    def unfinished(self, name: str) -> str:
        """What has to be ended before a cycler is given up; '' if nothing has."""
        desk = self._desks[name]
        found = ["what is on record of it is not taken up yet"] if name in self._taking_up else []
        found += [f"a lease of channel {channel} is not over" for channel in desk.leases.channels]
        found += [f"a stop of channel {channel} is pursued" for channel in desk.pursuit.channels]
        if desk.unfinished or desk.waiting:
            found.append("a command is not finished")
        return "; ".join(found)

    def wind_down(self, name: str) -> list[str]:
        """Control is about to be switched off: what was agreed before is still carried out; that in words."""
        desk = self._desks[name]
        channels = sorted({*desk.leases.channels, *desk.pursuit.channels})
        desk.authority.wind_down(channels)
        leases = [lease for channel in channels if (lease := desk.leases.running(channel)) is not None]
        return [
            *(
                f"the lease of channel {lease.channel} cannot be renewed any more: when it runs out, {lease.words}"
                for lease in leases
            ),
            *(f"the stop of channel {channel} is still pursued" for channel in desk.pursuit.channels),
        ]

    def beyond_limits(self, name: str) -> list[str]:
        """What leases that run will write all the same, in words: it was agreed before the limits were changed."""
        desk = self._desks[name]
        return [
            f"the lease of channel {channel} still ends with MV_UD{index} = {value:g}, as it was granted ({objection})"
            for channel in desk.leases.channels
            if (lease := desk.leases.running(channel)) is not None
            for index, value in lease.terms.fallback.items()
            if (objection := desk.station.variables.range_objection(index, value))
        ]

    def _open(self, station: Station) -> Desk:
        branch = self._branches[station.name] = Branch(self._bus, station.name)
        desk = self._desks[station.name] = self._make(station, branch)
        return desk

    def _start(self, name: str) -> None:
        assert self._tasks is not None  # noqa: S101  # asked by the callers
        task = self._tasks.create_task(self._desks[name].run(), name=f"{name}: stops and leases")
        self._running[name] = [task]

    async def _take_up(self, desk: Desk) -> None:
        while True:
            try:
                await desk.leases.restore()
            except StorageError as error:
                log.warning("%s: leases on record cannot be taken up yet: %s", desk.station.name, error)
                await asyncio.sleep(AGAIN_S)
            else:
                self._taking_up.discard(desk.station.name)
                return
