"""Why a broker will not have us, or a message of ours: what follows from each reason; pure.

The reasons are MQTT 5's (2.4); those of a 3.1.1 CONNACK come translated into them.
"""

from dataclasses import dataclass

SESSION_TAKEN_OVER = 0x8E  # another client came with the same client id
_UNAVAILABLE = frozenset({0x88, 0x8B})  # server unavailable, server shutting down: it will be back
_BUSY = frozenset({0x89, 0x96, 0x97, 0x9F})  # server busy, message rate, quota, connection rate
_MOVED = frozenset({0x9C, 0x9D})  # use another server, server moved
_STUBBORN = frozenset({0x8A, 0x98})  # banned, administrative action: somebody decided so
_ADVICE = {
    0x85: "choose another mqtt.client_id",
    0x86: "check mqtt.username and its password",
    0x87: "see what the broker's access rules allow this user",
    0x8A: "ask who runs the broker",
    0x95: "set publish.max_bytes, or let the broker take larger packets",
    0x96: "poll more seldom, publish less, or let the broker take more",
    0x97: "poll more seldom, publish less, or let the broker take more",
    0x98: "ask who runs the broker",
}
_LONGEST_TEXT = 200  # characters of what the broker says in its own words


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the broker gave as its reason.

    Attributes:
        code: MQTT 5's number.
        name: MQTT 5's name for it.
        reference: where the broker sends us, in its own words.
        remark: what else it says, in its own words.
    """

    code: int
    name: str
    reference: str | None = None
    remark: str | None = None

    @property
    def event(self) -> str:
        """The type of the event that tells of it, where it ended a connection."""
        if self.code in _MOVED:
            return "broker_moved"
        if self.code in _BUSY:
            return "broker_busy"
        return "broker_lost" if self.code in _UNAVAILABLE or self.code < 0x80 else "broker_refused"

    @property
    def moved(self) -> bool:
        """Whether it sends us to another broker."""
        return self.code in _MOVED

    @property
    def patient(self) -> bool:
        """Whether to come again soon would make it worse, or is no use."""
        return self.code in _MOVED | _BUSY | _STUBBORN

    @property
    def short(self) -> str:
        """Name and number."""
        return f"{self.name} (0x{self.code:02X})"

    @property
    def text(self) -> str:
        """For people: what it is, and what to do about it."""
        parts = [self.short]
        if self.remark:
            parts.append(f"it says {_quoted(self.remark)}")
        if self.moved:
            parts.append(self._where_to())
        elif advice := _ADVICE.get(self.code):
            parts.append(advice)
        return "; ".join(parts)

    def _where_to(self) -> str:
        """A redirect is not followed: other people may command there, and the password would go there."""
        if not self.reference:
            return "it does not say where to; set mqtt.host to the broker that is meant"
        return (
            f"it names {_quoted(self.reference)}, where this bridge does not go by itself; "
            "if that is the right one, set mqtt.host (and mqtt.port) to it"
        )


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…")
