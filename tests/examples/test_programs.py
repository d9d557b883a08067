"""subscriber.py and commander.py as a user runs them, against a demo."""

import json
import signal
import subprocess
import sys
from datetime import datetime

import pytest

from tests.support import programs
from tests.support.brokers import HOST, free_port
from tests.support.programs import ROOT, Demo, end, interrupt, read_until, start

EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends programs with SIGINT, as Ctrl-C does elsewhere")


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return programs.run(sys.executable, EXAMPLES / name, *arguments)


def at(port: int) -> tuple[str, ...]:
    return "--host", HOST, "--port", str(port)


def test_subscriber_prints_each_channel(demo: Demo) -> None:
    process = start(sys.executable, EXAMPLES / "subscriber.py", *at(demo.mqtt_port), "--base", "cti")
    try:
        lines = read_until(process, "channel   4")
        stamp, cycler, rest = lines[0].split(maxsplit=2)
        assert datetime.fromisoformat(stamp).tzinfo is not None
        assert cycler == "arbin1"
        assert rest.startswith("channel   1  Idle")
        assert [line.split()[3] for line in lines] == ["1", "2", "3", "4"]
        assert interrupt(process, signal.SIGINT) == (0, "")
    finally:
        end(process)


def test_subscriber_without_a_broker() -> None:
    done = run("subscriber.py", *at(free_port()))
    assert done.returncode == 1
    assert done.stderr.startswith("cannot connect to")


def test_commander_starts_a_test(demo: Demo) -> None:
    done = run("commander.py", "arbin1", "2", "cell-42", "--schedule", "CCCV.sdx", *at(demo.mqtt_port))
    assert (done.returncode, done.stderr) == (0, "")
    body, _, closing = done.stdout.rpartition("\n}\n")
    result = json.loads(body + "\n}")
    assert (result["outcome"], result["verified"], result["assigned"]) == ("succeeded", True, True)
    assert closing == "succeeded: started, channel went Idle -> Rest\n"

    again = run("commander.py", "arbin1", "2", "cell-43", *at(demo.mqtt_port))
    assert again.returncode == 3
    assert again.stdout.endswith("refused: running is True, not False\n")


@pytest.mark.parametrize(
    ("cycler", "channel", "status", "reason"),
    [
        ("arbin1", "1", 4, "no_schedule_assigned"),
        ("arbin1", "9", 3, "unknown_channel"),
        ("x", "1", 3, "unknown_cycler"),
    ],
)
def test_commander_says_how_it_ended(demo: Demo, cycler: str, channel: str, status: int, reason: str) -> None:
    done = run("commander.py", cycler, channel, "cell-42", *at(demo.mqtt_port))
    assert done.returncode == status, done.stderr
    assert f'"reason": "{reason}"' in done.stdout


def test_commander_without_an_answer(demo: Demo) -> None:
    done = run("commander.py", "arbin1", "1", "cell-42", "--base", "elsewhere", "--timeout", "0.5", *at(demo.mqtt_port))
    assert (done.returncode, done.stderr) == (6, "no answer within 0.5 s\n")


def test_commander_without_a_broker() -> None:
    done = run("commander.py", "arbin1", "1", "cell-42", *at(free_port()))
    assert done.returncode == 1
    assert done.stderr.startswith("cannot connect to")


def test_the_demo_ends_in_order(demo: Demo) -> None:
    """Not an example, but what everybody ends first: no traceback, status 0."""
    assert interrupt(demo.process, signal.SIGINT) == (0, "")
