"""The wiring: the broker's link outlives the work, so that the last word still gets out."""

import asyncio
import errno
import logging
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cti_mqtt import __version__, config
from cti_mqtt.backoff import Backoff
from cti_mqtt.bridge import payloads
from cti_mqtt.bridge.beats import free_phase
from cti_mqtt.bridge.bus import Bus, CyclerState, Happening, Item
from cti_mqtt.bridge.by_exception import ReportByException
from cti_mqtt.bridge.clock import Clock, SystemClock, stamp
from cti_mqtt.bridge.commands import Commander
from cti_mqtt.bridge.delivery import ReadingsPost
from cti_mqtt.bridge.fleet import Fleet
from cti_mqtt.bridge.ghosts import Ghosts
from cti_mqtt.bridge.health import HealthWatch
from cti_mqtt.bridge.monitoring import Monitoring
from cti_mqtt.bridge.mqtt import Incoming, MqttLink, Subscription
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.outputs.plain import OFFLINE, PlainOutput
from cti_mqtt.bridge.presence import PATIENT, Presence, Timing
from cti_mqtt.bridge.reload import Report
from cti_mqtt.bridge.reloading import Reloader
from cti_mqtt.bridge.retained import RetainedGuard
from cti_mqtt.bridge.rivals import BridgeRun, Rivals
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import Store
from cti_mqtt.bridge.topics import Topics
from cti_mqtt.errors import ConfigurationError

log = logging.getLogger(__name__)

_NO_ROOM = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})  # nobody else can write there either
FLUSH_S = 5.0  # for what is queued when the bridge ends


class Bridge:
    """Cyclers on one side, a broker on the other, as long as `run` runs.

    Args:
        settings: what to connect.
        clock: stamps and ages.
        backoff: how long to wait between attempts to reach a cycler; made anew for each.
        timing: how patient to be with other clients of the broker.

    Attributes:
        bus: the internal stream, for more outputs.
        ready: set once commands are heard.
    """

    def __init__(
        self,
        settings: config.Config,
        clock: Clock | None = None,
        backoff: Callable[[], Backoff] = Backoff,
        timing: Timing = PATIENT,
    ) -> None:
        self.bus = Bus()
        self._settings = settings
        self._clock = clock = clock or SystemClock()
        self._boot = secrets.token_hex(8)
        self._started_at = stamp(clock.now())
        self._leaving = False
        self._topics = Topics(settings.mqtt.base_topic)
        self._guard = RetainedGuard(clock.monotonic, protocol_5=settings.mqtt.protocol == 5, settle_s=timing.settle_s)
        self._presence = self._make_presence(timing)
        self.ready = self._presence.ready
        self._link = MqttLink(
            settings.mqtt,
            self._hear,
            subscriptions=[Subscription(f"{self._topics.bridge}/{leaf}") for leaf in ("health", "availability")],
            commands=[Subscription(topic, commands=True) for topic in self._topics.subscriptions],
            will=self._availability(OFFLINE),
            on_state=self._link_changed,
            on_commands=self._presence.subscribed,
            on_taken=self._presence.taken,
            on_fault=self._tell,
            on_retained=lambda topic: self._ghosts.saw(topic),  # noqa: PLW0108  # made below, from the link
            taken_wait_s=timing.taken_wait_s,
        )
        self._post = ReadingsPost(
            settings,
            self._topics,
            self._link,
            self.bus,
            clock,
            self._boot,
            lambda name: self._stations[name].settings.poll_interval_s,
        )
        deliver = self._post.take if settings.publish.readings else None
        self._report = ReportByException(settings.publish, clock)
        plain = PlainOutput(settings, self._topics, self._boot, self._report, self._link.publish, deliver)
        self.bus.subscribe(self._report.follow)
        self.bus.subscribe(plain)

        def station(name: str, cycler: config.Cycler) -> Station:
            phase = free_phase({other.phase for other in self._stations.values()})
            return Station(name, cycler, self.bus, clock, backoff(), phase)

        self._stations: dict[str, Station] = {}
        for name, cycler in settings.cyclers.items():
            self._stations[name] = station(name, cycler)
        self._fleet = Fleet(self._stations)
        self._store = Store(settings.data_dir)
        self._ghosts = Ghosts(
            settings.mqtt.base_topic,
            settings.cyclers,
            settings.publish,
            self._store,
            retract=self._link.retract,
            forget=self._link.forget,
            may_clear=lambda: self._presence.commanding and not self._leaving,
            tell=self._tell,
        )
        self._commander = Commander(
            self._topics,
            self._stations,
            self.bus,
            clock,
            self._guard,
            self._clear_retained,
            self._store,
            may_act=lambda: not self._presence.standing_down,
            replayer=self._post.replayer,
        )
        self._monitoring = Monitoring(
            settings.http,
            lambda: self._health.current(),  # noqa: PLW0108  # made below: it tells what is wrong with this
            lambda: self._link.connected or bool(self._link.failure),
        )
        self._reloader = Reloader(
            settings,
            self._stations,
            self._fleet,
            self._commander,
            self._store,
            self.bus,
            clock,
            make=station,
            follow=plain.follow,
            topics=self._ghosts,
            speaks=lambda: not self._presence.standing_down,
            on_change=self._reconfigured,
        )
        self._health = HealthWatch(
            self._stations,
            self._link,
            self._store,
            self.bus,
            clock,
            boot=self._boot,
            started_at=self._started_at,
            interval_s=settings.health_interval_s,
            more_reasons=self._more_reasons,
            journal=self._post,
        )
        self.bus.subscribe(self._ghosts.follow)
        self.bus.subscribe(self._follow)

    def _make_presence(self, timing: Timing) -> Presence:
        return Presence(
            self._topics,
            Rivals(
                BridgeRun(datetime.fromisoformat(self._started_at), self._boot),
                interval_s=self._settings.health_interval_s,
                extra_s=timing.listen_extra_s,
                listen=timing.listen,
            ),
            self._guard,
            self.bus,
            self._clock,
            hear_commands=lambda on: self._link.hear_commands(on and not self._leaving),
            say=lambda payload: self._link.publish(self._availability(payload)),
            settle_s=0.0 if self._settings.mqtt.protocol == 5 else timing.settle_s,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Bridge until `stop` is set; then say goodbye in order.

        Raises:
            ConfigurationError: another process uses the data directory.
        """
        with _locked(self._settings.data_dir):
            log.info("cti-mqtt %s begins: %s; boot %s", __version__, ", ".join(self._stations), self._boot)
            self._warn_of_open_doors()
            await self._store.open()
            await self._post.open()
            for station in self._stations.values():
                station.announce()
            async with asyncio.TaskGroup() as tasks:
                link = tasks.create_task(self._link.run(), name="mqtt")
                work = tasks.create_task(self._work(), name="work")
                try:
                    await stop.wait()
                finally:
                    await self._commander.end()
                    work.cancel()
                    await asyncio.wait([work])
                    await self._commander.settle()
                    await self._say_goodbye()
                    link.cancel()
                    await asyncio.wait([link])
                    await self._post.close()
                    await self._store.close()

    async def reload(self, wanted: config.Config, who: str) -> Report:
        """Apply what can be applied while the bridge runs; the rest stays as it is and is named.

        Args:
            wanted: what the file says now; valid as a whole.
            who: what asked for it: `SIGHUP` or `file`.
        """
        return await self._reloader.reload(wanted, who)

    def reload_failed(self, problems: Collection[str], who: str) -> None:
        """The file is wrong: nothing changes, and every mistake is told."""
        self._reloader.failed(problems, who)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commander.run(), name="commands")
            tasks.create_task(self._health.run(), name="health")
            tasks.create_task(self._reloader.run(), name="configuration")
            tasks.create_task(self._ghosts.run(), name="retained topics")
            tasks.create_task(self._monitoring.run(), name="monitoring")
            tasks.create_task(self._post.run(), name="readings")
            tasks.create_task(self._fleet.run(), name="cyclers")

    async def _say_goodbye(self) -> None:
        self._leaving = True
        self._presence.leave()
        if not self._presence.standing_down:  # else all of this is the elder bridge's to say
            for station in self._stations.values():
                station.farewell()
        self._link.hear_commands(False)  # noqa: FBT003  # a switch; what still came before that is answered
        if self._presence.commanding:
            self._link.publish(self._availability(OFFLINE))
        self._post.tell_losses()
        await self._link.flush(FLUSH_S)
        log.info("cti-mqtt ends")

    def _more_reasons(self) -> list[str]:
        """What is not as it should be, besides polls, storage and journal."""
        parts = self._presence.reasons(), self._link.faults, self._monitoring.reasons(), self._reloader.reasons()
        return [reason for part in parts for reason in part]

    def _reconfigured(self) -> None:
        """A reload has changed something."""
        self._warn_of_open_doors()
        self._publish_info()

    def _warn_of_open_doors(self) -> None:
        for name, cycler in self._reloader.settings.cyclers.items():
            if cycler.control.allows_verb("set_mv") and not cycler.control.limits:
                log.warning("%s: meta variables may be set to any value; set cyclers.%s.control.limits", name, name)

    def _hear(self, incoming: Incoming) -> None:
        if not self._presence.hear(incoming):
            self._commander.hear(incoming)

    # --- what the bridge says of itself ---

    def _availability(self, payload: bytes) -> Message:
        return Message(f"{self._topics.bridge}/availability", payload, retain=True, keep=False, urgent=True)

    def _tell(self, kind: str, text: str) -> None:
        self.bus.publish(Happening(stamp(self._clock.now()), kind, text))

    def _link_changed(self, connected: bool, text: str) -> None:  # noqa: FBT001  # the link's callback
        """After the retained topics went out; that commands are heard is said last."""
        if connected:
            self._report.begin_anew()
            self._publish_info()
            self._health.publish()
            happened = Happening(stamp(self._clock.now()), "broker_connected", f"connected to the broker at {text}")
            self.bus.publish(happened)
            self._post.connected()
        self._presence.link_changed(connected)

    def _follow(self, item: Item) -> None:
        """What `info` says of the channels depends on what a cycler said at login."""
        if isinstance(item, CyclerState) and item.online:
            self._publish_info()

    def _publish_info(self) -> None:
        body = {
            "version": __version__,
            "contract": payloads.CONTRACT,
            "started_at": self._started_at,
            "boot": self._boot,
            "cyclers": list(self._stations),
            "control": {name: _control(station) for name, station in self._stations.items()},
        }
        self._link.publish(Message(f"{self._topics.bridge}/info", payloads.encode(body), qos=1, retain=True))

    def _clear_retained(self, topic: str) -> None:
        if self._link.publish(Message(topic, b"", qos=1, retain=True, keep=False)):
            self._guard.cleared(topic)


def _control(station: Station) -> dict[str, Any]:
    """What may be commanded, with `all` spelled out as far as it is known."""
    control = station.settings.control
    return {
        "enabled": control.enabled,
        "mode": control.mode,
        "verbs": list(config.VERBS if control.verbs == "all" else control.verbs),
        "channels": list(station.cycler_channels if control.channels == "all" else control.channels),
    }


@contextmanager
def _locked(data_dir: Path | None) -> Iterator[None]:
    """One process a data directory."""
    if data_dir is None:
        yield
        return
    lock = FileLock(data_dir / "lock")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigurationError("data_dir", [f"{data_dir} is in use by another cti-mqtt process"]) from error
    except OSError as error:
        if error.errno not in _NO_ROOM or not data_dir.is_dir():
            raise ConfigurationError("data_dir", [f"{data_dir} cannot be used: {error.strerror}"]) from error
        log.error("%s cannot be locked (%s): nothing is stored, readings are published", data_dir, error.strerror)  # noqa: TRY400  # no bug
    try:
        yield
    finally:
        lock.release()
