"""A subcommand loads what it needs itself: who sends a stop does not wait for the simulator."""

import subprocess
import sys

import pytest

HEAVY = {
    "amqtt",
    "paho",
    "prometheus_client",
    "pydantic",
    "cti_mqtt.bridge.bridge",
    "cti_mqtt.client",
    "cti_mqtt.simulator",
}


def loaded(*arguments: str) -> set[str]:
    """Which of these modules are there when the program ends."""
    script = (
        f"import sys; from cti_mqtt.cli import app; app({list(arguments)}, standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("--version", set()),
        ("send", {"paho", "pydantic"}),
        ("watch", {"paho", "pydantic"}),
        ("health", {"paho", "pydantic"}),
        ("files", {"pydantic", "cti_mqtt.client"}),
    ],
)
def test_what_is_loaded(command: str, needed: set[str]) -> None:
    assert loaded(*([command] if command == "--version" else [command, "--help"])) == needed


def test_to_list_them_all_all_are_loaded() -> None:
    assert loaded("--help") == HEAVY
