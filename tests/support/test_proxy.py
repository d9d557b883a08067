"""The proxy does to real connections what it says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.proxied import end
from tests.support.proxy import HOST, Corrupt, Delay, Pass, Proxy, Stall, Throttle, Truncate


class Line:
    """A client connected through a proxy to a server that a test plays."""

    def __init__(self, proxy: Proxy, accepted: "asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"):
        self.proxy = proxy
        self._accepted = accepted
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamWriter]:  # fmt: skip # noqa: E501
        """A connection: the client's reader and writer, the server's."""
        reader, writer = await asyncio.open_connection(HOST, self.proxy.port)
        there = await asyncio.wait_for(self._accepted.get(), 5)
        self._writers += [writer, there[1]]
        return reader, writer, *there

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def line(seed: int = 0) -> AsyncIterator[Line]:
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: accepted.put_nowait(streams), HOST, 0)
    async with Proxy(HOST, server.sockets[0].getsockname()[1], seed=seed) as proxy:
        it = Line(proxy, accepted)
        try:
            yield it
        finally:
            it.close()
            server.close()


async def read(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), 5)


async def nothing(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes for a moment, not even an end."""
    try:
        await asyncio.wait_for(reader.read(1), 0.1)
    except TimeoutError:
        return True
    return False


async def test_passes_both_ways_and_half_closes() -> None:
    async with line() as it:
        here, to_there, there, to_here = await it.open()
        to_there.write(b"ask")
        to_there.write_eof()
        assert await read(there, 3) == b"ask"
        assert await there.read() == b""
        to_here.write(b"answer" * 100_000)
        to_here.close()
        assert len(await asyncio.wait_for(here.read(-1), 5)) == 600_000
        assert (it.proxy.counts.connections, it.proxy.counts.to_server, it.proxy.counts.to_client) == (1, 3, 600_000)


async def test_a_stall_hides_bytes_and_the_end_and_lets_them_out_later() -> None:
    async with line() as it:
        _, to_there, there, _ = await it.open()
        it.proxy.to_server = Stall()
        to_there.write(b"late" * 1000)
        await asyncio.wait_for(to_there.drain(), 5)
        to_there.close()
        assert await nothing(there)
        it.proxy.to_server = Pass()
        assert await read(there, 4000) == b"late" * 1000
        assert await asyncio.wait_for(there.read(), 5) == b""


async def test_a_delay_and_its_end() -> None:
    async with line() as it:
        here, _, _, to_here = await it.open()
        loop, it.proxy.to_client = asyncio.get_running_loop(), Delay(0.2)
        began = loop.time()
        to_here.write(b"x")
        await read(here, 1)
        assert loop.time() - began >= 0.19
        it.proxy.to_client = Delay(60)
        to_here.write(b"y")
        assert await nothing(here)
        it.proxy.to_client = Pass()
        assert await read(here, 1) == b"y"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_truncation_strikes_once(reset: bool) -> None:
    async with line() as it:
        _, to_there, there, _ = await it.open()
        it.proxy.to_server = Truncate(3, reset=reset)
        to_there.write(b"abcdef")
        if reset:
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(there.read(-1), 5)
        else:
            assert await asyncio.wait_for(there.read(-1), 5) == b"abc"
        assert it.proxy._to_server.behaviour == Pass()
        _, again, there, _ = await it.open()
        again.write(b"abcdef")
        assert await read(there, 6) == b"abcdef"


async def test_a_lasting_truncation() -> None:
    async with line() as it:
        it.proxy.to_client = Truncate(0, lasting=True)
        for _ in range(2):
            here, _, _, to_here = await it.open()
            to_here.write(b"abcdef")
            assert await asyncio.wait_for(here.read(-1), 5) == b""


async def test_the_same_seed_flips_the_same_bits() -> None:
    seen = []
    for _ in range(2):
        async with line(seed=7) as it:
            _, to_there, there, _ = await it.open()
            it.proxy.to_server = Corrupt(0.01)
            to_there.write(bytes(10_000))
            seen.append(await read(there, 10_000))
            assert it.proxy.counts.flipped == sum(byte.bit_count() for byte in seen[-1])
    assert seen[0] == seen[1]
    assert 50 < sum(map(bool, seen[0])) < 200


async def test_a_throttle_is_felt() -> None:
    async with line() as it:
        here, _, _, to_here = await it.open()
        it.proxy.to_client = Throttle(10_000)
        loop = asyncio.get_running_loop()
        began = loop.time()
        to_here.write(bytes(5000))
        await read(here, 5000)
        assert loop.time() - began > 0.35
        it.proxy.to_client = Throttle(1)
        to_here.transport.set_write_buffer_limits(0)
        to_here.write(bytes(20_000_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(to_here.drain(), 0.1)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_reaches_both_sides_also_while_stalled(reset: bool) -> None:
    async with line() as it:
        here, _, there, to_here = await it.open()
        it.proxy.both(Stall())
        to_here.write(b"lost")
        await asyncio.sleep(0.02)
        it.proxy.cut(reset=reset)
        for reader in (here, there):
            if reset:
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(reader.read(-1), 5)
            else:
                assert await asyncio.wait_for(reader.read(-1), 5) == b""


async def test_a_reset_is_passed_on() -> None:
    async with line() as it:
        here, _, _, to_here = await it.open()
        end(to_here, reset=True)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(here.read(-1), 5)


async def test_refusing_and_accepting_again_on_the_same_port() -> None:
    async with line() as it:
        here, _, _, to_here = await it.open()
        port = it.proxy.port
        await it.proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        to_here.write(b"alive")
        assert await read(here, 5) == b"alive"
        await it.proxy.accept()
        assert it.proxy.port == port
        await it.open()
        assert it.proxy.live == 2


async def test_a_server_that_is_not_there_resets() -> None:
    async with Proxy(HOST, 1) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
