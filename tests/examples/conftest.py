"""A demo to talk to: broker, simulated cycler and bridge, as a process of its own."""

from collections.abc import Iterator

import pytest

from tests.support.programs import Demo, running_demo


@pytest.fixture
def demo() -> Iterator[Demo]:
    """A demo on free ports."""
    with running_demo() as running:
        yield running
