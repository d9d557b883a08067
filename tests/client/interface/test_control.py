"""The synchronous API controls; nothing is overwritten."""

from collections.abc import Iterator

import pytest

from cti_mqtt import ChannelInterface, CyclerInterface
from cti_mqtt.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
)
from cti_mqtt.simulator import ChecksumStyle, Identity, ManualClock, SimulatedCycler
from tests.client.interface.conftest import QUICK_S, channel_config
from tests.support.serving import Served, served


def test_life_of_a_test(remote: Served) -> None:
    with ChannelInterface(channel_config(remote)) as channel:
        assert channel.read_channel_status()["channel"] == 1
        assert channel.start_test() is True
        status = channel.read_channel_status(aux=True)
        assert (status["testname"], status["schedule"]) == ("T1", "CCCV.sdx")
        assert channel.set_meta_variable(3, 2.5) is True
        assert channel.stop_test() is True
        assert isinstance(channel, CyclerInterface)
        assert channel.get_num_channels() == 4
        assert len(channel.read_all_channels()) == 4
    assert remote.do(lambda server: server.cycler.channel(1).meta_variables[2]) == 2.5
    names = ["assign", "start", "set_meta_variable", "stop"]
    assert [entry["command"] for entry in remote.asked(*names)] == names


def test_refusals_are_false_and_logged(remote: Served, caplog: pytest.LogCaptureFixture) -> None:
    with ChannelInterface(channel_config(remote, schedule_name="Nowhere.sdx")) as channel:
        assert channel.assign_schedule() is False
        assert "schedule not found (0x13)" in caplog.text
        assert channel.start_test() is False
        assert channel.stop_test() is False
        assert channel.set_meta_variable(1, 1.0) is False
        assert "not running (0x12)" in caplog.text
    assert remote.count("start") == 0


@pytest.mark.parametrize("missing", ["test_name", "schedule_name"])
def test_without_names_nothing_is_started(remote: Served, missing: str) -> None:
    with ChannelInterface(channel_config(remote, **{missing: None})) as channel:
        assert channel.start_test() is False
        if missing == "schedule_name":
            assert channel.assign_schedule() is False
    assert not remote.asked("assign", "start")


@pytest.mark.parametrize(("number", "value"), [(0, 1.0), (17, 1.0), (1, float("nan")), (1, float("inf")), (1, 1e39)])
def test_variables_that_cannot_be(remote: Served, number: int, value: float) -> None:
    with ChannelInterface(channel_config(remote)) as channel, pytest.raises(InvalidRequestError):
        channel.set_meta_variable(number, value)
    assert remote.count("set_meta_variable") == 0


def test_names_that_are_too_long_are_not_cut(remote: Served) -> None:
    with (
        ChannelInterface(channel_config(remote, schedule_name="x" * 200)) as channel,
        pytest.raises(InvalidRequestError, match="too long"),
    ):
        channel.assign_schedule()
    assert remote.count("assign") == 0


def test_assignment_sends_no_values(remote: Served) -> None:
    with ChannelInterface(channel_config(remote)) as channel:
        assert channel.assign_schedule() is True
    arguments = remote.asked("assign")[0]["arguments"]
    assert arguments["capacity"] == 0
    assert set(arguments["meta_variables"]) == {0.0}


def test_damaged_answers_prove_nothing(remote: Served) -> None:
    remote.set_faults(checksum=ChecksumStyle.WRONG, checksum_of=frozenset({"start", "stop"}))
    with ChannelInterface(channel_config(remote)) as channel:
        with pytest.raises(OutcomeUnknownError, match="checksum"):
            channel.start_test()
        with pytest.raises(OutcomeUnknownError, match="checksum"):
            channel.stop_test()
        assert channel.read_channel_status()["testname"] == "T1"
    assert (remote.count("login"), remote.count("start"), remote.count("stop")) == (1, 1, 1)


class TestMits7:
    """There an assignment overwrites capacity and meta variables."""

    @pytest.fixture
    def remote(self) -> Iterator[Served]:
        cycler = SimulatedCycler(2, clock=ManualClock(), identity=Identity(version=0))
        cycler.channel(1).meta_variables[4] = 2.5
        with served(cycler) as running:
            yield running

    def test_values_stay_as_they_are(self, remote: Served) -> None:
        with ChannelInterface(channel_config(remote, capacity_ah=3.5)) as channel:
            assert channel.assign_schedule() is True
        arguments = remote.asked("assign")[0]["arguments"]
        assert arguments["capacity"] == 3.5
        assert arguments["meta_variables"] == [0, 0, 0, 0, 2.5, *[0] * 11]

    def test_capacity_must_be_known(self, remote: Served) -> None:
        with ChannelInterface(channel_config(remote)) as channel:
            with pytest.raises(InvalidRequestError, match="capacity_ah"):
                channel.start_test()
            assert channel.read_channel_status()["status"] == "Idle"
        assert not remote.asked("assign", "start")

    def test_values_must_be_known(self, remote: Served) -> None:
        with (
            ChannelInterface(channel_config(remote, channel=3, capacity_ah=1)) as channel,
            pytest.raises(InvalidRequestError, match="does not tell"),
        ):
            channel.assign_schedule()
        assert remote.count("assign") == 0

    @pytest.mark.parametrize("fault", ["unknown", "drop"])
    def test_server_without_start_data(self, remote: Served, fault: str, caplog: pytest.LogCaptureFixture) -> None:
        remote.set_faults(**{fault: frozenset({"get_start_data"})})
        with ChannelInterface(channel_config(remote, timeout_s=QUICK_S)) as channel:
            assert channel.assign_schedule() is True
            asked = remote.count("get_start_data")
            assert channel.assign_schedule() is True
        assert "does not tell its meta variables" in caplog.text
        assert remote.count("get_start_data") == asked
