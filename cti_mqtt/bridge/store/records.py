"""What the store keeps, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CommandKey:
    """What is executed at most once.

    Attributes:
        channel: from 1; None: a command to the cycler.
    """

    cycler: str
    channel: int | None
    verb: str
    id: str


@dataclass(frozen=True, slots=True)
class ReceivedCommand:
    """A command as it came.

    Attributes:
        digest: of the body; another digest under the same key is a conflict (the caller compares).
        received_at: UTC, ISO 8601 with milliseconds and Z.
        channels: which channels will be answered; () for a command about the cycler as a whole.
        request: the payload as text, for the audit and for recovery.
        keep: False where the id was made up by the bridge: the command is forgotten as soon as it is finished.
    """

    key: CommandKey
    digest: str
    received_at: str
    user: str | None
    channels: tuple[int, ...]
    request: str
    keep: bool


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as it was published.

    Attributes:
        channel: None: the cycler's (the summary, or the answer of a command about the cycler as a whole).
        body: JSON.
    """

    channel: int | None
    body: str


@dataclass(frozen=True, slots=True)
class KnownCommand:
    """A command with what was answered so far, in the order in which it was stored."""

    command: ReceivedCommand
    results: tuple[StoredResult, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Newest:
    """The youngest of the finished commands.

    Attributes:
        number: the highest that was given; 0: there is no such command.
        received_at: the latest, perhaps of another command; None: there is none.
    """

    number: int
    received_at: str | None


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease that must not be forgotten.

    Attributes:
        on_expiry: JSON.
        state: "running", or "expired": its on_expiry is being carried out.
    """

    cycler: str
    channel: int
    lease_id: str
    holder: str | None
    granted_at: str
    expires_at: str
    ttl_s: float
    on_expiry: str
    state: str


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm that stands; its body is JSON as published."""

    cycler: str
    channel: int
    name: str
    body: str
