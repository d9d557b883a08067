"""One connection to the broker: what paho reports, and how it is brought to an end."""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from cti_mqtt.bridge.mqtt.driver import Driver
from cti_mqtt.bridge.mqtt.reading import ReadingClient
from cti_mqtt.bridge.mqtt.reasons import SESSION_TAKEN_OVER, Refusal
from cti_mqtt.bridge.mqtt.writing import Info
from cti_mqtt.bridge.outbox import Message

log = logging.getLogger(__name__)

MAX_IN_PAHO = 5000  # messages that paho holds; beyond, the rules of `outbox` apply
MAX_BYTES_IN_PAHO = 16 * 1024 * 1024
MOST_IN_PAHO = 2 * MAX_IN_PAHO  # with those for which somebody waits
MAX_EARLY = 5000  # messages that came before we were ready to answer
MAX_EARLY_BYTES = 16 * 1024 * 1024
IN_FLIGHT = 20  # messages that the broker may leave unacknowledged; fewer where it says so
GOODBYE_S = 2.0  # for an orderly end; then the socket is cut
LOST = "the connection to the broker ended"
SUSPECT = "the connection to the broker ended, and of what it had not acknowledged this was the oldest"
PROTOCOL_ERROR = 0x82  # what paho says of bytes that it cannot read
RETAIN_ONLY_LIVE = 2  # retain handling: the broker sends no stored message


Settled = Callable[[str | None], None]
"""Told once what became of a message: None: the broker has it; else why it has not."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """Something that was heard."""

    topic: str
    payload: bytes
    retain: bool
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to hear.

    Attributes:
        commands: no stored messages, not our own, and the retain flag as it was published (MQTT 5 only).
    """

    topic: str
    commands: bool = False


@dataclass(slots=True)
class Session:
    """One connection to the broker.

    Attributes:
        lost: why it ended.
        refusal: the reason that the broker gave when it did not accept or ended it.
        unreadable: whether something came that paho could not read: then broker and network are well.
        lasted_s: from being accepted on, once it is over.
        answers: who waits for the broker's answer to which subscription; called with what it has against it, or None.
        clearing: topics that the broker was asked to clear and has not yet, by the message's number.
        pending: what the broker has not acknowledged, with what is acknowledged behind that; QoS 1.
        unwritten: what the socket has not taken, with its size; QoS 0. By itself, for it waits for no acknowledgement.
        offered: who is told what became of which message; called with None when the broker has it, else with why not.
        early: what came before we were ready to answer: a stored message may be here before its subscription's answer.
    """

    connected: asyncio.Future[tuple[bool, str]]
    lost: asyncio.Future[str]
    subscribed: asyncio.Future[str | None]
    refusal: Refusal | None = None
    unreadable: bool = False
    lasted_s: float = 0.0
    answers: dict[int, Callable[[str | None], None]] = field(default_factory=dict)
    max_packet: int | None = None
    clearing: dict[int, str] = field(default_factory=dict)
    pending: deque[tuple[Info, Message]] = field(default_factory=deque)
    unwritten: deque[tuple[Info, int]] = field(default_factory=deque)
    pending_bytes: int = 0
    unwritten_bytes: int = 0
    offered: dict[int, Settled] = field(default_factory=dict)
    early: list[Incoming] | None = field(default_factory=list)
    early_bytes: int = 0
    driver: Driver | None = None

    @property
    def taken(self) -> bool:
        """Whether it ended because another client took its place."""
        return self.refusal is not None and self.refusal.code == SESSION_TAKEN_OVER

    def keep_early(self, incoming: Incoming) -> bool:
        """Keep a message until we are ready; whether there was room."""
        if self.early is None or len(self.early) >= MAX_EARLY or self.early_bytes >= MAX_EARLY_BYTES:
            return False
        self.early.append(incoming)
        self.early_bytes += len(incoming.payload)
        return True

    def in_order(self, message: Message) -> Message:
        """The message as it may be sent: at QoS 0 it would overtake the clearing of its topic, and be cleared then."""
        if not message.qos and self.clearing and message.topic in self.clearing.values():
            return message._replace(qos=1)
        return message

    def hand_over(self, info: Info, message: Message) -> None:
        """Remember that paho has it."""
        size = len(message.payload)
        if message.qos:
            if message.retain and not size:
                self.clearing[info.mid] = message.topic
            self.pending.append((info, message))
            self.pending_bytes += size
        else:
            self.unwritten.append((info, size))
            self.unwritten_bytes += size

    def settle_offer(self, mid: int, problem: str | None) -> None:
        """The broker has answered a message; somebody may want to hear about it."""
        self.clearing.pop(mid, None)
        if settled := self.offered.pop(mid, None):
            tell(settled, problem)

    def give_back(self) -> None:
        """No more acknowledgements will come. The oldest may be why: whoever offers it again should count that."""
        oldest = next((info.mid for info, message in self.pending if message.qos and not info.is_published()), None)
        offered, self.offered = self.offered, {}
        for mid, settled in offered.items():
            tell(settled, SUSPECT if mid == oldest else LOST)

    def unacknowledged(self, mid: int) -> Message | None:
        """The message that was sent under this number."""
        return next((each for info, each in self.pending if info.mid == mid and not info.is_published()), None)

    def answer(self, mid: int, problem: str | None) -> None:
        """The broker answered a subscription."""
        if told := self.answers.pop(mid, None):
            told(problem)

    def stumble(self, reason: str) -> None:
        """We could not go on with it, though the broker could: it is over."""
        self.unreadable = True
        self.end(reason)

    def end(self, reason: str) -> None:
        """It is over: whoever waits for something need not."""
        settle(self.lost, reason)
        settle(self.subscribed, reason)
        settle(self.connected, (False, f"{reason} (does it speak the MQTT version of mqtt.protocol?)"))

    def in_paho(self) -> int:
        """How many messages paho still holds."""
        while self.pending and self.pending[0][0].is_published():
            self.pending_bytes -= len(self.pending.popleft()[1].payload)
        while self.unwritten and self.unwritten[0][0].is_published():
            self.unwritten_bytes -= self.unwritten.popleft()[1]
        return len(self.pending) + len(self.unwritten)

    def has_room(self, message: Message) -> bool:
        """Whether paho holds less than enough; there is more room for what somebody waits for.

        What is of QoS 0 takes none of the room of what must arrive: states of many channels would keep readings from
        going out live, though these are few.
        """
        more = MOST_IN_PAHO // MAX_IN_PAHO if message.urgent else 1
        in_paho = self.in_paho()
        held, size = len(self.pending), self.pending_bytes
        if not message.qos:
            held, size = in_paho, size + self.unwritten_bytes
        return held < more * MAX_IN_PAHO and size < more * MAX_BYTES_IN_PAHO


def subscribe_options(subscription: Subscription) -> SubscribeOptions:
    """What to ask the broker for (MQTT 5)."""
    if not subscription.commands:
        return SubscribeOptions(qos=1)
    return SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True, retainHandling=RETAIN_ONLY_LIVE)


async def part(client: ReadingClient, driver: Driver) -> None:
    """Say goodbye and close, also when the broker no longer reads; the client is of no use any more."""
    sock = client.socket()
    client.disconnect()
    driver.write()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            await driver.closed.wait()
    if not driver.closed.is_set():
        cut(sock)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await driver.closed.wait()
    client.let_go()


def cut(sock: Any) -> None:
    """End a connection without a word."""
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class Callbacks:
    """What paho calls, from `Driver`, so in the event loop. Inside a callback paho writes nothing to its socket."""

    def __init__(
        self,
        client: ReadingClient,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[Session, Incoming], None],
        refused: Callable[[Message, Refusal], None],
    ) -> None:
        self._client = client
        self._session = session
        self._loop = loop
        self._deliver = deliver
        self._refused = refused

    def install(self) -> None:
        """Make the client call these."""
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_acknowledged = self._on_publish

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon(function, *arguments)

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._session.max_packet = getattr(properties, "MaximumPacketSize", None)
        at_once = getattr(properties, "ReceiveMaximum", IN_FLIGHT)
        self._client.limit_in_flight(min(at_once, IN_FLIGHT))
        if not reason.is_failure:
            self._call(settle, self._session.connected, (True, ""))
            return
        self._session.refusal = _refusal(reason, properties)
        self._call(settle, self._session.connected, (False, self._session.refusal.text))

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        session = self._session
        if flags.is_disconnect_packet_from_server:
            session.refusal = _refusal(reason, properties)
            self._call(session.end, session.refusal.text)
            return
        session.unreadable = reason.value == PROTOCOL_ERROR
        self._call(session.end, "the connection broke" if str(reason) == "Unspecified error" else str(reason))

    def _on_subscribe(
        self, client: Client, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        refused = next((_refusal(reason, properties) for reason in reasons if reason.is_failure), None)
        if refused:
            self._session.refusal = refused
        self._call(self._session.answer, mid, refused.text if refused else None)

    def _on_publish(
        self, client: Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        session = self._session
        if reason.is_failure and mid not in session.offered and (message := session.unacknowledged(mid)):
            self._refused(message, _refusal(reason, properties))
        session.settle_offer(mid, str(reason) if reason.is_failure else None)

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("MQTT: ignored a message whose topic is not UTF-8")
            return
        properties = message.properties
        incoming = Incoming(
            topic,
            self._client.payload_of(bytes(message.payload)),
            bool(message.retain),
            getattr(properties, "ResponseTopic", None),
            getattr(properties, "CorrelationData", None),
            getattr(properties, "MessageExpiryInterval", None),
        )
        # At once: what is done about it begins before its receipt is acknowledged.
        guarded(partial(self._deliver, self._session), incoming)


def _refusal(reason: ReasonCode, properties: Properties | None) -> Refusal:
    reference, remark = (getattr(properties, name, None) for name in ("ServerReference", "ReasonString"))
    return Refusal(reason.value, str(reason), reference, remark)


def tell(settled: Settled, problem: str | None) -> None:
    """Say what became of a message; paho must not stumble over a bug of whoever is told."""
    try:
        settled(problem)
    except Exception:
        log.exception("MQTT: what follows from a message that was sent")


def guarded(deliver: Callable[[Incoming], None], incoming: Incoming) -> None:
    """Deliver a message; neither paho nor the next message must stumble over our bug."""
    try:
        deliver(incoming)
    except Exception:
        log.exception("MQTT: a message on %s", incoming.topic)


def settle(future: asyncio.Future[Any], value: object) -> None:
    """Give a future its value, unless it has one."""
    if not future.done():
        future.set_result(value)
