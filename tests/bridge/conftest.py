"""A broker for each test: amqtt, and Mosquitto with both protocols."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.brokers import ALL_KINDS, BrokerKind, broker_of_kind


@pytest.fixture(params=ALL_KINDS)
def kind(request: pytest.FixtureRequest) -> BrokerKind:
    """Which broker, and which protocol."""
    assert isinstance(request.param, BrokerKind)
    return request.param


@pytest.fixture
async def port(kind: BrokerKind, tmp_path: Path) -> AsyncIterator[int]:
    """The port of a running broker."""
    async with broker_of_kind(kind, tmp_path) as number:
        yield number
