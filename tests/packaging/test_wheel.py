"""What a user installs: the wheel, without the development tools."""

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

import cti_mqtt
from tests.packaging.conftest import bin_of, succeed
from tests.support.programs import ROOT, run

pytestmark = pytest.mark.timeout(300)  # a clean virtual environment takes its time

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"cti_mqtt", f"cti_mqtt-{cti_mqtt.__version__}.dist-info"}
    assert "cti_mqtt/py.typed" in names
    assert {name for name in names if name.startswith("cti_mqtt/") and not name.endswith((".py", "py.typed"))} == set()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cti_mqtt").rglob("*.py")}
    assert sources <= set(names)


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    metadata = archive.read(name).decode()
    for line in ("Name: cti-mqtt", f"Version: {cti_mqtt.__version__}", "Requires-Python: >=3.11"):
        assert line in metadata.splitlines()
    assert "License-Expression: MIT" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    needed = {
        match[1].lower() for match in re.finditer(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    }
    assert needed == {re.split(r"[<>=]", requirement)[0].lower() for requirement in PROJECT["dependencies"]}


def test_no_development_tools_come_along(built: Path, program: Path) -> None:
    packages = succeed(bin_of(built / "venv") / "python", "-m", "pip", "list", "--format", "freeze")
    names = {line.split("==")[0].lower() for line in packages.splitlines()}
    assert names.isdisjoint({"pytest", "hypothesis", "mypy", "ruff", "import-linter"})
    assert {"amqtt", "paho-mqtt", "pydantic"} <= names


def test_the_program_runs(program: Path, tmp_path: Path) -> None:
    assert succeed(program, "--version", cwd=tmp_path) == f"{cti_mqtt.__version__}\n"
    assert "simulate" in succeed(program, "--help", cwd=tmp_path)


def test_check_without_and_with_credentials(program: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes((ROOT / "examples" / "config.yaml").read_bytes())
    refused = run(program, "check", "-c", config, cwd=tmp_path)
    assert refused.returncode == 2
    assert "ARBIN_CTI_USERNAME" in refused.stderr
    assert "Traceback" not in refused.stderr
    well = succeed(program, "check", "-c", config, environment={"ARBIN_CTI_USERNAME": "a", "ARBIN_CTI_PASSWORD": "b"})
    assert "valid" in well
