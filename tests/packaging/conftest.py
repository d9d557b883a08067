"""A wheel built from this tree, and a clean virtual environment that it is installed in."""

import re
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.programs import ROOT, run

NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Network is unreachable|Connection refused"
)


def succeed(*command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """What a program prints that must succeed."""
    done = run(*command, cwd=cwd, environment=environment)
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip("pip cannot reach a package index")
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def bin_of(folder: Path) -> Path:
    """Where a virtual environment has its programs."""
    return folder / ("Scripts" if sys.platform == "win32" else "bin")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with `wheel/` and `venv/`, made once for all workers of a test run."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared if worker_id == "master" else shared.parent) / "packaging"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "done").exists():
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
            succeed(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheel", ROOT)
            venv.create(folder / "venv", with_pip=True)
            python = bin_of(folder / "venv") / "python"
            (wheel,) = (folder / "wheel").glob("*.whl")
            succeed(python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", wheel)
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """The wheel."""
    (found,) = (built / "wheel").glob("*.whl")
    return found


@pytest.fixture(scope="session")
def program(built: Path) -> Path:
    """`cti-mqtt` where nothing but it and its own dependencies is installed."""
    return bin_of(built / "venv") / "cti-mqtt"
