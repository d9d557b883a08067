"""Things that no command may hold; tables.

Each value is wrong by itself, in an otherwise good command: wrong type, out of range, or no JSON. What is merely odd
but means something (`null` for an optional field, 1e-400 for 0.0) is not here: it would be carried out, and rightly.
"""

from typing import Any, NamedTuple


class Raw(NamedTuple):
    """JSON text, or what pretends to be, put in as it is."""

    text: str


NOT_A_NUMBER: list[Any] = ["5", "", True, False, [], [1], {}, float("nan"), float("inf"), Raw("-Infinity")]
HUGE = [Raw("1e999999"), Raw("-1e999999"), Raw("9" * 10_000), Raw("-" + "9" * 10_000), Raw("1" + "0" * 400 + ".5e9999")]
NO_NUMBER_TEXT = [
    "NaN", "Infinity", "-Infinity", "nan", "inf", "0x10", "1_000", "+1", "01", ".5", "5.", "1e", "--1", "1,5", "1 2",
    "1;", "1\x00", "\u0661", "1e+", "true", "null", '"1"', "[1]", '{"1":1}', "", " ", "\ufeff1", "/*1*/1", "1//", "'1'",
]  # fmt: skip
TOO_LARGE_FOR_FLOAT32 = ["3.5e38", "-3.5e38", "1e39", "1e308", "1e999999", "-1e999999", "9" * 10_000, "9" * 400]

IDS: list[Any] = ["", "x" * 129, "é" * 129, 5, 1.5, True, [], {}, ["a"], "x" * 60_000, "\x00" * 200]
DATES: list[Any] = [
    5, 1e10, 1767323045, True, [], {}, "", "yesterday", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z",
    "99999-01-01T00:00:00Z", "2026-01-02T25:00:00Z", "2026-01-02T03:04:05", "2026-01-02", "1767323045", "0",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2026-01-02T03:04:05+99:99", "-2026-01-02T03:04:05Z",
    "2026-01-02T03:04:60Z" * 50, "\uff12\uff10\uff12\uff16-01-02T03:04:05Z", "9" * 5_000,
    "2026-01-02T03:04:05.9999999999Z\x00",
]  # fmt: skip
TTLS: list[Any] = [0, -1, -0.001, -1e308, *NOT_A_NUMBER, *HUGE]
EXPECTATIONS: list[Any] = [
    5, "Idle", [], True, ["Idle"], {"status": 5}, {"status": []}, {"test_name": 7}, {"test_name": {}},
    {"schedule": True}, {"step": "1"}, {"step": 1.5}, {"step": True}, {"running": "yes"}, {"running": 1},
    {"unknown": 1}, {"Status": "Idle"}, {"status": "Nonsense"}, {"step": 10**30}, {"step": -1},
    {"status": "Idle", "x": None}, {"status": "x" * 60_000}, {"test_name": "\x00"}, {"running": True, "status": "Idle"},
]  # fmt: skip
LEASES: list[Any] = [
    5, "5", True, [], ["x"], [[]], {"ttl_s": 0}, {"ttl_s": -1}, {"ttl_s": "5"}, {"ttl_s": True}, {"ttl_s": [5]},
    {"ttl_s": Raw("1e999999")}, {"ttl_s": float("nan"), "on_expiry": "stop"}, {"ttl_s": {}, "on_expiry": "stop"},
    {"ttl_s": 5, "on_expiry": "explode"}, {"ttl_s": 5, "on_expiry": ""}, {"ttl_s": 5, "on_expiry": 1},
    {"ttl_s": 5, "on_expiry": []}, {"ttl_s": 5, "on_expiry": {}}, {"ttl_s": 5, "on_expiry": ["stop"]},
    {"ttl_s": 5, "on_expiry": {"stop": True}}, {"ttl_s": 5, "on_expiry": {"set_mv": {}}},
    {"ttl_s": 5, "on_expiry": {"set_mv": []}}, {"ttl_s": 5, "on_expiry": {"set_mv": {"17": 1}}},
    {"ttl_s": 5, "on_expiry": {"set_mv": {"0": 1}}}, {"ttl_s": 5, "on_expiry": {"set_mv": {"1": "x"}}},
    {"ttl_s": 5, "on_expiry": {"set_mv": {"1": None}}}, {"ttl_s": 5, "on_expiry": {"set_mv": {"1": 3.5e38}}},
    {"ttl_s": 5, "on_expiry": {"set_mv": {"1": 1}, "stop": 1}}, {"ttl_s": 5, "on_expiry": {"start": {}}},
    {"ttl_s": 5, "on_expiry": "stop", "x": 1}, {"ttl_s": 5, "on_expiry": "stop", "lease_id": 5},
    {"ttl_s": 5, "on_expiry": "stop", "holder": "somebody else"}, {"TTL_S": 5, "on_expiry": "stop"},
    {"on_expiry": "stop"}, {}, {"ttl_s": 5, "on_expiry": {"set_mv": {"1": 1}, "set_mv ": {"1": 1}}},
]  # fmt: skip
VALUES: list[Any] = [
    [], "x", 5, True, {}, [1.0], {"0": 1}, {"17": 1}, {"01": 1}, {"1.0": 1}, {"": 1}, {" 1": 1}, {"-1": 1},
    {"\uff11": 1}, {"1e0": 1}, {"1": "x"}, {"1": "1"}, {"1": None}, {"1": True}, {"1": [1]}, {"1": {}}, {"1": 3.5e38},
    {"1": -1e39}, {"1": float("nan")}, {"1": float("-inf")}, {"1": Raw("1e999999")}, {"1": Raw("9" * 10_000)},
    {"1": 1, "all": 1}, {"9" * 5_000: 1}, {str(n): 1 for n in range(1, 2000)}, {"1": 1, "2": [[[]]]},
]  # fmt: skip
PER_CHANNEL: list[Any] = [
    [], "x", 5, True, {"0": {"1": 1}}, {"01": {"1": 1}}, {"-1": {"1": 1}}, {"\uff11": {"1": 1}}, {"all": {"1": 1}},
    {"": {"1": 1}}, {"1.0": {"1": 1}}, {"1": {}}, {"1": 5}, {"1": {"17": 1}}, {"1": {"1": "x"}}, {"1": None},
    {"99": {"1": 1}}, {"65535": {"1": 1}}, {"9" * 5_000: {"1": 1}}, {str(n): {"1": 1} for n in range(1, 2000)},
    {"1": {"1": float("nan")}}, {"1": {"1": True}}, {"../../1": {"1": 1}},
]  # fmt: skip
CHANNELS: list[Any] = [
    [], [0], [-1], [1, 0], [10**9], [1e9], [1.0], [1.5], ["1"], [True], [None], [[1]], [{}], [1, 1], [1, 2, 1], "ALL",
    "1", "", "all ", 1, 0, True, {}, {"1": 1}, {"all": True}, [65536], [2**63], [2**64], [10**30], Raw("[1e999999]"),
    list(range(1, 1026)), list(range(1, 65_537)), [1] * 5_000, Raw("[" + "1," * 100 + "]"), "all\x00", ["all"],
]  # fmt: skip
TEXTS: list[Any] = ["", 5, None, True, [], {}, ["x"], "a\x00b", "\x00", "x" * 1_500, "x" * 60_000, Raw('"\\ud800"')]
STEPS: list[Any] = [0, -1, 65_536, 1.5, 1.0, "3", True, None, 10**30, [], {}, *HUGE]
CAPACITIES: list[Any] = [0, -1, -0.0, 3.5e38, 1e39, *NOT_A_NUMBER, *HUGE]
DRY_RUNS: list[Any] = ["yes", "true", "", 1, 0, [], {}, 1.0]
UNKNOWN_FIELDS = [
    "Test_name", "test-name", "__proto__", "__class__", "constructor", "", " ", "id ", "ID", "x" * 5_000, "\x00",
    "$ref", "channel", "value", "verb", "user", "outcome", "duplicate", "../../etc/passwd",
    "'; DROP TABLE command; --",
]  # fmt: skip

STRANGE_CYCLERS = [
    "nobody", "", "bridge", "ARBIN1", "arbin1 ", "arbin", "arbin11", "$SYS", "..", "%2e", "\u0430rbin1", "arbin1\u202e",
    "x" * 3_000, "channel", "command", "cti", "😀", "arbin1\ufeff",
]  # fmt: skip
STRANGE_CHANNELS = [
    "0", "17", "99", "65536", "999999", "1000000", "-1", "1.0", "01", "1e0", " 1", "1 ", "",
    "\uff11", "\u0661", "all", "..", "$1", "x" * 3_000, "9" * 3_000, "channel", "command", "😀", "0x1", "NaN",
    "1\u200b",
]  # fmt: skip
STRANGE_VERBS = [
    "explode", "", "START", "Stop", "stop ", " start", "set_mv/1/2/3", "start/../../etc", "start/x/y", "mv", "mv/0",
    "mv/17", "mv/01", "mv/1e0", "mv/1/2/3", "mv/-1", "mv/\uff11", "mv/x", "result", "command/stop", "stop/a/b", "..",
    "$SYS", "x" * 3_000, "a/" * 90 + "b", "/" * 90, "sto\u0440", "start\u200b", "😀", "stop;start", "*", "all",
    "stop/../start",
]  # fmt: skip
STRANGE_USERS = [
    "", "5", "-7", "..", "etc", "root", "😀", "x" * 3_000, "$SYS", "ü" * 500, "admin\u202e", "\uff11", "0", "%u",
    "' or 1=1", "\u200b", "*", "null", "~", "a b",
]  # fmt: skip

FORBIDDEN_REPLIES = [
    "{base}", "{base}/", "{base}/x", "{base}/arbin1/channel/1/command/stop", "{base}/arbin1/command/stop",
    "{base}/arbin1/channel/1/command/start/me", "{base}/arbin1/channel/1/command/mv/1", "{base}/bridge/health",
    "{base}/bridge/availability", "{base}/arbin1/channel/1/result", "$SYS/broker/uptime", "$weird/reply", "$", "+", "#",
    "reply/+", "reply/#", "a/#/b", "homeassistant/sensor/x/config", "spBv1.0/group/NCMD/node", "",
]  # fmt: skip
