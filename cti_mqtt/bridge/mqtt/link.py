"""Staying connected to the broker.

paho runs its own network thread; what it reports crosses into asyncio by `call_soon_threadsafe`. A paho client lives
for one connection only, so nothing that it queued for an old one can come back after newer messages.

What happens to messages while the broker is away, or slow, stands in `outbox`.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cti_mqtt.bridge.mqtt.session import Callbacks, Incoming, Session, Subscription, stop, subscribe_options
from cti_mqtt.bridge.outbox import Message, Outbox
from cti_mqtt.client import Backoff
from cti_mqtt.config import Mqtt, missing_files

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
LONGEST_WAIT_S = 30.0  # a broker that comes back is wanted soon
DRAIN_INTERVAL_S = 0.05
FLUSH_CHECK_S = 0.01
PACKET_OVERHEAD = 64  # fixed header, packet id and properties, generously


class MqttLink:
    """Stays connected to the broker while `run` runs.

    Args:
        settings: where the broker is.
        on_message: called in the event loop for everything heard.
        subscriptions: what to hear.
        will: what the broker publishes if this client is gone without a word.
        on_state: called in the event loop with True and a text after connecting, False and the reason after losing it.
        backoff: how long to wait between attempts.
    """

    def __init__(
        self,
        settings: Mqtt,
        on_message: Callable[[Incoming], None],
        *,
        subscriptions: Sequence[Subscription] = (),
        will: Message | None = None,
        on_state: Callable[[bool, str], None] = lambda _connected, _text: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._subscriptions = subscriptions
        self._will = will
        self._on_state = on_state
        self._backoff = backoff or Backoff(longest_s=LONGEST_WAIT_S)
        self._client: Client | None = None
        self._session: Session | None = None
        self._outbox = Outbox(self._is_open, self._hand_over)
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
        handed_over = self._outbox.put(message)
        if not handed_over:
            self._drain_soon()
        return handed_over

    def _is_open(self) -> bool:
        return self._session is not None and self._client is not None and not self._session.congested

    def _hand_over(self, message: Message) -> bool:
        """Give a message to paho; whether nothing is left to do about it."""
        client, session = self._client, self._session
        if client is None or session is None:
            return False
        size = len(message.payload) + len(message.topic.encode()) + len(message.correlation or b"") + PACKET_OVERHEAD
        if session.max_packet and size > session.max_packet:
            self._outbox.dropped += 1
            log.warning(
                "not published: %d bytes on %s are more than the broker takes (%d)",
                len(message.payload),
                message.topic,
                session.max_packet,
            )
            return True
        info = client.publish(
            message.topic, message.payload, message.qos, message.retain, properties=self._properties(message)
        )
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        session.hand_over(info, message)
        return True

    def _properties(self, message: Message) -> Properties | None:
        if not self.protocol_5 or (message.expiry_s is None and message.correlation is None):
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if message.expiry_s is not None:
            properties.MessageExpiryInterval = message.expiry_s
        if message.correlation is not None:
            properties.CorrelationData = message.correlation
        return properties

    def _drain_soon(self) -> None:
        if self._client and not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_later(DRAIN_INTERVAL_S, self._drain)

    def _drain(self) -> None:
        self._draining = False
        self._outbox.drain()
        if len(self._outbox):
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
        while True:
            reason = await self._one_session()
            if reason != self._failure:
                log.warning("MQTT: %s", reason)
                self._on_state(False, reason)  # noqa: FBT003  # the callback's one argument
            self._failure = reason
            await asyncio.sleep(self._backoff.next_s())

    async def _one_session(self) -> str:
        """One connection, from attempt to end; why it ended."""
        loop = asyncio.get_running_loop()
        session = Session(loop.create_future(), loop.create_future(), loop.create_future())
        where = f"{self._settings.host}:{self._settings.port}"
        try:
            client = self._make_client(session)
            await asyncio.to_thread(self._connect, client)
        except (OSError, ssl.SSLError, ValueError) as error:
            return f"cannot connect to the broker at {where}: {error}"
        client.loop_start()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                accepted, text = await session.connected
                if not accepted:
                    return f"the broker at {where} refused the connection: {text}"
                problem = await self._subscribe(client, session)
            if problem:
                return f"the broker at {where} refused a subscription: {problem}"
            self._begin(client, session, where)
            reason = await session.lost
            return f"lost the broker at {where}: {reason}"
        except TimeoutError:
            return f"the broker at {where} did not answer within {CONNECT_TIMEOUT_S:g} s"
        finally:
            self._end(session)
            await asyncio.shield(asyncio.to_thread(stop, client))

    def _make_client(self, session: Session) -> Client:
        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if self.protocol_5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self.protocol_5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else None
            client.username_pw_set(settings.username, password)
        if problems := missing_files(settings):
            raise ValueError("; ".join(problems))
        if settings.tls is not None:
            files = {key: None if value is None else str(value) for key, value in settings.tls}
            client.tls_set(files["ca_file"], files["cert_file"], files["key_file"])
        if self._will:
            client.will_set(self._will.topic, self._will.payload, self._will.qos, self._will.retain)
        Callbacks(session, asyncio.get_running_loop(), self._deliver).install(client)
        return client

    def _connect(self, client: Client) -> None:
        """Blocking; runs in a thread."""
        settings = self._settings
        if not self.protocol_5:
            client.connect(settings.host, settings.port, settings.keepalive_s)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=True, properties=properties)

    async def _subscribe(self, client: Client, session: Session) -> str | None:
        """Ask for all subscriptions; what the broker has against them."""
        if not self._subscriptions:
            return None
        if self.protocol_5:
            client.subscribe([(each.topic, subscribe_options(each)) for each in self._subscriptions])
        else:
            client.subscribe([(each.topic, 1) for each in self._subscriptions])
        return await session.subscribed

    def _begin(self, client: Client, session: Session, where: str) -> None:
        self._client, self._session = client, session
        self._failure = ""
        self._backoff.reset()
        log.info("MQTT: connected to %s", where)
        self._outbox.begin_anew()
        self._outbox.drain()
        self._ready.set()
        self._on_state(True, where)  # noqa: FBT003  # the callback's one argument
        self._drain_soon()
        early, session.early = session.early, None
        for incoming in early or ():
            self._on_message(incoming)

    def _deliver(self, session: Session, incoming: Incoming) -> None:
        if session.early is None:
            self._on_message(incoming)
        else:
            session.early.append(incoming)

    def _end(self, session: Session) -> None:
        self._ready.clear()
        self._client = None
        if self._session is session:
            self._session = None
            self._outbox.take_back(message for info, message in session.pending if not info.is_published())
