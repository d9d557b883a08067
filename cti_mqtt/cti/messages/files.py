"""Files on the cycler's PC, over their own port: browse, download, upload, new folder, delete.

Paths are relative to the directories that a client may see. Files travel in chunks, each with its MD5.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from cti_mqtt.cti.fields import F64, I32, U32, number, raw, wchar
from cti_mqtt.cti.layout import CountedRecords, Layout, Rest, SizedRest
from cti_mqtt.cti.results import BrowseResult, DownloadResult, FileResult, UploadResult

CHUNK_BYTES = 512 * 1024
PATH_UNITS = 1024

Path = Annotated[str, wchar(PATH_UNITS)]
Md5 = Annotated[bytes, raw(16)]


class EntryType(IntEnum):
    """What an entry of a directory is."""

    DIRECTORY = 0
    FILE = 1


@dataclass(frozen=True, slots=True)
class BrowseRequest:
    """Asks what a directory holds.

    Source: v1.1, "Browse directory".
    """

    path: Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory; `size` in bytes, `modified` as the server writes it."""

    type: U32
    name: Annotated[str, wchar(64)]
    size: I32
    modified: Annotated[str, wchar(32)]


@dataclass(frozen=True, slots=True)
class BrowseFeedback:
    """What the directory holds."""

    result: Annotated[BrowseResult, number("I", BrowseResult)]
    entries: Annotated[tuple[Entry, ...], CountedRecords(Layout(Entry))]


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """Asks for a file.

    Attributes:
        time: a unique stamp; it comes back with each chunk.

    Source: v1.1, "Download file".
    """

    path: Path
    time: F64


@dataclass(frozen=True, slots=True)
class DownloadFeedback:
    """One chunk of a file.

    Attributes:
        packages: how many chunks there are.
        index: which one this is; servers count from 0 or from 1.
        md5: of this chunk.
    """

    result: Annotated[DownloadResult, number("I", DownloadResult)]
    time: F64
    packages: U32
    index: U32
    md5: Md5
    data: Annotated[bytes, SizedRest()]


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """One chunk of a file for the cycler.

    Attributes:
        length: of this chunk in bytes.
        time: a unique stamp, the same for all chunks of a file; it comes back with each feedback.

    Source: v1.1, "Upload file".
    """

    path: Path
    length: Annotated[int, number("Q")]
    packages: U32
    index: U32
    time: F64
    md5: Md5
    data: Annotated[bytes, Rest()]


_V11 = struct.Struct("<dIII")  # time, packages, index, result
_V45 = struct.Struct("<IdII")  # result, time, packages, index
_RESULT_SIZE = 4


@dataclass(frozen=True, slots=True)
class UploadFeedback:
    """The answer to one chunk. The documents put the result last (v1.1) or first (v4.5): `read` finds the echoed time.

    Attributes:
        content: the twenty bytes as they came.
    """

    content: Annotated[bytes, raw(_V11.size)]

    @classmethod
    def of(cls, time: float, packages: int, index: int, result: UploadResult) -> "UploadFeedback":
        """As v1.1 writes it."""
        return cls(_V11.pack(time, packages, index, result))

    @property
    def result_first(self) -> "UploadFeedback":
        """The same as v4.5 writes it, given as v1.1 writes it."""
        return UploadFeedback(self.content[-_RESULT_SIZE:] + self.content[:-_RESULT_SIZE])

    def read(self, time: float) -> tuple[int, UploadResult] | None:
        """Index and result, if this answers a chunk sent under `time`; else None."""
        echoed, _, index, result = _V11.unpack(self.content)
        if echoed == time:
            return index, UploadResult(result)
        result, echoed, _, index = _V45.unpack(self.content)
        return (index, UploadResult(result)) if echoed == time else None


@dataclass(frozen=True, slots=True)
class NewFolderRequest:
    """Makes a folder.

    Source: v1.1, "New folder".
    """

    path: Path


@dataclass(frozen=True, slots=True)
class NewFolderFeedback:
    """Whether there is one now."""

    result: Annotated[FileResult, number("I", FileResult)]


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """Deletes a file or a folder.

    Source: v1.1, "Delete file or folder".
    """

    path: Path


@dataclass(frozen=True, slots=True)
class DeleteFeedback:
    """Whether it is gone."""

    result: Annotated[FileResult, number("I", FileResult)]


class NewOrDelete(IntEnum):
    """What the deprecated pair is to do."""

    DELETE = 0
    NEW = 1


@dataclass(frozen=True, slots=True)
class NewOrDeleteRequest:
    """The deprecated way to make or delete.

    Source: v1.1, "New or delete".
    """

    type: U32
    path: Path


@dataclass(frozen=True, slots=True)
class NewOrDeleteFeedback:
    """Whether it was done."""

    result: Annotated[FileResult, number("I", FileResult)]
