"""Staying connected to the broker.

A paho client lives for one connection only, so nothing that it queued for an old one comes back after newer messages.

What happens to messages while the broker is away, or slow, stands in `outbox`.
"""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from functools import partial

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from cti_mqtt.backoff import Backoff
from cti_mqtt.bridge.mqtt.driver import Driver
from cti_mqtt.bridge.mqtt.outgoing import connect, make_client, packet_size, publish
from cti_mqtt.bridge.mqtt.reading import ReadingClient
from cti_mqtt.bridge.mqtt.reasons import Refusal
from cti_mqtt.bridge.mqtt.session import (
    Callbacks,
    Incoming,
    Session,
    Settled,
    Subscription,
    guarded,
    part,
    settle,
    subscribe_options,
    tell,
)
from cti_mqtt.bridge.mqtt.takeover import SHORT_LIFE_S, Takeovers
from cti_mqtt.bridge.mqtt.troubles import Troubles
from cti_mqtt.bridge.outbox import Message, Outbox
from cti_mqtt.config import Mqtt

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
LONGEST_WAIT_S = 30.0  # a broker that comes back is wanted soon
TAKEN_WAIT_S = (20.0, 40.0)  # at least and at most, where another client has our client id: no use to fight for it
PATIENT_WAIT_S = (30.0, 60.0)  # the same, where the broker has too much to do, or sends us away
LASTED_S = 1.0  # a connection that did, and ended for what we could not read, is wanted again at once
DRAIN_INTERVAL_S = 0.05
FLUSH_CHECK_S = 0.01
NO_ANSWER = f"it did not answer a subscription within {CONNECT_TIMEOUT_S:g} s"
TOO_LARGE = "Packet too large"  # as MQTT 5 calls it


class MqttLink:
    """Stays connected to the broker while `run` runs.

    Args:
        settings: where the broker is.
        on_message: called in the event loop for everything heard.
        subscriptions: what to hear.
        commands: what to hear besides while `hear_commands` is switched on; at first it is not.
        will: what the broker publishes if this client is gone without a word.
        on_state: called in the event loop with True and a text after connecting, False and the reason after losing it.
        on_commands: called in the event loop when the broker has confirmed the subscriptions to `commands`; after a
            reconnection behind `on_state`.
        on_taken: called in the event loop with a text when another client took the place of this one, or seems to.
        on_fault: called in the event loop with the type of an event and its message: what the broker refused, why it
            ended a connection, what was dropped; the same fault not more than once a minute.
        on_retained: called with the topic of each retained message, before it is published; not for empty ones.
        backoff: how long to wait between attempts.
        taken_wait_s: how long to wait, at least and at most, after another client took the place of this one.
        patient_wait_s: the same after the broker was too busy for us, or sent us away.
    """

    def __init__(
        self,
        settings: Mqtt,
        on_message: Callable[[Incoming], None],
        *,
        subscriptions: Sequence[Subscription] = (),
        commands: Sequence[Subscription] = (),
        will: Message | None = None,
        on_state: Callable[[bool, str], None] = lambda _connected, _text: None,
        on_commands: Callable[[], None] = lambda: None,
        on_taken: Callable[[str], None] = lambda _text: None,
        on_fault: Callable[[str, str], None] = lambda _kind, _text: None,
        on_retained: Callable[[str], None] = lambda _topic: None,
        backoff: Backoff | None = None,
        taken_wait_s: tuple[float, float] = TAKEN_WAIT_S,
        patient_wait_s: tuple[float, float] = PATIENT_WAIT_S,
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._subscriptions = subscriptions
        self._commands = commands
        self._hears_commands = False
        self._will = will
        self._on_state = on_state
        self._on_commands = on_commands
        self._on_taken = on_taken
        self._backoff = backoff or Backoff(longest_s=LONGEST_WAIT_S)
        self._on_retained = on_retained
        self._taken_wait_s = taken_wait_s
        self._patient_wait_s = patient_wait_s
        self._troubles = Troubles(on_fault)
        self._takeovers = Takeovers()
        self._client: ReadingClient | None = None
        self._session: Session | None = None
        self._outbox = Outbox(self._is_open, self._hand_over, on_drop=self._troubles.dropped)
        self._draining = False
        self._ready = asyncio.Event()
        self._failure = ""

    @property
    def protocol_5(self) -> bool:
        """Whether MQTT 5 is spoken, else 3.1.1."""
        return self._settings.protocol == 5

    @property
    def connected(self) -> bool:
        """Whether the broker is there and the subscriptions stand."""
        return self._ready.is_set()

    async def wait_connected(self) -> None:
        """Wait until `connected`."""
        await self._ready.wait()

    @property
    def failure(self) -> str:
        """Why there is no connection; empty while there is one."""
        return self._failure

    @property
    def faults(self) -> list[str]:
        """What went wrong between us and the broker a short while ago, though there may be a connection."""
        return self._troubles.standing

    @property
    def queue(self) -> int:
        """Messages that the broker has not got yet."""
        return len(self._outbox) + (self._session.in_paho() if self._session else 0)

    @property
    def dropped(self) -> int:
        """Messages that were given up."""
        return self._outbox.dropped

    @property
    def max_packet(self) -> int | None:
        """The largest packet that the broker takes, if it said so."""
        return self._session.max_packet if self._session else None

    # --- publishing ---

    def publish(self, message: Message) -> bool:
        """Publish, now or as soon as possible; whether it was now."""
        if message.retain and message.payload:
            self._on_retained(message.topic)
        handed_over = self._outbox.put(message)
        if not handed_over:
            self._drain_soon()
        return handed_over

    def offer(self, message: Message, settled: Settled) -> bool:
        """Publish now or not at all; whether it was handed over.

        Args:
            message: of QoS 1, not retained; what becomes of it if not is the caller's business.
            settled: called once, if it was handed over; with `SUSPECT` where the message may be why the connection was
                lost, so that the caller can give it up after some of these.
        """
        message = message._replace(keep=False)
        return self._is_open(message) and self._hand_over(message, settled)

    def retract(self, topic: str, settled: Settled) -> bool:
        """Clear a retained topic now or not at all, and publish it no more; whether that was handed over.

        Not while the last message of that topic still waits: what it says is to be seen first.
        """
        clear = Message(topic, b"", retain=True, keep=False)
        if self._outbox.waits(topic) or not self._is_open(clear):
            return False
        self._outbox.forget(topic)
        return self._hand_over(clear, settled)

    def forget(self, topic: str) -> None:
        """Publish a retained topic no more, and leave at the broker what is there."""
        self._outbox.forget(topic)

    def _is_open(self, message: Message) -> bool:
        session = self._session
        return session is not None and self._client is not None and session.has_room(message)

    def _hand_over(self, message: Message, settled: Settled | None = None) -> bool:
        """Give a message to paho; whether nothing is left to do about it."""
        client, session = self._client, self._session
        if client is None or session is None:
            return False
        if session.max_packet and packet_size(message) > session.max_packet:
            self._too_large(message, session.max_packet, settled)
            return True
        message = session.in_order(message)
        info = publish(client, message, protocol_5=self.protocol_5)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        session.hand_over(info, message)
        if settled is not None:
            session.offered[info.mid] = settled
        if message.urgent and session.driver:
            session.driver.write()
        return True

    def _too_large(self, message: Message, most: int, settled: Settled | None) -> None:
        if settled is not None:
            tell(settled, TOO_LARGE)
        else:
            self._outbox.dropped += 1
            self._troubles.too_large(message, most)

    def _refused(self, message: Message, refusal: Refusal) -> None:
        self._outbox.dropped += 1
        self._troubles.refused(message, refusal)

    def _drain_soon(self) -> None:
        if self._client and not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_later(DRAIN_INTERVAL_S, self._drain)

    def _drain(self) -> None:
        self._draining = False
        if self._outbox.drain():
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain)
        elif len(self._outbox):
            self._drain_soon()

    async def flush(self, timeout_s: float) -> None:
        """Wait until the broker has got everything, `timeout_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._client and self.queue:  # noqa: ASYNC110  # paho's queue has no event to wait for
                    await asyncio.sleep(FLUSH_CHECK_S)

    # --- the connection ---

    async def run(self) -> None:
        """Stay connected until cancelled; then part from the broker in order."""
        loop = asyncio.get_running_loop()
        while True:
            session = Session(loop.create_future(), loop.create_future(), loop.create_future())
            reason = await self._one_session(session)
            self._troubles.lost(session, reason, news=reason != self._failure)
            if reason != self._failure:
                self._on_state(False, reason)  # noqa: FBT003  # the callback's one argument
            self._failure = reason
            await asyncio.sleep(self._wait_s(session))

    def _wait_s(self, session: Session) -> float:
        if session.taken:
            return random.uniform(*self._taken_wait_s)  # noqa: S311  # jitter, no secret
        if session.refusal and session.refusal.patient:
            return random.uniform(*self._patient_wait_s)  # noqa: S311  # and so here
        if session.unreadable and session.lasted_s >= LASTED_S:
            return 0.0
        return self._backoff.next_s()

    async def _one_session(self, session: Session) -> str:
        """One connection, from attempt to end; why it ended."""
        where = f"{self._settings.host}:{self._settings.port}"
        try:
            client = self._make_client(session)
            driver = session.driver = Driver(client, session.stumble)
            await asyncio.to_thread(connect, client, self._settings)
        except (OSError, ssl.SSLError, ValueError) as error:
            self._takeovers.not_accepted()
            return f"cannot connect to the broker at {where}: {error}"
        driver.start()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                accepted, text = await session.connected
            if not accepted:
                self._takeovers.not_accepted()
                return f"the broker at {where} refused the connection: {text}"
            return await self._accepted_session(client, session, where)
        except TimeoutError:
            self._takeovers.not_accepted()
            return f"the broker at {where} did not answer within {CONNECT_TIMEOUT_S:g} s"
        finally:
            self._end(session)
            await asyncio.shield(part(client, driver))

    async def _accepted_session(self, client: ReadingClient, session: Session, where: str) -> str:
        """A connection that the broker accepted, to its end; why it ended."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            heard_commands = self._hears_commands
            problem = await self._subscribe(client, session)
        if problem and not session.lost.done():
            return f"the broker at {where} refused a subscription: {problem}"
        if not session.lost.done():
            self._begin(client, session, where, heard_commands=heard_commands)
        reason = await session.lost
        session.lasted_s = loop.time() - began
        self._judge(session)
        sent_away = session.refusal is not None and session.lasted_s < SHORT_LIFE_S
        if not self._takeovers.suspected and not sent_away:
            self._backoff.reset()
        return f"lost the broker at {where}: {reason}"

    def _judge(self, session: Session) -> None:
        """Whether another client has our client id; what we could not read ourselves says nothing about that."""
        if session.unreadable:
            return
        if text := self._takeovers.ended(session.lasted_s, taken=session.taken, goodbye=session.refusal is not None):
            log.error("MQTT: %s", text)
            self._on_taken(text)

    def _make_client(self, session: Session) -> ReadingClient:
        client = make_client(
            self._settings, self._will, hears_commands=bool(self._commands), timeout_s=CONNECT_TIMEOUT_S
        )
        Callbacks(client, session, asyncio.get_running_loop(), self._deliver, self._refused).install()
        return client

    async def _subscribe(self, client: Client, session: Session) -> str | None:
        """Ask for all subscriptions that are wanted; what the broker has against them."""
        wanted = [*self._subscriptions, *(self._commands if self._hears_commands else ())]
        if not wanted:
            return None
        self._ask(client, session, wanted, partial(settle, session.subscribed))
        return await session.subscribed

    def _ask(
        self, client: Client, session: Session, wanted: Sequence[Subscription], answered: Callable[[str | None], None]
    ) -> None:
        if self.protocol_5:
            _, mid = client.subscribe([(each.topic, subscribe_options(each)) for each in wanted])
        else:
            _, mid = client.subscribe([(each.topic, 1) for each in wanted])
        if mid is not None:  # None: the connection is gone already, and the next one asks again
            session.answers[mid] = answered

    def hear_commands(self, on: bool) -> None:  # noqa: FBT001  # a switch
        """Switch the subscriptions to `commands` on or off, now and for the connections to come."""
        if on != self._hears_commands:
            self._hears_commands = on
            if self._client and self._session:
                self._switch_commands(self._client, self._session)

    def _switch_commands(self, client: Client, session: Session) -> None:
        if self._hears_commands:
            late = asyncio.get_running_loop().call_later(CONNECT_TIMEOUT_S, settle, session.lost, NO_ANSWER)
            self._ask(client, session, self._commands, partial(self._commands_answered, session, late))
        else:
            client.unsubscribe([each.topic for each in self._commands])

    def _commands_answered(self, session: Session, late: asyncio.TimerHandle, problem: str | None) -> None:
        """The broker's answer while connected; without commands the connection is worth nothing."""
        late.cancel()
        if problem:
            settle(session.lost, f"it refused a subscription: {problem}")
        elif self._hears_commands and session is self._session:
            self._on_commands()

    def _begin(self, client: ReadingClient, session: Session, where: str, *, heard_commands: bool) -> None:
        self._client, self._session = client, session
        if heard_commands != self._hears_commands:  # switched while it connected
            self._switch_commands(client, session)
        self._failure = ""
        log.info("MQTT: connected to %s", where)
        self._outbox.begin_anew()
        self._outbox.drain()
        self._ready.set()
        self._on_state(True, where)  # noqa: FBT003  # the callback's one argument
        if heard_commands and self._hears_commands:
            self._on_commands()
        self._drain_soon()
        early, session.early = session.early, None
        for incoming in early or ():
            guarded(self._on_message, incoming)

    def _deliver(self, session: Session, incoming: Incoming) -> None:
        if session.early is None:
            self._on_message(incoming)
        elif not session.keep_early(incoming):
            self._troubles.unheard(incoming.topic)

    def _end(self, session: Session) -> None:
        self._ready.clear()
        self._client = None
        if self._session is session:
            self._session = None
            session.give_back()
            self._outbox.take_back(message for info, message in session.pending if not info.is_published())
