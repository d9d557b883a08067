"""A full disk and a read-only disk: a small file system in memory, where this machine lets us mount one."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.delivery.test_end_to_end import behind_proxy, complete, taken, until_taken
from tests.support.brokers import MOSQUITTO_5, needs_mosquitto
from tests.support.rig import Rig

SIZE_BYTES = 4 * 2**20

pytestmark = [needs_mosquitto, pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")]


def mount(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if mount("-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(folder)).returncode:
        pytest.skip("this machine does not let us mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave not a byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


def health(it: Rig, condition: Callable[[dict[str, Any]], Any], since: int) -> Callable[[], bool]:
    def look() -> bool:
        return any(
            heard.topic == "cti/bridge/health" and condition(heard.json) for heard in it.observer.heard[since:]
        )  # fmt: skip

    return look


def _nothing_but_little_room(body: dict[str, Any]) -> bool:
    """This small disk never has as much room as the verdict asks for."""
    return all("MB free" in reason for reason in body["reasons"])


async def test_full_and_free_again(tmp_path: Path, small: Path) -> None:
    """Readings keep flowing, also over an outage of the broker; the health message says what is wrong."""
    async with behind_proxy(MOSQUITTO_5, tmp_path, data_dir=small / "data") as (it, proxy):
        boot = it.bridge._boot
        ballast = await asyncio.to_thread(fill, small)
        since = len(it.observer.heard)
        ill = health(it, lambda body: any(reason.startswith("journal: ") for reason in body["reasons"]), since)
        await it.observer.until(ill, what="the journal's trouble in the health message")
        begun = await until_taken(it, 3)
        await it.observer.until(lambda: complete(it.observer, boot, begun), what="live readings on a full disk")
        refused = await it.observer.ask("arbin1/channel/1", "set_mv", {"values": {"1": 1.0}})
        assert (refused["outcome"], refused["reason"]) == ("refused", "storage")
        await proxy.refuse()
        proxy.cut()
        away = await until_taken(it, 5)
        await proxy.accept()
        await it.observer.until(lambda: complete(it.observer, boot, away), what="from memory")
        await asyncio.to_thread(ballast.unlink)
        since = len(it.observer.heard)
        await it.observer.until(health(it, _nothing_but_little_room, since), what="well again")
        before = taken(it)
        await until_taken(it, 3)
        again = await it.observer.ask("arbin1", "replay", {"boot": boot, "from_seq": before + 1, "to_seq": before + 2})
        assert again["outcome"] == "succeeded", again


async def test_full_from_the_start(tmp_path: Path, small: Path) -> None:
    await asyncio.to_thread(fill, small)
    (small / "data").mkdir()
    async with behind_proxy(MOSQUITTO_5, tmp_path, data_dir=small / "data") as (it, _):
        goal = await until_taken(it, 5)
        await it.observer.until(lambda: complete(it.observer, it.bridge._boot, goal), what="live readings")


async def test_read_only_from_the_start(tmp_path: Path, small: Path) -> None:
    """As after a start from a disk that has failed: there is no room for the lock either, and readings flow."""
    (small / "data").mkdir()
    assert mount("-o", "remount,ro", str(small)).returncode == 0
    async with behind_proxy(MOSQUITTO_5, tmp_path, data_dir=small / "data") as (it, proxy):
        boot = it.bridge._boot
        goal = await until_taken(it, 3)
        await it.observer.until(lambda: complete(it.observer, boot, goal), what="live readings")
        await proxy.refuse()
        proxy.cut()
        away = await until_taken(it, 4)
        await proxy.accept()
        await it.observer.until(lambda: complete(it.observer, boot, away), what="from memory")
        refused = await it.observer.ask("arbin1/channel/1", "set_mv", {"values": {"1": 1.0}})
        assert (refused["outcome"], refused["reason"]) == ("refused", "storage")
        assert (await it.observer.ask("arbin1/channel/1", "stop"))["reason"] == "not_running"
