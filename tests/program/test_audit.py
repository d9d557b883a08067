"""`cti-mqtt audit` as its users meet it: real files, real processes, exit statuses."""

import csv
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cti_mqtt.bridge.store.audit import FIRST_HASH, chained
from cti_mqtt.bridge.store.reading import read_audit
from cti_mqtt.cli import app
from tests.bridge.store.samples import entry, file_in, opened
from tests.support.processes import finished
from tests.support.programs import run

LONG = "x" * 300
DAYS = [f"2026-01-0{day}T12:00:00.000Z" for day in (1, 2, 3, 4)]
ENTRIES = [
    entry("start", id="a", ts=DAYS[0], request='{"test_name": "cell, 42"}'),
    entry(
        "stop", id="b", ts=DAYS[1], who=None, outcome="refused", code=None, reason=LONG, message="second\nline\x1b[2J"
    ),
    entry("set_mv", id="c", ts=DAYS[2], channel=8, before={"1": 2.5}, after={"1": 3.0}, unforeseen=[1, 2]),
    entry("lease expired", id=None, ts=DAYS[3], cycler="arbin-2", channel=None, who="Jörg"),
]


async def audit(*arguments: str | Path) -> tuple[int, str]:
    """As a process of its own."""
    status, output = await finished("audit", *map(str, arguments))
    assert "Traceback" not in output
    return status, output


def quickly(*arguments: str | Path) -> tuple[int, str]:
    """The same without a new process, for tables."""
    done = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    async with opened(path) as store:
        await store.audit(ENTRIES)
    return path


def heads(folder: Path) -> list[str]:
    with read_audit(file_in(folder)) as reader:
        return [row.hash for row in reader.rows()]


def write_config(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(f"{text}\ncyclers: {{arbin1: {{host: 192.0.2.1, username: u, password: p}}}}\n")
    return path


class TestPrinting:
    async def test_json_lines(self, folder: Path) -> None:
        status, output = await audit("--data-dir", folder, "--format", "json")
        assert status == 0
        lines = [json.loads(line) for line in output.splitlines()]
        assert lines == [
            {**each, "seq": seq, "hash": head}
            for seq, each, head in zip((1, 2, 3, 4), ENTRIES, heads(folder), strict=True)
        ]  # fmt: skip

    async def test_csv(self, folder: Path) -> None:
        status, output = await audit("--data-dir", folder, "--format", "csv")
        assert status == 0
        rows = list(csv.DictReader(output.splitlines(keepends=True)))
        assert [row["seq"] for row in rows] == ["1", "2", "3", "4"]
        assert rows[0]["request"] == '{"test_name": "cell, 42"}'
        assert rows[1]["message"] == "second\nline\x1b[2J"
        assert (rows[1]["who"], rows[1]["reason"]) == ("", LONG)
        assert (rows[2]["before"], rows[2]["more"]) == ('{"1":2.5}', '{"unforeseen":[1,2]}')
        assert (rows[3]["cycler"], rows[3]["channel"], rows[3]["who"]) == ("arbin-2", "", "Jörg")
        assert rows[3]["hash"] == heads(folder)[3]

    async def test_text_is_a_table_that_cuts_nothing(self, folder: Path) -> None:
        status, output = quickly("--data-dir", folder)
        assert status == 0
        header, *lines = output.splitlines()
        assert header.split()[:7] == ["seq", "ts", "who", "what", "cycler", "channel", "id"]
        assert len(lines) == 4
        assert LONG in lines[1]
        assert "second\\nline\\x1b[2J" in lines[1]
        assert {line.index("2026-") for line in lines} == {header.index("ts")}
        assert lines[3].split()[2:5] == ["Jörg", "lease", "expired"]

    async def test_the_configuration_says_where(self, folder: Path) -> None:
        config = write_config(folder.parent, "data_dir: data")
        status, output = quickly("-c", config, "--format", "json", "--last", "1")
        assert (status, json.loads(output)["what"]) == (0, "lease expired")

    async def test_a_pipe_that_ends_early(self, folder: Path) -> None:
        done = run("sh", "-c", f'"{sys.executable}" -m cti_mqtt audit --data-dir "{folder}" | head -1')
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--cycler arbin1", [1, 2, 3]),
        ("--cycler none", []),
        ("--channel 7", [1, 2]),
        ("--channel 7 --id b", [2]),
        ("--id a", [1]),
        ("--since 2026-01-02", [2, 3, 4]),
        ("--since 2026-01-02T12:00:00Z --until 2026-01-04T12:00:00Z", [2, 3]),
        ("--since 2026-01-02T13:00:00+01:00", [2, 3, 4]),
        ("--until 2026-01-02T12:00:00.001", [1, 2]),
        ("--last 2", [3, 4]),
        ("--last 0", []),
        ("--cycler arbin1 --last 2", [2, 3]),
        ("--last 99", [1, 2, 3, 4]),
    ],
)
async def test_choosing(folder: Path, options: str, expected: list[int]) -> None:
    status, output = quickly("--data-dir", folder, "--format", "json", *options.split())
    assert status == 0
    assert [json.loads(line)["seq"] for line in output.splitlines()] == expected


def tampered(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(file_in(folder), isolation_level=None)
    for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


class TestVerifying:
    async def test_whole(self, folder: Path) -> None:
        status, output = await audit("--data-dir", folder, "--verify")
        assert (status, output) == (0, f"{file_in(folder)}: the chain is whole: 4 entries, head {heads(folder)[-1]}\n")

    async def test_empty(self, tmp_path: Path) -> None:
        async with opened(tmp_path):
            pass
        status, output = quickly("--data-dir", tmp_path, "--verify")
        assert (status, output) == (0, f"{file_in(tmp_path)}: the chain is whole: 0 entries, head {FIRST_HASH}\n")

    def test_the_verdict_stays_out_of_an_export(self, folder: Path) -> None:
        done = run(sys.executable, "-m", "cti_mqtt", "audit", "--data-dir", folder, "--verify", "--format", "json")
        assert done.returncode == 0
        assert "4 entries" in done.stderr
        assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4

    @pytest.mark.parametrize(
        ("statement", "seq"),
        [
            ("UPDATE audit SET entry = replace(entry, 'ann', 'eve') WHERE seq = 3", 3),
            ("UPDATE audit SET hash = upper(hash) WHERE seq = 2", 2),
            ("UPDATE audit SET entry = NULL WHERE seq = 2", None),
            ("UPDATE audit SET entry = CAST(x'ff00' AS TEXT) WHERE seq = 2", 2),
            ("DELETE FROM audit WHERE seq = 1", 1),
            ("DELETE FROM audit WHERE seq = 2", 2),
            ("DELETE FROM audit WHERE seq = 4", 4),
            ("DELETE FROM audit", 1),
            ("UPDATE audit SET seq = CASE seq WHEN 2 THEN -3 WHEN 3 THEN -2 END WHERE seq IN (2, 3)", 1),
            ("INSERT INTO audit SELECT 5, entry, hash FROM audit WHERE seq = 4", 5),
        ],
    )
    async def test_broken(self, folder: Path, statement: str, seq: int | None) -> None:
        if seq is None:
            with pytest.raises(sqlite3.IntegrityError):
                tampered(folder, statement)
            return
        tampered(folder, statement)
        for options in (["--verify"], ["--verify", "--format", "csv"], ["--head", FIRST_HASH]):
            status, output = quickly("--data-dir", folder, *options)
            assert status == 1
            assert f"the chain is broken at entry {seq}: " in output
            assert output.count("\n") == 1

    async def test_an_unreadable_entry_is_shown(self, folder: Path) -> None:
        tampered(folder, "UPDATE audit SET entry = CAST(x'6869ff' AS TEXT) WHERE seq = 2")
        for form in ("text", "csv", "json"):
            status, output = quickly("--data-dir", folder, "--format", form)
            assert status == 0
            assert "unreadable entry: hi" in output

    async def test_an_earlier_head(self, folder: Path) -> None:
        for head in (FIRST_HASH, *heads(folder), heads(folder)[1].upper()):
            status, output = quickly("--data-dir", folder, "--head", head)
            assert status == 0, output

    @pytest.mark.parametrize("how", ["cut", "rewritten"])
    async def test_a_head_that_is_gone(self, folder: Path, how: str) -> None:
        noted = heads(folder)[3]
        statements = ["DELETE FROM audit WHERE seq = 4", "UPDATE sqlite_sequence SET seq = 3 WHERE name = 'audit'"]
        if how == "rewritten":
            forged = '{"what":"nothing"}'
            head = chained(heads(folder)[2], forged)
            statements = [f"UPDATE audit SET entry = '{forged}', hash = '{head}' WHERE seq = 4"]
        tampered(folder, *statements)
        assert quickly("--data-dir", folder, "--verify")[0] == 0  # nothing inside shows it
        status, output = quickly("--data-dir", folder, "--head", noted)
        assert status == 1
        assert f"{noted} is not part of the chain" in output


class TestWhere:
    async def test_beside_a_running_bridge(self, folder: Path) -> None:
        async with opened(folder) as store:
            await store.audit([entry("latest")])
            status, output = quickly("--data-dir", folder, "--last", "1", "--format", "json", "--verify")
            assert status == 0
            assert "5 entries" in output
            assert '"what":"latest"' in output
            await store.audit([entry("more")])

    async def test_on_a_copy(self, folder: Path, tmp_path: Path) -> None:
        copy = tmp_path / "a copy?#%20"
        copy.mkdir()
        shutil.copy(file_in(folder), copy)
        before = file_in(copy).read_bytes()
        status, output = quickly("--data-dir", copy, "--verify")
        assert (status, "4 entries" in output) == (0, True)
        assert file_in(copy).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config or --data-dir"),
        (["-c", "CONFIG", "--data-dir", "FOLDER"], "--config or --data-dir"),
        (["--data-dir", "FOLDER"], "there is no such file"),
        (["-c", "CONFIG"], "there is no such file"),
        (["-c", "NOWHERE"], "cannot be read"),
        (["-c", "WITHOUT"], "data_dir: missing"),
        (["--data-dir", "FOLDER", "--since", "yesterday"], "is no time such as"),
        (["--data-dir", "FOLDER", "--head", "abc"], "64 hexadecimal digits"),
        (["--data-dir", "FOLDER", "--last", "-1"], "--last"),
        (["--data-dir", "FOLDER", "--format", "xml"], "--format"),
    ],
)
async def test_wrong_usage(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "other").mkdir()
    known = {
        "CONFIG": write_config(tmp_path, "data_dir: data"),
        "WITHOUT": write_config(tmp_path / "other", ""),
        "FOLDER": tmp_path,
        "NOWHERE": tmp_path / "none.yaml",
    }
    status, output = quickly(*(known.get(each, each) for each in arguments))
    assert status == 2
    assert message in " ".join(output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"hello"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: tampered(path.parent, "PRAGMA user_version = 99"), "has schema 99"),
        (lambda path: tampered(path.parent, "DROP TABLE audit"), "cannot be read"),
    ],
)
async def test_not_a_store(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(file_in(folder))
    status, output = quickly("--data-dir", folder, "--verify")
    assert status == 1
    assert output.startswith(f"{file_in(folder)}: ")
    assert message in output


async def test_help_has_an_example() -> None:
    status, output = quickly("--help")
    assert status == 0
    assert "Example: cti-mqtt audit" in " ".join(output.replace("│", " ").split())
