"""The cyclers that are polled: they come and go while the bridge runs."""

import asyncio

from cti_mqtt.bridge.station import A_MOMENT_S, Station

LONGEST_END_S = 5.0  # for a session to be closed; a socket that hangs must not hold up the rest


class Fleet:
    """The tasks of all cyclers; `run` must be running.

    Args:
        stations: the cyclers, by id; whoever holds this mapping sees them come and go.
    """

    def __init__(self, stations: dict[str, Station]) -> None:
        self._stations = stations
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._polls: dict[str, int] = {}

    async def run(self) -> None:
        """Stay connected to each and poll it, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                for station in self._stations.values():
                    self._start(station)
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    def add(self, station: Station) -> None:
        """A cycler is new; one that was there before goes on counting its polls, for `seq` must not repeat in a run."""
        station.book.polls = self._polls.get(station.name, 0)
        self._stations[station.name] = station
        station.announce()
        if self._tasks is not None:
            self._start(station)

    async def remove(self, name: str) -> Station:
        """A cycler is gone: its session ends, and when this returns nothing more of it is published."""
        if task := self._running.pop(name, None):
            task.cancel()
            await asyncio.wait([task], timeout=LONGEST_END_S)
        await asyncio.sleep(2 * A_MOMENT_S)  # what is published in a moment has been
        station = self._stations.pop(name)
        self._polls[name] = station.book.polls
        return station

    def _start(self, station: Station) -> None:
        assert self._tasks is not None  # noqa: S101  # asked by the callers
        self._running[station.name] = self._tasks.create_task(station.run(), name=station.name)
