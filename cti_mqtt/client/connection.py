"""One TCP session with a cycler: bytes in and out, requests in flight, time-outs.

Requests are pipelined: a stop need not wait for a poll to be answered. Since CTI has no request ids, a feedback that
comes too late looks like the next request's. So a request that times out ends the session, and nothing that the old
session still brings is believed.
"""

import asyncio
import heapq
import itertools
import logging
import socket
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from cti_mqtt.client.exchange import Exchange
from cti_mqtt.cti.codes import CommandCode
from cti_mqtt.cti.commands import BY_CLASS
from cti_mqtt.cti.frame import Direction
from cti_mqtt.cti.messages.service import UnknownCommandFeedback
from cti_mqtt.cti.stream import (
    Checksum,
    ChecksumPolicy,
    Event,
    Received,
    ReceivedUnknown,
    Skipped,
    Stream,
    pack_message,
)
from cti_mqtt.errors import (
    ConnectionLostError,
    CtiMqttError,
    FeedbackTimeoutError,
    NotConnectedError,
    NotSentError,
    UnsupportedCommandError,
)

T = TypeVar("T")

FEEDBACK_TIMEOUT_S = 10.0  # Arbin's recommendation
QUIET_S = 2.0  # silence after part of the readings that means: no more of them are coming

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Flight:
    """An exchange on the wire, and when it was last heard of (loop time, s)."""

    exchange: Exchange[Any]
    sent_at: float
    heard_at: float | None = None


@dataclass(slots=True, order=True)
class _Waiting:
    """An exchange that waits for its turn; urgent ones first, then in order."""

    priority: int
    number: int
    exchange: Exchange[Any] = field(compare=False)
    frame: bytes = field(compare=False)


class Connection(asyncio.Protocol):
    """A TCP session; made by `open_connection`.

    Args:
        name: how the log calls the cycler.
        timeout_s: how long a request may stay without any answer.
        policy: what to do with feedbacks whose checksum does not match.
        pipelining: whether several requests may be in flight.

    Attributes:
        pipelining: may be switched off while the session runs.
        closed: done when the session has ended, with the reason.
    """

    def __init__(self, name: str, *, timeout_s: float, policy: ChecksumPolicy, pipelining: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self.pipelining = pipelining
        self.closed: asyncio.Future[CtiMqttError] = self._loop.create_future()
        self._name = name
        self._timeout_s = timeout_s
        self._policy = policy
        self._stream = Stream(Direction.FEEDBACK, policy)
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._waiting: list[_Waiting] = []
        self._order = itertools.count()
        self._in_flight: defaultdict[int, deque[_Flight]] = defaultdict(deque)
        self._checksum_reported = False

    # --- asking ---

    async def ask(self, exchange: Exchange[T]) -> T:
        """Send a request when it is its turn, and wait for its answer.

        Raises:
            InvalidRequestError: it cannot be expressed; nothing was sent.
            NotSentError: the session ended before it was sent, or its gate was closed.
            UnsupportedCommandError: the cycler does not know the command.
            OutcomeUnknownError: it was sent and no sound answer came; it may have been carried out.
        """
        frame = pack_message(exchange.request)
        if self.closed.done():
            raise NotConnectedError(f"{self._name}: {self.closed.result()}")
        heapq.heappush(self._waiting, _Waiting(exchange.priority, next(self._order), exchange, frame))
        self._pump()
        return await exchange.outcome

    def _pump(self) -> None:
        """Hand to the socket what may go now."""
        while self._waiting and self._writable and (self.pipelining or not any(self._in_flight.values())):
            waiting = heapq.heappop(self._waiting)
            exchange = waiting.exchange
            if self._transport is None or exchange.outcome.cancelled():
                continue  # the caller has gone
            try:
                exchange.gate()
            except NotSentError as error:
                exchange.fail(error)
                continue
            exchange.sent = True
            flight = _Flight(exchange, self._loop.time())
            self._in_flight[exchange.command.feedback.code].append(flight)
            self._loop.call_later(self._timeout_s, self._check_time, flight)
            self._transport.write(waiting.frame)

    def _check_time(self, flight: _Flight) -> None:
        exchange = flight.exchange
        if exchange.finished:
            return
        if flight.heard_at is None:
            deadline = flight.sent_at + self._timeout_s
        else:
            deadline = flight.heard_at + (min(QUIET_S, self._timeout_s) if exchange.partial else self._timeout_s)
        if self._loop.time() < deadline:
            self._loop.call_at(deadline, self._check_time, flight)
            return
        name = exchange.command.request.code.text
        error = FeedbackTimeoutError(f"{self._name}: no answer to {name} within {self._timeout_s:g} s")
        if exchange.partial and flight.heard_at is not None:
            exchange.run_out(error)
            self._in_flight[exchange.command.feedback.code].remove(flight)
            self._pump()
        else:
            exchange.run_out(error)
            self.close(error)

    # --- hearing ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        # What is handed over can no longer be overtaken: keep the transport's own buffer empty.
        self._transport.set_write_buffer_limits(high=0)
        peer: socket.socket = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def pause_writing(self) -> None:
        """Called by asyncio: the socket takes no more."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by asyncio: the socket takes more."""
        self._writable = True
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        for event in self._stream.feed(data):
            self._handle(event)
        self._pump()

    def _handle(self, event: Event) -> None:
        match event:
            case Received(message, checksum):
                if checksum is not Checksum.GOOD:
                    self._report_checksum(checksum)
                if isinstance(message, UnknownCommandFeedback):
                    self._reject(message)
                else:
                    self._dispatch(message, checksum)
            case Skipped(size, reason):
                log.warning("%s: skipped %d bytes: %s", self._name, size, reason)
            case ReceivedUnknown(code):
                log.warning("%s: ignored a message with the unknown code %#010x", self._name, code)

    def _report_checksum(self, checksum: Checksum) -> None:
        if self._checksum_reported or self._policy is ChecksumPolicy.IGNORE:
            return
        self._checksum_reported = True
        log.warning(
            "%s: %s checksum in the cycler's messages; taking them all the same (checksum: warn)",
            self._name,
            checksum.value,
        )

    def _dispatch(self, message: Any, checksum: Checksum) -> None:
        flights = self._in_flight[BY_CLASS[type(message)][1].code]
        for flight in flights:
            if flight.exchange.offer(message, checksum):
                if flight.exchange.finished:
                    flights.remove(flight)
                elif flight.heard_at is None and flight.exchange.partial:
                    self._loop.call_later(min(QUIET_S, self._timeout_s), self._check_time, flight)
                flight.heard_at = self._loop.time()
                return
        # A server that answers "all" although one channel was asked sends more readings than anybody waits for.
        log.debug("%s: nobody waits for %s", self._name, type(message).__name__)

    def _reject(self, message: UnknownCommandFeedback) -> None:
        code = CommandCode(message.command)
        for flights in self._in_flight.values():
            for flight in flights:
                if flight.exchange.command.request.code == code:
                    flight.exchange.fail(
                        UnsupportedCommandError(f"{self._name}: the cycler does not know the command {code.text}")
                    )
                    flights.remove(flight)
                    return

    # --- ending ---

    def close(self, reason: CtiMqttError) -> None:
        """End the session now: nothing that it still brings is believed."""
        if self.closed.done():
            return
        self.closed.set_result(reason)
        if self._transport:
            self._transport.abort()
        lost = ConnectionLostError(f"{self._name}: the connection ended before the answer came: {reason}")
        for flights in self._in_flight.values():
            for flight in flights:
                flight.exchange.run_out(lost)
        self._in_flight.clear()
        for waiting in self._waiting:
            waiting.exchange.fail(NotConnectedError(f"{self._name}: {reason}"))
        self._waiting.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        rest = f" in the middle of a message ({self._stream.pending} bytes)" if self._stream.pending else ""
        self.close(ConnectionLostError(f"the cycler closed the connection{rest}" + (f": {exc}" if exc else "")))


async def open_connection(
    host: str,
    port: int,
    *,
    name: str,
    timeout_s: float = FEEDBACK_TIMEOUT_S,
    policy: ChecksumPolicy = ChecksumPolicy.WARN,
    pipelining: bool = True,
) -> Connection:
    """A TCP session, not logged in yet; the caller closes it.

    Raises:
        NotConnectedError: nobody answers there.
    """

    def make() -> Connection:
        return Connection(name, timeout_s=timeout_s, policy=policy, pipelining=pipelining)

    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await asyncio.get_running_loop().create_connection(make, host, port)
    except TimeoutError as error:
        raise NotConnectedError(f"{name}: no answer from {host}:{port} within {timeout_s:g} s") from error
    except OSError as error:
        raise NotConnectedError(f"{name}: cannot connect to {host}:{port}: {error.strerror or error}") from error
    return connection
