"""A small HTTP port: GET and HEAD of a few pages, each answer made at once.

It runs in one thread with an event loop of its own, so it answers while the bridge's loop hangs, and needs neither a
thread a request nor trust in how fast a client is: an exchange has a time, a request a size, and clients a number.
"""

import asyncio
import logging
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

from cti_mqtt.config import Http

log = logging.getLogger(__name__)

EXCHANGE_S = 5.0  # from the connection to the last byte of the answer
LONGEST_REQUEST = 8192  # bytes, of line and headers
MOST_CLIENTS = 16  # at once
AGAIN_S = 10.0  # until a port that could not be had is tried again
STOP_S = 2.0
METHODS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)

    def encode(self, *, with_body: bool = True) -> bytes:
        """The bytes; after them the connection ends."""
        fields = {
            "Date": formatdate(usegmt=True),
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{k}: {v}" for k, v in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (self.body if with_body else b"")


Page = Callable[[str], Answer]
"""Makes an answer, given the request's `Accept`; called in the port's thread."""


def plain(status: HTTPStatus, text: str, **headers: str) -> Answer:
    """An answer for a person."""
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


def respond(head: bytes, pages: Mapping[str, Page]) -> bytes:
    """The answer to a request.

    Args:
        head: the request up to the empty line; a body is not looked at.
        pages: what there is, by path.
    """
    line, *rest = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):  # method, target, version
        return plain(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1").encode()
    method, target, _ = words
    if method not in METHODS:
        return plain(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD", Allow=", ".join(METHODS)).encode()
    page = pages.get(target.partition("?")[0])
    if page is None:
        answer = plain(HTTPStatus.NOT_FOUND, f"there is {' and '.join(pages)}")
    else:
        headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
        try:
            answer = page(headers.get("accept", ""))
        except Exception:  # a bug in one page is that page's
            log.exception("HTTP: %s", target.partition("?")[0])
            answer = plain(HTTPStatus.INTERNAL_SERVER_ERROR, "this answer could not be made; see the bridge's log")
    return answer.encode(with_body=method != "HEAD")


class HttpPort:
    """Serves pages between `start` and `stop`.

    Args:
        settings: where to listen.
        pages: what there is, by path.

    Attributes:
        port: where it listens; None while it does not.
        problem: why it does not; '' otherwise. The port is tried again and again.
    """

    def __init__(self, settings: Http, pages: Mapping[str, Page]) -> None:
        self.port: int | None = None
        self.problem = ""
        self._settings = settings
        self._pages = pages
        self._clients = 0
        self._stopping = False
        self._wake: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._main, name="http", daemon=True)

    # --- from outside ---

    def start(self) -> None:
        """Begin to listen, in a moment."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self.problem = str(error)
            log.exception("HTTP: there is no thread for it")

    def stop(self) -> None:
        """End; waits a little for the thread."""
        with self._lock:
            self._stopping = True
            if self._wake:
                self._wake()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    # --- in the thread ---

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._listen_until_stopped())
        except Exception as error:  # what it is about goes on
            self.problem = f"unexpected error: {error!r}"
            log.exception("HTTP: unexpected error: health and metrics cannot be asked for any more")
        finally:
            self.port = None

    async def _listen_until_stopped(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self._stopping:
                return
            self._wake = lambda: loop.call_soon_threadsafe(stopped.set)
        try:
            while not stopped.is_set():
                try:
                    await self._serve(stopped)
                except OSError as error:
                    self._complain(error)
                    await _wait(stopped, AGAIN_S)
        finally:
            with self._lock:
                self._wake = None

    def _complain(self, error: OSError) -> None:
        reason = (error.strerror or str(error)).partition(": ")
        text = f"cannot listen on {self._settings.host}:{self._settings.port}: {reason[2] or reason[0]}"
        if text != self.problem:
            log.error("HTTP: %s; trying again each %g s", text, AGAIN_S)
        self.problem = text

    async def _serve(self, stopped: asyncio.Event) -> None:
        host, port = self._settings.host, self._settings.port
        server = await asyncio.start_server(self._meet, host, port, limit=LONGEST_REQUEST)
        try:
            self.port = server.sockets[0].getsockname()[1]
            self.problem = ""
            log.info("HTTP: health and metrics at http://%s:%d/healthz and /metrics", host, self.port)
            await stopped.wait()
        finally:
            self.port = None
            server.close()  # who is still connected is cut off when the loop ends

    async def _meet(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._clients += 1
        try:
            async with asyncio.timeout(EXCHANGE_S):
                writer.write(await self._answer(reader))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            log.debug("HTTP: a client that did not stay: %r", error)
        finally:
            self._clients -= 1
            writer.transport.abort()

    async def _answer(self, reader: StreamReader) -> bytes:
        if self._clients > MOST_CLIENTS:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, "too many clients at once").encode()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too long").encode()
        return respond(head, self._pages)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
