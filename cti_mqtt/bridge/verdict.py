"""How a command ended: exactly one outcome, with a reason for programs and a message for people."""

from dataclasses import dataclass
from enum import IntEnum

from cti_mqtt.cti.codes import Code
from cti_mqtt.errors import (
    ChecksumError,
    ConnectionLostError,
    CtiMqttError,
    FeedbackTimeoutError,
    InvalidRequestError,
    NotSentError,
    OutcomeUnknownError,
    UnsupportedCommandError,
    WithdrawnError,
)


class Outcome(IntEnum):
    """The outcomes, the best first."""

    SUCCEEDED = 0
    REFUSED = 1
    FAILED = 2
    UNKNOWN = 3

    @property
    def text(self) -> str:
        """As it is published."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a command on one channel.

    Attributes:
        code: the cycler's result code, where it gave one.
        reason: in snake case, for programs.
        message: a sentence, for people.
        verified: whether a poll has shown the effect; None where none is waited for.
        assigned: whether a start assigned a schedule; None where it was not asked to.
    """

    outcome: Outcome
    code: int | None
    reason: str
    message: str
    verified: bool | None = None
    assigned: bool | None = None


def refused(reason: str, message: str) -> Verdict:
    """Never sent."""
    return Verdict(Outcome.REFUSED, None, reason, message)


def of_code(code: Code, message: str = "") -> Verdict:
    """What the cycler answered."""
    outcome = Outcome.SUCCEEDED if code == 0 else Outcome.FAILED
    return Verdict(outcome, int(code), code.reason, message or f"the cycler answered: {code.text}")


_UNKNOWN_REASONS = {
    FeedbackTimeoutError: "timeout",
    ConnectionLostError: "connection_lost",
    ChecksumError: "checksum",
}


def of_error(error: CtiMqttError) -> Verdict:
    """What an error of the client means for the command."""
    match error:
        case OutcomeUnknownError():
            reason = _UNKNOWN_REASONS.get(type(error), "no_proof")
            return Verdict(Outcome.UNKNOWN, None, reason, f"sent, but whether it was carried out is not known: {error}")
        case WithdrawnError():
            return refused(error.reason, str(error))
        case NotSentError():
            return refused("not_connected", str(error))
        case InvalidRequestError():
            return refused("malformed", str(error))
        case UnsupportedCommandError():
            return Verdict(Outcome.FAILED, None, "unsupported", str(error))
    code = getattr(error, "code", None)  # of a file operation
    return Verdict(Outcome.FAILED, code, getattr(code, "reason", "error"), str(error))


def of_answer(answer: Code | OutcomeUnknownError) -> Verdict:
    """What came for one channel of several."""
    return of_error(answer) if isinstance(answer, OutcomeUnknownError) else of_code(answer)
