"""Who gets in, and how an interface ends."""

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cti_mqtt
from cti_mqtt import ChannelInterface, CyclerInterface
from cti_mqtt.client import Credentials, Endpoint
from cti_mqtt.client.blocking import Link
from cti_mqtt.errors import (
    ConfigurationError,
    InvalidRequestError,
    LoginRefusedError,
    NotConnectedError,
    OutcomeUnknownError,
)
from tests.client.interface.conftest import channel_config, config, threads, wait_until
from tests.support.brokers import HOST, free_port
from tests.support.serving import Served


@pytest.mark.parametrize("name", ["ARBIN_CTI_USERNAME", "ARBIN_CTI_PASSWORD"])
def test_wrong_user_or_password(remote: Served, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "s3cret-Pa55")
    with pytest.raises(LoginRefusedError) as caught:
        CyclerInterface(config(remote))
    assert ("s3cret-Pa55" in str(caught.value)) == (name == "ARBIN_CTI_USERNAME")


def test_nobody_there() -> None:
    with pytest.raises(NotConnectedError):
        CyclerInterface({"ip_address": HOST, "port": free_port()})


def test_file_comes_before_environment_which_stays_as_it_is(
    remote: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ARBIN_CTI_PASSWORD", "wrong")
    elsewhere = tmp_path / "other.env"
    elsewhere.write_text("ARBIN_CTI_PASSWORD=admin\n")
    with pytest.raises(LoginRefusedError):
        CyclerInterface(config(remote))
    with CyclerInterface(config(remote), str(elsewhere)):
        pass
    (tmp_path / ".env").write_text("ARBIN_CTI_PASSWORD=admin\nARBIN_CTI_USERNAME\n")
    with CyclerInterface(config(remote)), CyclerInterface(config(remote), env_path=tmp_path / ".env"):
        pass
    assert os.environ["ARBIN_CTI_PASSWORD"] == "wrong"


def test_no_credentials(remote: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARBIN_CTI_USERNAME")
    monkeypatch.setenv("ARBIN_CTI_PASSWORD", "")
    with pytest.raises(ValueError, match=r"(?s)ARBIN_CTI_USERNAME.*ARBIN_CTI_PASSWORD") as caught:
        CyclerInterface(config(remote))
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        (CyclerInterface, {"port": "x"}, "port"),
        (CyclerInterface, {"ip_address": None}, "ip_address"),
        (CyclerInterface, {"timeout_s": 0}, "timeout_s"),
        (ChannelInterface, {}, "channel"),
        (ChannelInterface, {"channel": 0}, "channel"),
        (ChannelInterface, {"channel": 1, "capacity_ah": -1}, "capacity_ah"),
    ],
)
def test_wrong_configuration(kind: type[CyclerInterface], wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        kind({"ip_address": HOST, "port": 1, **wrong})


# --- the end ---


def test_after_close(remote: Served) -> None:
    channel = ChannelInterface(channel_config(remote))
    channel.close()
    channel.close()
    calls = (
        channel.read_channel_status,
        channel.read_all_channels,
        channel.assign_schedule,
        channel.start_test,
        channel.stop_test,
        lambda: channel.set_meta_variable(1, 1.0),
    )
    for call in calls:
        with pytest.raises(NotConnectedError, match="closed on this side"):
            call()
    assert channel.get_num_channels() == 4
    wait_until(lambda: remote.do(lambda server: server.connection_count) == 0)
    assert not threads()


def test_link_that_never_was(remote: Served) -> None:
    link = Link(Endpoint("x", HOST, remote.port), Credentials("admin", "admin"))
    with pytest.raises(NotConnectedError, match="never connected"):
        _ = link.info
    link.close()


def test_with_closes_after_an_error(remote: Served) -> None:
    with pytest.raises(RuntimeError, match="mine"), CyclerInterface(config(remote)):
        raise RuntimeError("mine")
    assert not threads()


def test_object_that_is_dropped_ends_its_session(remote: Served) -> None:
    cycler = CyclerInterface(config(remote))
    assert threads()
    del cycler
    gc.collect()
    wait_until(lambda: not threads())
    wait_until(lambda: remote.do(lambda server: server.connection_count) == 0)


def test_close_ends_what_other_threads_wait_for(remote: Served) -> None:
    remote.set_faults(mute=frozenset({"stop", "channels_info"}))
    channel = ChannelInterface(channel_config(remote, timeout_s=30))
    with ThreadPoolExecutor(2) as pool:
        stopping = pool.submit(channel.stop_test)
        wait_until(lambda: remote.count("stop") == 1)
        reading = pool.submit(channel.read_channel_status)  # waits: one request is in flight at a time
        time.sleep(0.05)
        channel.close()
        assert isinstance(stopping.exception(5), OutcomeUnknownError)
        assert isinstance(reading.exception(5), NotConnectedError)


def test_close_while_connecting(remote: Served) -> None:
    channel = ChannelInterface(channel_config(remote, timeout_s=30))
    remote.set_faults(mute=frozenset({"login"}))
    remote.do(lambda server: server.disconnect_all())
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(channel.read_channel_status)
        wait_until(lambda: remote.count("login") == 2)
        channel.close()
        assert isinstance(reading.exception(5), NotConnectedError)


def test_interrupted_call_leaves_a_usable_interface(remote: Served) -> None:
    import _thread

    with CyclerInterface(config(remote)) as cycler:
        remote.set_faults(delays_s={"channels_info": 0.3})
        timer = threading.Timer(0.1, _thread.interrupt_main)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            cycler.read_channel_status(1)
        timer.join()
        assert cycler.read_channel_status(2)["channel"] == 1
    assert remote.count("login") == 1


def test_script_that_closes_nothing_ends_quietly(remote: Served, tmp_path: Path) -> None:
    script = (
        "from cti_mqtt import CyclerInterface\n"
        f"cycler = CyclerInterface({{'ip_address': {HOST!r}, 'port': {remote.port}}})\n"
        "print(cycler.read_channel_status(1)['status'])\n"
    )
    root = str(Path(cti_mqtt.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "PYTHONPATH": root},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("Idle\n", "", 0)


def test_password_is_in_no_record(remote: Served, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / ".env").write_text(f"ARBIN_CTI_PASSWORD={'s3cret' * 10}\n")
    with pytest.raises(InvalidRequestError) as caught:
        CyclerInterface(config(remote))
    assert "s3cret" not in caplog.text + str(caught.value)


def test_names_of_the_package() -> None:
    assert set(cti_mqtt.__all__) == {"ChannelInterface", "CyclerInterface", "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = cti_mqtt.Nothing  # type: ignore[attr-defined]


def test_import_of_the_package_is_cheap() -> None:
    loaded = "import cti_mqtt, sys; print(sorted({'asyncio', 'pydantic', 'dotenv'} & set(sys.modules)))"
    root = str(Path(cti_mqtt.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", loaded], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
