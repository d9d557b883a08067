"""The bridge, polling its one cycler as fast as it goes; `cti-mqtt run` polls twenty times a second at the most.

It is the whole bridge with a configuration from a file. Besides the polls by the clock (once a second) the station is
asked to poll again as soon as the last poll has been answered, with the method that the polls by the clock use: the
next one waits for its turn, so that the cycler has a request while the bridge publishes what it said. It waits while
more than two polls have not gone to the broker: otherwise newer states would replace those that wait, and what is to be
measured is readings that arrive.
"""

import asyncio
import sys
from pathlib import Path

from cti_mqtt import config
from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.cli.loops import run_until_signalled
from cti_mqtt.errors import CtiMqttError

POLLERS = 2  # one waits for an answer, one for its turn
POLLS_AHEAD = 2
A_MOMENT_S = 0.0005


async def hurry(bridge: Bridge, name: str) -> None:
    """Poll, and again."""
    station, link = bridge._stations[name], bridge._link  # noqa: SLF001  # nobody but a benchmark wants this
    while True:
        try:
            await station.refresh()
        except CtiMqttError:
            await asyncio.sleep(0.05)  # not connected yet
            continue
        while link.queue > POLLS_AHEAD * len(station.cycler_channels):  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(A_MOMENT_S)


async def run(settings: config.Config, stop: asyncio.Event) -> None:
    """Until it is told to stop."""
    bridge = Bridge(settings)
    (name,) = settings.cyclers
    hurrying = [asyncio.create_task(hurry(bridge, name), name="hurry") for _ in range(POLLERS)]
    try:
        await bridge.run(stop)
    finally:
        for task in hurrying:
            task.cancel()
        await asyncio.wait(hurrying)


if __name__ == "__main__":
    of_file = config.load(Path(sys.argv[1]))
    run_until_signalled(lambda stop: run(of_file, stop))
