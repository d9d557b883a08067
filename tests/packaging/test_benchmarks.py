"""The benchmarks run and say what they measured. What they measured is not held against anything: machines differ."""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.support.brokers import needs_mosquitto
from tests.support.programs import ROOT, run


def benchmark(*options: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    done = run(sys.executable, ROOT / "benchmarks" / "run.py", *options)
    return done.returncode, done.stdout, done.stderr


def quick(folder: Path, part: str, *options: str) -> dict[str, Any]:
    """What a part found; it has told people as well."""
    saved = folder / "found.json"
    status, output, error = benchmark("--quick", "--only", part, "--save", str(saved), *options)
    assert (status, error) == (0, "")
    assert f"## {part}\n" in output
    found: dict[str, Any] = json.loads(saved.read_text())
    assert found["machine"]["cores"] > 0
    return dict(found[part])


def test_as_json() -> None:
    status, output, error = benchmark("--quick", "--only", "decode", "--json")
    assert (status, error) == (0, "")
    assert list(json.loads(output)) == ["machine", "rounds", "seconds", "decode"]


def test_decoding(tmp_path: Path) -> None:
    shapes = quick(tmp_path, "decode")["shapes"]
    assert list(shapes) == ["each", "all"]
    assert shapes["each"]["stream_to_pycti"] > 0
    for shape in shapes.values():
        assert shape["stream_to_floor"] > 0
        assert len(shape["stream_to_floor_rounds"]) == 1


@needs_mosquitto
def test_the_pipeline(tmp_path: Path) -> None:
    found = quick(tmp_path, "pipeline")["channels"]
    assert {channels: list(by_qos) for channels, by_qos in found.items()} == {"4": ["qos0", "qos1"]}
    for one in found["4"].values():
        for side in ("pycti", "paho", "loop"):
            assert one[f"{side}_per_s"] > 0
            assert one[f"bridge_to_{side}"] > 0
        assert 0 < one["arrived"] <= 1
        assert one["payload_bytes"] > 500


@needs_mosquitto
def test_latency(tmp_path: Path) -> None:
    found = quick(tmp_path, "latency")
    for side in ("bridge", "mqtt"):
        assert 0 < found["age"]["4"][f"{side}_p50_ms"] <= found["age"]["4"][f"{side}_p99_ms"]
    assert found["age"]["4"]["bridge_to_mqtt"] > 0
    brokers = found["command"]["brokers"]
    assert list(brokers) == ["default", "nodelay"]
    for one in brokers.values():
        for side in ("command", "mqtt", "cti"):
            assert 0 < one[f"{side}_p50_ms"] <= one[f"{side}_p99_ms"]
            assert one[f"{side}_count"] > 0
        assert one["command_to_sum_p50"] > 0
        assert len(one["command_to_sum_p50_rounds"]) == 1
        assert one["ids"] is True


@needs_mosquitto
def test_scale(tmp_path: Path) -> None:
    curve = tmp_path / "scale.svg"
    found = quick(tmp_path, "scale", "--svg", str(curve), "--output", "journal")
    assert (found["channels_each"], found["output"]) == (4, "journal")
    assert list(found["cyclers"]) == ["1", "2"]
    for cyclers, one in found["cyclers"].items():
        assert one["polls"] >= int(cyclers)
        assert one["readings"] == 4 * one["polls"]
        assert one["cpu_s_per_1000_readings"] > 0
        assert 0 < one["memory_mb"] <= one["peak_memory_mb"]
        assert 0 < one["age_p50_ms"] <= one["age_p99_ms"]
        assert one["missed_polls"] >= 0
    assert found["cyclers"]["1"]["cpu_to_first"] == 1
    assert ET.fromstring(curve.read_text()).tag.endswith("svg")


@needs_mosquitto
def test_idling(tmp_path: Path) -> None:
    found = quick(tmp_path, "idle")
    for figures in (found["cpu_share_of_a_core"], found["memory_mb"]):
        assert figures["bridge"] > 0
        assert figures["pycti"] > 0


def test_without_a_broker(tmp_path: Path) -> None:
    status, output, error = benchmark("--only", "latency", "--json", "--mosquitto", str(tmp_path / "nowhere"))
    assert (status, output) == (1, "")
    assert "was not found: all but decoding is measured on a real broker" in error


@pytest.mark.parametrize(
    "option",
    [
        ("--rounds", "0"),
        ("--seconds", "0"),
        ("--seconds", "inf"),
        ("--minutes", "-1"),
        ("--only", "decode,nothing"),
        ("--cyclers", "0"),
        ("--output", "values"),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense(option: tuple[str, str]) -> None:
    status, _, error = benchmark(*option)
    assert status == 2
    assert option[0] in error
