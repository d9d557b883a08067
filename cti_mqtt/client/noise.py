"""What a cycler sends that is of no use: counted, so that somebody can be told."""

from dataclasses import dataclass


@dataclass(slots=True)
class Noise:
    """What came on one connection and was skipped, or taken with a doubt.

    Attributes:
        skips: stretches of bytes that made no message; `skipped_bytes` in all.
        reason: why the last of them.
        unknown: sound messages with a code that nobody knows.
        wrong_checksums: messages that were taken, or proved nothing; not counted where the policy is to ignore them.
        misplaced_checksums: right, but behind the message.
        late: parts of an answer that came after it was given up; they were dropped.
    """

    skips: int = 0
    skipped_bytes: int = 0
    reason: str = ""
    unknown: int = 0
    wrong_checksums: int = 0
    misplaced_checksums: int = 0
    late: int = 0

    def skipped(self, size: int, reason: str) -> None:
        """Bytes made no message."""
        self.skips += 1
        self.skipped_bytes += size
        self.reason = reason

    @property
    def total(self) -> int:
        """How often there was something."""
        return self.skips + self.unknown + self.wrong_checksums + self.misplaced_checksums + self.late

    @property
    def text(self) -> str:
        """What there was, for people."""
        parts = (
            (self.skips, f"{self.skipped_bytes} bytes that make no message (last: {self.reason})"),
            (self.unknown, f"{self.unknown} messages of an unknown kind"),
            (self.wrong_checksums, f"{self.wrong_checksums} messages with a wrong checksum"),
            (self.misplaced_checksums, f"{self.misplaced_checksums} messages with their checksum in the wrong place"),
            (self.late, f"{self.late} parts of answers that came too late"),
        )
        return ", ".join(text for count, text in parts if count)
