"""The synchronous API reads, against the simulated cycler, over real sockets."""

import pytest

from cti_mqtt import CyclerInterface
from cti_mqtt.simulator import AnswerStyle, ManualClock, SimulatedCycler
from tests.client.interface.conftest import config
from tests.support.serving import Served, served


def test_reads_a_channel(remote: Served) -> None:
    with CyclerInterface(config(remote)) as cycler:
        status = cycler.read_channel_status(channel=3)
    assert status["channel"] == 2
    assert status["status"] == "Idle"
    assert status["msg_length"] == 1779
    assert 3.0 < status["voltage_v"] < 4.3
    assert status["aux_temperature"] == []
    assert "bms" not in status
    assert remote.asked("channels_info")[0]["arguments"]["aux_options"] == []


def test_reads_auxiliary_values_on_request() -> None:
    with (
        served(SimulatedCycler(2, clock=ManualClock(), bms_count=2, smb_count=2)) as remote,
        CyclerInterface(config(remote)) as cycler,
    ):
        status = cycler.read_channel_status(1, aux=True)
        every = cycler.read_all_channels(aux=True)
    assert (len(status["aux_temperature"]), len(status["aux_temperature_dt"])) == (1, 1)
    assert status["aux_temperature_count"] == 1
    assert status["bms"][0].keys() == {"index", "value", "unit"}
    assert status["smb"][1]["value"] == "simulated"
    assert (status["bms_count"], status["smb_count"]) == (2, 2)
    assert every[1] == status


def test_reads_every_channel_with_one_request(remote: Served) -> None:
    with CyclerInterface(config(remote)) as cycler:
        every = cycler.read_all_channels()
        assert every[3] == cycler.read_channel_status(3)
    assert list(every) == [1, 2, 3, 4]
    assert remote.count("channels_info") == 2


@pytest.mark.parametrize("answer", list(AnswerStyle))
def test_however_the_server_answers(remote: Served, answer: AnswerStyle) -> None:
    remote.set_faults(answer=answer)
    with CyclerInterface(config(remote)) as cycler:
        for _ in range(3):
            assert [status["channel"] for status in cycler.read_all_channels().values()] == [0, 1, 2, 3]
            assert cycler.read_channel_status(2)["channel"] == 1


def test_login_feedback(remote: Served) -> None:
    with CyclerInterface(config(remote)) as cycler:
        feedback = cycler.get_login_feedback()
        assert cycler.get_num_channels() == 4
        feedback["num_channels"] = 99
        assert cycler.get_login_feedback()["num_channels"] == 4
    assert feedback["result"] == "success"
    assert feedback["ip_address"] == "127.0.0.1"
    assert feedback["cycler_sn"] == "SIM-000001"
    assert feedback["allow_control"] == 1
    assert type(feedback["allow_control"]) is int


def test_picture_counts_in_the_length_of_the_login_feedback(remote: Served) -> None:
    remote.set_faults(picture_bytes=1000)
    with CyclerInterface(config(remote)) as cycler:
        assert cycler.get_login_feedback()["msg_length"] == 9678
        assert cycler.get_login_feedback()["picture_length"] == 1000


@pytest.mark.parametrize("channel", [-1, 0, 5])
def test_channel_that_does_not_exist(remote: Served, channel: int, caplog: pytest.LogCaptureFixture) -> None:
    with CyclerInterface(config(remote)) as cycler:
        assert cycler.read_channel_status(channel) == {}
    assert f"no channel {channel}" in caplog.text
    assert remote.count("channels_info") == 0


def test_unknown_status_keeps_its_number(remote: Served) -> None:
    remote.set_faults(statuses={0: 99})
    with CyclerInterface(config(remote)) as cycler:
        assert cycler.read_channel_status(1)["status"] == "Unknown 99"
        assert cycler.read_all_channels()[1]["status"] == "Unknown 99"
