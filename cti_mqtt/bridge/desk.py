"""Everything that the control of one cycler takes, and what of it is unfinished."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from cti_mqtt.bridge.alarms import AlarmBoard
from cti_mqtt.bridge.authority import Authority
from cti_mqtt.bridge.bus import Bus, ChannelState, Item
from cti_mqtt.bridge.caps import StartCaps
from cti_mqtt.bridge.checks import BusyBoard
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.delivery import Replayer
from cti_mqtt.bridge.execution import Executor
from cti_mqtt.bridge.leases import LeaseBook
from cti_mqtt.bridge.overruling import Overruler
from cti_mqtt.bridge.pursuit import StopPursuit
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import Store

log = logging.getLogger(__name__)

RESTART_WAIT_S = 0.5  # after a bug, not to fill the log; but a cell may wait


class Desk:
    """Where the commands to one cycler are dealt with; `run` must be running.

    Args:
        station: the cycler.
        store: what outlives the bridge.
        bus: where everything is published.
        clock: stamps.
        alarms: for stops that fail and leases that run out.
        may_act: whether no elder bridge is known to command this cycler.
        replayer: sends readings again.

    Attributes:
        unfinished: how many commands have no answer yet, each counted once for every channel.
        waiting: of those that wait for their record, counted the same way.
    """

    def __init__(
        self,
        station: Station,
        store: Store,
        bus: Bus,
        clock: Clock,
        alarms: AlarmBoard,
        may_act: Callable[[], bool],
        replayer: Replayer,
    ) -> None:
        self.station = station
        self.authority = Authority(station, may_act, self._is_under_way)
        self.busy = BusyBoard()
        self.caps = StartCaps(station)
        self.overruler = Overruler()
        self.pursuit = StopPursuit(station, bus, alarms, self.busy.is_starting, self.stopped)
        self.leases = LeaseBook(
            station, store, bus, clock, alarms, self.pursuit, self.overruler, self.busy.is_starting, self.authority
        )
        self.executor = Executor(station, self.leases, self._start_accepted, replayer)
        self.unfinished = 0
        self.waiting = 0
        self._alarms = alarms
        self._announced: set[int] = set()
        bus.subscribe(self._greet)

    async def run(self) -> None:
        """Pursue stops and watch leases until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._for_ever(self.pursuit.run, "stops"), name=f"{self.station.name}: stops")
            tasks.create_task(self._for_ever(self.leases.run, "leases"), name=f"{self.station.name}: leases")

    async def _for_ever(self, run: Callable[[], Awaitable[None]], what: str) -> None:
        """Run until cancelled: what keeps cells safe is not ended by a bug, here or elsewhere."""
        while True:
            try:
                await run()
            except* Exception:  # cancellation passes
                log.exception("%s: %s: unexpected error, starting again", self.station.name, what)
            await asyncio.sleep(RESTART_WAIT_S)

    @property
    def standing_alarms(self) -> list[tuple[int, str]]:
        """The alarms that are raised: the channel and the name."""
        return self._alarms.standing(self.station.name)

    def stop_heard(self, channels: Collection[int]) -> None:
        """A stop is about to go out: what waits for these channels stays here."""
        self.overruler.stop(channels)
        for channel in channels:
            self.station.writer.discard([channel], f"a stop of channel {channel} came first")

    def stopped(self, channel: int) -> None:
        """A stop has done its work: nobody needs to vouch for the channel any more."""
        self.leases.end(channel, "the channel was stopped")

    def start_unknown(self, channel: int) -> None:
        """A start or resume ended without anybody knowing whether it reached the cycler."""
        self.pursuit.start_unknown(channel)

    def _is_under_way(self, channel: int) -> bool:
        return channel in self.leases.channels or self.pursuit.pursued(channel)

    def _start_accepted(self, channel: int, admitted_s: float) -> None:
        self.pursuit.start_accepted(channel, admitted_s)
        self.leases.start_accepted(channel, admitted_s)

    def _greet(self, item: Item) -> None:
        """A channel shows itself for the first time: say of everything retained how it stands."""
        if isinstance(item, ChannelState) and item.cycler == self.station.name and item.channel not in self._announced:
            self._announced.add(item.channel)
            self.leases.announce(item.channel)
            self._alarms.announce(self.station.name, item.channel)
