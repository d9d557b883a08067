"""Telling systemd: ready, the verdict in a line, alive, ending (`Type=notify`, `WatchdogSec=`).

The protocol is one datagram of `NAME=value` lines. The packages for it on the index have had no release for years.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

from cti_mqtt.bridge.health import LOOK_S, HealthVerdict

log = logging.getLogger(__name__)

LONGEST_STATUS = 500  # characters


class Notifier:
    """Sends datagrams to whoever started this process, if that wants any; never raises, never waits.

    Args:
        environment: `NOTIFY_SOCKET` is a path, or `@name` in the abstract namespace.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        name = os.fsencode(environment.get("NOTIFY_SOCKET", ""))
        self._address = b"\0" + name[1:] if name.startswith(b"@") else name

    @property
    def wanted(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address.startswith((b"/", b"\0")) and hasattr(socket, "AF_UNIX")

    def tell(self, *assignments: str) -> bool:
        """Send assignments such as `READY=1` in one datagram; whether it went out."""
        if not self.wanted:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)
                sender.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)
        except (OSError, ValueError):
            return False
        return True


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Within how many seconds systemd wants a sign of life, again and again; None: it does not."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        wanted = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return wanted if wanted > 0 else None


class Systemd:
    """Tells systemd of the bridge while `run` runs.

    `WATCHDOG=1` says that the event loop runs and the verdict is made, not that the verdict is good: what a restart
    cannot mend, such as a broker that is away, must not lead to one.

    Args:
        current: the last verdict with its age.
        broker_tried: whether the broker has been reached, or has been found not to be there.
        environment: what systemd set.
    """

    def __init__(
        self, current: Callable[[], HealthVerdict], broker_tried: Callable[[], bool], environment: Mapping[str, str]
    ) -> None:
        self._current = current
        self._broker_tried = broker_tried
        self._notifier = Notifier(environment)
        interval_s = watchdog_s(environment)
        self._sign_every_s = interval_s / 2 if interval_s else None
        self._sign_due = 0.0
        self._ready = False
        self._status = ""

    async def run(self) -> None:
        """Tell what is to be told, until cancelled; `STOPPING=1` then."""
        loop = asyncio.get_running_loop()
        look_s = min(LOOK_S, self._sign_every_s or LOOK_S)
        try:
            while True:
                if self._notifier.wanted:
                    try:
                        self._look(loop.time(), look_s)
                    except Exception:  # systemd restarts a bridge that it does not hear of; a bug here is no more
                        log.exception("systemd: nothing could be told")
                await asyncio.sleep(look_s)
        finally:
            self._notifier.tell("STOPPING=1", "STATUS=ending in order")

    def _look(self, now: float, look_s: float) -> None:
        verdict = self._current()
        if not self._ready and self._broker_tried():
            self._ready = self._notifier.tell("READY=1")
        status = status_line(verdict)
        if status != self._status and self._notifier.tell(f"STATUS={status}"):
            self._status = status
        # Not later than half the interval: the next look may be too late.
        if self._sign_every_s and now + look_s / 2 >= self._sign_due and not verdict.old:
            self._notifier.tell("WATCHDOG=1")
            self._sign_due = now + self._sign_every_s


def status_line(verdict: HealthVerdict) -> str:
    """The verdict for a person, in one line whatever the reasons hold."""
    if not verdict.healthy:
        text = f"not healthy: {'; '.join(verdict.reasons)}"
    else:
        count = len(verdict.cyclers)
        text = f"healthy: broker and {count} cycler{'s' if count != 1 else ''} connected, polls fresh"
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_STATUS else f"{line[: LONGEST_STATUS - 1]}…"
