"""A process of its own that uses a store: to be killed, or to be given limits.

`FOLDER write` receives commands and prints each id when it is stored; `FOLDER limited BYTES` finds the file system full
beyond BYTES and then not; `FOLDER once UID` stores one command as that user and prints the problem.
"""
# ruff: noqa: T201  # a program that prints

import asyncio
import os
import resource
import sys
from pathlib import Path

from cti_mqtt.bridge.store import Store, StoredResult
from cti_mqtt.errors import StorageError
from tests.bridge.store.samples import command, entry


async def write(store: Store) -> None:
    async def one(number: int) -> None:
        sent = command(f"{number}")
        await store.receive(sent, durable=number % 3 == 0)
        print(sent.key.id, flush=True)
        await store.answer(sent.key, [StoredResult(7, "{}")], finished=True, audit=[entry(id=sent.key.id)])

    number = 0
    while True:
        await asyncio.gather(*(one(number + i) for i in range(50)))
        number += 50


async def limited(store: Store, limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    stored = 0
    try:
        while True:
            await store.receive(command(f"{stored}", request="x" * 1000), durable=False)
            stored += 1
    except StorageError as error:
        print(f"refused: {error}")
    print(f"problem: {store.problem}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    async with asyncio.timeout(10):
        while store.problem:  # noqa: ASYNC110  # it recovers by itself
            await asyncio.sleep(0.05)
    known = [await store.find(command(f"{number}").key) for number in range(stored)]
    print(f"recovered: {all(known)} {await store.receive(command('later'), durable=True)}")


async def once(store: Store) -> None:
    try:
        await store.receive(command(), durable=True)
    except StorageError as error:
        print(f"refused: {error}")
    print(f"problem: {store.problem}")


async def main(folder: str, what: str, *arguments: str) -> None:
    if what == "once":
        os.setuid(int(arguments[0]))
    store = Store(Path(folder), patience_s=10)
    await store.open()
    match what:
        case "write":
            await write(store)
        case "limited":
            await limited(store, int(arguments[0]))
        case "once":
            await once(store)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
