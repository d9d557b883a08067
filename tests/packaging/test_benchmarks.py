"""The benchmarks run and say what they measured. What they measured is not held against anything: machines differ."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.brokers import needs_mosquitto
from tests.support.programs import ROOT, run

SHORT = ("--rounds", "1", "--seconds", "0.1")
SCRIPTS = [pytest.param("decode", id="decode"), pytest.param("latency", id="latency", marks=needs_mosquitto)]


def benchmark(name: str, *options: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    done = run(sys.executable, ROOT / "benchmarks" / f"{name}.py", *options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_in_plain_words(name: str) -> None:
    status, output, error = benchmark(name, *SHORT)
    assert (status, error) == (0, "")
    assert "ratio" in output


def test_decoding_as_json() -> None:
    status, output, error = benchmark("decode", *SHORT, "--json")
    assert (status, error) == (0, "")
    assert json.loads(output)["stream_to_floor"] > 0


@needs_mosquitto
def test_latency_as_json() -> None:
    status, output, error = benchmark("latency", *SHORT, "--json")
    assert (status, error) == (0, "")
    brokers = json.loads(output)["brokers"]
    assert list(brokers) == ["default", "nodelay"]
    for found in brokers.values():
        for side in ("command", "mqtt", "cti"):
            assert 0 < found[f"{side}_p50_ms"] <= found[f"{side}_p99_ms"]
            assert found[f"{side}_count"] > 0
        assert found["command_to_sum_p50"] > 0
        assert len(found["command_to_sum_p50_rounds"]) == 1
        assert found["ids"] is True


def test_latency_without_a_broker(tmp_path: Path) -> None:
    status, output, error = benchmark("latency", "--mosquitto", str(tmp_path / "nowhere"))
    assert (status, output) == (1, "")
    assert "was not found: latency is measured on a real broker" in error


@pytest.mark.parametrize("name", ["decode", "latency"])
@pytest.mark.parametrize("option", [("--rounds", "0"), ("--seconds", "0"), ("--seconds", "inf")], ids=" ".join)
def test_options_that_make_no_sense(name: str, option: tuple[str, str]) -> None:
    status, _, error = benchmark(name, *option)
    assert status == 2
    assert "--rounds must be at least 1 and --seconds more than 0" in error
