"""Commands, entries and a store, ready for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cti_mqtt.bridge.store import CommandKey, ReceivedCommand, Store
from cti_mqtt.bridge.store.schema import FILE_NAME

RECEIVED_AT = "2026-01-02T03:04:05.678Z"


def command(
    id_: str = "a", *, channel: int | None = 7, keep: bool = True, received_at: str = RECEIVED_AT, request: str = "{}"
) -> ReceivedCommand:
    channels = () if channel is None else (channel,)
    key = CommandKey("arbin1", channel, "start", id_)
    return ReceivedCommand(key, f"digest of {id_}", received_at, "ann", channels, request, keep)


def entry(what: str = "start", **more: object) -> dict[str, object]:
    nothing = dict.fromkeys(("before", "after", "reason", "message", "request", "received_at"))
    return {
        **nothing, "ts": RECEIVED_AT, "who": "ann", "what": what, "cycler": "arbin1", "channel": 7, "id": "a",
        "outcome": "succeeded", "code": 0, **more,
    }  # fmt: skip


@asynccontextmanager
async def opened(folder: Path | None, *, patience_s: float = 10.0) -> AsyncIterator[Store]:
    """A store; patient, because these machines are shared and noisy."""
    store = Store(folder, patience_s=patience_s)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def file_in(folder: Path) -> Path:
    return folder / FILE_NAME
