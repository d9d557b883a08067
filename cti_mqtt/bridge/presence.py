"""Whether this bridge hears commands, and says so: on `bridge/availability` online means "commands are heard".

The rules stand in `rivals`; here they meet the broker. All of this runs in the event loop.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from cti_mqtt.bridge.bus import Bus, Happening
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.mqtt import TAKEN_WAIT_S, Incoming
from cti_mqtt.bridge.outputs.plain import OFFLINE, ONLINE
from cti_mqtt.bridge.retained import SETTLE_S, RetainedGuard
from cti_mqtt.bridge.rivals import BridgeRun, Rivals, Role, parse_health
from cti_mqtt.bridge.topics import Topics

log = logging.getLogger(__name__)

CORRECT_EVERY_S = 1.0  # a false availability is corrected at most so often
SHOWN_BYTES = 40  # of a false availability, in the log
NOTICE_S = 300.0  # so long the health message tells of a client id that was taken
_ADVICE = "end one of the two, or give it a base topic and a client id of its own"


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a bridge is with the broker's other clients; tests are less so.

    Attributes:
        listen: whether to listen for another bridge before the first command.
        listen_extra_s: how much longer than a health interval.
        settle_s: after subscribing, how long a message may be a stored one without its flag (3.1.1 only).
        taken_wait_s: how long to stay away, at least and at most, after another client took our client id.
    """

    listen: bool = True
    listen_extra_s: float = 2.0
    settle_s: float = SETTLE_S
    taken_wait_s: tuple[float, float] = TAKEN_WAIT_S


PATIENT = Timing()


class Presence:
    """Says whether commands are heard, and sees to it that one bridge hears them.

    Args:
        topics: names.
        rivals: who else is there.
        guard: is told of each subscription.
        bus: where events are published.
        clock: stamps and ages.
        hear_commands: switches the subscriptions to commands.
        say: publishes the bridge's availability.
        settle_s: how long after subscribing commands are not yet taken; 0 on MQTT 5.

    Attributes:
        ready: set once commands are heard.
    """

    def __init__(
        self,
        topics: Topics,
        rivals: Rivals,
        guard: RetainedGuard,
        bus: Bus,
        clock: Clock,
        *,
        hear_commands: Callable[[bool], None],
        say: Callable[[bytes], object],
        settle_s: float,
    ) -> None:
        self.ready = asyncio.Event()
        self._availability = f"{topics.bridge}/availability"
        self._health = f"{topics.bridge}/health"
        self._rivals = rivals
        self._guard = guard
        self._bus = bus
        self._clock = clock
        self._hear_commands = hear_commands
        self._say = say
        self._settle_s = settle_s
        self._elder: BridgeRun | None = None
        self._online = False
        self._leaving = False
        self._deaf_until = 0.0
        self._said_at = float("-inf")
        self._taken: tuple[float, str] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._speaking: asyncio.TimerHandle | None = None

    # --- what is asked ---

    @property
    def commanding(self) -> bool:
        """Whether commands are for this bridge."""
        return self._rivals.role is Role.COMMANDING

    @property
    def standing_down(self) -> bool:
        """Whether an elder bridge commands."""
        return self._rivals.role is Role.STANDING_DOWN

    def reasons(self) -> list[str]:
        """What is not as it should be, for the health message."""
        reasons = []
        if self.standing_down and (elder := self._rivals.elder):
            reasons.append(f"a second bridge runs on this base topic ({_describe(elder)}): commands are not heard")
        if self._taken and self._clock.monotonic() < self._taken[0] + NOTICE_S:
            reasons.append(self._taken[1])
        return reasons

    # --- what happens ---

    def link_changed(self, connected: bool) -> None:  # noqa: FBT001  # a state
        """The broker came or went."""
        self._online = False
        self._cancel()
        if not connected:
            self._rivals.disconnected()
            return
        now = self._clock.monotonic()
        self._deaf_until = now + self._settle_s
        self._guard.new_connection()
        self._rivals.connected(now)
        self._follow()

    def subscribed(self) -> None:
        """The broker has confirmed the subscriptions to commands."""
        self._guard.subscribed()
        self._later(self._settle_s)

    def taken(self, text: str) -> None:
        """Another client took our client id, or seems to have."""
        self._taken = (self._clock.monotonic(), text)
        self._publish("client_id_taken", text)

    def hear(self, incoming: Incoming) -> bool:
        """Take a message from the broker; whether it is none for the commander."""
        if incoming.topic == self._availability:
            if self._online and not incoming.retain and incoming.payload != ONLINE:
                self._correct(incoming.payload)
            return True
        if incoming.topic == self._health:
            # A stored message may come without its flag on 3.1.1. An elder says it again.
            now = self._clock.monotonic()
            if not incoming.retain and now >= self._deaf_until and (life := parse_health(incoming.payload)):
                self._rivals.hear(life, now)
                self._follow()
            return True
        return not self.commanding

    def leave(self) -> None:
        """The bridge ends: from now on nothing is said, not even against our own `offline`."""
        self._leaving = True
        self._online = False
        self._cancel()

    # --- inside ---

    def _look(self) -> None:
        self._rivals.look(self._clock.monotonic())
        self._follow()

    def _follow(self) -> None:
        """Do what the role asks for, say what changed, and look again when it is time."""
        stood_down, self._elder = self._elder, self._rivals.elder
        if self.standing_down and stood_down is None and self._elder:
            self._stand_down(self._elder)
        elif self.commanding:
            if stood_down:
                self._tell(
                    "second_bridge_gone", f"the elder bridge on this base topic ({_describe(stood_down)}) is silent: "
                    "this one hears commands again",
                )  # fmt: skip
            self._hear_commands(True)  # noqa: FBT003  # a switch
        if self._looking:
            self._looking.cancel()
        due = self._rivals.due()
        wait_s = None if due is None else max(0.0, due - self._clock.monotonic())
        self._looking = None if wait_s is None else asyncio.get_running_loop().call_later(wait_s, self._look)

    def _stand_down(self, elder: BridgeRun) -> None:
        self._online = False
        self._cancel()
        self._hear_commands(False)  # noqa: FBT003  # a switch
        self._guard.new_connection()
        self._tell(
            "second_bridge",
            f"an elder bridge runs on this base topic ({_describe(elder)}): this one hears no commands; {_ADVICE}",
        )

    def _correct(self, said: bytes) -> None:
        """It does not say online: a last will, also our own that the broker publishes late, or whatever else."""
        if self._speaking is None:
            who = "by our own last will or by somebody else" if said == OFFLINE else "by somebody else"
            log.warning("%s was published on %s, %s: corrected", _quoted(said), self._availability, who)
            self._later(max(0.0, self._said_at + CORRECT_EVERY_S - self._clock.monotonic()))

    def _later(self, wait_s: float) -> None:
        """Say online in a while."""
        if self._speaking is None and not self._leaving:
            self._speaking = asyncio.get_running_loop().call_later(wait_s, self._say_online)

    def _say_online(self) -> None:
        self._speaking = None
        self._online = True
        self._said_at = self._clock.monotonic()
        self._say(ONLINE)
        self.ready.set()

    def _cancel(self) -> None:
        for timer in (self._looking, self._speaking):
            if timer:
                timer.cancel()
        self._looking = self._speaking = None

    def _tell(self, kind: str, message: str) -> None:
        log.warning("%s", message)
        self._publish(kind, message)

    def _publish(self, kind: str, message: str) -> None:
        self._bus.publish(Happening(stamp(self._clock.now()), kind, message))


def _describe(life: BridgeRun) -> str:
    return f"boot {life.boot!r}, started {stamp(life.started_at)}"


def _quoted(payload: bytes) -> str:
    """For the log: as it is, as far as it is short and printable."""
    if not payload:
        return "an empty message"
    return f"`{ascii(payload[:SHOWN_BYTES].decode(errors='replace'))[1:-1]}`"
