"""Paths on the cycler's PC: what a client may name, the same for those who ask and those who answer.

A path is relative, begins with one of the directories that a client may see, and cannot leave it: no `..`, no drive,
no share, nothing that Windows reads as something else. Backslashes and slashes mean the same; backslashes are sent.

Source: v1.1, "Browse directory" and "Delete file or folder".
"""

import re
from dataclasses import dataclass

from cti_mqtt.cti.fields import encode_text
from cti_mqtt.errors import InvalidRequestError

SEPARATOR = "\\"
DIRECTORIES = ("Simulation", "Work", "Support", "SMB Config", "CANBMS Config")
EXTENSIONS = (".sdx", ".sdu", ".can", ".smb", ".txt")
MAX_PATH_UNITS = 1023  # UTF-16 units, without the NUL

_BY_FOLDED_NAME = {directory.casefold(): directory for directory in DIRECTORIES}
_SEPARATORS = re.compile(r"[\\/]")
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*]')  # a colon makes a drive, or a second stream of a file
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(\..*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class CtiPath:
    """A path that stays where it may be.

    Attributes:
        parts: the directory in its proper spelling, then the names below it; empty for the root, which holds the
            directories and nothing else.
    """

    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return SEPARATOR.join(self.parts)

    @property
    def directory(self) -> str:
        """Which of the directories it is in; empty for the root."""
        return self.parts[0] if self.parts else ""

    @property
    def name(self) -> str:
        """Its last part; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def inside(self) -> bool:
        """Whether it lies in one of the directories, and is not one itself."""
        return len(self.parts) > 1

    @property
    def extension_allowed(self) -> bool:
        """Whether its extension is one that may be written and deleted."""
        return self.name.lower().endswith(EXTENSIONS) and not self.name.startswith(".")


def cti_path(text: str) -> CtiPath:
    """A path, checked; the empty text is the root.

    Raises:
        InvalidRequestError: it leaves the directories, or is no path.
    """
    encode_text(text, "utf-16-le", 2, MAX_PATH_UNITS)
    if not text:
        return CtiPath()
    first, *names = _SEPARATORS.split(text)
    if names and not names[-1]:
        names.pop()  # one separator at the end
    for name in (first, *names):
        _check_name(text, name)
    directory = _BY_FOLDED_NAME.get(first.casefold())
    if directory is None:
        raise InvalidRequestError(f"{text!r} is not in {', '.join(DIRECTORIES)}")
    return CtiPath((directory, *names))


def file_path(text: str) -> CtiPath:
    """The path of a file that may be written or deleted.

    Raises:
        InvalidRequestError: as in `cti_path`; or it is a directory, or its extension is not allowed.
    """
    path = cti_path(text)
    if not path.inside:
        raise InvalidRequestError(f"{text!r} is not a file")
    if not path.extension_allowed:
        raise InvalidRequestError(f"{text!r}: only {', '.join(EXTENSIONS)} are allowed")
    return path


def _check_name(text: str, name: str) -> None:
    if not name:
        raise InvalidRequestError(f"{text!r} is absolute, or has a part without a name")
    if _FORBIDDEN.search(name):
        raise InvalidRequestError(f"{text!r} holds a character that no name may have")
    if name[-1] in ". ":  # also "." and ".."; Windows drops both at the end
        raise InvalidRequestError(f"{text!r} has a part that ends with a dot or a blank")
    if _DEVICE.fullmatch(name):
        raise InvalidRequestError(f"{text!r} names a device")
