"""Topic names, and what a command topic says."""

import pytest

from cti_mqtt.bridge.topics import CommandTopic, Topics


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("cti/arbin1/channel/7/command/start", CommandTopic("arbin1", "7", "start")),
        ("cti/arbin1/channel/7/command/start/alice", CommandTopic("arbin1", "7", "start", user="alice")),
        ("cti/arbin1/channel/7/command/start/", CommandTopic("arbin1", "7", "start", user="")),
        ("cti/arbin1/channel/7/command/mv/1", CommandTopic("arbin1", "7", "set_mv", 1)),
        ("cti/arbin1/channel/7/command/mv/16/plc", CommandTopic("arbin1", "7", "set_mv", 16, "plc")),
        ("cti/arbin1/channel/7/command/mv/17", CommandTopic("arbin1", "7", "mv/17")),
        ("cti/arbin1/channel/7/command/mv/01", CommandTopic("arbin1", "7", "mv/01")),
        ("cti/arbin1/channel/7/command/mv", CommandTopic("arbin1", "7", "mv")),
        ("cti/arbin1/channel/7/command", CommandTopic("arbin1", "7", "")),
        ("cti/arbin1/channel/7/command/a/b/c", CommandTopic("arbin1", "7", "a/b/c")),
        ("cti/arbin1/command/stop", CommandTopic("arbin1", None, "stop")),
        ("cti/arbin1/command/stop/bob", CommandTopic("arbin1", None, "stop", user="bob")),
        ("cti/arbin1/command/mv/1", CommandTopic("arbin1", None, "mv/1")),
        ("cti/bridge/command/stop", CommandTopic("bridge", None, "stop")),
        ("cti/arbin1/channel/7/state", None),
        ("other/arbin1/channel/7/command/start", None),
        ("ctix/arbin1/command/stop", None),
    ],
)
def test_command_topics(topic: str, expected: CommandTopic | None) -> None:
    assert Topics("cti").parse_command(topic) == expected


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("1", 1),
        ("128", 128),
        *[(text, None) for text in ("0", "007", "-1", "+1", "1.0", "٣", "", "all", "9" * 40)],
    ],
)
def test_channel_numbers(text: str, channel: int | None) -> None:
    assert CommandTopic("arbin1", text, "stop").channel == channel


def test_a_base_of_several_levels() -> None:
    topics = Topics("lab/north/cti")
    assert topics.subscriptions == ("lab/north/cti/+/command/#", "lab/north/cti/+/channel/+/command/#")
    assert topics.parse_command("lab/north/cti/arbin1/command/stop") == CommandTopic("arbin1", None, "stop")


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("reply/me", True),
        ("ctix/reply", True),
        ("cti", False),
        ("cti/x", False),
        ("homeassistant/x", False),
        ("spBv1.0/x", False),
        ("$SYS/x", False),
        ("reply/+", False),
        ("reply/#", False),
        ("", False),
    ],
)
def test_reply_topics(topic: str, allowed: bool) -> None:
    assert Topics("cti").may_reply_to(topic) is allowed
