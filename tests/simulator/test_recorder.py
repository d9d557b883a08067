import json
from datetime import UTC, datetime
from pathlib import Path

from cti_mqtt.cti.messages.variables import SetMetaVariableRequest
from cti_mqtt.simulator import Recorder
from cti_mqtt.simulator.recorder import Entry, arguments


def test_entries_are_lines_of_json_at_once(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"earlier": true}\n')
    seen: list[Entry] = []
    wall = datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)
    with Recorder(path, on_entry=seen.append, wall=lambda: wall) as recorder:
        recorder.add({"command": "stop", "test_name": "Zelle µ"})
        lines = path.read_text(encoding="utf-8").splitlines()
        expected = {"time": "2026-01-02T03:04:05.678Z", "command": "stop", "test_name": "Zelle µ"}
        assert [json.loads(line) for line in lines] == [{"earlier": True}, expected]
        assert recorder.entries == seen == [expected]


def test_memory_is_bounded() -> None:
    recorder = Recorder(keep=3)
    for number in range(5):
        recorder.add({"command": "stop", "number": number})
    assert [entry["number"] for entry in recorder.entries] == [2, 3, 4]
    assert recorder.commands("start") == []
    recorder.close()


def test_numbers_that_json_does_not_know() -> None:
    assert arguments(SetMetaVariableRequest.of(0, 1, float("nan")))["value"] == "nan"
