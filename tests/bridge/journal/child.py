"""A process of its own that uses a journal: to be killed, or to find that it may not write.

`FOLDER write` adds polls and prints each seq once it is committed; `FOLDER read UID` tries to add as that user, and
reads. `FOLDER stall` closes it while the disk does not answer.
"""
# ruff: noqa: T201  # a program that prints

import asyncio
import os
import sys
import time
from pathlib import Path
from sqlite3 import Connection

from cti_mqtt.errors import StorageError
from tests.bridge.journal.samples import Bench, opened


async def write(bench: Bench) -> None:
    async def one(seq: int) -> None:
        (number,) = await bench.add(seq, size=2000)
        print(seq, flush=True)
        if seq % 3 == 0:
            await bench.journal.delivered([number])

    first = 1
    while True:
        await asyncio.gather(*(one(first + i) for i in range(20)))
        first += 20


async def read(bench: Bench) -> None:
    try:
        await bench.add(1000)
    except StorageError as error:
        print(f"refused: {error}")
    print(f"problem: {bench.journal.problem}")
    print(f"waiting: {await bench.waiting()}")
    print(f"kept: {await bench.kept()}")


async def stall(bench: Bench) -> None:
    await bench.add(1, 3)

    def block(connection: Connection) -> None:
        connection.execute("DELETE FROM undelivered")
        time.sleep(60)

    bench.journal._database.submit(block)
    await bench.journal.close()
    print("closed", flush=True)


async def main(folder: str, what: str, *arguments: str) -> None:
    if what == "read":
        os.setuid(int(arguments[0]))
    async with opened(Path(folder), patience_s=0.5 if what == "stall" else 10.0) as bench:
        await {"write": write, "read": read, "stall": stall}[what](bench)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
