"""A compiled subscriber, `mosquitto_sub`, whose output is only counted, or looked at for the age of readings."""

import fcntl
import os
import re
import subprocess
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parties import HOST, START_S, PartyError, find, terminated

PIPE_BYTES = 1024 * 1024  # room for half a million messages between two looks, so that it never waits for us
CHUNK = 1024 * 1024
LOOK_S = 0.05
_AGE = re.compile(rb'^(\d+\.\d+) \{[^\n]*?"test_time_s":(\d+\.\d+)', re.MULTILINE)


@contextmanager
def _subscribed(port: int, topic: str, qos: int, line: str, folder: Path) -> Iterator[int]:
    """A subscriber that prints a line for each live message; where to read it."""
    program = find("mosquitto_sub")
    where = ["-h", HOST, "-p", str(port), "-t", topic, "-q", str(qos), "-V", "5", "--nodelay", "-R", "-F", line]
    with (folder / "subscriber.log").open("wb") as log:
        process = subprocess.Popen([program, *where], stdout=subprocess.PIPE, stderr=log)  # noqa: S603
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with process.stdout, terminated(process):
        yield process.stdout.fileno()


class Counter:
    """How many messages came.

    Args:
        pipe: from the subscriber.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._count = 0
        os.set_blocking(pipe, False)

    def count(self) -> int:
        """All that came so far."""
        try:
            while chunk := os.read(self._pipe, CHUNK):
                self._count += chunk.count(b"\n")
        except BlockingIOError:
            return self._count
        raise PartyError("mosquitto_sub has ended")

    def wait_for(self, count: int, what: str) -> None:
        """Until so many more have come."""
        until, count = time.monotonic() + START_S, self.count() + count
        while self.count() < count:
            if time.monotonic() > until:
                raise PartyError(f"no messages came from {what} within {START_S:g} s")
            time.sleep(LOOK_S)

    def rate(self, seconds: float) -> float:
        """Messages a second, from now on for so long."""
        first, began = self.count(), time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            time.sleep(min(LOOK_S, seconds - elapsed))
        last = self.count()
        return (last - first) / (time.perf_counter() - began)


@contextmanager
def counting(port: int, topic: str, qos: int, folder: Path) -> Iterator[Counter]:
    """Counts the messages on a topic; they are not looked at."""
    with _subscribed(port, topic, qos, ".", folder) as pipe:
        yield Counter(pipe)


class Ages:
    """How old readings were when the subscriber got them, in seconds; read by a thread of its own.

    Args:
        pipe: from the subscriber.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._ages = array("d")
        self._thread = threading.Thread(target=self._read, name="ages", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._pipe, CHUNK):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                self._ages.extend(float(came) - float(answered) for came, answered in _AGE.findall(whole))

    def __len__(self) -> int:
        """How many came so far."""
        return len(self._ages)

    def since(self, position: int) -> list[float]:
        """Those that came after the first `position`."""
        return self._ages[position:].tolist()

    def join(self) -> None:
        """Once the subscriber has ended."""
        self._thread.join()


@contextmanager
def ages(port: int, topic: str, qos: int, folder: Path) -> Iterator[Ages]:
    """Looks at each message on a topic."""
    with _subscribed(port, topic, qos, "%U %p", folder) as pipe:
        found = Ages(os.dup(pipe))
        yield found
    found.join()


def one_payload(port: int, topic: str, folder: Path) -> bytes:
    """The stored message on a topic."""
    command = [find("mosquitto_sub"), "-h", HOST, "-p", str(port), "-t", topic, "-C", "1", "-W", "10", "-N"]
    with (folder / "subscriber.log").open("wb") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, check=False)  # noqa: S603
    if done.returncode:
        raise PartyError(f"nothing is stored on {topic}")
    return done.stdout
