"""A journal, its clock and polls, ready for tests."""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection

from cti_mqtt import config
from cti_mqtt.bridge.clock import stamp
from cti_mqtt.bridge.journal import Gap, Journal, KeptPoll
from cti_mqtt.bridge.journal.schema import FILE_NAME
from cti_mqtt.errors import StorageError

BOOT = "5f2c9a01d4e6b7c8"
DAY_S = 24 * 3600.0
FRAGMENTS = (b'{"channel":1,"voltage_v":3.7012}', b'{"channel":2,"voltage_v":3.6998}')


@dataclass
class HandClock:
    """A clock that goes when it is told to, and whose time of day can be set."""

    day: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    passed_s: float = 1000.0

    def now(self) -> datetime:
        return self.day

    def monotonic(self) -> float:
        return self.passed_s

    def go(self, seconds: float) -> None:
        self.day += timedelta(seconds=seconds)
        self.passed_s += seconds

    def jump(self, seconds: float) -> None:
        self.day += timedelta(seconds=seconds)


@dataclass
class Bench:
    """A journal with what it told."""

    journal: Journal
    clock: HandClock
    gaps: list[Gap] = field(default_factory=list)

    async def add(self, first: int, last: int | None = None, cycler: str = "arbin1", size: int = 0) -> list[int]:
        """Polls from first to last; their numbers."""
        ts = stamp(self.clock.now())
        futures = [
            self.journal.add(cycler, seq, ts, (*FRAGMENTS, incompressible(seq, size)) if size else FRAGMENTS)
            for seq in range(first, (last or first) + 1)
        ]
        return [await future for future in futures]

    async def waiting(self) -> list[int]:
        """The seqs that are not delivered, in order."""
        return [poll.seq for poll in (await self.journal.undelivered(0, 100_000)).polls]

    async def kept(self, cycler: str = "arbin1", boot: str = BOOT) -> list[int]:
        """The seqs that can be replayed."""
        return [poll.seq for poll in (await self.journal.span(cycler, boot, 0, 2**40, 100_000)).polls]

    async def told(self) -> list[tuple[str, int, int, int]]:
        self.journal._gaps.tell()
        return [(gap.cycler, gap.from_seq, gap.to_seq, gap.polls) for gap in self.gaps]


def incompressible(seed: int, size: int) -> bytes:
    """Bytes without a line feed that zlib makes nothing of."""
    value, found = seed * 7919 + 1, bytearray()
    while len(found) < size:
        value = (value * 6364136223846793005 + 1442695040888963407) % 2**64
        found += value.to_bytes(8, "little")
    return bytes(found[:size]).replace(b"\n", b"!")


def bounds(**changes: float) -> config.Journal:
    return config.Journal.model_validate(changes)


@asynccontextmanager
async def opened(
    folder: Path, clock: HandClock | None = None, *, boot: str = BOOT, patience_s: float = 10.0, **changes: float
) -> AsyncIterator[Bench]:
    """A journal; patient, because these machines are shared and noisy."""
    clock, gaps = clock or HandClock(), list[Gap]()
    journal = Journal(folder, bounds(**changes), boot, clock, gaps.append, patience_s=patience_s)
    await journal.open()
    try:
        yield Bench(journal, clock, gaps)
    finally:
        await journal.close()


@contextmanager
def stalled(journal: Journal) -> Iterator[None]:
    """A disk that does not answer; what is asked for meanwhile waits."""
    go, busy = threading.Event(), threading.Event()

    def block(connection: Connection) -> None:
        busy.set()
        go.wait(30)

    journal._database.submit(block)
    assert busy.wait(30)
    try:
        yield
    finally:
        go.set()


async def written_again(journal: Journal) -> None:
    async with asyncio.timeout(20):
        while journal.problem:  # noqa: ASYNC110  # it recovers by itself
            await asyncio.sleep(0.02)


def removed(folder: Path) -> None:
    """What somebody did."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file_in(folder)}{suffix}").unlink(missing_ok=True)


async def noticed(bench: Bench) -> None:
    """The journal has seen that something happened to its file."""
    async with asyncio.timeout(20):
        while not bench.journal.problem:
            with contextlib.suppress(StorageError):
                await bench.journal.tidy()
            await asyncio.sleep(0.02)


async def replaced(bench: Bench, folder: Path, by: Path) -> None:
    """Another file in the place of this one, or none; and the journal goes on with it."""
    removed(folder)
    if file_in(by).exists():
        shutil.copy(file_in(by), file_in(folder))
    await noticed(bench)
    await written_again(bench.journal)
    await bench.journal.tidy()


def file_in(folder: Path) -> Path:
    return folder / FILE_NAME


def poll(number: int, seq: int, *, cycler: str = "arbin1", boot: str = BOOT) -> KeptPoll:
    return KeptPoll(number, cycler, boot, seq, stamp(HandClock().now()), FRAGMENTS)
