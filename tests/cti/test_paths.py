"""Paths on the cycler's PC: what is sent, and what nobody may name."""

import ntpath
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.cti.paths import DIRECTORIES, CtiPath, cti_path, file_path
from cti_mqtt.errors import InvalidRequestError
from tests.cti.strategies import QUICK


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("Work", ("Work",)),
        ("work", ("Work",)),
        ("Work\\", ("Work",)),
        ("Work/", ("Work",)),
        ("Work\\a.sdx", ("Work", "a.sdx")),
        ("WORK/a.sdx", ("Work", "a.sdx")),
        ("smb config/Sub\\Ω 😀.smb", ("SMB Config", "Sub", "Ω 😀.smb")),
        ("CANBMS Config\\x", ("CANBMS Config", "x")),
        ("Support\\..a", ("Support", "..a")),
        ("Support\\a..b", ("Support", "a..b")),
        ("Simulation\\console.txt", ("Simulation", "console.txt")),
        ("Work\\ a", ("Work", " a")),
    ],
)
def test_paths(text: str, parts: tuple[str, ...]) -> None:
    path = cti_path(text)
    assert path.parts == parts
    assert str(path) == "\\".join(parts)
    assert cti_path(str(path)) == path
    assert (path.directory, path.name) == ((parts[0], parts[-1]) if parts else ("", ""))
    assert path.inside is (len(parts) > 1)


@pytest.mark.parametrize(
    "text",
    [
        *("..", ".", "Work\\..", "Work/..", "Work\\..\\..", "Work\\../..\\x.sdx", "..\\Work", "Work\\.\\a", "./Work"),
        *("\\Work", "/Work", "\\\\server\\share", "//server/share", "\\\\?\\C:\\x", "\\\\.\\COM1", "\\", "/"),
        *("C:\\Work", "C:Work", "c:/Work/a.sdx", "Work\\C:", "Work\\a.sdx:stream", "Work:\\a", "file:///Work"),
        *("Windows", "Works", "Wor", "Windows\\a.sdx", "etc/passwd", "Work a", " Work", "~", "~/Work", "%TEMP%"),
        *(
            "Work\\\\a",
            "Work//a",
            "Work\\a\\\\",
            "Work\\a...",
            "Work\\.. ",
            "Work\\. .",
            "Work\\a ",
        ),
        *("Work .", "Work.", "Work\\... \\a", "Work\\a. \\b"),
        *(
            "Work\\a*",
            "Work\\a?",
            'Work\\"a"',
            "Work\\<a>",
            "Work\\a|b",
            "Work\\a\n",
            "Work\\a\x1f",
            "Work\\a\0b",
            "\0",
        ),
        *("Work\\con", "Work\\NUL.txt", "Work\\com1.sdx", "Work\\LPT9", "Work\\aux .txt", "Work\\com¹", "Work\\CONIN$"),
        *("Work\\\ud800", "Work\\" + "x" * 1019, "x" * 1024),
    ],
    ids=repr,
)
def test_what_nobody_may_name(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        cti_path(text)


@pytest.mark.parametrize("name", ["a.sdx", "a.SDX", "a.sdu", "a.can", "a.smb", "a.txt", "a.b.txt"])
def test_files_that_may_be_written(name: str) -> None:
    assert file_path(f"Work/Sub/{name}") == CtiPath(("Work", "Sub", name))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Work\\a.exe", "only .sdx, .sdu, .can, .smb, .txt are allowed"),
        ("Work\\a", "only"),
        ("Work\\sdx", "only"),
        ("Work\\a.sdx.bat", "only"),
        ("Work\\.sdx", "only"),
        ("Work\\.a.sdx", "only"),
        ("Work", "is not a file"),
        ("", "is not a file"),
        ("..\\a.sdx", "dot"),
        ("Windows\\a.sdx", "is not in Simulation, Work, Support, SMB Config, CANBMS Config"),
    ],
)
def test_files_that_may_not_be_written(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        file_path(text)


SOUP = st.lists(
    st.sampled_from(["..", ".", "\\", "/", "Work", "work", "C:", "a", "a.sdx", " ", "Support", "con", "\0", "…"]),
    max_size=8,
).map("".join)


@QUICK
@given(SOUP | st.text(max_size=30) | st.text(max_size=20).map("Work\\".__add__))
def test_no_path_leaves_the_directories(text: str) -> None:
    try:
        path = cti_path(text)
    except InvalidRequestError:
        return
    assert not path.parts or path.parts[0] in DIRECTORIES
    for module in (ntpath, posixpath):
        where = module.normpath(module.join("root", *path.parts))
        assert where == module.join("root", *path.parts)
        assert not module.isabs(where)
    assert not ntpath.splitdrive(str(path))[0]
    assert cti_path(str(path)) == path
