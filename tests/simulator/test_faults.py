from collections.abc import Callable
from typing import Any

import pytest

from cti_mqtt.cti.messages.channels import ChannelRecord
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.simulator import NO_FAULTS, ChunkFault, Faults, ForcedResult
from cti_mqtt.simulator.faults import COMMAND_NAMES
from cti_mqtt.simulator.wire import text_fields


@pytest.mark.parametrize(
    ("text", "forced"),
    [
        ("stop=0x11", ForcedResult("stop", 0x11)),
        ("stop=17:10s", ForcedResult("stop", 0x11, duration_s=10.0)),
        ("start=0x12:0.5s", ForcedResult("start", 0x12, duration_s=0.5)),
        ("login=3:2x", ForcedResult("login", 3, times=2)),
    ],
)
def test_forced_results_read_from_text(text: str, forced: ForcedResult) -> None:
    assert ForcedResult.parse(text) == forced


@pytest.mark.parametrize(
    "text",
    ["stop", "stop=", "stop=x", "stop=0x11:10", "stop=0x11:1.5x", "nix=1", "channels_info=1", "stop=0x100", "stop=-1"],
)
def test_what_is_no_forced_result(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ForcedResult.parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Faults(drop=frozenset({"nix"})),
        lambda: Faults(mute=frozenset({"nix"})),
        lambda: Faults(unknown=frozenset({"nix"})),
        lambda: Faults(checksum_of=frozenset({"nix"})),
        lambda: Faults(delays_s={"nix": 1.0}),
        lambda: Faults(delays_s={"stop": -1.0}),
        lambda: Faults(delay_s=float("nan")),
        lambda: Faults(delay_s=float("inf")),
        lambda: Faults(segment_bytes=-1),
        lambda: Faults(cut_after_frames=-1),
        lambda: Faults(statuses={0: 40_000}),
        lambda: Faults(first_index=2),
        lambda: Faults(largest_file_bytes=-1),
        lambda: Faults(chunk_delay_s=float("inf")),
    ],
)
def test_faults_that_make_no_sense(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make()


@pytest.mark.parametrize(("text", "fault"), [("2", ChunkFault(2)), ("10:1x", ChunkFault(10, 1))])
def test_chunk_faults_read_from_text(text: str, fault: ChunkFault) -> None:
    assert ChunkFault.parse(text) == fault


@pytest.mark.parametrize("text", ["", "0", "-1", "2:", "2:x", "2:1s", "two"])
def test_what_is_no_chunk_fault(text: str) -> None:
    with pytest.raises(ValueError, match="CHUNK"):
        ChunkFault.parse(text)


def test_by_default_nothing_is_wrong() -> None:
    assert Faults() == NO_FAULTS
    assert NO_FAULTS.delay_of("stop") == 0.0
    assert Faults(delay_s=1.0, delays_s={"stop": 2.0}).delay_of("stop") == 2.0
    assert {"login", "connect", "channels_info", "assign", "start", "stop", "set_meta_variable"} <= COMMAND_NAMES


def test_text_fields_are_found_in_the_annotations() -> None:
    record = text_fields(ChannelRecord)
    assert record[0] == (7, 400, "utf-16-le")
    assert [encoding for _, _, encoding in record].count("utf-8") == 2
    assert len(record) == 7
    login = text_fields(LoginFeedback)
    assert login[0] == (8, 16, "utf-8")  # behind result and address; the address is no text
    assert len(login) == 8
