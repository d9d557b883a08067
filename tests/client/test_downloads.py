"""Downloads against a file port that says exactly what each test tells it to."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.cti.messages.files import DownloadFeedback, DownloadRequest
from cti_mqtt.cti.results import DownloadResult
from cti_mqtt.cti.stream import ChecksumPolicy
from cti_mqtt.errors import (
    ConnectionLostError,
    FeedbackTimeoutError,
    FileRefusedError,
    FileTransferError,
)
from tests.client.scripted import Cut, Pause, client_of, damaged, names

CONTENT = [b"first", b"second", b"third!"]
WHOLE = b"".join(CONTENT)
PATH = r"Work\a.sdx"

Answers = list[Any]


def chunks(
    request: DownloadRequest, content: list[bytes] = CONTENT, base: int = 0, packages: int | None = None
) -> list[DownloadFeedback]:
    """The chunks of a file as they should be."""
    count = len(content) if packages is None else packages
    return [
        DownloadFeedback(DownloadResult.OK, request.time, count, index, hashlib.md5(data).digest(), data)
        for index, data in enumerate(content, base)
    ]


def wrong_md5(chunk: DownloadFeedback) -> DownloadFeedback:
    return replace(chunk, md5=bytes(16))


def first_then(first: Callable[[DownloadRequest], Answers], then: Callable[[DownloadRequest], Answers] = chunks) -> Any:
    """Another answer to the first request than to the later ones."""
    scripts: Iterator[Callable[[DownloadRequest], Answers]] = iter([first])

    def script(request: DownloadRequest) -> Answers:
        return next(scripts, then)(request)

    return script


class TestWhole:
    @pytest.mark.parametrize("base", [0, 1])
    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 1, 1, 1, 2), (2, 2, 0, 1)])
    async def test_any_order_any_base_and_chunks_that_come_twice(
        self, tmp_path: Path, base: int, order: tuple[int, ...]
    ) -> None:
        def script(request: DownloadRequest) -> Answers:
            all_chunks = chunks(request, base=base)
            return [all_chunks[index] for index in order]

        target = tmp_path / "a.sdx"
        async with client_of(script) as (client, port):
            assert await client.download("work/a.sdx", target) == len(WHOLE)
            assert await client.download_bytes(PATH) == WHOLE
        assert target.read_bytes() == WHOLE
        assert names(tmp_path) == {target.name}
        assert [request.path for request in port.asked] == [PATH, PATH]
        assert port.asked[0].time < port.asked[1].time

    @pytest.mark.parametrize(("content", "packages"), [([b""], None), ([b""], 0), ([b"x"], None)])
    async def test_one_chunk(self, content: list[bytes], packages: int | None) -> None:
        async with client_of(lambda request: list(chunks(request, content, packages=packages))) as (client, _):
            assert await client.download_bytes(PATH) == content[0]

    async def test_what_does_not_fit_into_memory_waits_on_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cti_mqtt.client.file_exchanges.IN_MEMORY_BYTES", 8)
        async with client_of(lambda request: chunks(request)[::-1]) as (client, _):
            await client.download(PATH, tmp_path / "a.sdx")
        assert (tmp_path / "a.sdx").read_bytes() == WHOLE
        assert names(tmp_path) == {"a.sdx"}

    async def test_progress(self) -> None:
        told: list[tuple[int, int]] = []
        async with client_of(chunks) as (client, _):
            await client.download_bytes(PATH, lambda done, total: told.append((done, total)))
        assert told == [(5, 15), (11, 17), (17, 17)]

    async def test_several_at_once_wait_for_each_other(self) -> None:
        async with client_of(lambda request: list(chunks(request, [request.path.encode()]))) as (client, _):
            found = await asyncio.gather(*(client.download_bytes(rf"Work\{i}.sdx") for i in range(5)))
        assert found == [rf"Work\{i}.sdx".encode() for i in range(5)]


class TestDamage:
    @pytest.mark.parametrize(
        "first",
        [
            pytest.param(lambda r: [wrong_md5(c) if c.index == 1 else c for c in chunks(r)], id="wrong MD5"),
            pytest.param(lambda r: [replace(c, result=DownloadResult.MD5) for c in chunks(r)], id="it says MD5"),
            pytest.param(lambda r: chunks(r)[1:], id="first chunk missing"),
            pytest.param(lambda r: chunks(r)[:-1], id="last chunk missing"),
            pytest.param(lambda r: [*chunks(r)[:2], replace(chunks(r)[2], index=3)], id="a gap"),
            pytest.param(lambda r: [*chunks(r)[:2], replace(chunks(r)[2], index=4)], id="index too large"),
            pytest.param(lambda r: [replace(chunks(r)[0], packages=2), *chunks(r)[1:]], id="count differs"),
            pytest.param(lambda r: [chunks(r)[0], chunks(r, [b"x"], packages=3)[0], *chunks(r)[1:]], id="two contents"),
        ],
    )
    async def test_it_is_asked_for_once_more_under_a_new_time(self, tmp_path: Path, first: Any) -> None:
        late: Answers = []

        def remember(request: DownloadRequest) -> Answers:
            late.extend(wrong_md5(chunk) for chunk in chunks(request))
            answer: Answers = first(request)
            return answer

        script = first_then(remember, lambda request: late + chunks(request))  # late ones do not count
        async with client_of(script) as (client, port):
            await client.download(PATH, tmp_path / "a.sdx")
            assert len({request.time for request in port.asked}) == 2
            assert len(port.asked) == 2
        assert (tmp_path / "a.sdx").read_bytes() == WHOLE

        async with client_of(first) as (client, port):
            with pytest.raises(FileTransferError, match=r"arbin1: Work\\a.sdx: .*asked 2 times"):
                await client.download(PATH, tmp_path / "b.sdx")
            assert len(port.asked) == 2
        assert names(tmp_path) == {"a.sdx"}

    async def test_a_chunk_that_comes_again_and_right_counts(self) -> None:
        def script(request: DownloadRequest) -> Answers:
            one, two, three = chunks(request)
            return [one, wrong_md5(two), two, three]

        async with client_of(script) as (client, port):
            assert await client.download_bytes(PATH) == WHOLE
            assert len(port.asked) == 1

    async def test_chunks_of_another_time_are_nobodys(self) -> None:
        async with client_of(lambda request: list(chunks(replace(request, time=1.0)))) as (client, _):
            with pytest.raises(FeedbackTimeoutError):
                await client.download_bytes(PATH)

    async def test_time_counts_from_the_last_chunk(self) -> None:
        def script(request: DownloadRequest) -> Answers:
            return [part for chunk in chunks(request) for part in (Pause(0.3), chunk)]

        async with client_of(script, timeout_s=0.6) as (client, port):
            assert await client.download_bytes(PATH) == WHOLE  # took 0.9 s
            assert len(port.asked) == 1


class TestCut:
    @pytest.mark.parametrize("before", [0, 1, 2])
    async def test_it_is_reported_and_leaves_nothing(self, tmp_path: Path, before: int) -> None:
        def script(request: DownloadRequest) -> Answers:
            return [*chunks(request)[:before], Cut(chunks(request)[before])]

        old = tmp_path / "old.sdx"
        old.write_bytes(b"old")
        async with client_of(script) as (client, port):
            with pytest.raises(ConnectionLostError, match="in the middle of a message"):
                await client.download(PATH, old)
            assert len(port.asked) == 1
        assert old.read_bytes() == b"old"
        assert names(tmp_path) == {old.name}

    async def test_a_caller_that_goes_leaves_nothing_and_the_next_one_is_served(self, tmp_path: Path) -> None:
        gone = asyncio.Event()

        def script(request: DownloadRequest) -> Answers:
            return list(chunks(request)[: 1 if request.path == PATH else 3])

        async with client_of(script) as (client, _):
            task = asyncio.create_task(client.download(PATH, tmp_path / "a.sdx", lambda done, total: gone.set()))
            await gone.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert names(tmp_path) == set()
            assert await client.download_bytes("Work/b.sdx") == WHOLE


class TestRefusal:
    @pytest.mark.parametrize("result", [DownloadResult.FAILED, DownloadResult.TOO_LARGE, DownloadResult(77)])
    async def test_the_cyclers_no_is_an_error_with_its_code(self, tmp_path: Path, result: DownloadResult) -> None:
        def script(request: DownloadRequest) -> Answers:
            return [DownloadFeedback(result, request.time, 0, 0, bytes(16), b"")]

        async with client_of(script) as (client, port):
            with pytest.raises(FileRefusedError, match=rf"arbin1: Work\\a.sdx: .*{result.text}") as error:
                await client.download(PATH, tmp_path / "a.sdx")
            assert error.value.code == result
            assert len(port.asked) == 1
        assert names(tmp_path) == set()

    @pytest.mark.parametrize("limit", [5, 16])
    async def test_larger_than_wanted(self, tmp_path: Path, limit: int) -> None:
        async with client_of(chunks) as (client, _):
            with pytest.raises(FileTransferError, match=f"larger than {limit} bytes"):
                await client.download(PATH, tmp_path / "a.sdx", max_bytes=limit)
            assert names(tmp_path) == set()
            assert await client.download_bytes(PATH, max_bytes=len(WHOLE)) == WHOLE

    async def test_more_chunks_than_can_be(self) -> None:
        async with client_of(lambda request: list(chunks(request, packages=2**32 - 1))) as (client, _):
            with pytest.raises(FileTransferError, match="cannot be"):
                await client.download_bytes(PATH)

    async def test_a_mistake_in_the_callers_progress_is_the_callers(self) -> None:
        def fail(done: int, total: int) -> None:
            raise ZeroDivisionError

        async with client_of(chunks) as (client, _):
            with pytest.raises(ZeroDivisionError):
                await client.download_bytes(PATH, fail)
            assert await client.download_bytes(PATH) == WHOLE


class TestDestination:
    async def test_it_is_looked_at_before_anything_is_sent(self, tmp_path: Path) -> None:
        old = tmp_path / "old.sdx"
        old.write_bytes(b"old")
        async with client_of(chunks) as (client, port):
            with pytest.raises(FileExistsError):
                await client.download(PATH, old, overwrite=False)
            with pytest.raises(IsADirectoryError):
                await client.download(PATH, tmp_path)
            with pytest.raises(FileNotFoundError):
                await client.download(PATH, tmp_path / "none" / "a.sdx")
            assert port.asked == []
            await client.download(PATH, old)
        assert old.read_bytes() == WHOLE

    async def test_a_file_that_appears_meanwhile_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "a.sdx"
        async with client_of(chunks) as (client, _):
            with pytest.raises(FileExistsError):
                await client.download(PATH, target, lambda done, total: target.touch(), overwrite=False)
        assert target.read_bytes() == b""
        assert names(tmp_path) == {target.name}


class TestChecksums:
    async def test_two_that_agree_prove_each_other(self) -> None:
        async with client_of(lambda request: list(map(damaged, chunks(request)))) as (client, port):
            assert await client.download_bytes(PATH) == WHOLE
            assert len(port.asked) == 2

    async def test_a_sound_one_proves_itself(self) -> None:
        cut_short = first_then(lambda request: [damaged(replace(chunks(request)[0], packages=1))])
        async with client_of(cut_short) as (client, port):
            assert await client.download_bytes(PATH) == WHOLE
            assert len(port.asked) == 2

    async def test_two_that_differ_prove_nothing(self) -> None:
        script = first_then(
            lambda request: [damaged(replace(chunks(request)[0], packages=1))],
            lambda request: list(map(damaged, chunks(request))),
        )
        async with client_of(script) as (client, _):
            with pytest.raises(FileTransferError, match="wrong checksums"):
                await client.download_bytes(PATH)

    async def test_strict_does_not_even_look(self) -> None:
        script = first_then(lambda request: [*chunks(request)[:2], damaged(chunks(request)[2])])
        async with client_of(script, ChecksumPolicy.STRICT) as (client, port):
            assert await client.download_bytes(PATH) == WHOLE
            assert len(port.asked) == 2
