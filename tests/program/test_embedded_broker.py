"""The embedded broker, where amqtt alone would lose something."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.brokers import AMQTT, HOST, broker_of_kind
from tests.support.observer import Observer

MOSQUITTO_PUB = shutil.which("mosquitto_pub")


@pytest.mark.skipif(MOSQUITTO_PUB is None, reason="mosquitto_pub is not installed")
@pytest.mark.parametrize("qos", ["0", "1"])
async def test_a_client_that_publishes_and_goes(qos: str, tmp_path: Path) -> None:
    assert MOSQUITTO_PUB is not None
    async with broker_of_kind(AMQTT, tmp_path) as port, Observer.connect(port, "3.1.1") as observer:
        for number in range(500):  # stored messages that the newcomers below have not asked for
            observer.say(f"stored/{number}", b"x" * 1000, retain=True)
        for number in range(20):
            pub = await asyncio.create_subprocess_exec(
                *(MOSQUITTO_PUB, "-h", HOST, "-p", str(port), "-q", qos, "-t", "cti/x", "-m", str(number))
            )
            assert await pub.wait() == 0
        await observer.until(lambda: len(observer.on("x")) >= 20)
        assert {heard.payload for heard in observer.on("x")} == {str(number).encode() for number in range(20)}
