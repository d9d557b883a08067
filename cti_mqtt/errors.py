"""Every error this package raises on purpose, as one tree.

"May I try again?" is answered by the class, not by reading the message::

    CtiMqttError
    |-- ConfigurationError           the configuration is wrong; every mistake is listed
    |-- ProtocolError                bytes that are not what CTI says they should be
    |-- InvalidRequestError          cannot be put on the wire as asked; nothing was sent
    |-- NotSentError                 nothing reached the cycler; trying again is safe
    |   |-- NotConnectedError        no session with the cycler just now
    |   |-- LoginRefusedError        the cycler answered and said no
    |   `-- WithdrawnError           taken back before its turn came
    |-- UnsupportedCommandError      the cycler does not know the command; nothing was done
    |-- FileRefusedError             the cycler said no to something about a file; its result code is kept
    |-- FileTransferError            a file did not come through whole, not the second time either; trying again is safe
    |-- StorageError                 what must outlive the process cannot be written
    `-- OutcomeUnknownError          it was sent and no sound feedback came;
        |                            a control command must NOT be sent again
        |-- FeedbackTimeoutError     silence
        |-- ConnectionLostError      the connection ended first
        `-- ChecksumError            a feedback came, damaged

A cycler that understands a control command and says no is not an error: its result code is a value
(see :mod:`cti_mqtt.cti.results`). A file is there or not, so there a no is an error that holds the code.
"""


class CtiMqttError(Exception):
    """Whatever this package raises on purpose."""


class ConfigurationError(CtiMqttError, ValueError):
    """The configuration is wrong.

    Attributes:
        problems: one line a mistake, each beginning with its path in the file.
    """

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source}: {len(problems)} problem(s)\n{lines}")


class ProtocolError(CtiMqttError):
    """Bytes that are not what CTI says they should be."""


class InvalidRequestError(CtiMqttError, ValueError):
    """A request that cannot be put on the wire as asked; nothing was sent."""


class NotSentError(CtiMqttError):
    """Nothing reached the cycler; trying again is safe."""


class NotConnectedError(NotSentError):
    """No session with the cycler just now."""


class LoginRefusedError(NotSentError):
    """The cycler answered the login and said no."""


class WithdrawnError(NotSentError):
    """A request was taken back before it was sent.

    Attributes:
        reason: in snake case: `superseded` by something that came later, or `expired`.
    """

    def __init__(self, message: str, reason: str = "superseded") -> None:
        self.reason = reason
        super().__init__(message)


class UnsupportedCommandError(CtiMqttError):
    """The cycler answered that it does not know the command (0xBB111111); nothing was done."""


class FileRefusedError(CtiMqttError):
    """The cycler said no to something about a file.

    Attributes:
        code: its result: a BrowseResult, DownloadResult, UploadResult or FileResult.
    """

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


class FileTransferError(CtiMqttError):
    """A file did not come through whole, not the second time either, or is more than is taken.

    Nothing is left behind on this side; trying again is safe.
    """


class StorageError(CtiMqttError):
    """What must outlive the process cannot be written, or not read back.

    After a time-out it may still be written; otherwise nothing of it was.
    """


class OutcomeUnknownError(CtiMqttError):
    """A request was sent and no sound feedback came: a control command must not be sent again."""


class FeedbackTimeoutError(OutcomeUnknownError):
    """No feedback within the time-out."""


class ConnectionLostError(OutcomeUnknownError):
    """The connection ended before the feedback came."""


class ChecksumError(OutcomeUnknownError):
    """The feedback came, damaged: it proves nothing."""
