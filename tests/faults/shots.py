"""Hostile messages by the thousand: what is said where, and who must hear how many results of it. Seeded."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.faults import bad
from tests.faults.world import CHANNELS, CYCLER

MIB = 1024 * 1024
ALL = "all"
GOOD: dict[str, dict[str, Any]] = {
    "start": {"test_name": "hostile", "schedule": "CCCV.sdx", "barcode": "x"},
    "set_mv": {"values": {"1": 1.0}},
    "assign": {"schedule": "CCCV.sdx"},
    "resume": {},
    "continue": {},
    "jump": {"step": 2},
}  # each would be carried out, were nothing put into it
LATER_VERBS = ("release", "ack_alarm", "replay")  # other issues bring them; what is said here is junk all the same
LATE_FIELDS = frozenset({"issued_at", "expect", "lease"})  # may be of the right form
_EVERY_CHANNEL = tuple(f"{CYCLER}/channel/{n}/result" for n in range(1, CHANNELS + 1))
BRIDGE_TOPICS = ("health", "info", "availability", "event", "result")


@dataclass(frozen=True)
class Shot:
    """A message that must move nothing.

    Attributes:
        kind: for the figures.
        topic: without the base.
        answers: where results of it are heard, one each; topics without the base.
        maybe: where one more each may be heard: a refusal that comes late is told channel by channel.
        properties: MQTT 5, as paho calls them.
        retain: MQTT 5 only.
    """

    kind: str
    topic: str
    payload: bytes
    answers: tuple[str, ...] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)
    retain: bool = False
    maybe: tuple[str, ...] = ()

    def __str__(self) -> str:
        extra = f" {dict(self.properties)!r:.200}" if self.properties else ""
        return f"{self.kind}: {self.topic!r:.200} {self.payload[:300]!r} ({len(self.payload)} bytes){extra}"


def answered_on(topic: str) -> str:
    """Where the result of a command topic comes; both without the base."""
    levels = topic.split("/")
    if levels[0] != CYCLER:
        return "bridge/result"
    return f"{CYCLER}/result" if levels[1] == "command" else f"{CYCLER}/channel/{levels[2]}/result"


def encode(body: Any) -> bytes:
    """JSON, with what is raw in it as it is; NaN and infinity as Python writes them."""
    raws: list[str] = []

    def plain(value: Any) -> Any:
        if isinstance(value, bad.Raw):
            raws.append(value.text)
            return f"@{len(raws) - 1}@"
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list) else value

    text = json.dumps(plain(body))
    for number, raw in enumerate(raws):
        text = text.replace(f'"@{number}@"', raw)
    return text.encode()


class Armoury:
    """Makes shots.

    Args:
        rng: chooses.
        base: the bridge's base topic, for response topics that point into it.
        five: whether MQTT 5 is spoken.
    """

    def __init__(self, rng: random.Random, base: str, *, five: bool) -> None:
        self._rng = rng
        self._base = base
        self._five = five
        self._made = 0
        self._kinds: dict[Callable[[], Shot], int] = {
            self._random_bytes: 12,
            self._deep: 6,
            self._wrong_value: 30,
            self._large: 2,
            self._broken_text: 8,
            self._keys: 6,
            self._channels: 8,
            self._per_channel: 5,
            self._shortcut: 7,
            self._addressee: 8,
            self._user: 5,
            self._stop_all: 5,
            self._forged: 3,
            self._many_strangers: 1,
            **({self._retained: 3} if five else {}),
        }

    def next(self) -> Shot:
        """Another one."""
        self._made += 1
        shot = self._rng.choices(list(self._kinds), list(self._kinds.values()))[0]()
        return self._dressed(shot) if self._five and shot.answers and self._rng.random() < 0.8 else shot

    # --- parts ---

    @property
    def _id(self) -> str:
        return f"h-{self._made}"

    def _channel(self) -> str:
        return f"{CYCLER}/channel/{self._rng.randint(1, CHANNELS)}"

    def _shot(self, topic: str, payload: bytes, kind: str) -> Shot:
        return Shot(kind, topic, payload, (answered_on(topic),))

    def _command(self, verb: str, body: Any, kind: str, *, to_cycler: bool | None = None) -> Shot:
        """A body on a channel or on the cycler, there with channels."""
        if to_cycler is None:
            to_cycler = self._rng.random() < 0.4
        if to_cycler and isinstance(body, dict):
            body = {"channels": self._rng.choice([ALL, [1, 2, 3], [1]]), **body}
        payload = body if isinstance(body, bytes) else encode(body)
        return self._shot(f"{CYCLER if to_cycler else self._channel()}/command/{verb}", payload, kind)

    def _good(self, verb: str) -> dict[str, Any]:
        return {"id": self._id, **GOOD[verb]}

    def _verb(self) -> str:
        return self._rng.choice(list(GOOD))

    def _junk_verb(self) -> str:
        """For payloads that are not even an object; a stop of a channel would be one all the same."""
        return self._rng.choice([*GOOD, *LATER_VERBS])

    def _dressed(self, shot: Shot) -> Shot:
        """With MQTT 5 properties; a fair response topic hears the result, too."""
        rng = self._rng
        properties: dict[str, Any] = {}
        answers = shot.answers
        correlation = rng.choice([None, b"", b"x", rng.randbytes(16), rng.randbytes(1024), bytes(1025), bytes(65_535)])
        if correlation is not None:
            properties["CorrelationData"] = correlation
        if rng.random() < 0.5:
            properties["ResponseTopic"] = f"reply/{self._made}"
            if len(correlation or b"") <= 1024:
                answers = (*answers, f"reply/{self._made}")
        else:
            properties["ResponseTopic"] = rng.choice(bad.FORBIDDEN_REPLIES).format(base=self._base)
        if rng.random() < 0.1:
            properties["MessageExpiryInterval"] = rng.choice([3600, 2**32 - 1])
        if rng.random() < 0.05:
            properties["UserProperty"] = [("a" * 100, "b" * 100)] * 200
        if rng.random() < 0.05:
            properties |= {"ContentType": "x" * 60_000, "PayloadFormatIndicator": 1}
        return replace(shot, answers=answers, properties=properties)

    # --- kinds ---

    def _random_bytes(self) -> Shot:
        rng = self._rng
        size = (
            rng.choice([0, 1, 2, 7, 100, 1000, 65_535, 65_536, 65_537]) if rng.random() < 0.3 else rng.randint(0, 300)
        )
        return self._command(self._junk_verb(), rng.randbytes(size), "random bytes")

    def _deep(self) -> Shot:
        rng = self._rng
        depth = rng.choice([100, 900, 1_025, 5_000, 10_000, 100_000])
        opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"x":[', b"]}]")])
        deep = opening * depth + b"1" + (closing * depth if rng.random() < 0.7 else b"")
        verb = self._verb()
        if rng.random() < 0.5:
            return self._command(verb, deep, "deep JSON")
        name = rng.choice(["expect", "values", "test_name", "lease", "id", "channels", "x"])
        return self._command(verb, b'{"%b":%b}' % (name.encode(), deep), "deep JSON")

    def _wrong_value(self) -> Shot:
        verbs, name, values = self._rng.choice(_WRONG_VALUES)
        verb = self._rng.choice(verbs)
        body = {**self._good(verb), name: self._rng.choice(values)}
        shot = self._command(verb, body, f"wrong {name}")
        late = name in LATE_FIELDS and shot.topic.startswith(f"{CYCLER}/command")
        return replace(shot, maybe=_EVERY_CHANNEL) if late else shot

    def _large(self) -> Shot:
        rng = self._rng
        verb = self._verb()
        name = rng.choice(["id", "test_name", "x", "schedule", "barcode", "expect"])
        size = rng.choice([60_000, MIB, MIB])
        filler = rng.choice(["x", "é", "\x00", "😀"])
        body = {**self._good(verb), name: filler * (size // len(json.dumps(filler)) + 200), "y": 1}
        return self._command(verb, rng.choice([encode(body), bytes(size), b" " * size, b'"' + b"x" * size]), "1 MB")

    def _broken_text(self) -> Shot:
        rng = self._rng
        verb = self._verb()
        good = encode(self._good(verb) | {"channels": "all"})
        text = rng.choice(
            [
                good.replace(b'"id"', b'"\xff\xfe"'),
                good.replace(b'"all"', b'"\\ud800"'),
                good.replace(b'"all"', b'"\xed\xa0\x80"'),
                good.replace(b'"all"', b'"\xc0\xaf"'),
                b"\xef\xbb\xbf" + good,
                good.decode().encode("utf-16"),
                good.decode().encode("utf-16-le"),
                good[: rng.randint(1, len(good) - 1)],
                good + b"x",
                good + good,
                good + b"\x00",
                good.replace(b'"', b"'"),
                good[:-1] + b",}",
                b"//" + good,
                b"[" + good + b"]",
                encode(good.decode()),
                good.replace(b":", b"=", 1),
            ]
        )
        return self._command(verb, text, "broken text")

    def _keys(self) -> Shot:
        rng = self._rng
        verb = self._verb()
        good = encode(self._good(verb))
        if rng.random() < 0.4:
            name = rng.choice(["id", "channels", "dry_run", "test_name", "values"])
            twice = b'{"%b":1,"%b":1,%b' % (name.encode(), name.encode(), good[1:])
            return self._command(verb, twice, "key stands twice")
        return self._command(verb, self._good(verb) | {rng.choice(bad.UNKNOWN_FIELDS): 1}, "unknown field")

    def _channels(self) -> Shot:
        verb = self._verb()
        wrong = self._rng.choice(bad.CHANNELS)
        if self._rng.random() < 0.2:
            body = self._good(verb) | {"channels": self._rng.choice([ALL, [1], wrong])}
            return self._command(verb, body, "channels to a channel", to_cycler=False)
        return self._command(verb, {**self._good(verb), "channels": wrong}, "wrong channels", to_cycler=True)

    def _per_channel(self) -> Shot:
        wrong = self._rng.choice(bad.PER_CHANNEL)
        if self._rng.random() < 0.2:
            body = {**self._good("set_mv"), "per_channel": self._rng.choice([{"1": {"1": 1.0}}, wrong])}
            verb, to_cycler = "set_mv", False
        else:
            verb = self._rng.choice(["set_mv", "set_mv", "set_mv", "start", "jump"])
            body, to_cycler = {**self._good(verb), "channels": ALL, "per_channel": wrong}, True
        return self._command(verb, body, "wrong per_channel", to_cycler=to_cycler)

    def _shortcut(self) -> Shot:
        rng = self._rng
        text = rng.choice(bad.NO_NUMBER_TEXT + bad.TOO_LARGE_FOR_FLOAT32)
        user = f"/{rng.choice(bad.STRANGE_USERS)}" if rng.random() < 0.2 else ""
        topic = f"{self._channel()}/command/mv/{rng.randint(1, 16)}{user}"
        return self._shot(topic, rng.choice([text.encode(), b"\xff" + rng.randbytes(20)]), "mv shortcut")

    def _addressee(self) -> Shot:
        """Good commands, and stops, to nobody."""
        rng = self._rng
        verb = rng.choice([*GOOD, "stop", "stop"])
        payload = rng.choice([b"", encode({"id": self._id, **GOOD.get(verb, {})}), rng.randbytes(20)])
        match rng.randint(0, 3):
            case 0:
                target = rng.choice(bad.STRANGE_CYCLERS)
                topic = f"{target}{rng.choice(['', '/channel/1', '/channel/0'])}/command/{verb}"
                kind = "unknown cycler"
            case 1:
                topic = f"{CYCLER}/channel/{rng.choice(bad.STRANGE_CHANNELS)}/command/{verb}"
                kind = "unknown channel"
            case 2:
                topic = f"{rng.choice([self._channel(), CYCLER])}/command/{rng.choice(bad.STRANGE_VERBS)}"
                kind = "unknown verb"
            case _:
                topic = f"{rng.choice([self._channel(), CYCLER])}/command"
                kind = "no verb"
        return self._shot(topic, payload, kind)

    def _user(self) -> Shot:
        verb = self._verb()
        shot = self._command(verb, self._good(verb) | {"y": 1}, "strange user")
        return self._shot(f"{shot.topic}/{self._rng.choice(bad.STRANGE_USERS)}", shot.payload, shot.kind)

    def _stop_all(self) -> Shot:
        """To the cycler: anything that is neither empty nor names channels stops nothing."""
        rng = self._rng
        payload = rng.choice(
            [
                rng.randbytes(rng.randint(8, 50)),
                b"all",
                b'"all"',
                b"{",
                b"{}",
                b" ",
                b"null",
                b"[1,2]",
                b"\x00",
                b'{"channel":1}',
                b'{"channels":"all","x":1}',
                b'{"channels":"all"}{',
                b"[" * 100_000,
                encode({"id": self._id, "channels": rng.choice(bad.CHANNELS)}),
                encode({"id": rng.choice(bad.IDS), "channels": "all"}),
            ]
        )
        return self._shot(f"{CYCLER}/command/stop", payload, "malformed stop of all")

    def _forged(self) -> Shot:
        """What only the bridge says, and everything else that is no command: not answered."""
        rng = self._rng
        topic = rng.choice(
            [f"bridge/{rng.choice(BRIDGE_TOPICS)}" for _ in range(4)]
            + [f"{CYCLER}/{leaf}" for leaf in ("channel/1/state", "availability", "channel/1/lease", "commands/start")]
            + ["", "x", f"{CYCLER}", f"{CYCLER}/channel/1/commands/stop", "command/stop", f"{CYCLER}/channel/command/x"]
        )
        wrong = {"boot": rng.choice([5, None, [], "x" * 5_000]), "started_at": rng.choice([5, [], "never", "\x00"])}
        payload = rng.choice(
            [rng.randbytes(50), b"{", b"[" * 5_000, encode(wrong), b"\xff" * 1_000, b"x" * MIB, encode([wrong])]
        )
        return Shot("no command", topic, payload)

    def _many_strangers(self) -> Shot:
        """One message, many channels that do not exist: a result for each, and a summary."""
        rng = self._rng
        count = rng.choice([1, 5, 30])
        channels = rng.sample(range(CHANNELS + 1, 65_536), count)
        shot = self._command("resume", {"id": self._id, "channels": channels}, "strange channels", to_cycler=True)
        return replace(shot, answers=(*(f"{CYCLER}/channel/{n}/result" for n in channels), *shot.answers))

    def _retained(self) -> Shot:
        """Good commands, but for the flag."""
        verb = self._verb()
        return replace(self._command(verb, self._good(verb), "retained"), retain=True)


def _but(values: list[Any], *without: Any) -> list[Any]:
    return [value for value in values if not any(value is each or value == each for each in without)]


_ANY = tuple(GOOD)
_WRONG_VALUES: list[tuple[tuple[str, ...], str, list[Any]]] = [
    (_ANY, "id", bad.IDS),
    (_ANY, "issued_at", bad.DATES),
    (_ANY, "ttl_s", bad.TTLS),
    (_ANY, "expect", bad.EXPECTATIONS),
    (_ANY, "dry_run", bad.DRY_RUNS),
    (_ANY, "lease", bad.LEASES),
    (("start", "set_mv"), "lease", bad.LEASES),
    (("start",), "test_name", bad.TEXTS),
    (("start", "assign"), "schedule", _but(bad.TEXTS, None)),
    (("start", "assign"), "barcode", _but(bad.TEXTS, "")),
    (("start", "assign"), "capacity_ah", bad.CAPACITIES),
    (("start", "set_mv", "assign"), "values", bad.VALUES),
    (("jump",), "step", bad.STEPS),
]
