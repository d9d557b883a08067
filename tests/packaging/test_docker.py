"""The Dockerfile: what it says, whether its commands work, and, where a Docker daemon answers, the image itself."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

import cti_mqtt
from tests.packaging.conftest import succeed
from tests.support.brokers import HOST
from tests.support.programs import ROOT, end, interrupt, run, running_demo, start

pytestmark = pytest.mark.timeout(900)  # an image takes its time

CONFIG_PATH = "/etc/cti-mqtt/config.yaml"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its argument, comments away, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return [
        (word.upper(), argument.strip())
        for word, _, argument in (line.partition(" ") for line in text.replace("\\\n", " ").splitlines())
    ]


def arguments(word: str) -> list[str]:
    return [argument for each, argument in instructions() if each == word]


def exec_form(argument: str) -> list[str]:
    parsed = json.loads(argument)
    assert isinstance(parsed, list)
    return parsed


def start_command() -> list[str]:
    (entrypoint,), (command,) = arguments("ENTRYPOINT"), arguments("CMD")
    return exec_form(entrypoint) + exec_form(command)


def health_command() -> list[str]:
    (check,) = arguments("HEALTHCHECK")
    return exec_form(check.partition(" CMD ")[2])


# --- what it says ---


def test_every_command_is_in_exec_form() -> None:
    for word in ("RUN", "CMD", "ENTRYPOINT", "VOLUME"):
        assert arguments(word)
        for argument in arguments(word):
            exec_form(argument)
    assert start_command() == ["cti-mqtt", "run", "-c", CONFIG_PATH]
    assert health_command() == ["cti-mqtt", "health", "-c", CONFIG_PATH]


def test_small_base_with_a_python_that_the_project_supports() -> None:
    for base in arguments("FROM"):
        match = re.fullmatch(r"python:3\.(\d+)-slim( AS \w+)?", base)
        assert match
        assert int(match[1]) >= 11


def test_not_root() -> None:
    after_the_last_stage = instructions()[max(i for i, (word, _) in enumerate(instructions()) if word == "FROM") :]
    users = [argument for word, argument in after_the_last_stage if word == "USER"]
    assert users
    assert all(int(user.split(":")[0]) > 0 for user in users)


def test_no_secrets() -> None:
    assert not arguments("ARG")
    assert not re.search(
        r"password|secret|token|username", " ".join(arguments("ENV") + arguments("RUN")), re.IGNORECASE
    )
    copied = {
        source for argument in arguments("COPY") for source in argument.split()[:-1] if not source.startswith("-")
    }
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "cti_mqtt", "/opt/cti-mqtt"}


def test_dockerignore_lets_through_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "cti_mqtt",
    }


# --- its commands, without Docker ---


def test_install_from_what_is_copied(tmp_path: Path) -> None:
    """The build stage's pip has these files and no others."""
    for source in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / source, tmp_path)
    shutil.copytree(ROOT / "cti_mqtt", tmp_path / "cti_mqtt", ignore=shutil.ignore_patterns("__pycache__"))
    install = next(exec_form(argument) for argument in arguments("RUN") if "pip" in argument)
    assert install[-1] == "."
    succeed("python3", "-m", "venv", tmp_path / "env")
    succeed(tmp_path / "env/bin/python", *install[1:], cwd=tmp_path)
    assert succeed(tmp_path / "env/bin/cti-mqtt", "--version", cwd=tmp_path).strip() == cti_mqtt.__version__


@pytest.mark.parametrize("command", [start_command(), health_command()], ids=["start", "health"])
def test_commands_reach_the_configuration(program: Path, tmp_path: Path, command: list[str]) -> None:
    """With a configuration that is not there they say so, which means that the program took its arguments."""
    here = [str(tmp_path / "config.yaml") if word == CONFIG_PATH else word for word in command[1:]]
    done = run(program, *here, cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a container is ended with SIGTERM")
def test_start_run_be_healthy_and_end(program: Path, tmp_path: Path) -> None:
    """As in the container: start command, health check, SIGTERM."""
    config = tmp_path / "config.yaml"
    here = {"cti-mqtt": str(program), CONFIG_PATH: str(config)}
    begin, ask = ([here.get(word, word) for word in command] for command in (start_command(), health_command()))
    credentials = {"ARBIN_CTI_USERNAME": "admin", "ARBIN_CTI_PASSWORD": "admin"}
    with running_demo() as demo:
        config.write_text(
            f"mqtt: {{host: {HOST}, port: {demo.mqtt_port}, protocol: 3.1.1, base_topic: lab, client_id: lab}}\n"
            f"cyclers: {{arbin1: {{host: {HOST}, port: {demo.cti_port}}}}}\nhealth_interval_s: 1\n"
        )
        bridge = start(*begin, environment=credentials)
        try:
            while run(*ask, environment=credentials).returncode != 0:  # the test's time limit bounds this
                assert bridge.poll() is None
            status, log = interrupt(bridge, signal.SIGTERM)
            assert status == 0, log
            assert "Traceback" not in log
            assert "the bridge is offline" in run(*ask, environment=credentials).stderr
        finally:
            end(bridge)


# --- the image ---


def docker_problem() -> str:
    if shutil.which("docker") is None:
        return "docker is not installed"
    done = run("docker", "info")
    return "" if done.returncode == 0 else "no Docker daemon answers (docker info)"


def test_image() -> None:
    if problem := docker_problem():
        pytest.skip(problem)
    tag = "cti-mqtt:test"
    succeed("docker", "build", "--tag", tag, ".")
    try:
        assert succeed("docker", "run", "--rm", tag, "--version").strip() == cti_mqtt.__version__
        assert succeed("docker", "run", "--rm", "--entrypoint", "id", tag, "-u").strip() != "0"
        config = f"{ROOT / 'examples' / 'config.yaml'}:{CONFIG_PATH}:ro"
        credentials = ("-e", "ARBIN_CTI_USERNAME=a", "-e", "ARBIN_CTI_PASSWORD=b")
        well = succeed("docker", "run", "--rm", "-v", config, *credentials, tag, "check", "-c", CONFIG_PATH)
        assert "valid" in well
    finally:
        run("docker", "rmi", "--force", tag)
