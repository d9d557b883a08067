"""Uploads against a file port that says exactly what each test tells it to."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cti_mqtt.cti.messages.files import (
    CHUNK_BYTES,
    DownloadFeedback,
    DownloadRequest,
    UploadFeedback,
    UploadRequest,
)
from cti_mqtt.cti.results import DownloadResult, UploadResult
from cti_mqtt.errors import (
    ChecksumError,
    ConnectionLostError,
    FeedbackTimeoutError,
    FileRefusedError,
    FileTransferError,
    InvalidRequestError,
)
from tests.client.scripted import Cut, client_of, damaged

PATH = r"Work\a.sdx"
CONTENT = bytes(range(256)) * 4096 + b"rest"  # two whole chunks and a rest

Answers = list[Any]


def answer(chunk: UploadRequest, result: UploadResult = UploadResult.OK) -> UploadFeedback:
    return UploadFeedback.of(chunk.time, chunk.packages, chunk.index, result)


def ok(chunk: UploadRequest) -> Answers:
    return [answer(chunk)]


def text(value: str, units: int) -> bytes:
    return value.encode("utf-16-le").ljust(2 * units, b"\0")


class TestWire:
    async def test_the_bytes_of_two_chunks(self) -> None:
        content = b"a" * CHUNK_BYTES + b"bc"
        async with client_of(ok) as (client, port):
            login_size = 86
            assert await client.upload_bytes(content, "work/a.sdx") == len(content)
            received = bytes(port.received[login_size:])
        stamp = port.asked[0].time
        expected = b""
        for index, data in enumerate((b"a" * CHUNK_BYTES, b"bc")):
            arguments = text(PATH, 1024) + struct.pack("<QIId", len(data), 2, index, stamp)
            arguments += hashlib.md5(data).digest() + data
            size = 20 + len(arguments) + 2
            body = bytes.fromhex("DDDDDDDDDDDDDD11") + struct.pack("<III", size - 12, 0xCC130003, 0) + arguments
            expected += body + struct.pack("<H", sum(body) & 0xFFFF)
        assert received == expected

    @pytest.mark.parametrize("shape", ["v1.1", "v4.5"])
    async def test_the_answers_of_both_documents(self, shape: str) -> None:
        def script(chunk: UploadRequest) -> Answers:
            feedback = answer(chunk)
            return [feedback if shape == "v1.1" else feedback.result_first]

        told: list[tuple[int, int]] = []
        async with client_of(script) as (client, port):
            size = await client.upload_bytes(CONTENT, PATH, lambda done, total: told.append((done, total)))
        assert size == len(CONTENT)
        assert b"".join(chunk.data for chunk in port.asked) == CONTENT
        assert [chunk.index for chunk in port.asked] == [0, 1, 2]
        assert told == [(done, len(CONTENT)) for done in (CHUNK_BYTES, 2 * CHUNK_BYTES, len(CONTENT))]

    async def test_each_file_has_its_own_time(self) -> None:
        async with client_of(ok) as (client, port):
            client._clock = lambda: 1000.0
            for _ in range(3):
                await client.upload_bytes(b"x", PATH)
        assert len({chunk.time for chunk in port.asked}) == 3
        assert all(1000 <= chunk.time < 1000.001 for chunk in port.asked)

    @pytest.mark.parametrize("content", [b"", b"x", bytes(CHUNK_BYTES)])
    async def test_one_chunk(self, content: bytes, tmp_path: Path) -> None:
        source = tmp_path / "a.sdx"
        source.write_bytes(content)
        async with client_of(ok) as (client, port):
            assert await client.upload(source, PATH) == len(content)
        (chunk,) = port.asked
        assert (chunk.packages, chunk.index, chunk.length, chunk.data) == (1, 0, len(content), content)


def md5_refused(times: int) -> Callable[[UploadRequest], Answers]:
    """The second chunk is refused so often."""
    left = [times]

    def script(chunk: UploadRequest) -> Answers:
        if chunk.index == 1 and left[0]:
            left[0] -= 1
            return [answer(chunk, UploadResult.MD5)]
        return ok(chunk)

    return script


class TestRefusal:
    async def test_a_chunk_that_arrived_damaged_is_sent_once_more(self) -> None:
        async with client_of(md5_refused(1)) as (client, port):
            await client.upload_bytes(CONTENT, PATH)
        assert [chunk.index for chunk in port.asked] == [0, 1, 1, 2]
        assert port.asked[1] == port.asked[2]

    async def test_and_not_a_third_time(self) -> None:
        async with client_of(md5_refused(2)) as (client, port):
            with pytest.raises(FileTransferError, match=r"arbin1: Work\\a.sdx: chunk 2 of 3 .*wrong MD5"):
                await client.upload_bytes(CONTENT, PATH)
        assert [chunk.index for chunk in port.asked] == [0, 1, 1]

    @pytest.mark.parametrize("result", [UploadResult.FAILED, UploadResult.FILE_IN_USE, UploadResult(99)])
    async def test_the_cyclers_no_is_an_error_with_its_code(self, result: UploadResult) -> None:
        async with client_of(lambda chunk: [answer(chunk, result)]) as (client, port):
            with pytest.raises(FileRefusedError, match=rf"arbin1: Work\\a.sdx: .*{result.text}") as error:
                await client.upload_bytes(CONTENT, PATH)
        assert error.value.code == result
        assert len(port.asked) == 1

    async def test_too_large_is_said_before_anything_is_sent(self) -> None:
        async with client_of(ok) as (client, port):
            with pytest.raises(InvalidRequestError, match="too many"):
                await client.upload_bytes(b"abc", PATH, max_bytes=2)
            with pytest.raises(InvalidRequestError, match=r"only \.sdx"):
                await client.upload_bytes(b"abc", "Work/a.exe")
        assert port.asked == []

    async def test_a_source_that_is_not_there(self, tmp_path: Path) -> None:
        async with client_of(ok) as (client, port):
            with pytest.raises(FileNotFoundError):
                await client.upload(tmp_path / "none.sdx", PATH)
        assert port.asked == []

    @pytest.mark.parametrize("change", [b"short", CONTENT * 2])
    async def test_a_source_that_changes_meanwhile(self, tmp_path: Path, change: bytes) -> None:
        source = tmp_path / "a.sdx"
        source.write_bytes(CONTENT)

        def write(done: int, total: int) -> None:
            source.write_bytes(change)

        async with client_of(ok) as (client, port):
            with pytest.raises(FileTransferError, match="changed while it was read"):
                await client.upload(source, PATH, write)
        assert len(port.asked) < 3


class TestSilence:
    @pytest.mark.parametrize(
        "other", [{"time": 1.0}, {"index": 7}], ids=["the answer to another file", "the answer to another chunk"]
    )
    async def test_what_answers_something_else_is_no_answer(self, other: dict[str, Any]) -> None:
        async with client_of(lambda chunk: [answer(replace(chunk, **other))]) as (client, _):
            with pytest.raises(FeedbackTimeoutError):
                await client.upload_bytes(CONTENT, PATH)

    async def test_a_cut_is_reported(self) -> None:
        def script(chunk: UploadRequest) -> Answers:
            return ok(chunk) if chunk.index == 0 else [Cut(answer(chunk))]

        async with client_of(script) as (client, port):
            with pytest.raises(ConnectionLostError):
                await client.upload_bytes(CONTENT, PATH)
        assert len(port.asked) == 2


class TestChecksums:
    """Answers with wrong checksums prove nothing: the file is read back."""

    @staticmethod
    def script(back: bytes) -> Callable[[Any], Answers]:
        def answers(request: Any) -> Answers:
            if isinstance(request, DownloadRequest):
                pieces = [back[start : start + CHUNK_BYTES] for start in range(0, len(back), CHUNK_BYTES)]
                md5s = [hashlib.md5(piece).digest() for piece in pieces]
                return [
                    DownloadFeedback(DownloadResult.OK, request.time, len(pieces), index, md5s[index], piece)
                    for index, piece in enumerate(pieces)
                ]
            return [damaged(answer(request))]

        return answers

    async def test_the_same_file_is_proof(self) -> None:
        async with client_of(self.script(CONTENT)) as (client, port):
            await client.upload_bytes(CONTENT, PATH)
            assert isinstance(port.asked[-1], DownloadRequest)

    @pytest.mark.parametrize("back", [CONTENT[:-1], CONTENT + b"x", b"x" + CONTENT[1:]])
    async def test_another_file_is_an_error(self, back: bytes) -> None:
        async with client_of(self.script(back)) as (client, _):
            with pytest.raises(ChecksumError, match="another file"):
                await client.upload_bytes(CONTENT, PATH)
