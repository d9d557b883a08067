"""Every answering style and every quirk of a server: the bridge reads all channels, with one request a poll."""

from pathlib import Path

import pytest

from cti_mqtt.simulator import AnswerStyle, ChecksumStyle, Faults, TextStyle
from tests.support.brokers import AMQTT, MOSQUITTO, MOSQUITTO_5, broker_of_kind
from tests.support.rig import rig

KIND = MOSQUITTO_5 if MOSQUITTO else AMQTT

QUIRKS = {
    "a frame a channel": Faults(answer=AnswerStyle.PER_CHANNEL),
    "one frame": Faults(answer=AnswerStyle.ONE),
    "always all": Faults(answer=AnswerStyle.ALWAYS_ALL),
    "checksum behind the frame": Faults(checksum=ChecksumStyle.MISPLACED),
    "checksum behind the frame, in pieces": Faults(checksum=ChecksumStyle.MISPLACED, segment_bytes=700),
    "wrong checksum": Faults(checksum=ChecksumStyle.WRONG),
    "stale bytes after NUL": Faults(text=TextStyle.STALE),
    "broken text": Faults(text=TextStyle.BROKEN),
    "no units": Faults(units=False),
    "picture": Faults(picture_bytes=1_000_000),
    "junk between frames": Faults(junk_bytes=33),
    "small segments": Faults(segment_bytes=1000),
    "unmerged": Faults(merge=False),
    "delayed": Faults(delay_s=0.05),
    "delay between frames": Faults(record_delay_s=0.001),
    "NaN": Faults(nan=frozenset({0, 5})),
    "infinity": Faults(infinite=frozenset({0, 5})),
    "status 99": Faults(statuses={3: 99}),
    "channels lost": Faults(comm_failures=frozenset({2})),
    "starts without their channel": Faults(start_names_channel=False),
}


@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.parametrize("quirk", QUIRKS)
async def test_all_is_read_and_all_can_be_commanded(quirk: str, channels: int, tmp_path: Path) -> None:
    simulator = {"bms_count": 2, "smb_count": 2}
    async with (
        broker_of_kind(KIND, tmp_path) as port,
        rig(
            *(port, KIND.protocol),
            channels=channels,
            faults=QUIRKS[quirk],
            simulator=simulator,
            cycler={"poll_interval_s": 0.3},
        ) as it,
    ):
        await it.ready()
        polls = it.observer.on("arbin1/readings")
        await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) >= len(polls) + 2)
        polls = it.observer.on("arbin1/readings")
        for poll in polls:
            assert [each["channel"] for each in poll.json["channels"]] == list(range(1, channels + 1))
        asked = it.asked("channels_info")
        assert {each["arguments"]["channel"] for each in asked} == {None}
        assert len(asked) - len(polls) in {0, 1, 2}
        if quirk == "wrong checksum":
            return  # there no answer to a command is believed
        last = f"arbin1/channel/{channels}"
        body = {"test_name": "T", "schedule": "CCCV.sdx"}
        started = await it.observer.ask(last, "start", body)
        assert (started["outcome"], started["verified"]) == ("succeeded", True)
        stopped = await it.observer.ask(last, "stop")
        assert (stopped["outcome"], stopped["verified"]) == ("succeeded", True)


async def test_a_wrong_checksum_proves_nothing(tmp_path: Path) -> None:
    async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol) as it:
        await it.ready()
        it.server.faults = Faults(checksum=ChecksumStyle.WRONG, checksum_of=frozenset({"assign"}))
        result = await it.observer.ask("arbin1/channel/1", "assign", {"schedule": "CCCV.sdx"})
        assert (result["outcome"], result["reason"], result["code"]) == ("unknown", "checksum", None)
        assert len(it.asked("assign")) == 1


async def test_a_server_that_answers_only_the_first_channel_and_request(tmp_path: Path) -> None:
    """pycti's spoofer: after two incomplete answers each channel is asked for by itself."""
    faults = Faults(answer=AnswerStyle.FIRST_ONLY, first_of_segment_only=True, checksum=ChecksumStyle.MISPLACED)
    async with broker_of_kind(KIND, tmp_path) as port, rig(port, KIND.protocol, channels=4, faults=faults) as it:
        await it.observer.wait("arbin1/readings", lambda heard: len(heard.json["channels"]) == 4, 20)
        result = await it.observer.ask("arbin1/channel/4", "start", {"test_name": "T", "schedule": "CCCV.sdx"})
        assert result["outcome"] == "succeeded"
