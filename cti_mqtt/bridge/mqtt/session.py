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

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from cti_mqtt.bridge.mqtt.driver import Driver
from cti_mqtt.bridge.mqtt.reading import ReadingClient
from cti_mqtt.bridge.outbox import Message

log = logging.getLogger(__name__)

MAX_IN_PAHO = 5000  # messages that paho holds; beyond, the rules above apply
MAX_BYTES_IN_PAHO = 16 * 1024 * 1024
GOODBYE_S = 2.0  # for an orderly end; then the socket is cut
SESSION_TAKEN_OVER = 0x8E  # why a broker ends a connection: another client came with the same client id (MQTT 5)
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
        goodbye: whether the broker gave a reason when it ended it (MQTT 5).
        taken: whether that was that another client took its place.
        unreadable: whether something came that paho could not read: then broker and network are well.
        lasted_s: from being accepted on, once it is over.
        answers: who waits for the broker's answer to which subscription; called with what it has against it, or None.
        offered: who is told what became of which message; called with None when the broker has it, else with why not.
        early: what came before we were ready to answer: a stored message may be here before its subscription's answer.
    """

    connected: asyncio.Future[tuple[bool, str]]
    lost: asyncio.Future[str]
    subscribed: asyncio.Future[str | None]
    goodbye: bool = False
    taken: bool = False
    unreadable: bool = False
    lasted_s: float = 0.0
    answers: dict[int, Callable[[str | None], None]] = field(default_factory=dict)
    max_packet: int | None = None
    pending: deque[tuple[MQTTMessageInfo, Message]] = field(default_factory=deque)
    pending_bytes: int = 0
    offered: dict[int, Settled] = field(default_factory=dict)
    early: list[Incoming] | None = field(default_factory=list)
    driver: Driver | None = None

    def hand_over(self, info: MQTTMessageInfo, message: Message) -> None:
        """Remember that paho has it."""
        self.pending.append((info, message))
        self.pending_bytes += len(message.payload)

    def settle_offer(self, mid: int, problem: str | None) -> None:
        """What became of a message that somebody wants to hear about."""
        if told := self.offered.pop(mid, None):
            told(problem)

    def give_back(self, reason: str) -> None:
        """No more acknowledgements will come."""
        offered, self.offered = self.offered, {}
        for told in offered.values():
            told(reason)

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
        return len(self.pending)

    @property
    def congested(self) -> bool:
        """Whether paho holds enough."""
        return self.in_paho() >= MAX_IN_PAHO or self.pending_bytes >= MAX_BYTES_IN_PAHO


def subscribe_options(subscription: Subscription) -> SubscribeOptions:
    """What to ask the broker for (MQTT 5)."""
    if not subscription.commands:
        return SubscribeOptions(qos=1)
    return SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True, retainHandling=RETAIN_ONLY_LIVE)


async def part(client: Client, driver: Driver) -> None:
    """Say goodbye and close, also when the broker no longer reads."""
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
    ) -> None:
        self._client = client
        self._session = session
        self._loop = loop
        self._deliver = deliver

    def install(self) -> None:
        """Make the client call these."""
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon(function, *arguments)

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._session.max_packet = getattr(properties, "MaximumPacketSize", None)
        self._call(settle, self._session.connected, (not reason.is_failure, str(reason)))

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        text = "the connection broke" if str(reason) == "Unspecified error" else str(reason)
        self._session.goodbye = flags.is_disconnect_packet_from_server
        self._session.unreadable = not self._session.goodbye and reason.value == PROTOCOL_ERROR
        self._session.taken = self._session.goodbye and reason.value == SESSION_TAKEN_OVER
        self._call(self._session.end, text)

    def _on_subscribe(
        self, client: Client, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        refused = next((str(reason) for reason in reasons if reason.is_failure), None)
        self._call(self._session.answer, mid, refused)

    def _on_publish(
        self, client: Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._session.settle_offer(mid, str(reason) if reason.is_failure else None)

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
