"""Payload -> order: what is taken, and what every mistake is answered with."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_mqtt.bridge.age import Deadline
from cti_mqtt.bridge.order_parsing import MalformedError, parse_order, parse_stop, parse_stop_all, parse_value, peek_id
from cti_mqtt.bridge.orders import Assign, SetMv, Start, Stop

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class TestTaken:
    def test_a_start_with_everything(self) -> None:
        order = parse_order(
            "start",
            b'{"id": "8c3e", "issued_at": "2026-01-02T03:04:05Z", "ttl_s": 10, "expect": {"status": "Idle"},'
            b' "dry_run": false, "schedule": "CCCV.sdx", "test_name": "cell-42", "barcode": "", "capacity_ah": 2.5,'
            b' "values": {"1": 2.5, "16": 1}}',
            to_cycler=False,
        )
        assert isinstance(order, Start)
        assert (order.test_name, order.schedule, order.issued_at) == ("cell-42", "CCCV.sdx", NOW)
        assert order.values_for(7) == {1: 2.5, 16: 1.0}

    def test_values_of_channels_stand_above_those_for_all(self) -> None:
        order = parse_order(
            "set_mv",
            b'{"channels": [7, 8], "values": {"1": 2.5}, "per_channel": {"7": {"1": 2.0, "2": 1}}}',
            to_cycler=True,
        )
        assert isinstance(order, SetMv)
        assert (order.values_for(7), order.values_for(8)) == ({1: 2.0, 2: 1.0}, {1: 2.5})

    def test_an_assignment(self) -> None:
        assert isinstance(parse_order("assign", b'{"schedule": "a.sdx"}', to_cycler=False), Assign)

    @pytest.mark.parametrize("payload", [b"", b"x", b"\xff", b"null", b"[1]", b'{"channels": 3}', b'{"id": 5}'])
    def test_any_payload_stops_a_channel(self, payload: bytes) -> None:
        assert isinstance(parse_stop(payload), Stop)

    def test_an_empty_stop_of_a_cycler_means_all(self) -> None:
        assert parse_stop_all(b"").channels == "all"
        assert parse_stop_all(b'{"channels": "all"}').channels == "all"
        assert parse_stop_all(b'{"channels": [1, 3]}').channels == [1, 3]

    @pytest.mark.parametrize(("payload", "value"), [(b"2.5", 2.5), (b"3", 3.0), (b" -1e-3\n", -0.001), (b"0", 0.0)])
    def test_a_number(self, payload: bytes, value: float) -> None:
        assert parse_value(4, payload).values_for(1) == {4: value}


@pytest.mark.parametrize(
    ("verb", "payload", "says"),
    [
        ("start", b"", "not JSON"),
        ("start", b"{", "not JSON"),
        ("start", b"\xff\xfe", "not JSON"),
        ("start", b"[]", "must be a JSON object, not a list"),
        ("start", b"7", "must be a JSON object, not a number"),
        ("start", b"null", "must be a JSON object, not null"),
        ("start", b"{}", "test_name: missing"),
        ("start", b'{"test_name": ""}', "test_name"),
        ("start", b'{"test_name": 7}', "test_name"),
        ("start", b'{"test_name": "T", "shedule": "CCCV.sdx"}', "shedule: start has no such field"),
        ("start", b'{"test_name": "T", "test_name": "U"}', "a key stands twice"),
        ("start", b'{"test_name": "T", "values": {"1": NaN}}', "not JSON"),
        ("start", b'{"test_name": "T", "values": {"1": 1e39}}', "values.1"),
        ("start", b'{"test_name": "T", "values": {"1": 1e400}}', ""),
        ("start", b'{"test_name": "T", "values": {"1": "2.5"}}', "values.1"),
        ("start", b'{"test_name": "T", "values": {"1": true}}', "values.1"),
        ("start", b'{"test_name": "T", "values": {"0": 1}}', "no meta variable"),
        ("start", b'{"test_name": "T", "values": {"17": 1}}', "no meta variable"),
        ("start", b'{"test_name": "T", "values": {"01": 1}}', "no meta variable"),
        ("start", b'{"test_name": "T", "values": {}}', "values"),
        ("start", b'{"test_name": "T", "capacity_ah": -1}', "capacity_ah"),
        ("start", b'{"test_name": "T", "dry_run": "no"}', "dry_run"),
        ("start", b'{"test_name": "T", "dry_run": 1}', "dry_run"),
        ("start", b'{"test_name": "T", "lease": {"ttl_s": 5}}', "lease.on_expiry: missing; this key is required"),
        ("start", b'{"test_name": "T", "issued_at": "yesterday"}', "issued_at"),
        ("start", b'{"test_name": "T", "issued_at": "2026-01-02T03:04:05"}', "issued_at"),
        ("start", b'{"test_name": "T", "issued_at": 5}', "issued_at"),
        ("start", b'{"test_name": "T", "issued_at": "1700000000"}', "issued_at"),
        ("start", b"{" + b",".join(b'"k%d": 1' % n for n in range(5000)) + b"}", "k0: start has no such field"),
        ("start", b'{"test_name": "T", "ttl_s": 0}', "ttl_s"),
        ("start", b'{"test_name": "T", "id": 5}', "id"),
        ("start", b'{"test_name": "T", "id": ""}', "id"),
        ("start", b'{"test_name": "T", "expect": {"state": "Idle"}}', "expect.state"),
        ("start", b'{"test_name": "T", "channels": [1]}', "channels: belongs to a command to the cycler"),
        ("start", b'{"test_name": "\\ud800"}', "not JSON"),
        ("start", b'{"test_name": "T", "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "not JSON"),
        ("start", b'{"test_name": "' + b"x" * 300_000 + b'"}', "too many"),
        ("assign", b"{}", "schedule: missing"),
        ("assign", b'{"schedule": "a", "test_name": "T"}', "test_name: assign has no such field"),
        ("set_mv", b"{}", "values: missing"),
        ("set_mv", b'{"per_channel": {"7": {"1": 1}}}', "per_channel: belongs to a command to the cycler"),
    ],
)
def test_mistakes(verb: str, payload: bytes, says: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_order(verb, payload, to_cycler=False)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize(
    ("verb", "payload", "says"),
    [
        ("start", b'{"test_name": "T"}', "channels: missing"),
        ("start", b'{"test_name": "T", "channels": []}', "channels"),
        ("start", b'{"test_name": "T", "channels": [0]}', "channels"),
        ("start", b'{"test_name": "T", "channels": ["1"]}', "channels"),
        ("start", b'{"test_name": "T", "channels": [true]}', "channels"),
        ("start", b'{"test_name": "T", "channels": [1, 1]}', "stands twice"),
        ("start", b'{"test_name": "T", "channels": [99999999999999999999]}', "channels"),
        ("start", b'{"test_name": "T", "channels": "every"}', "channels"),
        ("set_mv", b'{"channels": [1], "per_channel": {"2": {"1": 1}}}', "not among channels"),
        ("set_mv", b'{"channels": "all", "per_channel": {"abc": {"1": 1}}}', "no channel number"),
        ("set_mv", b'{"channels": "all", "per_channel": {"01": {"1": 1}}}', "no channel number"),
        ("set_mv", b'{"channels": [1, 2], "per_channel": {"2": {"1": 1}}}', "missing for channel 1"),
        ("stop", b"{}", "channels: missing"),
        ("stop", b"all", "not JSON"),
        ("stop", b'{"channels": "all", "now": true}', "now"),
    ],
)
def test_mistakes_in_commands_to_a_cycler(verb: str, payload: bytes, says: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_stop_all(payload) if verb == "stop" else parse_order(verb, payload, to_cycler=True)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "payload", [b"", b"x", b'"2"', b"true", b"null", b"[1]", b"{}", b"1 2", b"NaN", b"1e39", b"1e999"]
)
def test_what_is_not_one_number(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_value(1, payload)


@given(st.binary(max_size=200))
def test_garbage_is_malformed_or_an_order_never_anything_else(payload: bytes) -> None:
    for verb in ("start", "assign", "set_mv"):
        with pytest.raises(MalformedError):
            parse_order(verb, payload, to_cycler=False)
    parse_stop(payload)
    peek_id(payload)


def test_the_id_of_a_malformed_command_is_found() -> None:
    assert peek_id(b'{"id": "abc", "nonsense": 1}') == "abc"
    assert peek_id(b'{"id": 5}') is None
    assert peek_id(b"\xff") is None


class TestAge:
    @pytest.mark.parametrize(
        ("body", "expiry_s", "after_s", "late"),
        [
            pytest.param({}, None, 1e6, False, id="nothing said"),
            pytest.param({"ttl_s": 5}, None, 4.9, False, id="ttl counts from receipt"),
            pytest.param({"ttl_s": 5}, None, 5.1, True, id="ttl is over"),
            pytest.param({"issued_at": NOW - timedelta(seconds=8)}, None, 1, False, id="issued_at within max_age"),
            pytest.param({"issued_at": NOW - timedelta(seconds=11)}, None, 0, True, id="issued_at beyond max_age"),
            pytest.param({"issued_at": NOW - timedelta(seconds=8), "ttl_s": 5}, None, 0, True, id="both"),
            pytest.param({"issued_at": NOW - timedelta(seconds=20), "ttl_s": 60}, None, 0, False, id="ttl wins"),
            pytest.param({}, 3, 2, False, id="message expiry"),
            pytest.param({"ttl_s": 60}, 3, 4, True, id="the earliest counts"),
            pytest.param({"ttl_s": 1e300}, None, 1, False, id="absurdly long"),
        ],
    )
    def test_expiry(self, body: dict[str, object], expiry_s: int | None, after_s: float, late: bool) -> None:
        deadline = Deadline(Stop.model_validate(body), NOW, 500.0, expiry_s, 10.0)
        assert bool(deadline.expired(500.0 + after_s)) is late

    @pytest.mark.parametrize(("ahead_s", "skewed"), [(0.0, False), (1.9, False), (2.1, True), (3600.0, True)])
    def test_skew(self, ahead_s: float, skewed: bool) -> None:
        order = Stop.model_validate({"issued_at": NOW + timedelta(seconds=ahead_s)})
        assert bool(Deadline(order, NOW, 500.0, None, 10.0).skewed()) is skewed
