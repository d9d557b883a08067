"""One script with both libraries, against cyclers that are alike; the results compared key by key and type by type."""

import math
import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyctiarbin import Msg

from cti_mqtt import ChannelInterface, CyclerInterface
from cti_mqtt.client.dictionaries import login_dictionary, status_dictionary
from cti_mqtt.cti.codes import ChannelStatus
from cti_mqtt.cti.messages.channels import ChannelRecord, ChannelsInfoFeedback
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.cti.results import LoginResult
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.simulator import AnswerStyle, Identity, ManualClock, SimulatedCycler, TextStyle
from tests.cti.strategies import CHANNEL_RECORDS, QUICK, messages
from tests.peers.conftest import incumbent
from tests.support.brokers import HOST
from tests.support.serving import served

Open = Callable[[dict[str, Any]], AbstractContextManager[Any]]
Outcomes = dict[str, Any]


def ours(config: dict[str, Any]) -> Any:
    return (ChannelInterface if "channel" in config else CyclerInterface)(config, "no such file")


def script(open_interface: Open, port: int, advance: Callable[[float], None]) -> Outcomes:
    """What a laboratory's script does: everything there is."""
    where = {"ip_address": HOST, "port": port, "timeout_s": 5, "msg_buffer_size": 4096}
    one = {**where, "channel": 2, "test_name": "Zelle 42", "schedule_name": "CCCV.sdx"}
    seen: Outcomes = {}
    with open_interface(where) as cycler, open_interface(one) as channel:
        seen["channels"] = cycler.get_num_channels()
        seen["login"] = cycler.get_login_feedback()
        seen["login of the channel"] = channel.get_login_feedback()
        seen["idle"] = [cycler.read_channel_status(channel=n) for n in (1, 2, 3)]
        seen["beyond"] = [cycler.read_channel_status(4), cycler.read_channel_status(-1)]
        seen["too early"] = [channel.stop_test(), channel.set_meta_variable(1, 1.0)]
        seen["assigned"] = [channel.assign_schedule(), channel.read_channel_status()]
        seen["started"] = [channel.start_test(), channel.read_channel_status()]
        advance(600.0)
        seen["charging"] = [channel.read_channel_status(), cycler.read_channel_status(2)]
        seen["set"] = [channel.set_meta_variable(n, n / 3) for n in range(1, 17)]
        seen["again"] = [channel.assign_schedule(), channel.start_test()]
        seen["stopped"] = [channel.stop_test(), channel.read_channel_status()]
    with open_interface({**one, "schedule_name": "Nowhere.sdx"}) as channel:
        seen["no such schedule"] = [channel.assign_schedule(), channel.start_test()]
    with open_interface({**where, "channel": 3}) as channel:
        seen["no names"] = [channel.assign_schedule(), channel.start_test(), channel.read_channel_status()]
    return seen


def run(open_interface: Open, what: Callable[..., Outcomes] = script, **faults: Any) -> tuple[Outcomes, list[Any]]:
    """The script's results, and the channel's meta variables."""
    clock = ManualClock()
    identity = Identity(nickname="Zyklisierer", location="Labor \u03a9", note="two words")
    cycler = SimulatedCycler(3, clock=clock, identity=identity)
    with served(cycler) as remote:
        remote.set_faults(**faults)
        seen = what(open_interface, remote.port, lambda s: remote.do(lambda _: clock.advance(s)))
        return seen, remote.do(lambda server: list(server.cycler.channel(1).meta_variables))


def same(one: Any, other: Any, path: str = "") -> None:
    """Same types, same values, same keys in the same order; NaN equals NaN."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key, value in one.items():
            same(value, other[key], f"{path}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for index, value in enumerate(one):
            same(value, other[index], f"{path}[{index}]")
    elif isinstance(one, float) and math.isnan(one):
        assert math.isnan(other), path
    else:
        assert one == other, path


@pytest.mark.parametrize("answer", [AnswerStyle.PER_CHANNEL, AnswerStyle.ONE])
def test_same_script_same_results(answer: AnswerStyle) -> None:
    theirs, their_values = run(incumbent, answer=answer)
    here, our_values = run(ours, answer=answer)
    for login in ("login", "login of the channel"):
        addresses = theirs[login].pop("ip_address"), here[login].pop("ip_address")
        assert addresses == ("\x7f\0\0\x01", "127.0.0.1")  # the one difference
    same(theirs, here)
    assert theirs["charging"][0]["charge_capacity_ah"] > 0
    assert their_values == our_values


# --- dictionaries of whatever a cycler may say ---


KNOWN_STATUSES = [status for status in ChannelStatus if status is not ChannelStatus.SUSPENDED]
ASCII = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=15)


def readable(*texts: str) -> bool:
    """Texts that pycti-arbin reads as they are: it takes a byte order mark at their beginning for one."""
    return not any(text.startswith(("\ufeff", "\ufffe")) for text in texts)


@QUICK
@given(CHANNEL_RECORDS, st.sampled_from(KNOWN_STATUSES))
def test_same_dictionary_of_any_reading(record: ChannelRecord, status: ChannelStatus) -> None:
    record = record._replace(status=status)
    assume(readable(record.barcode, record.can_config, record.smb_config))
    frame = pack_message(ChannelsInfoFeedback((record,)))
    same(Msg.ChannelInfo.Server.unpack(frame), status_dictionary(record))


@pytest.mark.parametrize("status", KNOWN_STATUSES)
def test_same_words_for_every_status(status: ChannelStatus) -> None:
    assert Msg.ChannelInfo.Server.status_code_dict[int(status)] == status.text


@QUICK
@given(messages(LoginFeedback), st.sampled_from([LoginResult.SUCCESS, LoginResult.ALREADY_LOGGED_IN]), ASCII, ASCII)
def test_same_dictionary_of_any_login(info: LoginFeedback, result: LoginResult, serial: str, note: str) -> None:
    info = replace(info, result=result, serial=serial, note=note)
    theirs, here = Msg.Login.Server.unpack(pack_message(info)), login_dictionary(info)
    assert bytes(map(int, here.pop("ip_address").split("."))) == bytes(map(int, info.ip.split(".")))
    theirs.pop("ip_address")
    same(theirs, here)


# --- the documented differences: theirs is wrong, ours is right ---


def statuses(open_interface: Open, port: int, _: Any) -> Outcomes:
    config = {"ip_address": HOST, "port": port, "timeout_s": 5}
    with open_interface(config) as cycler:
        return {"read": [cycler.read_channel_status(n) for n in (1, 2)]}


def test_unknown_status() -> None:
    faults = {"statuses": {0: 99, 1: 31}}
    assert run(incumbent, statuses, **faults)[0]["read"] == [{}, {}]
    assert [each["status"] for each in run(ours, statuses, **faults)[0]["read"]] == ["Unknown 99", "Suspended"]


def test_one_frame_with_all_channels_although_one_was_asked_for() -> None:
    """MITS 10."""
    theirs, here = (run(which, statuses, answer=AnswerStyle.ALWAYS_ALL)[0]["read"] for which in (incumbent, ours))
    assert [each["channel"] for each in theirs] == [0, 0]
    assert [(each["channel"], each["number_of_channels"], each["msg_length"]) for each in here] == [
        (0, 1, 1779),
        (1, 1, 1779),
    ]


@pytest.mark.parametrize("style", [TextStyle.STALE, TextStyle.BROKEN])
def test_texts(style: TextStyle) -> None:
    clean = run(ours, statuses)[0]["read"][0]
    here = run(ours, statuses, text=style)[0]["read"][0]
    if style is TextStyle.STALE:
        same(here, clean)
    else:
        assert "\ufffd" in here["exit_condition"] + here["schedule"]
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        same(run(incumbent, statuses, text=style)[0]["read"][0], clean)


def assigns(open_interface: Open, port: int, _: Any) -> Outcomes:
    config = {"ip_address": HOST, "port": port, "channel": 2, "schedule_name": "CCCV.sdx", "capacity_ah": 2.5}
    with open_interface(config) as channel:
        return {"assigned": channel.assign_schedule()}


def test_assignment_overwrites_nothing() -> None:
    def sent(open_interface: Open) -> dict[str, Any]:
        with served(SimulatedCycler(3, clock=ManualClock())) as remote:
            assert assigns(open_interface, remote.port, None) == {"assigned": True}
            arguments: dict[str, Any] = remote.asked("assign")[0]["arguments"]
            return arguments

    theirs, here = sent(incumbent), sent(ours)
    assert (theirs.pop("capacity"), theirs.pop("meta_variables")) == (1.0, [1.0] * 16)
    assert (here.pop("capacity"), here.pop("meta_variables")) == (0.0, [0.0] * 16)
    assert theirs == here


def test_environment_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARBIN_CTI_USERNAME", "nobody")
    file = tmp_path / "cycler.env"
    file.write_text("ARBIN_CTI_USERNAME=admin\n")
    with served() as remote:
        CyclerInterface({"ip_address": HOST, "port": remote.port}, file).close()
        assert os.environ["ARBIN_CTI_USERNAME"] == "nobody"


def test_numbers_are_those_on_the_wire() -> None:
    """A 32-bit float comes with the digits that its 64-bit form has, with both."""
    seen = run(ours, statuses)[0]["read"][0]["voltage_v"]
    assert seen == struct.unpack("<f", struct.pack("<f", seen))[0]
