"""docs/protocol.md: what its program makes of the code now, and every command in it with every column."""

import re
import struct

import pytest

from cti_mqtt.bridge.orders import ORDERS
from cti_mqtt.client import control, files, readings, service, session
from cti_mqtt.cti.commands import BY_CLASS, COMMANDS, Command
from cti_mqtt.cti.messages.files import UploadFeedback
from cti_mqtt.cti.results import UploadResult
from docs import generate_protocol
from docs.generate_protocol import CODEC_TEST, USES, overview, overview_cells
from tests.cti.golden import GOLDEN
from tests.packaging.test_docs import TOPICS
from tests.support.programs import ROOT

ROOMS = {
    "Session": session.Session,
    "Readings": readings.Readings,
    "Control": control.Control,
    "Service": service.Service,
    "FileClient": files.FileClient,
}
COLUMNS = 8


def named(command: Command) -> str:
    return command.request.code.reason


def test_the_page_is_what_the_code_says() -> None:
    made = generate_protocol.page()
    assert generate_protocol.PAGE.read_text(encoding="utf-8") == made, "run: python docs/generate_protocol.py"


def test_every_command_has_a_row_and_every_row_a_command() -> None:
    assert set(USES) == {command.request.code for command in COMMANDS}
    rows = overview().splitlines()[2:]
    assert len(rows) == len(COMMANDS) + 1
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == COLUMNS
        assert all(cells), row


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_no_cell_is_blank(command: Command) -> None:
    assert all(cell.strip(" `") for cell in overview_cells(command))


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_the_client_has_these_operations(command: Command) -> None:
    names = USES[command.request.code].client
    assert names
    for name in names:
        room, _, operation = name.partition(".")
        assert operation in vars(ROOMS[room]), name


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_the_simulator_answers_it_there(command: Command) -> None:
    source = (ROOT / "cti_mqtt/simulator" / USES[command.request.code].simulator).read_text(encoding="utf-8")
    assert re.search(rf"\b{command.request.cls.__name__}\b", source)


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_over_mqtt_or_why_not(command: Command) -> None:
    told = USES[command.request.code].mqtt
    if told.startswith("not over MQTT: "):
        assert len(told) > len("not over MQTT: ")
        return
    words = re.findall(r"`([^`]+)`", told)
    assert words
    known = {"state", "readings", "info", "availability", "mv/<1..16>"}
    assert {word for word in words if word not in ORDERS and word not in known and " " not in word} == set()
    assert all(f"{word}`" in TOPICS for word in words if " " not in word)


def test_every_verb_is_some_command() -> None:
    told = {word for use in USES.values() for word in re.findall(r"`(\w+)`", use.mqtt)}
    assert set(ORDERS) - {"release", "replay"} <= told  # these send nothing to a cycler


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_its_tests_are_there(command: Command) -> None:
    """Each file exists, and each of them asks for the command by its class, its operation, its name or its verb."""
    use = USES[command.request.code]
    assert use.tests
    words = [command.request.cls.__name__, *(name.partition(".")[2] for name in use.client), named(command)]
    words += [verb for verb in ORDERS if f"`{verb}`" in use.mqtt and not use.mqtt.startswith("not")]
    for path in use.tests:
        text = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert any(re.search(rf"\b{word}\b", text) for word in words), f"{path} does not test {named(command)}"


def test_the_two_shapes_of_an_upload_feedback() -> None:
    """The only layout that is told in words."""
    feedback = UploadFeedback.of(1.5, 2, 3, UploadResult.MD5)
    assert feedback.content == struct.pack("<dIII", 1.5, 2, 3, UploadResult.MD5)
    assert feedback.result_first.content == struct.pack("<IdII", UploadResult.MD5, 1.5, 2, 3)


def test_every_message_stands_beside_its_bytes() -> None:
    assert (ROOT / "tests" / CODEC_TEST).exists()
    assert {type(golden.message) for golden in GOLDEN} == set(BY_CLASS)
