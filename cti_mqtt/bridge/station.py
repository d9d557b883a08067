"""One cycler, kept connected and polled."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from cti_mqtt import config
from cti_mqtt.bridge.beats import next_beat
from cti_mqtt.bridge.bus import Bus, CyclerState, Schedules
from cti_mqtt.bridge.clock import Clock
from cti_mqtt.bridge.cycler_troubles import PollTroubles
from cti_mqtt.bridge.notices import Notices
from cti_mqtt.bridge.readings import ReadingBook
from cti_mqtt.bridge.variables import VariableBook
from cti_mqtt.bridge.writer import VariableWriter
from cti_mqtt.client import Backoff, Credentials, Cycler, Endpoint, Supervisor
from cti_mqtt.client.files import FileClient
from cti_mqtt.cti.messages.channels import AuxOption
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.stream import ChecksumPolicy
from cti_mqtt.errors import CtiMqttError, LoginRefusedError, NotConnectedError, NotSentError, OutcomeUnknownError

log = logging.getLogger(__name__)

SCHEDULE_DIRECTORY = "Work"
SCHEDULE_SUFFIXES = (".sdx", ".sdu")
A_MOMENT_S = 0.02  # so that a command's result goes out first
RESTART_WAIT_S = 5.0  # after a bug, not to fill the log
LOOK_S = 1.0  # how often, at the least, it is looked whether something is missing
OFTEN = 5  # sessions that begin and end are told so often in ten minutes, beyond that as a number

_AUX_OPTIONS = {"aux": AuxOption.AUXILIARY, "bms": AuxOption.BMS, "smb": AuxOption.SMB}


@dataclass(slots=True)
class Counters:
    """What happened so far, for the health message; `skipped` are beats for which there is no poll."""

    errors: int = 0
    skipped: int = 0
    reconnects: int = 0
    poll_duration_ms: float | None = None


def endpoint(name: str, settings: config.Cycler) -> Endpoint:
    """Where a configured cycler is, and how to talk to it."""
    return Endpoint(
        name,
        settings.host,
        settings.port,
        settings.timeout_s,
        ChecksumPolicy(settings.checksum),
        pipelining=settings.pipelining == "auto",
    )


def credentials(settings: config.Cycler) -> Credentials:
    """Who logs in."""
    return Credentials(settings.username or "", settings.password.get_secret_value() if settings.password else "")


def connector(name: str, settings: config.Cycler) -> Callable[[], AbstractAsyncContextManager[Cycler]]:
    """How to open a session with a configured cycler; one that has no channels yet is not there yet."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Cycler]:
        async with Cycler.connect(endpoint(name, settings), credentials(settings)) as cycler:
            if not cycler.channels:
                raise NotConnectedError(f"{name}: the cycler says that it has no channels; is MITS Pro still starting?")
            yield cycler

    return connect


def file_connector(name: str, settings: config.Cycler) -> Callable[[], AbstractAsyncContextManager[FileClient]]:
    """How to open a session with its file port."""
    where = replace(endpoint(f"{name} (files)", settings), port=settings.file_port)
    return lambda: FileClient.connect(where, credentials(settings))


def _in_a_moment(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(A_MOMENT_S, call)


class Station:
    """A configured cycler: its session, its polls, what is known of its channels.

    Args:
        name: the cycler's id.
        settings: its configuration.
        bus: where everything is published.
        clock: stamps and ages.
        backoff: how long to wait between connection attempts.
        phase: which part of an interval its polls are late, 0 to 1; see `beats`.

    Attributes:
        info: what the cycler said at its last login; None before the first.
        phase: as it was given.
    """

    def __init__(
        self,
        name: str,
        settings: config.Cycler,
        bus: Bus,
        clock: Clock,
        backoff: Backoff | None = None,
        phase: float = 0.0,
    ) -> None:
        self.name = name
        self.settings = settings
        self.phase = phase
        self.info: LoginFeedback | None = None
        self.counters = Counters()
        self.variables = VariableBook(
            name, settings.control.limits, bus, clock, settings.control.deadman_mv, _in_a_moment
        )
        self.writer = VariableWriter(lambda: self.cycler, self.variables)
        self.book = ReadingBook(name, settings.poll_interval_s, bus, clock, self.variables)
        self._bus = bus
        self._clock = clock
        self._open_files = file_connector(name, settings)
        self._supervisor = Supervisor(connector(name, settings), self, backoff)
        self._up = asyncio.Event()
        self._at_once = asyncio.Event()  # a poll is wanted that does not wait for its beat
        self._last_poll_at: float | None = None
        self._last_failure = ""
        self._notices = Notices(name, bus, clock)
        self._troubles = PollTroubles(self._notices)

    def apply(self, settings: config.Cycler) -> None:
        """From now on these count; another interval begins with a poll at once. The session stays as it is.

        Args:
            settings: with address, user, time-out and the dead man's variable as they were.
        """
        before, self.settings = self.settings, settings
        self.variables.limits = settings.control.limits
        self.book.interval_s = settings.poll_interval_s
        if settings.poll_interval_s != before.poll_interval_s:
            self._at_once.set()

    @property
    def _aux(self) -> AuxOption:
        return AuxOption(sum(_AUX_OPTIONS[kind] for kind in set(self.settings.aux)))

    # --- the session ---

    @property
    def online(self) -> bool:
        """Logged in and answering."""
        return self._up.is_set()

    @property
    def cycler(self) -> Cycler:
        """The session.

        Raises:
            NotConnectedError: there is none just now; the message says why.
        """
        return self._supervisor.cycler

    @property
    def cycler_channels(self) -> range:
        """The channels that the cycler announced at its last login, from 1."""
        return range(1, (self.info.channel_count if self.info else 0) + 1)

    def connected(self, cycler: Cycler) -> None:
        """Called by the supervisor: logged in."""
        before, self.info = self.info, cycler.info
        self._last_failure = ""
        self.counters.reconnects += before is not None
        self.book.keep_only(cycler.channels)  # before it is online: from then on nothing is said of other channels
        self._bus.publish(CyclerState(self.name, online=True, info=cycler.info))
        self.book.online(cycler.channels)
        self._troubles.session_began(cycler.noise)
        self._say_connected(before, cycler.info)
        self._at_once.set()
        self._up.set()

    def disconnected(self, reason: CtiMqttError) -> None:
        """Called by the supervisor: the session ended, or an attempt failed. The same failure is told once."""
        was_up = self._up.is_set()
        self._up.clear()
        if was_up:
            self.counters.errors += 1
            self.book.offline()
            self._bus.publish(CyclerState(self.name, online=False, info=self.info))
        self._troubles.look()
        text = str(reason)
        if text != self._last_failure:
            kind = "login_refused" if isinstance(reason, LoginRefusedError) else "disconnected"
            self._notices.say(kind, text, cause=text, at_most=OFTEN if was_up else 1)
        self._last_failure = text

    def _say_connected(self, before: LoginFeedback | None, now: LoginFeedback) -> None:
        """What is worth knowing at a login, compared with the one before."""
        say, count = self._notices.say, now.channel_count
        message = f"logged in, {count} channels"
        say("reconnected" if before else "connected", message, at_most=OFTEN, level=logging.INFO)
        if not now.allow_control and self.settings.control.enabled:
            say("control_refused", "the cycler does not let this user control; another user may be in control")
        if before and before.serial != now.serial:
            say("cycler_changed", "another cycler answers at this address", before.serial, now.serial, at_most=OFTEN)
        if before and before.channel_count != count:
            message = "the cycler has another number of channels than before"
            say("channel_count_changed", message, before.channel_count, count, at_most=OFTEN)

    def announce(self) -> None:
        """Publish the state before anything is known, so that nothing old looks alive."""
        self._bus.publish(CyclerState(self.name, online=False, info=None))

    def farewell(self) -> None:
        """Publish that nothing more will come."""
        self.book.offline()
        self._bus.publish(CyclerState(self.name, online=False, info=self.info))

    # --- polling ---

    async def run(self) -> None:
        """Stay connected and poll, until cancelled; a bug here must not take other cyclers down."""
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._supervisor.run(), name=f"{self.name}: session")
                    tasks.create_task(self.writer.run(), name=f"{self.name}: writes")
                    tasks.create_task(self._poll_forever(), name=f"{self.name}: polls")
                    tasks.create_task(self._watch_ages(), name=f"{self.name}: ages")
            except* Exception as errors:  # cancellation passes
                log.exception("%s: unexpected error, starting again", self.name)
                self.disconnected(CtiMqttError(f"unexpected error: {errors.exceptions[0]!r}"))
            await asyncio.sleep(RESTART_WAIT_S)

    async def _poll_forever(self) -> None:
        """One poll a beat, and one at once where that is wanted; a beat that a slow poll misses is skipped."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            await self._up.wait()
            if self._at_once.is_set():
                self._at_once.clear()
                due_s = loop.time()
            came = await self._poll()
            now_s, interval_s = loop.time(), self.settings.poll_interval_s
            beat = next_beat(due_s, now_s, interval_s, self.phase)
            self.counters.skipped += beat.skipped
            if came:
                self._troubles.took(now_s - due_s, interval_s, beat.skipped)
            due_s = beat.due_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._at_once.wait()

    async def _poll(self) -> bool:
        """One poll of all channels; whether it was answered. What a session's end explains is told with that."""
        try:
            await self.refresh()
        except CtiMqttError as error:
            self.counters.errors += 1
            log.debug("%s: poll failed: %s", self.name, error)
            if not isinstance(error, NotSentError | OutcomeUnknownError):
                self._troubles.failed(error)
            return False
        return True

    async def refresh(self, channel: int | None = None) -> None:
        """Poll now: all channels, or one.

        Raises:
            NotSentError, OutcomeUnknownError, UnsupportedCommandError: there is no reading.
        """
        loop = asyncio.get_running_loop()
        began, asked_s = loop.time(), self.monotonic()
        cycler = self.cycler
        records = await (
            cycler.read_channels(self._aux) if channel is None else cycler.read_channel(channel, self._aux)
        )
        if channel is None:
            self._troubles.brought(cycler.channels, records)
        if channel is None and records:
            self._last_poll_at = loop.time()
            self.counters.poll_duration_ms = 1000 * (self._last_poll_at - began)
        self.book.record(records, asked_s)

    async def publish_schedules(self) -> tuple[str, ...]:
        """Look up which schedule files there are, over the file port, and publish their names.

        Raises:
            CtiMqttError: the file port does not answer, or has no such directory.
        """
        async with self._open_files() as files:
            listing = await files.browse(SCHEDULE_DIRECTORY)
        names = tuple(sorted(entry.name for entry in listing.entries if entry.name.lower().endswith(SCHEDULE_SUFFIXES)))
        self._bus.publish(Schedules(self.name, names))
        return names

    def monotonic(self) -> float:
        """Seconds that never jump, on the clock that readings are dated with."""
        return self._clock.monotonic()

    def local_time(self) -> datetime:
        """The time of day where the bridge runs, for people."""
        return self._clock.now().astimezone()

    async def _watch_ages(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_S, self.settings.poll_interval_s))
            self._look_around()

    def _look_around(self) -> None:
        """What nobody says, but somebody must notice."""
        self.book.mark_stale()
        self._troubles.look()
        self._notices.catch_up()

    @property
    def last_poll_age_s(self) -> float | None:
        """How long ago the last poll of all channels brought a reading."""
        return None if self._last_poll_at is None else asyncio.get_running_loop().time() - self._last_poll_at
