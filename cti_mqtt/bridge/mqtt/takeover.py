"""Another client with our client id; pure. A broker keeps one of the two, so each pushes the other out, for ever.

On MQTT 5 a broker can say so when it happens; not all do (Mosquitto 2.0.11 does not). On 3.1.1 the connection just
breaks. There a series of short ones gives a hint.
"""

SHORT_LIFE_S = 10.0  # a connection that broke sooner was a short one
SUSPICIOUS = 3  # short ones in a row

_ADVICE = "give each client its own mqtt.client_id"
TAKEN = f"another client connected with this bridge's client id and took its place at the broker; {_ADVICE}"
PERHAPS_TAKEN = (
    f"{SUSPICIOUS} connections to the broker in a row broke within {SHORT_LIFE_S:g} s of being accepted; "
    f"perhaps another client uses the same client id: {_ADVICE}"
)


class Takeovers:
    """Judges how connections end."""

    def __init__(self) -> None:
        self._short_lives = 0

    @property
    def suspected(self) -> bool:
        """Whether a series of short connections goes on."""
        return self._short_lives >= SUSPICIOUS

    def not_accepted(self) -> None:
        """An attempt came to nothing: then it is the broker or the network, and no series."""
        self._short_lives = 0

    def ended(self, lasted_s: float, *, taken: bool, goodbye: bool) -> str | None:
        """An accepted connection ended; what to say of it, of a series once.

        Args:
            lasted_s: from being accepted on.
            taken: whether the broker said that another client took its place.
            goodbye: whether the broker gave any reason.
        """
        if taken:
            return TAKEN
        if goodbye or lasted_s >= SHORT_LIFE_S:
            self._short_lives = 0
            return None
        self._short_lives += 1
        return PERHAPS_TAKEN if self._short_lives == SUSPICIOUS else None
