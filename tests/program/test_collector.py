"""Python's own collector while the bridge runs."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from cti_mqtt.cli.collector import MORE_OBJECTS, calm_collector


class Node:
    """Garbage that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def calm() -> Iterator[None]:
    before = gc.get_threshold()
    calm_collector()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def _collections() -> int:
    return sum(each["collections"] for each in gc.get_stats())


@pytest.mark.usefixtures("calm")
def test_what_comes_and_goes_costs_no_look() -> None:
    """As the readings of 64 cyclers do, three minutes of them."""
    latest: list[list[tuple[int, ...]]] = [[] for _ in range(64)]
    before = _collections()
    for poll in range(64 * 180):
        latest[poll % 64] = [tuple([poll, channel]) for channel in range(128)]  # noqa: C409  # a new one each time
    assert _collections() - before <= 1


@pytest.mark.usefixtures("calm")
def test_garbage_is_found_all_the_same() -> None:
    node = Node()
    gone = weakref.ref(node)
    del node
    kept = [[] for _ in range(2 * MORE_OBJECTS)]  # type: list[list[int]]
    assert gone() is None
    assert len(kept) == 2 * MORE_OBJECTS


@pytest.mark.usefixtures("calm")
def test_what_is_there_when_it_begins_is_not_looked_at() -> None:
    assert gc.get_freeze_count() > 10_000
