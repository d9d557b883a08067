"""What the tests with pycti-arbin share. It comes from the package registry, with the `dev` extra."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyctiarbin import ChannelInterface, CyclerInterface
from pyctiarbin.arbinspoofer import ArbinSpoofer
from pyctiarbin.arbinspoofer.arbin_spoofer import ChannelData

from tests.support.brokers import HOST, free_port, wait_listening

SPOOFED_CHANNELS = 3


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARBIN_CTI_USERNAME", "admin")
    monkeypatch.setenv("ARBIN_CTI_PASSWORD", "admin")


@contextmanager
def incumbent(config: dict[str, Any]) -> Iterator[Any]:
    """Theirs, a ChannelInterface where a channel is configured; ended, which it cannot do itself."""
    kind = ChannelInterface if "channel" in config else CyclerInterface
    interface = kind.__new__(kind)  # made in two steps, since an attempt that fails leaves its socket behind as well
    try:
        interface.__init__(config, "no such file")
        yield interface
    finally:
        interface._CyclerInterface__sock.close()


@pytest.fixture
async def spoofer() -> AsyncIterator[Any]:
    """Their simulator on a free port, as `spoofer.port`; ends its threads."""
    ChannelData._ChannelData__chan_readings_list.clear()  # every spoofer of a process shares and prolongs this list
    port = free_port()
    running = ArbinSpoofer({"ip": HOST, "port": port, "num_channels": SPOOFED_CHANNELS})
    running.port = port
    running.start()
    await wait_listening(port)
    yield running
    await asyncio.to_thread(running.stop)
