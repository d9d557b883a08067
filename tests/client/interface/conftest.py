"""What the tests of the synchronous API share."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import HOST
from tests.support.serving import Served, served

QUICK_S = 0.3


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARBIN_CTI_USERNAME", "admin")
    monkeypatch.setenv("ARBIN_CTI_PASSWORD", "admin")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    wait_until(lambda: not threads())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cti ")]


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def remote() -> Iterator[Served]:
    with served() as running:
        yield running


def config(remote: Served, **more: Any) -> dict[str, Any]:
    names = {"test_name": "T1", "schedule_name": "CCCV.sdx"}
    return {"ip_address": HOST, "port": remote.port, "timeout_s": 5, "msg_buffer_size": 1024, **names, **more}


def channel_config(remote: Served, **more: Any) -> dict[str, Any]:
    return config(remote, **{"channel": 2, **more})
