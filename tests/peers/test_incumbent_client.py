"""pycti-arbin's CyclerInterface and ChannelInterface against the simulated cycler."""

from collections.abc import Iterator
from typing import Any

import pytest

from cti_mqtt.simulator import Identity, ManualClock, SimulatedCycler
from tests.peers.conftest import incumbent
from tests.support.brokers import HOST
from tests.support.serving import Served, served


@pytest.fixture
def remote() -> Iterator[Served]:
    with served() as running:
        yield running


def config(remote: Served, **more: Any) -> dict[str, Any]:
    names = {"test_name": "T1", "schedule_name": "CCCV.sdx"}
    return {"ip_address": HOST, "port": remote.port, "timeout_s": 5, **names, **more}


def test_reads(remote: Served) -> None:
    with incumbent(config(remote)) as cycler:
        assert cycler.get_num_channels() == 4
        feedback = cycler.get_login_feedback()
        assert (feedback["result"], feedback["cycler_sn"]) == ("success", "SIM-000001")
        for channel in range(1, 5):
            status = cycler.read_channel_status(channel)
            assert (status["channel"], status["status"]) == (channel - 1, "Idle")
            assert 3.0 < status["voltage_v"] < 4.3
    assert remote.asked("login")[0]["user"] == "admin"


def test_assigns_starts_sets_and_stops(remote: Served) -> None:
    with incumbent(config(remote, channel=2)) as channel:
        assert channel.assign_schedule() is True
        assert channel.start_test() is True
        status = channel.read_channel_status()
        assert (status["testname"], status["schedule"]) == ("T1", "CCCV.sdx")
        assert all(channel.set_meta_variable(number, number / 2) for number in range(1, 17))
        values = remote.do(lambda server: list(server.cycler.channel(1).meta_variables))
        assert values == [number / 2 for number in range(1, 17)]
        assert channel.stop_test() is True
        assert channel.read_channel_status()["status"] == "Idle"
    assert remote.asked("start")[0]["arguments"] == {"test_name": "T1", "channels": [2]}


def test_is_told_no(remote: Served) -> None:
    with incumbent(config(remote, channel=2, schedule_name="Nowhere.sdx")) as channel:
        assert channel.assign_schedule() is False
        assert channel.start_test() is False


def test_overwrites_values_on_mits_7() -> None:
    cycler = SimulatedCycler(2, clock=ManualClock(), identity=Identity(version=0))
    with served(cycler) as remote, incumbent(config(remote, channel=2)) as channel:
        assert channel.start_test() is True
        assert remote.do(lambda server: server.cycler.channel(1).meta_variables) == [1.0] * 16


def test_is_not_let_in(remote: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARBIN_CTI_PASSWORD", "wrong")
    with pytest.raises(AssertionError), incumbent(config(remote)):
        pass
