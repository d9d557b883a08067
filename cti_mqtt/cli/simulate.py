"""`cti-mqtt simulate`: the simulated cycler alone, with a switch for everything that a server can do wrong."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cti_mqtt.cli.loops import run_until_signalled
from cti_mqtt.simulator import (
    LARGEST_FILE_BYTES,
    MAX_CHANNELS,
    AnswerStyle,
    ChecksumStyle,
    ChunkFault,
    ControlPolicy,
    Document,
    Faults,
    ForcedResult,
    Identity,
    Recorder,
    SimulatedClock,
    SimulatedCycler,
    SimulatedServer,
    TextStyle,
    UpdateAnswer,
    User,
)
from cti_mqtt.simulator.faults import COMMAND_NAMES

K = TypeVar("K")
T = TypeVar("T")

_COMMANDS = ", ".join(sorted(COMMAND_NAMES))
_CYCLER, _FAULTS = "The cycler", "Quirks and faults"


def _cycler(text: str, **limits: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=_CYCLER, show_default=True, **limits)


def _fault(text: str, *names: str, **limits: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_FAULTS, **limits)


Host = Annotated[str, _cycler("Where to listen.")]
Port = Annotated[int, _cycler("Readings and control; 0 takes a free one.", min=0, max=65535)]
FilePort = Annotated[int, _cycler("Files; 0 takes a free one.", min=0, max=65535)]
Channels = Annotated[int, _cycler("How many channels.", min=1, max=MAX_CHANNELS)]
Username = Annotated[str, _cycler("Who may log in and control.")]
Password = Annotated[str, _cycler("The user's password.")]
Viewer = Annotated[list[str] | None, _cycler("NAME:PASSWORD of somebody who may look, not control; repeatable.")]
Speed = Annotated[float, _cycler("Simulated seconds per second; more than 0.")]
Seed = Annotated[int, _cycler("Makes the batteries differ; the same seed, the same batteries.")]
Files = Annotated[
    Path | None, _cycler("The directory with the files of the cycler; else a temporary one, removed at the end.")
]
RecordFile = Annotated[Path | None, _cycler("Append each request and its effect to this file, a JSON object a line.")]
Control = Annotated[ControlPolicy, _cycler("Who gets the right to control: everyone entitled, the first, nobody.")]
VersionCode = Annotated[
    int, _cycler("MITS generation: 0 MITS 7, 1 or 2 MITS 8, 0x010000NN MITS X.", min=0, max=0xFFFFFFFF)
]
Bms = Annotated[int, _cycler("BMS values a channel.", min=0, max=1000)]
Smb = Annotated[int, _cycler("Smart-battery values a channel.", min=0, max=1000)]

Answer = Annotated[
    AnswerStyle,
    _fault("Readings: a frame a channel, one frame, one with all even if one was asked for, or the first only."),
]
Checksum = Annotated[ChecksumStyle, _fault("Feedback checksums: good, behind the frame, or wrong.")]
ChecksumOf = Annotated[list[str] | None, _fault(f"Limit --checksum to this command: {_COMMANDS}; repeatable.")]
Text = Annotated[TextStyle, _fault("Text fields: clean, stale bytes after the NUL, or bytes that do not decode.")]
Units = Annotated[bool, _fault("BMS and SMB values with units (v4.5) or without (v1.1).")]
StartNamesChannel = Annotated[bool, _fault("A successful start or continue is answered with its channel, or with -1.")]
AdvancedAnswer = Annotated[UpdateAnswer, _fault("Advanced updates: one feedback a packet, or one a channel.")]
AdvancedLimit = Annotated[Document, _fault("A second advanced update within 200 ms: 0x14 (v1.1) or 0x13 (v4.5).")]
Calibration = Annotated[Document, _fault("A calibration that does not start: 0 (v1.1) or 2 (v4.5).")]
UploadFeedback = Annotated[Document, _fault("The result of an upload comes last (v1.1) or first (v4.5).")]
NewerBrowse = Annotated[bool, _fault("Browsing what is no directory: 4 instead of 3.", "--newer-browse")]
FirstIndex = Annotated[int, _fault("What the first chunk of a download is called.", min=0, max=1)]
LargestFile = Annotated[int, _fault("Larger files, in bytes, are not given away and not taken.", min=0)]
BadMd5 = Annotated[str | None, _fault("CHUNK, or CHUNK:TIMESx: a wrong MD5 in a download, refused in an upload.")]
CutChunk = Annotated[str | None, _fault("CHUNK, or CHUNK:TIMESx: the connection ends in this chunk of a file.")]
DelayChunk = Annotated[float, _fault("Seconds before each chunk of a download, and each answer to one.", min=0)]
Picture = Annotated[int, _fault("Bytes of picture in the login feedback.", min=0, max=4_000_000)]
Junk = Annotated[int, _fault("Bytes of junk before each frame.", min=0)]
Segment = Annotated[int, _fault("Write feedbacks in pieces of so many bytes; 0: as they are.", min=0)]
Merge = Annotated[bool, _fault("Several feedbacks in one write, or each in its own.")]
Delay = Annotated[float, _fault("Seconds before each answer.", min=0)]
DelayReadings = Annotated[float | None, _fault("Seconds before answers to channels_info only.", min=0)]
DelayOf = Annotated[list[str] | None, _fault("COMMAND=SECONDS before answers to one command; repeatable.")]
DelayRecord = Annotated[float, _fault("Seconds between the frames of one answer.", min=0)]
Drop = Annotated[list[str] | None, _fault("A command that is lost, neither done nor answered; repeatable.")]
DropEvery = Annotated[int, _fault("Lose every so many'th request of a connection; 0: none.", min=0)]
Mute = Annotated[list[str] | None, _fault("A command that is done, but not answered; repeatable.")]
FirstOfSegment = Annotated[bool, _fault("Of several requests in a TCP segment serve the first.", "--first-of-segment")]
Unknown = Annotated[list[str] | None, _fault("A command answered with 0xBB111111; repeatable.")]
Result = Annotated[list[str] | None, _fault("COMMAND=CODE instead of doing it, e.g. stop=0x11:10s or :3x; repeatable.")]
Status = Annotated[list[str] | None, _fault("CHANNEL=STATUS shown, e.g. 3=99; repeatable.")]
Nan = Annotated[list[int] | None, _fault("A channel whose values are no numbers; repeatable.", min=1)]
Infinity = Annotated[list[int] | None, _fault("A channel whose values are infinite; repeatable.", min=1)]
CommFailure = Annotated[list[int] | None, _fault("A channel the cycler has lost; repeatable.", min=1)]
CutAfterFrames = Annotated[int | None, _fault("End a connection in the middle of the frame after so many.", min=0)]
CutAfterRequests = Annotated[int | None, _fault("End a connection with the request after so many.", min=0)]


def simulate(
    *,
    host: Host = "127.0.0.1",
    port: Port = 9031,
    file_port: FilePort = 9032,
    channels: Channels = 16,
    username: Username = "admin",
    password: Password = "admin",  # noqa: S107 - the documented default of a simulator
    viewer: Viewer = None,
    speed: Speed = 1.0,
    seed: Seed = 1,
    files: Files = None,
    record: RecordFile = None,
    control: Control = ControlPolicy.SHARED,
    version_code: VersionCode = 1,
    bms: Bms = 0,
    smb: Smb = 0,
    answer: Answer = AnswerStyle.PER_CHANNEL,
    checksum: Checksum = ChecksumStyle.GOOD,
    checksum_of: ChecksumOf = None,
    text: Text = TextStyle.CLEAN,
    units: Units = True,
    start_names_channel: StartNamesChannel = True,
    picture: Picture = 0,
    junk: Junk = 0,
    segment: Segment = 0,
    merge: Merge = True,
    delay: Delay = 0.0,
    delay_readings: DelayReadings = None,
    delay_of: DelayOf = None,
    delay_record: DelayRecord = 0.0,
    drop: Drop = None,
    drop_every: DropEvery = 0,
    mute: Mute = None,
    first_of_segment: FirstOfSegment = False,
    unknown: Unknown = None,
    result: Result = None,
    status: Status = None,
    nan: Nan = None,
    infinity: Infinity = None,
    comm_failure: CommFailure = None,
    cut_after_frames: CutAfterFrames = None,
    cut_after_requests: CutAfterRequests = None,
    advanced_answer: AdvancedAnswer = UpdateAnswer.PACKET,
    advanced_limit: AdvancedLimit = Document.V11,
    calibration: Calibration = Document.V11,
    upload_feedback: UploadFeedback = Document.V11,
    newer_browse: NewerBrowse = False,
    first_index: FirstIndex = 0,
    largest_file: LargestFile = LARGEST_FILE_BYTES,
    bad_md5: BadMd5 = None,
    cut_chunk: CutChunk = None,
    delay_chunk: DelayChunk = 0.0,
) -> None:
    """Run a simulated cycler: channels with batteries, schedules and users, as MITS Pro serves them.

    Schedules: CCCV.sdx, Discharge.sdx, Rest.sdx, Formation.sdx, Pause.sdx and ClosedLoop.sdx that charges with MV_UD1.
    They lie in the directory Work of the file port; copies of them can be assigned as well, other .sdx files rest.

    Example: cti-mqtt simulate --port 0 --channels 8 --speed 100 --result stop=0x11:10s --record asked.jsonl
    """
    delays = _pairs("--delay-of", delay_of, str, float)
    if delay_readings is not None:
        delays["channels_info"] = delay_readings
    faults = _checked(
        "quirks and faults",
        lambda: Faults(
            answer=answer,
            checksum=checksum,
            checksum_of=frozenset(checksum_of or ()),
            text=text,
            units=units,
            start_names_channel=start_names_channel,
            picture_bytes=picture,
            junk_bytes=junk,
            segment_bytes=segment,
            merge=merge,
            delay_s=delay,
            delays_s=delays,
            record_delay_s=delay_record,
            drop=frozenset(drop or ()),
            drop_every=drop_every,
            mute=frozenset(mute or ()),
            first_of_segment_only=first_of_segment,
            unknown=frozenset(unknown or ()),
            results=tuple(map(ForcedResult.parse, result or ())),
            statuses=_pairs("--status", status, _wire_channel, int),
            nan=frozenset(channel - 1 for channel in nan or ()),
            infinite=frozenset(channel - 1 for channel in infinity or ()),
            comm_failures=frozenset(channel - 1 for channel in comm_failure or ()),
            cut_after_frames=cut_after_frames,
            cut_after_requests=cut_after_requests,
            advanced_answer=advanced_answer,
            advanced_limit=advanced_limit,
            calibration=calibration,
            upload_feedback=upload_feedback,
            newer_browse=newer_browse,
            first_index=first_index,
            largest_file_bytes=largest_file,
            bad_md5=ChunkFault.parse(bad_md5) if bad_md5 else None,
            cut_chunk=ChunkFault.parse(cut_chunk) if cut_chunk else None,
            chunk_delay_s=delay_chunk,
        ),
    )
    cycler = SimulatedCycler(
        channels,
        clock=_checked("--speed", lambda: SimulatedClock(speed)),
        users=[User(username, password, super_user=True), *_viewers(viewer)],
        control=control,
        identity=Identity(version=version_code),
        bms_count=bms,
        smb_count=smb,
        rng=random.Random(seed),  # noqa: S311 - batteries, not secrets
        on_message=lambda text: typer.echo(f"message: {text!r}"),
    )
    _run(cycler, record, host=host, port=port, file_port=file_port, faults=faults, files=files, username=username)


def _run(cycler: SimulatedCycler, record: Path | None, *, username: str, **where: Any) -> None:
    try:
        with Recorder(record, keep=0) as recorder:
            server = SimulatedServer(cycler, recorder=recorder, **where)
            run_until_signalled(lambda stop: _serve(stop, server, username))
    except OSError as error:
        typer.echo(f"cannot simulate a cycler: {error}", err=True)
        raise typer.Exit(1) from error


async def _serve(stop: asyncio.Event, server: SimulatedServer, username: str) -> None:
    async with server:
        typer.echo(
            f"simulated cycler: {server.host}:{server.port} (files {server.file_port}), "
            f"{server.cycler.channel_count} channels, user {username}"
        )
        await stop.wait()


# --- what typer cannot check ---


def _checked(option: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


def _wire_channel(text: str) -> int:
    channel = int(text)
    if channel < 1:
        raise ValueError("channels are counted from 1")
    return channel - 1


def _pairs(option: str, texts: list[str] | None, key: Callable[[str], K], value: Callable[[str], T]) -> dict[K, T]:
    """`KEY=VALUE` texts as a dictionary."""

    def pairs() -> dict[K, T]:
        found = {}
        for text in texts or ():
            left, equals, right = text.partition("=")
            if not equals:
                raise ValueError(f"{text!r} has no '='")
            found[key(left)] = value(right)
        return found

    return _checked(option, pairs)


def _viewers(texts: list[str] | None) -> list[User]:
    users = []
    for text in texts or ():
        name, colon, password = text.partition(":")
        if not (name and colon):
            raise typer.BadParameter(f"--viewer: {name!r} needs NAME:PASSWORD")
        users.append(User(name, password, may_control=False))
    return users
