"""JSON as the contract shows it."""

import json
import math
import struct
import subprocess
import sys

import pytest
from hypothesis import given

from cti_mqtt.bridge import payloads
from cti_mqtt.bridge.bus import Happening, Quality, Reading
from cti_mqtt.bridge.fragments import Fragments
from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.channels import AuxReading, BmsReading, ChannelRecord, Extras, SmbReading
from tests.cti.strategies import CHANNEL_RECORDS

CONTRACT_EXAMPLE = """
{"ts": "2026-01-02T03:04:05.678Z", "boot": "5f2c9a01d4e6b7c8", "seq": 991, "channel": 7, "quality": "good",
 "status": "Charge", "status_code": 2, "test_name": "T12", "schedule": "CCCV.sdx", "barcode": "", "can_config": "",
 "smb_config": "", "cycle": 1, "step": 2, "step_label": "CC", "step_type": "C-Rate",
 "step_and_cycle": "[1] 2: CC, C-Rate", "exit_condition": "N/A", "comm_failure": false, "master_channel": 7,
 "test_time_s": 61.5, "step_time_s": 31.2, "voltage_v": 3.7012, "current_a": 1.5, "power_w": 5.5518,
 "charge_capacity_ah": 0.0256, "discharge_capacity_ah": 0.0, "charge_energy_wh": 0.0947, "discharge_energy_wh": 0.0,
 "internal_resistance_ohm": 0.0, "dvdt_v_per_s": 0.0001, "acr_ohm": 0.0, "aci_ohm": 0.0, "aci_phase_deg": 0.0,
 "aux": {"temperature": [{"value": 25.1, "dt": 0.0}]}, "bms": [{"index": 1, "value": 3.7, "unit": "V"}],
 "smb": [{"index": 1, "value": "abc", "unit": ""}]}
"""


def f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


RECORD = ChannelRecord(
    channel=6,
    status=ChannelStatus.CHARGE,
    comm_failure=False,
    schedule="CCCV.sdx",
    test_name="T12",
    exit_condition="N/A",
    step_and_cycle="[1] 2: CC, C-Rate",
    barcode="",
    can_config="",
    smb_config="",
    master_channel=6,
    test_time=61.5,
    step_time=31.2,
    voltage=f32(3.7012),
    current=1.5,
    power=f32(5.5518),
    charge_capacity=f32(0.0256),
    discharge_capacity=0.0,
    charge_energy=f32(0.0947),
    discharge_energy=0.0,
    internal_resistance=0.0,
    dvdt=f32(0.0001),
    acr=0.0,
    aci=0.0,
    aci_phase=0.0,
    extras=Extras(
        {"temperature": (AuxReading(f32(25.1), 0.0),)}, (BmsReading(1, 3.7, "V"),), (SmbReading(1, "abc", ""),)
    ),
)
READING = Reading(7, RECORD, Quality.GOOD, "2026-01-02T03:04:05.678Z", 991)
BOOT = "5f2c9a01d4e6b7c8"


def fragment(reading: Reading) -> bytes:
    (text,) = Fragments()("arbin1", [reading])
    return text


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def strict(payload: bytes) -> dict[str, object]:
    body = json.loads(payload, parse_constant=_refuse)
    assert isinstance(body, dict)
    return body


def test_the_contracts_example() -> None:
    expected = json.loads(CONTRACT_EXAMPLE)
    body = strict(payloads.state(BOOT, READING, fragment(READING)))
    assert body == expected
    assert list(body) == list(expected)


def test_readings_hold_what_state_holds() -> None:
    (payload,) = payloads.readings(READING.ts, BOOT, 991, [fragment(READING)])
    body = strict(payload)
    assert {**{key: body[key] for key in ("ts", "boot", "seq")}, **body["channels"][0]} == json.loads(CONTRACT_EXAMPLE)  # type: ignore[index]


@given(CHANNEL_RECORDS)
def test_any_record_is_strict_json(record: ChannelRecord) -> None:
    reading = Reading(1, record, Quality.GOOD, READING.ts, 1)
    strict(payloads.state(BOOT, reading, fragment(reading)))


def test_what_is_no_number_is_null() -> None:
    record = RECORD._replace(voltage=math.nan, current=math.inf, test_time=-math.inf)
    body = strict(fragment(Reading(7, record, Quality.GOOD, "", 1)))
    assert (body["voltage_v"], body["current_a"], body["test_time_s"]) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1] 1: Step_A, Rest", (1, 1, "Step_A", "Rest")),
        ("[12] 3: CC, fast, C-Rate", (12, 3, "CC, fast", "C-Rate")),
        ("", (None, None, None, None)),
        ("[1] CC", (None, None, None, None)),
        ("[x] 1: A, B", (None, None, None, None)),
    ],
)
def test_step_and_cycle(text: str, expected: tuple[object, ...]) -> None:
    assert payloads.parse_step_and_cycle(text) == expected


class TestSplitting:
    def test_parts_hold_everything_in_order_and_keep_the_limit(self) -> None:
        fragments = [fragment(Reading(n, RECORD, Quality.GOOD, "", 1)) for n in range(1, 41)]
        parts = list(payloads.readings(READING.ts, BOOT, 5, fragments, 4096))
        bodies = [strict(part) for part in parts]
        assert max(map(len, parts)) <= 4096
        assert [body["part"] for body in bodies] == list(range(1, len(parts) + 1))
        assert {body["parts"] for body in bodies} == {len(parts)}
        assert {body["seq"] for body in bodies} == {5}
        assert [each["channel"] for body in bodies for each in body["channels"]] == list(range(1, 41))  # type: ignore[attr-defined]

    def test_one_message_says_nothing_of_parts(self) -> None:
        (payload,) = payloads.readings(READING.ts, BOOT, 5, [fragment(READING)], 4096)
        assert "parts" not in strict(payload)

    def test_a_channel_larger_than_the_limit_stands_alone(self) -> None:
        fragments = [fragment(READING)] * 2
        assert len(list(payloads.readings(READING.ts, BOOT, 5, fragments, 100))) == 2


def test_an_event_says_null_for_what_is_absent() -> None:
    body = payloads.happening(Happening("2026-01-02T03:04:05.678Z", "reconnected", "logged in", "arbin1"))
    assert list(body) == ["ts", "type", "cycler", "channel", "before", "after", "message", "command_id"]
    assert (body["channel"], body["command_id"]) == (None, None)


def test_meta_variables_in_order_and_short() -> None:
    assert payloads.meta_variables({16: f32(0.1), 2: 5.0}) == {"2": 5.0, "16": 0.1}


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_a_payload_that_is_kept_takes_no_more_room_than_it_needs() -> None:
    """What waits for the broker is counted by its length."""
    code = (
        "from cti_mqtt.bridge.payloads import encode\n"
        "body = {f'field_{number}': number * 1.2345 for number in range(40)}\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1])\n"
        "kept, before = [encode(body)], resident()\n"
        "kept += [encode(body) for _ in range(20_000)]\n"
        "import resource\n"
        "print((resident() - before) * resource.getpagesize() / sum(map(len, kept)))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(told.stdout) < 2
