"""A message with readings as a consumer sees it."""

import json
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from tests.faults.readings.counted import number_of, shows

Kind = Literal["readings", "backfill"]
KINDS: tuple[Kind, ...] = ("readings", "backfill")
Key = tuple[str, str, int]  # cycler, boot, seq


class AlteredError(ValueError):
    """A message is not what a bridge can have sent: something on the way changed it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One message, or one part of a poll.

    Attributes:
        number: which of the cycler's polls it shows.
        historical: the flag, False where it is absent.
        content: a digest of the payload without the flag, to compare repeats.
        drain: counts up whenever a new drain of the backlog may have begun.
    """

    kind: Kind
    cycler: str
    boot: str
    seq: int
    number: int
    ts: str
    historical: bool
    channels: tuple[int, ...]
    content: str
    part: int = 1
    parts: int = 1
    drain: int = 0

    @property
    def key(self) -> Key:
        return self.cycler, self.boot, self.seq


def understand(kind: Kind, cycler: str, payload: bytes, drain: int = 0) -> Seen:
    """Read a message.

    Raises:
        AlteredError: it is no JSON, or its values are not those of one poll.
    """
    try:
        body = json.loads(payload)
        channels = tuple(entry["channel"] for entry in body["channels"])
        numbers = {number_of(entry["barcode"]) for entry in body["channels"]}
        number = numbers.pop() if len(numbers) == 1 else None
        if number is None:
            raise AlteredError(f"readings of several polls in one, or of none: {payload[:300]!r}")
        for entry in body["channels"]:
            if not shows(entry["voltage_v"], number, entry["channel"]):
                raise AlteredError(f"poll {number}, channel {entry['channel']}: {entry['voltage_v']} V")
        return Seen(
            kind, cycler, body["boot"], body["seq"], number, body["ts"], bool(body.get("historical", False)), channels,
            _content(body), body.get("part", 1), body.get("parts", 1), drain,
        )  # fmt: skip
    except AlteredError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise AlteredError(f"{error!r}: {payload[:300]!r}") from None


def _content(body: Mapping[str, Any]) -> str:
    plain = json.dumps({name: value for name, value in body.items() if name != "historical"}, sort_keys=True)
    return blake2b(plain.encode(), digest_size=16).hexdigest()


@dataclass
class Collection:
    """Messages in the order in which they came.

    Attributes:
        complete: by cycler, the polls of which every part came.
        keys: what each complete poll is called.
    """

    seen: list[Seen] = field(default_factory=list)
    complete: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    keys: set[Key] = field(default_factory=set)
    _parts: dict[Key, set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, message: Seen) -> None:
        self.seen.append(message)
        parts = self._parts[message.key]
        parts.add(message.part)
        if len(parts) >= message.parts:
            self.complete[message.cycler].add(message.number)
            self.keys.add(message.key)

    @property
    def torn(self) -> list[Key]:
        """Polls of which some parts came, and not all."""
        return [key for key in self._parts if key not in self.keys]
