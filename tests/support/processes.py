"""The program as a real process: what it prints, how it ends."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Program:
    """A running `cti-mqtt`, with standard output and error as one text."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    async def read(self) -> None:
        """Collect output until the process closes it."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self.news:
                self.lines.append(line.decode("utf-8", "replace"))
                self.news.notify_all()

    async def wait_for(self, pattern: str, timeout_s: float = 20.0) -> re.Match[str]:
        """Until the output matches."""
        try:
            async with asyncio.timeout(timeout_s), self.news:
                while not (found := re.search(pattern, self.output)):
                    await self.news.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"{pattern!r} did not come; so far:\n{self.output}") from None

    async def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Send a signal, wait for the end; the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()


@asynccontextmanager
async def program(
    *arguments: str, environment: Mapping[str, str] | None = None, cwd: str | os.PathLike[str] | None = None
) -> AsyncIterator[Program]:
    """`cti-mqtt` with these arguments, killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cti_mqtt", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**24,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb", **(environment or {})},
        cwd=cwd,
    )
    it = Program(process)
    reader = asyncio.create_task(it.read())
    try:
        yield it
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reader


async def finished(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run `cti-mqtt` to its end: exit status and output."""
    async with program(*arguments, environment=environment) as it:
        async with asyncio.timeout(40):
            await it.process.wait()
        async with asyncio.timeout(5):
            while not it.process.stdout or not it.process.stdout.at_eof():  # noqa: ASYNC110  # until all is read
                await asyncio.sleep(0.01)
        return it.process.returncode or 0, it.output
