"""A bridge whose configuration is changed while it runs."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cti_mqtt.bridge.reload import Report
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.bridge.store.schema import FILE_NAME
from cti_mqtt.config import Config
from cti_mqtt.simulator import SimulatedServer
from tests.support.brokers import MOSQUITTO_5, broker_of_kind
from tests.support.rig import CONTROL, Rig, rig

LIMITS = {1: {"min": 0, "max": 5}}
VOUCHED: dict[str, Any] = {"lease": {"ttl_s": 60, "on_expiry": "stop"}}


@asynccontextmanager
async def running(folder: Path, *names: str, **cycler: Any) -> AsyncIterator[Rig]:
    """A bridge with these cyclers."""
    async with (
        broker_of_kind(MOSQUITTO_5, folder) as port,
        rig(port, 5, channels=4, cyclers=names or ("arbin1",), cycler=cycler or None, data_dir=folder / "data") as it,
    ):
        for name in names or ("arbin1",):
            await it.ready(name)
        await it.bridge._commander.taken_up(10)
        yield it


async def reload(it: Rig, **cyclers: Mapping[str, Any] | None) -> Report:
    """Reload with other settings for some cyclers; None: without it."""
    body = it.bridge._reloader.settings.model_dump()
    for name, other in cyclers.items():
        if other is None:
            del body["cyclers"][name]
        else:
            body["cyclers"][name] = {**body["cyclers"].get(name, {}), **other}
    return await it.bridge.reload(Config.model_validate(body), "file")


async def reloaded(it: Rig, text: str) -> None:
    """Until an event says so."""
    await it.observer.wait(
        "bridge/event", lambda heard: heard.json["type"] == "reloaded" and text in heard.json["message"]
    )


async def start(it: Rig, channel: int = 1, /, **body: Any) -> dict[str, Any]:
    result = await it.observer.ask(
        f"arbin1/channel/{channel}", "start", {"test_name": "T", "schedule": "ClosedLoop.sdx", **body}
    )
    assert result["outcome"] == "succeeded", result
    return result


def another(it: Rig, server: SimulatedServer, **other: Any) -> dict[str, Any]:
    """What stands in the file of one more cycler."""
    return {
        "host": "127.0.0.1", "port": server.port, "file_port": server.file_port, "username": "admin",
        "password": it.bridge._reloader.settings.cyclers["arbin1"].password, "poll_interval_s": 0.1,
        "control": CONTROL, **other,
    }  # fmt: skip


def events(it: Rig, kind: str) -> list[str]:
    """What the bridge's events of a kind said so far."""
    heard = (each.json for each in it.observer.on("bridge/event"))
    return [body["message"] for body in heard if body["type"] == kind]


def audited(data_dir: Path, what: str) -> list[dict[str, Any]]:
    """The entries of a kind."""
    with read_audit(data_dir / FILE_NAME) as reader:
        entries = [json.loads(row.entry) for row in reader.rows()]
    return [entry for entry in entries if entry["what"] == what]
