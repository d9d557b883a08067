"""One TCP session with a cycler: bytes in and out, requests in flight, time-outs.

Requests are pipelined: a stop need not wait for a poll to be answered. Since CTI has no request ids, a feedback that
comes too late looks like the next request's. So a request that times out ends the session, and nothing that the old
session still brings is believed.
"""

import asyncio
import bisect
import itertools
import logging
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from cti_mqtt.client.exchange import Exchange
from cti_mqtt.client.noise import Noise
from cti_mqtt.client.vigilance import notice_a_dead_peer
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
    UnsupportedCommandError,
)

T = TypeVar("T")

FEEDBACK_TIMEOUT_S = 10.0  # Arbin's recommendation

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Flight:
    """An exchange on the wire, when it was last heard of (loop time, s), and what watches its time."""

    exchange: Exchange[Any]
    sent_at: float
    heard_at: float | None = None
    timer: asyncio.TimerHandle = field(init=False)


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
        noise: what came and was of no use.
    """

    def __init__(self, name: str, *, timeout_s: float, policy: ChecksumPolicy, pipelining: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self.pipelining = pipelining
        self.closed: asyncio.Future[CtiMqttError] = self._loop.create_future()
        self.noise = Noise()
        self._name = name
        self._timeout_s = timeout_s
        self._policy = policy
        self._stream = Stream(Direction.FEEDBACK, policy)
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._waiting: list[_Waiting] = []  # sorted
        self._order = itertools.count()
        self._in_flight: defaultdict[int, deque[_Flight]] = defaultdict(deque)
        self._overdue: dict[int, _Flight] = {}  # settled with part of an answer whose rest may still come, by code
        self._checksum_reported = False
        self._complaints: set[type[Event]] = set()

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
        bisect.insort(self._waiting, _Waiting(exchange.priority, next(self._order), exchange, frame))
        self._pump()
        return await exchange.outcome

    def _pump(self) -> None:
        """Hand to the socket what may go now."""
        while self._transport and self._writable and (self.pipelining or not any(self._in_flight.values())):
            waiting = self._take_next()
            if waiting is None:
                return
            self._send(self._transport, waiting)

    def _take_next(self) -> _Waiting | None:
        """The first that may go now, out of the queue."""
        for index, waiting in enumerate(self._waiting):
            exchange = waiting.exchange
            code = exchange.command.feedback.code
            if not (exchange.alone and (self._in_flight[code] or code in self._overdue)):
                return self._waiting.pop(index)
        return None

    def _send(self, transport: asyncio.Transport, waiting: _Waiting) -> None:
        exchange = waiting.exchange
        if exchange.outcome.cancelled():
            return  # the caller has gone
        try:
            exchange.gate()
        except Exception as error:  # noqa: BLE001 - NotSentError; if it is a bug, it belongs to this caller as well
            exchange.fail(error)
            return
        exchange.sent = True
        flight = _Flight(exchange, self._loop.time())
        self._in_flight[exchange.command.feedback.code].append(flight)
        self._watch(flight)
        transport.write(waiting.frame)

    def _watch(self, flight: _Flight) -> None:
        """Look again when its time is over."""
        flight.timer = self._loop.call_at(self._deadline(flight), self._check_time, flight)

    def _deadline(self, flight: _Flight) -> float:
        if flight.heard_at is None:
            return flight.sent_at + self._timeout_s
        return flight.heard_at + min(self._timeout_s, flight.exchange.quiet_s or self._timeout_s)

    def _land(self, flight: _Flight) -> None:
        """Nothing more is expected of it; its timer would keep it, readings and all, until the time-out."""
        self._in_flight[flight.exchange.command.feedback.code].remove(flight)
        flight.timer.cancel()

    def _check_time(self, flight: _Flight) -> None:
        if self._loop.time() < self._deadline(flight):
            self._watch(flight)
            return
        exchange = flight.exchange
        name = exchange.command.request.code.text
        half = f", only part of a message ({self._stream.pending} bytes)" if self._stream.pending else ""
        error = FeedbackTimeoutError(f"{self._name}: no answer to {name} within {self._timeout_s:g} s{half}")
        exchange.run_out(error)
        if exchange.quiet_s and flight.heard_at is not None:
            self._land(flight)
            if exchange.owed:
                self._await_rest(flight)
            self._pump()
        else:
            self.close(error)

    # --- the rest of an answer, late ---

    def _await_rest(self, flight: _Flight) -> None:
        """The rest may come for a while, at most until its time-out: it must not meet the next request."""
        code = flight.exchange.command.feedback.code
        self._overdue[code] = flight
        until = min(flight.sent_at + self._timeout_s, self._loop.time() + flight.exchange.rest_s)
        flight.timer = self._loop.call_at(until, self._end_overdue, code)

    def _end_overdue(self, code: int) -> None:
        self._overdue.pop(code).timer.cancel()
        self._pump()

    def expect_no_rest(self) -> None:
        """What an answer lacks will not come, it is a habit of the cycler: wait for it no longer."""
        for code in list(self._overdue):
            self._end_overdue(code)

    def _take_rest(self, message: Any, checksum: Checksum, code: int) -> bool:
        """Whether this is late, from an answer that was settled without it."""
        flight = self._overdue.get(code)
        if flight is None or not flight.exchange.offer(message, checksum):
            return False
        self.noise.late += 1
        if not flight.exchange.owed:
            self._end_overdue(code)
        return True

    # --- hearing ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        # What is handed over can no longer be overtaken: keep the transport's own buffer empty.
        self._transport.set_write_buffer_limits(high=0)
        notice_a_dead_peer(transport.get_extra_info("socket"), self._timeout_s)

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
                if checksum is not Checksum.GOOD and self._policy is not ChecksumPolicy.IGNORE:
                    self._report_checksum(checksum)
                if isinstance(message, UnknownCommandFeedback):
                    self._reject(message)
                else:
                    self._dispatch(message, checksum)
            case Skipped(size, reason):
                self.noise.skipped(size, reason)
                log.log(self._level(event), "%s: skipped %d bytes: %s", self._name, size, reason)
            case ReceivedUnknown(code):
                self.noise.unknown += 1
                log.log(self._level(event), "%s: ignored a message with the unknown code %#010x", self._name, code)

    def _level(self, event: Event) -> int:
        """How loud to say it: some servers do it with every message, and once a connection is enough."""
        level = logging.DEBUG if type(event) in self._complaints else logging.WARNING
        self._complaints.add(type(event))
        return level

    def _report_checksum(self, checksum: Checksum) -> None:
        if checksum is Checksum.MISPLACED:
            self.noise.misplaced_checksums += 1
        else:
            self.noise.wrong_checksums += 1
        if self._checksum_reported:
            return
        self._checksum_reported = True
        log.warning(
            "%s: %s checksum in the cycler's messages; readings are taken all the same (checksum: warn)",
            self._name,
            checksum.value,
        )

    def _dispatch(self, message: Any, checksum: Checksum) -> None:
        code = BY_CLASS[type(message)][1].code
        if self._take_rest(message, checksum, code):
            return
        for flight in self._in_flight[code]:
            if flight.exchange.offer(message, checksum):
                first, flight.heard_at = flight.heard_at is None, self._loop.time()
                if flight.exchange.finished:
                    self._land(flight)
                elif first and flight.exchange.quiet_s:  # from now on silence ends it sooner
                    flight.timer.cancel()
                    self._watch(flight)
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
                    self._land(flight)
                    return
        log.debug("%s: nobody waits for an answer to the unknown command %s", self._name, code.text)

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
                flight.timer.cancel()
        self._in_flight.clear()
        for flight in self._overdue.values():
            flight.timer.cancel()
        self._overdue.clear()
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
    except (OSError, UnicodeError) as error:  # the latter for a host that no name can be
        why = getattr(error, "strerror", None) or error
        raise NotConnectedError(f"{name}: cannot connect to {host}:{port}: {why}") from error
    return connection
