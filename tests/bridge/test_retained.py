"""Retained commands: the rules as a table, and on real brokers with the trap of the empty stop in it."""

from functools import partial

import pytest

from cti_mqtt.bridge.retained import ECHO_WITHIN_S, SETTLE_S, Judgement, RetainedGuard
from tests.support.brokers import BrokerKind
from tests.support.observer import Heard, Observer
from tests.support.rig import rig

STOP, START = "cti/arbin1/channel/1/command/stop", "cti/arbin1/channel/1/command/start"
TAKE, REFUSE, SWALLOW = Judgement.TAKE, Judgement.REFUSE, Judgement.SWALLOW
TAKE_AND_CLEAR, REFUSE_AND_CLEAR = Judgement.TAKE_AND_CLEAR, Judgement.REFUSE_AND_CLEAR
REFUSE_EARLY = Judgement.REFUSE_EARLY


class Watch:
    """Time that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def settled(watch: Watch | None = None, *, protocol_5: bool) -> RetainedGuard:
    """A guard whose subscription has stood for a while."""
    watch = watch or Watch()
    guard = RetainedGuard(watch, protocol_5=protocol_5)
    guard.subscribed()
    watch.now += SETTLE_S
    return guard


@pytest.mark.parametrize(
    ("topic", "payload", "retain", "on_5", "on_311"),
    [
        pytest.param(STOP, b"", False, TAKE, TAKE, id="an empty stop"),
        pytest.param(STOP, b"x", False, TAKE, TAKE, id="a stop with a payload"),
        pytest.param(START, b"{}", False, TAKE, TAKE, id="a start"),
        pytest.param(STOP, b"x", True, TAKE_AND_CLEAR, REFUSE_AND_CLEAR, id="a retained stop"),
        pytest.param(START, b"{}", True, REFUSE_AND_CLEAR, REFUSE_AND_CLEAR, id="a retained start"),
        pytest.param(STOP, b"", True, TAKE, REFUSE, id="somebody clears a stop: nothing is stored"),
        pytest.param(START, b"", True, REFUSE, REFUSE, id="somebody clears a start: nothing is stored"),
    ],
)
def test_rules(topic: str, payload: bytes, retain: bool, on_5: Judgement, on_311: Judgement) -> None:
    for five, expected in ((True, on_5), (False, on_311)):
        guard = settled(protocol_5=five)
        assert guard.judge(topic, payload, retain=retain, is_stop=topic == STOP) is expected


class TestTheFirstMomentsAfterSubscribing:
    @pytest.mark.parametrize(
        ("after_s", "expected"),
        [
            pytest.param(None, REFUSE_EARLY, id="before the broker has confirmed"),
            pytest.param(0.0, REFUSE_EARLY, id="at once"),
            pytest.param(SETTLE_S - 0.01, REFUSE_EARLY, id="just before"),
            pytest.param(SETTLE_S, TAKE, id="settled"),
        ],
    )
    @pytest.mark.parametrize("protocol_5", [True, False])
    def test_a_message_without_the_flag(self, after_s: float | None, expected: Judgement, protocol_5: bool) -> None:
        watch = Watch()
        guard = RetainedGuard(watch, protocol_5=protocol_5)
        guard.new_connection()
        if after_s is not None:
            guard.subscribed()
            watch.now += after_s
        for payload in (b"{}", b""):
            assert guard.judge(START, payload, retain=False, is_stop=False) is (TAKE if protocol_5 else expected)
            assert guard.judge(STOP, payload, retain=False, is_stop=True) is TAKE
        flagged = guard.judge(START, b"{}", retain=True, is_stop=False)
        assert flagged is REFUSE_AND_CLEAR  # a flag tells it all, at any time

    def test_each_subscription_has_its_own(self) -> None:
        guard = settled(protocol_5=False)
        guard.new_connection()
        assert guard.judge(START, b"{}", retain=False, is_stop=False) is REFUSE_EARLY
        guard.subscribed()
        assert guard.judge(START, b"{}", retain=False, is_stop=False) is REFUSE_EARLY

    def test_what_is_said(self) -> None:
        assert "send it again once bridge/availability says online" in (REFUSE_EARLY.refusal or "")
        refused = {each for each in Judgement if each.refusal}
        assert refused == {REFUSE, REFUSE_AND_CLEAR, REFUSE_EARLY}


class TestTheEmptyMessageThatClears:
    def test_exactly_one_is_swallowed_on_311(self) -> None:
        guard = settled(protocol_5=False)
        guard.cleared(STOP)
        assert guard.judge(STOP, b"", retain=False, is_stop=True) is SWALLOW
        assert guard.judge(STOP, b"", retain=False, is_stop=True) is TAKE

    def test_two_clearings_have_two_echoes(self) -> None:
        guard = settled(protocol_5=False)
        guard.cleared(STOP)
        guard.cleared(STOP)
        judged = [guard.judge(STOP, b"", retain=False, is_stop=True) for _ in range(3)]
        assert judged == [SWALLOW, SWALLOW, TAKE]

    def test_a_stop_with_a_payload_is_never_an_echo(self) -> None:
        guard = settled(protocol_5=False)
        guard.cleared(STOP)
        assert guard.judge(STOP, b"now", retain=False, is_stop=True) is TAKE

    def test_other_topics_have_no_echo(self) -> None:
        guard = settled(protocol_5=False)
        guard.cleared(START)
        assert guard.judge(STOP, b"", retain=False, is_stop=True) is TAKE

    def test_an_echo_that_did_not_come_is_not_waited_for(self) -> None:
        watch = Watch()
        guard = settled(watch, protocol_5=False)
        guard.cleared(STOP)
        watch.now += ECHO_WITHIN_S + 0.1
        assert guard.judge(STOP, b"", retain=False, is_stop=True) is TAKE

    def test_no_echo_outlives_its_connection(self) -> None:
        guard = settled(protocol_5=False)
        guard.cleared(STOP)
        guard.new_connection()
        guard.subscribed()
        assert guard.judge(STOP, b"", retain=False, is_stop=True) is TAKE

    def test_there_is_none_on_5(self) -> None:
        guard = settled(protocol_5=True)
        guard.cleared(STOP)
        assert guard.judge(STOP, b"", retain=False, is_stop=True) is TAKE


def _is_about(verb: str, heard: Heard) -> bool:
    return bool(heard.json["command"] == verb)


async def _stored(port: int, kind: BrokerKind, topic: str) -> list[bytes]:
    """What the broker has stored on a topic, as a newcomer sees it."""
    async with Observer.connect(port, kind.protocol) as newcomer:
        newcomer.say("marker", b"x")
        await newcomer.wait("marker")
        return [heard.payload for heard in newcomer.on(topic) if heard.payload]


class TestOnBrokers:
    async def test_what_was_stored_while_the_bridge_was_away_moves_nothing(self, port: int, kind: BrokerKind) -> None:
        async with Observer.connect(port, kind.protocol) as before:
            for verb, body in (("start", {"test_name": "ghost", "schedule": "CCCV.sdx"}), ("stop", {"id": "old"})):
                before.say(f"arbin1/channel/1/command/{verb}", body, retain=True)
            await before.wait("arbin1/channel/1/command/stop")
        async with rig(port, kind.protocol) as it:
            await it.ready()
            # On 3.1.1 the stored messages are delivered and refused; on 5 the subscription keeps them away.
            if kind.protocol == "3.1.1":
                for verb in ("start", "stop"):
                    refused = await it.observer.wait("arbin1/channel/1/result", partial(_is_about, verb))
                    assert (refused.json["outcome"], refused.json["reason"]) == ("refused", "retained")
                    await it.observer.wait(f"arbin1/channel/1/command/{verb}", lambda heard: not heard.payload)
            # The empty message that cleared the stop must not have been taken for one.
            started = await it.observer.ask("arbin1/channel/1", "start", {"test_name": "real", "schedule": "CCCV.sdx"})
            assert started["outcome"] == "succeeded"
            polls = len(it.observer.on("arbin1/readings"))
            await it.observer.until(lambda: len(it.observer.on("arbin1/readings")) > polls + 2)
            assert it.asked("stop") == []
            assert [each["arguments"]["test_name"] for each in it.asked("start")] == ["real"]
            assert {heard.json["reason"] for heard in it.observer.on("arbin1/channel/1/result")} <= {"retained", "ok"}
            # And an empty stop is a stop again.
            it.observer.say("arbin1/channel/1/command/stop", b"")
            stopped = await it.observer.wait(
                "arbin1/channel/1/result",
                lambda heard: heard.json["command"] == "stop" and heard.json["reason"] != "retained",
            )
            assert stopped.json["outcome"] == "succeeded"
            if kind.protocol == "3.1.1":
                assert await _stored(port, kind, "arbin1/channel/1/command/start") == []
                assert await _stored(port, kind, "arbin1/channel/1/command/stop") == []

    async def test_published_retained_while_the_bridge_is_there(self, port: int, kind: BrokerKind) -> None:
        async with rig(port, kind.protocol) as it:
            await it.ready()
            await it.observer.ask("arbin1/channel/1", "start", {"test_name": "T", "schedule": "CCCV.sdx"})
            it.observer.say("arbin1/channel/1/command/stop", {"id": "live"}, retain=True)
            stopped = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "live")
            assert stopped.json["outcome"] == "succeeded"  # a stop is easy, and on 3.1.1 it looks plain anyway
            if kind.protocol == 5:
                it.observer.say("arbin1/channel/1/command/assign", {"id": "a", "schedule": "CCCV.sdx"}, retain=True)
                refused = await it.observer.wait("arbin1/channel/1/result", lambda heard: heard.json["id"] == "a")
                assert (refused.json["outcome"], refused.json["reason"]) == ("refused", "retained")
                for verb in ("stop", "assign"):
                    await it.observer.wait(f"arbin1/channel/1/command/{verb}", lambda heard: not heard.payload)
                    assert await _stored(port, kind, f"arbin1/channel/1/command/{verb}") == []
