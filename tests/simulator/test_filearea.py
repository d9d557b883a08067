"""The file area: a directory that nobody leaves."""

import os
import sys
from pathlib import Path

import pytest

from cti_mqtt.cti.messages.files import EntryType
from cti_mqtt.cti.results import BrowseResult, FileResult
from cti_mqtt.errors import InvalidRequestError
from cti_mqtt.simulator.filearea import FileArea

SECRET = b"secret"
ESCAPES = [
    *(
        "..\\secret.txt",
        "../secret.txt",
        "Work\\..\\..\\secret.txt",
        "Work/../../secret.txt",
        "Work\\../..\\secret.txt",
    ),
    *("\\secret.txt", "/secret.txt", "C:\\secret.txt", "\\\\host\\share\\secret.txt", "secret.txt", "Work\\.\\a.txt"),
    *("Link/secret.txt", "Work/link.txt", "Work/folder/secret.txt", "Work\\loop\\loop\\secret.txt"),
    *("Work\\.unfinished-x.txt", "Work\\" + "x" * 300 + "\\a.txt"),
]


@pytest.fixture
def area(tmp_path: Path) -> FileArea:
    return FileArea(tmp_path / "area")


@pytest.fixture
def outside(tmp_path: Path, area: FileArea) -> Path:
    """A file beside the area, and links that lead to it."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    work = tmp_path / "area" / "Work"
    if sys.platform != "win32":
        (work / "link.txt").symlink_to(tmp_path / "secret.txt")
        (work / "folder").symlink_to(tmp_path)
        (work / "loop").symlink_to(work / "loop")
        (work.parent / "Link").symlink_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ESCAPES)
def test_nobody_gets_out(area: FileArea, outside: Path, path: str) -> None:
    before = sorted(outside.rglob("*"))
    assert not area.may_write(path)
    with pytest.raises((InvalidRequestError, OSError)):
        area.write(path, [b"x"])
    with pytest.raises((InvalidRequestError, OSError)):
        area.open(path)
    assert area.browse(path).result is BrowseResult.INVALID
    assert area.new_folder(path) in {FileResult.NO_FOLDERS_ALLOWED_HERE, FileResult.CREATE_FAILED}
    assert area.delete(path) in {FileResult.DOES_NOT_EXIST, FileResult.DELETE_FAILED}
    assert sorted(outside.rglob("*")) == before
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_links_are_not_shown(area: FileArea, outside: Path) -> None:
    assert area.browse("Work").entries == ()


@pytest.mark.skipif(sys.platform == "win32", reason="links want rights there")
def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Work").symlink_to(tmp_path)
    with pytest.raises(OSError, match="is a link"):
        FileArea(tmp_path)


def test_the_root_holds_the_directories(area: FileArea, tmp_path: Path) -> None:
    (tmp_path / "area" / "Other").mkdir()
    (tmp_path / "area" / "file.txt").touch()
    feedback = area.browse("")
    assert feedback.result is BrowseResult.DIRECTORY
    assert [entry.name for entry in feedback.entries] == [
        "CANBMS Config",
        "Simulation",
        "SMB Config",
        "Support",
        "Work",
    ]


def test_browsing(area: FileArea, tmp_path: Path) -> None:
    support = tmp_path / "area" / "Support"
    (support / "b").mkdir()
    (support / "A.bin").write_bytes(bytes(1000))
    (support / ".hidden").touch()
    (support / ("x" * 64)).touch()
    (support / "c").touch()
    os.utime(support / "A.bin", (0, 0))
    if sys.platform == "linux":
        os.mkfifo(support / "fifo")
        (support / "not:for Windows").touch()
        Path(os.fsdecode(os.fsencode(support) + b"/no text \xff")).touch()
    feedback = area.browse("support/")
    assert [(entry.type, entry.name) for entry in feedback.entries] == [
        *((EntryType.DIRECTORY, "b"), (EntryType.FILE, "A.bin"), (EntryType.FILE, "c"))
    ]
    assert (feedback.entries[1].size, feedback.entries[1].modified) == (1000, "1970-01-01 00:00:00")
    assert area.browse("Support\\A.bin").result is BrowseResult.INVALID
    assert area.browse("Support\\nix").result is BrowseResult.INVALID
    (tmp_path / "area" / "Work" / "alt").mkdir()
    assert area.browse("Work\\alt").result is BrowseResult.SCHEDULE_DIRECTORY


@pytest.mark.skipif(sys.platform == "win32", reason="no such things there")
def test_what_is_no_file_is_not_opened(area: FileArea, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "area" / "Support" / "fifo.txt")
    for path in ("Support\\fifo.txt", "Support", "Support\\nix"):
        with pytest.raises(InvalidRequestError):
            area.open(path)


def test_a_file_is_written_whole_or_not_at_all(area: FileArea, tmp_path: Path) -> None:
    work = tmp_path / "area" / "Work"
    area.write("Work\\a.sdx", [b"one", b"two"])
    assert (work / "a.sdx").read_bytes() == b"onetwo"

    def broken() -> object:
        yield b"thr"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        area.write("Work\\a.sdx", broken())  # type: ignore[arg-type]
    assert [path.name for path in work.iterdir()] == ["a.sdx"]
    assert (work / "a.sdx").read_bytes() == b"onetwo"


@pytest.mark.parametrize(
    "path", ["Work\\a.exe", "Work\\a", "Work", "", "Work\\nix\\a.sdx", "Work\\" + "x" * 60 + ".sdx"]
)
def test_what_is_not_written(area: FileArea, path: str) -> None:
    assert not area.may_write(path)


def test_a_directory_is_not_overwritten(area: FileArea) -> None:
    assert area.new_folder("Work\\a.sdx") is FileResult.CREATED
    assert not area.may_write("Work\\a.sdx")


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("Work\\new", FileResult.CREATED),
        ("simulation/new", FileResult.CREATED),
        ("Work\\folder", FileResult.CREATE_FAILED),
        ("Work\\nix\\new", FileResult.CREATE_FAILED),
        ("Work\\" + "x" * 64, FileResult.CREATE_FAILED),
        ("new", FileResult.NO_FOLDERS_ALLOWED_HERE),
        ("Work", FileResult.NO_FOLDERS_ALLOWED_HERE),
        ("", FileResult.NO_FOLDERS_ALLOWED_HERE),
    ],
)
def test_folders(area: FileArea, path: str, result: FileResult) -> None:
    area.new_folder("Work\\folder")
    assert area.new_folder(path) is result


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("Work\\a.sdx", FileResult.DELETED),
        ("Work\\empty", FileResult.DELETED),
        ("Work\\full", FileResult.DELETE_FAILED),
        ("Work\\a.exe", FileResult.EXTENSION_NOT_ALLOWED),
        ("Work\\nix.sdx", FileResult.DOES_NOT_EXIST),
        ("Work\\nix.exe", FileResult.DOES_NOT_EXIST),
        ("Work", FileResult.DELETE_FAILED),
        ("", FileResult.DELETE_FAILED),
    ],
)
def test_deletions(area: FileArea, tmp_path: Path, path: str, result: FileResult) -> None:
    work = tmp_path / "area" / "Work"
    for name in ("empty", "full"):
        (work / name).mkdir()
    for name in ("a.sdx", "a.exe", "full/b.sdx"):
        (work / name).touch()
    assert area.delete(path) is result
    assert work.exists()


def test_what_a_killed_simulator_left_is_cleared(area: FileArea, tmp_path: Path) -> None:
    left = tmp_path / "area" / "Work" / ".unfinished-1234"
    left.touch()
    FileArea(tmp_path / "area")
    assert not left.exists()
