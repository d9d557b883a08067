"""The commands on port 9032 beside their bytes, written by hand from the protocol document."""

from hashlib import md5

from cti_mqtt.cti.messages.files import (
    BrowseFeedback,
    BrowseRequest,
    DeleteFeedback,
    DeleteRequest,
    DownloadFeedback,
    DownloadRequest,
    Entry,
    EntryType,
    NewFolderFeedback,
    NewFolderRequest,
    NewOrDelete,
    NewOrDeleteFeedback,
    NewOrDeleteRequest,
    UploadFeedback,
    UploadRequest,
)
from cti_mqtt.cti.results import BrowseResult, DownloadResult, FileResult, UploadResult
from tests.cti.by_hand import FEEDBACK, REQUEST, Golden, f64, i32, u32, wchar

PATH = "Work\\Zyklus Ω.sdx"
DATA = b"\x00\xddschedule\xff" * 3
MD5 = md5(DATA).digest()
STAMP = 45_000.123


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


FILES = (
    Golden(BrowseRequest(PATH), REQUEST, 0xCC130001, wchar(PATH, 1024)),
    Golden(BrowseFeedback(BrowseResult.INVALID_NEWER, ()), FEEDBACK, 0xCC310001, u32(4) + u32(0), "-none"),
    Golden(
        BrowseFeedback(
            BrowseResult.SCHEDULE_DIRECTORY,
            (
                Entry(EntryType.DIRECTORY, "alt", 0, "2026-01-02 03:04:05"),
                Entry(EntryType.FILE, "Zyklus.sdx", 12_345, "gestern"),
                Entry(7, "?", -1, ""),
            ),
        ),
        FEEDBACK,
        0xCC310001,
        b"".join(
            (
                u32(2) + u32(3),
                u32(0) + wchar("alt", 64) + i32(0) + wchar("2026-01-02 03:04:05", 32),
                u32(1) + wchar("Zyklus.sdx", 64) + i32(12_345) + wchar("gestern", 32),
                u32(7) + wchar("?", 64) + i32(-1) + wchar("", 32),
            )
        ),
    ),
    Golden(DownloadRequest(PATH, STAMP), REQUEST, 0xCC130002, wchar(PATH, 1024) + f64(STAMP)),
    Golden(
        DownloadFeedback(DownloadResult.OK, STAMP, 3, 2, MD5, DATA),
        FEEDBACK,
        0xCC310002,
        u32(1) + f64(STAMP) + u32(3) + u32(2) + MD5 + u64(33) + DATA,
    ),
    Golden(
        DownloadFeedback(DownloadResult.TOO_LARGE, STAMP, 0, 0, bytes(16), b""),
        FEEDBACK,
        0xCC310002,
        u32(4) + f64(STAMP) + u32(0) + u32(0) + bytes(16) + u64(0),
        "-refused",
    ),
    Golden(
        UploadRequest(PATH, 33, 3, 2, STAMP, MD5, DATA),
        REQUEST,
        0xCC130003,
        wchar(PATH, 1024) + u64(33) + u32(3) + u32(2) + f64(STAMP) + MD5 + DATA,
    ),
    Golden(
        UploadFeedback.of(STAMP, 3, 2, UploadResult.FILE_IN_USE),
        FEEDBACK,
        0xCC310003,
        f64(STAMP) + u32(3) + u32(2) + u32(4),
    ),
    Golden(
        UploadFeedback.of(STAMP, 3, 2, UploadResult.FILE_IN_USE).result_first,
        FEEDBACK,
        0xCC310003,
        u32(4) + f64(STAMP) + u32(3) + u32(2),
        "-v45",
    ),
    Golden(NewOrDeleteRequest(NewOrDelete.NEW, PATH), REQUEST, 0xCC130004, u32(1) + wchar(PATH, 1024)),
    Golden(NewOrDeleteFeedback(FileResult.NO_FOLDERS_ALLOWED_HERE), FEEDBACK, 0xCC310004, u32(4)),
    Golden(NewFolderRequest(PATH), REQUEST, 0xCC130005, wchar(PATH, 1024)),
    Golden(NewFolderFeedback(FileResult.CREATED), FEEDBACK, 0xCC310005, u32(1)),
    Golden(DeleteRequest(PATH), REQUEST, 0xCC130006, wchar(PATH, 1024)),
    Golden(DeleteFeedback(FileResult.IN_USE), FEEDBACK, 0xCC310006, u32(7)),
)
