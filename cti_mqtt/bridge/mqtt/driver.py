"""Drives a paho client from the event loop.

paho can run a network thread of its own. Here it does not: a command would cross from that thread into the loop and its
result back again, and each of the many publications would wake the thread. paho's calls for foreign loops need neither.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client

log = logging.getLogger(__name__)

MISC_S = 1.0  # how often keep-alive is looked at
MOST_READS = 200  # in a row, before others get their turn


class Driver:
    """Reads, writes and keeps alive, from `start` on until the socket is closed.

    Args:
        client: connected, or about to be; its socket callbacks are taken.
        on_stumble: called with a text when paho raised something; what state it is in nobody knows, so the connection
            is over by then.

    Attributes:
        closed: set when the socket is.
    """

    def __init__(self, client: Client, on_stumble: Callable[[str], None]) -> None:
        self._on_stumble = on_stumble
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._fd: int | None = None
        self._reading = False
        self._misc: asyncio.TimerHandle | None = None
        client.on_socket_close = self._on_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write

    def start(self) -> None:
        """From now on the loop looks after the socket."""
        sock = self._client.socket()
        if sock is None:
            self.closed.set()
            return
        self._fd = sock.fileno()
        self._loop.add_reader(self._fd, self._read)
        self._misc = self._loop.call_later(MISC_S, self._look)
        self.write()
        if self._fd is not None and self._client.want_write():
            # What waited before now: paho has said so already, and says it once only.
            self._loop.add_writer(self._fd, self._write_on)

    def write(self) -> None:
        """Write now what waits, as far as the socket takes it; the rest when it takes more.

        Not inside a callback of paho: there it must not find out that the connection is lost. It is written soon after.
        """
        if self._fd is not None and not self._reading:
            self._write_on()

    def _write_on(self) -> None:
        self._guard(self._client.loop_write)

    def _read(self) -> None:
        for _ in range(MOST_READS):
            self._reading = True
            try:
                self._guard(self._client.loop_read)
            finally:
                self._reading = False
            sock = self._client.socket()
            # TLS may hold decrypted bytes for which the socket will never become readable.
            if not isinstance(sock, ssl.SSLSocket) or not sock.pending():
                return
        self._loop.call_soon(self._read)

    def _look(self) -> None:
        self._misc = None
        self._guard(self._client.loop_misc)
        if self._fd is not None:
            self._misc = self._loop.call_later(MISC_S, self._look)

    def _guard(self, step: Callable[[], object]) -> None:
        """A step of paho; where it raises, that is the end of the connection, not of looking after it."""
        try:
            step()
        except Exception as error:
            log.exception("MQTT: the client stumbled")
            self._give_up()
            self._on_stumble(f"the client stumbled: {error!r}")

    def _give_up(self) -> None:
        """Close the socket, whatever paho makes of it: it might read the same packet again, and again."""
        sock: Any = self._client.socket()
        self._release()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(Exception):  # now it cannot write, and so closes its end
                self._client.disconnect()
                self._client.loop_write()

    # --- what paho says of its socket ---

    def _on_register_write(self, client: Client, userdata: Any, sock: Any) -> None:
        """More to write than before; while it connects, in another thread, `start` sees to that."""
        if self._fd is not None:
            self._loop.add_writer(self._fd, self._write_on)

    def _on_unregister_write(self, client: Client, userdata: Any, sock: Any) -> None:
        if self._fd is not None:
            self._loop.remove_writer(self._fd)

    def _on_close(self, client: Client, userdata: Any, sock: Any) -> None:
        self._release()

    def _release(self) -> None:
        if self._fd is None:
            return  # it never got as far as `start`
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._fd = None
        if self._misc:
            self._misc.cancel()
        self.closed.set()
