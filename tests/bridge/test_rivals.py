"""Who commands on a base topic, and whose the client id is: the rules, without a broker. Availability, with one."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cti_mqtt.bridge.mqtt.takeover import SHORT_LIFE_S, TAKEN, Takeovers
from cti_mqtt.bridge.rivals import MOST_ELDERS, BridgeRun, Rivals, Role, parse_health
from tests.support.brokers import MOSQUITTO_5, MOSQUITTO_311, BrokerKind, Mosquitto, broker_of_kind, needs_mosquitto
from tests.support.observer import Observer
from tests.support.rig import rig

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
OWN = BridgeRun(NOON, "8" * 16)
ELDER = BridgeRun(NOON - timedelta(seconds=1), "f" * 16)
ELDEST = BridgeRun(NOON - timedelta(days=1), "f" * 16)
INTERVAL_S, EXTRA_S = 10.0, 2.0
LISTENED = 100.0 + INTERVAL_S + EXTRA_S
PATIENCE_S = 3 * INTERVAL_S + EXTRA_S


def connected(*, listen: bool = True) -> Rivals:
    """At the time 100."""
    rivals = Rivals(OWN, interval_s=INTERVAL_S, extra_s=EXTRA_S, listen=listen)
    rivals.connected(100.0)
    return rivals


class TestWhoIsTheElder:
    @pytest.mark.parametrize(
        ("other", "role"),
        [
            pytest.param(ELDER, Role.STANDING_DOWN, id="started earlier, with the larger boot"),
            pytest.param(BridgeRun(NOON + timedelta(seconds=1), "0" * 16), Role.COMMANDING, id="started later"),
            pytest.param(BridgeRun(NOON, "7" * 16), Role.STANDING_DOWN, id="at the same time, smaller boot"),
            pytest.param(BridgeRun(NOON, "9" * 16), Role.COMMANDING, id="at the same time, larger boot"),
            pytest.param(OWN, Role.COMMANDING, id="ourselves"),
        ],
    )
    def test_rules(self, other: BridgeRun, role: Role) -> None:
        rivals = connected(listen=False)
        rivals.hear(other, 101.0)
        assert rivals.role is role
        assert rivals.elder == (other if role is Role.STANDING_DOWN else None)

    def test_two_never_agree_to_differ(self) -> None:
        """Of any two exactly one stands down."""
        lives = [OWN, ELDER, ELDEST, BridgeRun(NOON, "7" * 16)]
        for one in lives:
            for other in lives:
                if one is not other:
                    pair = [Rivals(own, interval_s=1.0, extra_s=0.0, listen=False) for own in (one, other)]
                    pair[0].hear(other, 0.0)
                    pair[1].hear(one, 0.0)
                    assert {each.role for each in pair} == {Role.COMMANDING, Role.STANDING_DOWN}

    def test_times_are_compared_not_texts(self) -> None:
        body = {"boot": "a", "started_at": "2026-01-02T14:00:00.000+03:00"}  # 11:00 UTC; as text it is behind 12:00
        life = parse_health(json.dumps(body).encode())
        assert life is not None
        assert life < OWN


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"7",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"boot": "a"}',
        b'{"boot": "a", "started_at": 5}',
        b'{"boot": "a", "started_at": "yesterday"}',
        b'{"boot": "a", "started_at": "2026-01-02T03:04:05"}',  # of which clock?
        b'{"boot": "a", "started_at": "0001-01-01T00:00:00+14:00"}',  # before the first year, in UTC
        b'{"boot": "a", "started_at": "9999-12-31T23:59:59-14:00"}',
        b'{"boot": 7, "started_at": "2026-01-02T03:04:05Z"}',
        b'{"boot": "", "started_at": "2026-01-02T03:04:05Z"}',
        b'{"boot": "%b", "started_at": "2026-01-02T03:04:05Z"}' % (b"a" * 65),
        b'{"boot": ' + b"[" * 5000,
    ],
)
def test_what_is_no_health_message(payload: bytes) -> None:
    assert parse_health(payload) is None


class TestListening:
    def test_nobody_is_there(self) -> None:
        rivals = connected()
        assert (rivals.role, rivals.due()) == (Role.LISTENING, LISTENED)
        rivals.look(LISTENED - 0.1)
        assert rivals.role is Role.LISTENING
        rivals.look(LISTENED)
        assert (rivals.role, rivals.due()) == (Role.COMMANDING, None)

    def test_somebody_is_there(self) -> None:
        rivals = connected()
        rivals.hear(ELDER, 105.0)
        assert (rivals.role, rivals.elder) == (Role.STANDING_DOWN, ELDER)
        rivals.look(LISTENED)
        assert rivals.role is Role.STANDING_DOWN

    def test_a_younger_one_does_not_matter(self) -> None:
        rivals = connected()
        rivals.hear(BridgeRun(NOON + timedelta(hours=1), "0"), 105.0)
        rivals.look(LISTENED)
        assert rivals.role is Role.COMMANDING

    def test_it_needs_a_connection_all_the_time(self) -> None:
        rivals = connected()
        rivals.disconnected()
        assert rivals.due() is None
        rivals.look(LISTENED + 1000)
        assert rivals.role is Role.LISTENING
        rivals.connected(2000.0)
        assert rivals.due() == 2000.0 + INTERVAL_S + EXTRA_S

    def test_there_is_no_second_listening(self) -> None:
        rivals = connected()
        rivals.look(LISTENED)
        rivals.disconnected()
        rivals.connected(500.0)
        assert rivals.role is Role.COMMANDING

    def test_it_can_be_left_out(self) -> None:
        assert connected(listen=False).role is Role.COMMANDING


class TestTheElderGoes:
    def test_after_three_intervals_of_silence(self) -> None:
        rivals = connected()
        rivals.hear(ELDER, 105.0)
        rivals.hear(ELDER, 115.0)
        assert rivals.due() == 115.0 + PATIENCE_S
        rivals.look(115.0 + PATIENCE_S - 0.1)
        assert rivals.role is Role.STANDING_DOWN
        rivals.look(115.0 + PATIENCE_S)
        assert (rivals.role, rivals.elder, rivals.due()) == (Role.COMMANDING, None, None)

    def test_it_comes_back(self) -> None:
        rivals = connected()
        rivals.hear(ELDER, 105.0)
        rivals.look(1000.0)
        rivals.hear(ELDER, 1001.0)
        assert (rivals.role, rivals.elder) == (Role.STANDING_DOWN, ELDER)

    def test_one_that_speaks_seldom_is_waited_for_the_second_time(self) -> None:
        rivals = connected()
        for beat in range(3):
            rivals.hear(ELDER, 105.0 + 60 * beat)
        assert rivals.due() == 105.0 + 120 + 60 + EXTRA_S
        rivals.look(105.0 + 120 + 60 + EXTRA_S)
        assert rivals.role is Role.COMMANDING

    def test_but_not_for_ever(self) -> None:
        rivals = connected()
        rivals.hear(ELDER, 105.0)
        rivals.hear(ELDER, 100_000.0)
        assert rivals.due() == 100_000.0 + 10 * INTERVAL_S + EXTRA_S

    def test_silence_counts_only_while_connected(self) -> None:
        rivals = connected()
        rivals.hear(ELDER, 105.0)
        rivals.disconnected()
        rivals.look(1000.0)
        assert rivals.elder == ELDER
        rivals.connected(1000.0)
        assert rivals.due() == 1000.0 + PATIENCE_S
        rivals.look(1000.0 + PATIENCE_S)
        assert rivals.role is Role.COMMANDING

    def test_a_second_elder_takes_its_place(self) -> None:
        rivals = connected()
        rivals.hear(ELDEST, 105.0)
        rivals.hear(ELDER, 120.0)
        assert rivals.elder == ELDEST
        rivals.look(105.0 + PATIENCE_S)
        assert (rivals.role, rivals.elder) == (Role.STANDING_DOWN, ELDER)

    def test_invented_ones_do_not_fill_the_memory(self) -> None:
        rivals = connected()
        for number in range(1000):
            rivals.hear(BridgeRun(NOON - timedelta(seconds=1), f"invented-{number}"), 105.0)
        assert len(rivals._elders) == MOST_ELDERS
        rivals.look(105.0 + PATIENCE_S)
        assert rivals.role is Role.COMMANDING


class TestTakeovers:
    def test_each_is_told_where_the_broker_says_it(self) -> None:
        takeovers = Takeovers()
        assert [takeovers.ended(100.0, taken=True, goodbye=True) for _ in range(2)] == [TAKEN, TAKEN]

    def test_other_goodbyes_are_no_series(self) -> None:
        takeovers = Takeovers()
        assert [takeovers.ended(1.0, taken=False, goodbye=True) for _ in range(9)] == [None] * 9

    @pytest.mark.parametrize(
        ("lives", "told"),
        [
            pytest.param([1, 1], [], id="two are chance"),
            pytest.param([1, 1, 1, 1, 1], [2], id="once a series"),
            pytest.param([1, 1, SHORT_LIFE_S, 1, 1], [], id="a long one ends it"),
            pytest.param([1, 1, 1, 99, 1, 1, 1], [2, 6], id="a new series"),
            pytest.param([1, 1, None, 1, 1, None, 1], [], id="a broker that is not there ends it"),
        ],
    )
    def test_a_series(self, lives: list[float | None], told: list[int]) -> None:
        takeovers, said = Takeovers(), []
        for number, lasted_s in enumerate(lives):
            if lasted_s is None:
                takeovers.not_accepted()
            elif takeovers.ended(lasted_s, taken=False, goodbye=False):
                said.append(number)
                assert takeovers.suspected
        assert said == told


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(MOSQUITTO_5, id=str(MOSQUITTO_5), marks=needs_mosquitto),
        pytest.param(MOSQUITTO_311, id=str(MOSQUITTO_311), marks=needs_mosquitto),
    ],
)
class TestAvailability:
    """What stands on `bridge/availability` while commands are heard."""

    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            pytest.param(b"offline", "`offline` was published", id="offline"),
            pytest.param(b"", "an empty message was published", id="empty"),
            pytest.param(b"\xff\n" + b"x" * 9999, "`\\ufffd\\nxxx", id="junk"),
            pytest.param(b"Online", "`Online` was published", id="nearly"),
        ],
    )
    async def test_whatever_is_false_is_corrected_once_a_second(
        self, kind: BrokerKind, payload: bytes, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        async with broker_of_kind(kind, tmp_path) as port, rig(port, kind.protocol) as it:
            await it.ready()
            for _ in range(20):
                it.observer.say("bridge/availability", payload, retain=True)
            heard = it.observer.on
            await it.observer.until(
                lambda: [each.payload for each in heard("bridge/availability")].count(payload) == 20
            )
            await it.observer.until_last("bridge/availability", b"online")
            assert [each.payload for each in heard("bridge/availability")].count(b"online") <= 3
            async with Observer.connect(port, kind.protocol) as newcomer:
                assert (await newcomer.wait("bridge/availability")).payload == b"online"
        warnings = [each.getMessage() for each in caplog.records if "bridge/availability" in each.getMessage()]
        assert warnings
        assert all(each.startswith(said) and each.endswith(": corrected") and len(each) < 200 for each in warnings)

    async def test_our_own_online_is_not_answered(self, kind: BrokerKind, tmp_path: Path) -> None:
        async with broker_of_kind(kind, tmp_path) as port, rig(port, kind.protocol) as it:
            await it.ready()
            it.observer.say("bridge/availability", b"online", retain=True)
            await asyncio.sleep(1.5)  # longer than a correction may wait
            assert [each.payload for each in it.observer.on("bridge/availability")] == [b"online"] * 2

    async def test_a_broker_that_ends_in_order_is_not_somebody_else(
        self, kind: BrokerKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It publishes our own last will to us before it closes."""
        caplog.set_level(logging.WARNING)
        broker = Mosquitto(tmp_path)
        await broker.start()
        try:
            async with rig(broker.port, kind.protocol) as it:
                await it.ready()
                await broker.stop()
                await broker.start()
                async with Observer.connect(broker.port, kind.protocol) as newcomer:
                    await newcomer.until_last("bridge/availability", b"online")
        finally:
            await broker.stop()
        said = [each for each in caplog.messages if each.endswith(": corrected")]
        assert all("by our own last will or by somebody else" in each for each in said)
