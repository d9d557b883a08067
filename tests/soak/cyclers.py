"""Simulated cyclers in a process of their own: `python -m tests.soak.cyclers CYCLERS CHANNELS`.

Lines on standard input are questions, each answered with a JSON line: `ports`; `cut NAME SECONDS` unplugs a cycler for
so long; `answered FROM` gives, by cycler, when each poll since the FROM-th was answered.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from cti_mqtt.simulator import Recorder, SimulatedServer
from tests.faults.readings.counted import CountedCycler

SCHEDULE = "Formation.sdx"


def names(count: int) -> list[str]:
    """How the cyclers are called."""
    return [f"arbin{number}" for number in range(1, count + 1)]


def running(channels: int) -> CountedCycler:
    """A cycler with a test on each channel, so that all values change from poll to poll."""
    cycler = CountedCycler(channels)
    for index in range(channels):
        channel = cycler.channel(index)
        channel.assign(cycler.schedules[SCHEDULE], "")
        channel.start("soak")
    return cycler


async def serve(count: int, channels: int) -> None:
    """Answer until standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with AsyncExitStack() as stack:
        cyclers = {name: running(channels) for name in names(count)}
        servers = {
            name: await stack.enter_async_context(SimulatedServer(cycler, recorder=Recorder(keep=1)))
            for name, cycler in cyclers.items()
        }
        while line := await reader.readline():
            question, *words = line.decode().split()
            answer: Any = {}
            if question == "ports":
                answer = {name: [server.port, server.file_port] for name, server in servers.items()}
            elif question == "cut":
                await servers[words[0]].unplug()
                await asyncio.sleep(float(words[1]))
                await servers[words[0]].replug()
            elif question == "answered":
                answer = {name: cycler.answered[int(words[0]) :] for name, cycler in cyclers.items()}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
