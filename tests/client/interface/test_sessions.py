"""Sessions that end, and calls that come from many threads."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cti_mqtt import ChannelInterface, CyclerInterface
from cti_mqtt.errors import (
    ConnectionLostError,
    FeedbackTimeoutError,
    NotConnectedError,
)
from tests.client.interface.conftest import QUICK_S, channel_config, config, wait_until
from tests.support.serving import Served


def test_reads_on_after_the_connection_was_cut(remote: Served) -> None:
    with CyclerInterface(config(remote)) as cycler:
        before = cycler.read_channel_status(1)
        remote.do(lambda server: server.disconnect_all())
        assert cycler.read_channel_status(1) == before
    assert remote.count("login") == 2


def test_controls_on_after_the_connection_was_cut(remote: Served) -> None:
    with ChannelInterface(channel_config(remote)) as channel:
        remote.do(lambda server: server.disconnect_all())
        time.sleep(0.1)  # so that the end has arrived: a request that crosses it has an unknown outcome, as below
        assert channel.start_test() is True
    assert (remote.count("login"), remote.count("assign"), remote.count("start")) == (2, 1, 1)


def test_unplugged_and_plugged_in_again(remote: Served) -> None:
    with ChannelInterface(channel_config(remote)) as channel:
        remote.do(lambda server: server.unplug())
        for call in (channel.read_channel_status, channel.read_all_channels, channel.assign_schedule):
            with pytest.raises(NotConnectedError):
                call()
        remote.do(lambda server: server.replug())
        assert channel.assign_schedule() is True
        assert channel.read_channel_status()["schedule"] == "CCCV.sdx"
    assert (remote.count("login"), remote.count("assign")) == (2, 1)


def test_read_without_an_answer_is_asked_twice(remote: Served) -> None:
    with CyclerInterface(config(remote, timeout_s=QUICK_S)) as cycler:
        remote.set_faults(drop=frozenset({"channels_info"}))
        with pytest.raises(FeedbackTimeoutError):
            cycler.read_channel_status(1)
        assert remote.count("channels_info") == 2
        remote.set_faults()
        assert cycler.read_channel_status(1)["channel"] == 0


def test_server_that_ends_in_the_middle_of_every_answer(remote: Served) -> None:
    with CyclerInterface(config(remote)) as cycler:
        remote.set_faults(cut_after_frames=1)
        assert cycler.read_channel_status(1)["channel"] == 0
        with pytest.raises(ConnectionLostError, match="in the middle of a message"):
            cycler.read_channel_status(1)


CALLS: dict[str, Callable[[ChannelInterface], bool]] = {
    "assign": ChannelInterface.assign_schedule,
    "start": ChannelInterface.start_test,
    "stop": ChannelInterface.stop_test,
    "set_meta_variable": lambda channel: channel.set_meta_variable(1, 1.0),
}


@pytest.mark.parametrize("fault", ["mute", "drop"])
@pytest.mark.parametrize("command", CALLS)
def test_nothing_is_sent_twice(remote: Served, command: str, fault: str) -> None:
    with ChannelInterface(channel_config(remote, timeout_s=QUICK_S)) as channel:
        remote.set_faults(**{fault: frozenset({command})})
        with pytest.raises(FeedbackTimeoutError):
            CALLS[command](channel)
        assert remote.count(command) == 1
        remote.set_faults()
        status = channel.read_channel_status()["status"]
        assert (status != "Idle") == ((command, fault) == ("start", "mute"))
    assert remote.count(command) == 1


# --- threads ---


def test_many_threads_get_their_own_answers(remote: Served) -> None:
    with CyclerInterface(config(remote)) as cycler, ThreadPoolExecutor(8) as pool:
        wanted = [1 + index % 4 for index in range(400)]
        assert [status["channel"] + 1 for status in pool.map(cycler.read_channel_status, wanted)] == wanted
    assert (remote.count("login"), remote.count("channels_info")) == (1, 400)


def test_many_threads_and_a_connection_that_keeps_breaking(remote: Served) -> None:
    wanted = [1 + index % 4 for index in range(200)]

    def read(channel: int) -> int:
        while True:
            try:
                return int(cycler.read_channel_status(channel)["channel"]) + 1
            except (NotConnectedError, ConnectionLostError):  # twice within one call; a script would try again as well
                continue

    with CyclerInterface(config(remote)) as cycler, ThreadPoolExecutor(8) as pool:
        answers = pool.map(read, wanted)
        for _ in range(10):
            remote.do(lambda server: server.disconnect_all())
            time.sleep(0.02)
        assert list(answers) == wanted
        assert remote.do(lambda server: server.connection_count) <= 1


def test_reading_and_controlling_at_once(remote: Served) -> None:
    remote.set_faults(first_of_segment_only=True)
    with ChannelInterface(channel_config(remote)) as channel, ThreadPoolExecutor(4) as pool:
        assert channel.start_test()
        readings = [pool.submit(channel.read_channel_status) for _ in range(50)]
        writings = [pool.submit(channel.set_meta_variable, 1, float(value)) for value in range(50)]
        assert all(future.result()["channel"] == 1 for future in readings)
        assert all(future.result() for future in writings)
    assert remote.count("set_meta_variable") == 50


def test_stop_does_not_wait_behind_a_queue_of_others(remote: Served) -> None:
    with ChannelInterface(channel_config(remote)) as channel, ThreadPoolExecutor(6) as pool:
        channel.start_test()
        remote.set_faults(delays_s={"channels_info": 0.1})
        readings = [pool.submit(channel.read_channel_status) for _ in range(5)]
        wait_until(lambda: remote.count("channels_info") == 1)
        assert channel.stop_test() is True
        assert not all(future.done() for future in readings)
    assert remote.count("channels_info") == 5
