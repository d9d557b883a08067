"""The persistence of examples/mosquitto: what is saved outlives the broker's death; with its defaults nothing does."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.client import Voice
from tests.faults.readings.subscriber import Subscriber
from tests.faults.readings.world import EXAMPLE, Keeps, MortalMosquitto, defaults, kept
from tests.support.brokers import needs_mosquitto

EVENTS = 20
STORED = "mosquitto.db"

pytestmark = needs_mosquitto


def test_the_example_saves_after_each_change() -> None:
    settings = dict(
        line.split(maxsplit=1) for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")
    )
    assert settings["persistence"] == "true"
    assert settings["autosave_on_changes"] == "true"
    assert settings["autosave_interval"] == "1"


async def outlived(folder: Path, protocol: object, keeps: Keeps) -> tuple[int, int]:
    """Events for a consumer that is away while the broker dies: how many it gets, and how often it was forgotten."""
    broker = MortalMosquitto(folder, keeps(folder))
    await broker.start()
    try:
        consumer = Subscriber("cti", broker.port, protocol)
        await consumer.come()
        await consumer.go()
        async with Voice.connect(broker.port, protocol, ["cti/arbin1/event"]) as voice:
            for number in range(EVENTS):
                voice.say("cti/arbin1/event", b'{"number": %d}' % number)
            voice.say("cti/arbin1/event", b'{"number": "last"}')
            if keeps is kept:
                stored = folder / STORED
                await consumer.until(lambda: stored.exists() and b'"last"' in stored.read_bytes(), 10, "a save")
            await broker.kill()
        await broker.start()
        await consumer.come()
        if keeps is kept:
            await consumer.until(lambda: len(consumer.events) > EVENTS, 10, "all events")
        else:
            await asyncio.sleep(0.5)  # nothing to wait for
        await consumer.go()
        return len(consumer.events), consumer.sessions_lost
    finally:
        await broker.kill()


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
async def test_what_is_saved_outlives_the_broker(tmp_path: Path, protocol: object) -> None:
    assert await outlived(tmp_path, protocol, kept) == (EVENTS + 1, 0)


async def test_with_its_defaults_the_broker_forgets_what_it_acknowledged(tmp_path: Path) -> None:
    assert await outlived(tmp_path, 5, defaults) == (0, 1)
