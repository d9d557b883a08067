"""Makes docs/protocol.md: what people wrote (docs/protocol.md.in), and what the code knows.

Layouts come from the messages' annotations, results from `results.py`, codes from `codes.py` and `commands.py`. Only
where a command is used, in the client, the simulator, over MQTT and in the tests, is told here (`USES`); a test holds
it against the code, and the page against this program.

Run it after a change: `make protocol`, or `python docs/generate_protocol.py`
"""

import inspect
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, Flag
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from cti_mqtt.cti import results
from cti_mqtt.cti.codes import META_VARIABLE_COUNT, ChannelStatus, Code, CommandCode, meta_code, server_version
from cti_mqtt.cti.commands import COMMANDS, KIB, MIB, UNKNOWN_COMMAND, Command, MessageType
from cti_mqtt.cti.fields import Field
from cti_mqtt.cti.frame import HEADER, OVERHEAD, Direction
from cti_mqtt.cti.layout import CountedBytes, CountedNumbers, CountedRecords, Layout, Rest, SizedRest, Texts
from cti_mqtt.cti.messages import channels, extended, files, session, tests, variables
from cti_mqtt.errors import InvalidRequestError

HERE = Path(__file__).parent
TEMPLATE = HERE / "protocol.md.in"
PAGE = HERE / "protocol.md"
NOTICE = "<!-- Made by docs/generate_protocol.py from docs/protocol.md.in and the code. Change those, not this. -->\n"


# --- where each command is used -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """Where a command is used.

    Attributes:
        client: the operations, as `Class.method` of `cti_mqtt.client`.
        simulator: the file of `cti_mqtt/simulator` that answers it.
        mqtt: the verb, the topic, or why not over MQTT.
        tests: files under `tests/`, besides the byte-by-byte tests of all messages.
    """

    client: tuple[str, ...]
    simulator: str
    mqtt: str
    tests: tuple[str, ...]


_TESTS = "simulator/test_commands.py"
_CLIENT = "client/test_rest.py"
_VERBS = "bridge/test_rest.py"
_FILES = "simulator/test_files_served.py"
_BRIDGE = "bridge/test_bridge.py"
_C = CommandCode

USES: dict[CommandCode, Use] = {
    _C.LOGIN: Use(("Session.connect",), "cycler.py", "topics `info`, `availability`", ("client/test_session.py",)),
    _C.CONNECT: Use(
        ("Session.ping",),
        "cycler.py",
        "not over MQTT: a poll shows as well that the cycler answers",
        ("simulator/test_cycler.py",),
    ),
    _C.CHANNELS_INFO: Use(
        ("Readings.read_channels", "Readings.read_channel", "Readings.read_selected"),
        "cycler.py",
        "topics `state`, `readings`",
        ("client/test_readings.py", "simulator/test_cycler.py"),
    ),
    _C.ASSIGN: Use(
        ("Control.assign", "Control.assign_all"), "control.py", "`assign`, `start`", ("client/test_control.py", _BRIDGE)
    ),
    _C.START: Use(("Control.start",), "control.py", "`start`", ("client/test_control.py", _BRIDGE)),
    _C.STOP: Use(("Control.stop", "Control.stop_all"), "control.py", "`stop`", ("client/test_control.py", _BRIDGE)),
    _C.SET_META_VARIABLE: Use(
        ("Control.set_meta_variable",), "values.py", "`set_mv`, `mv/<1..16>`", ("client/test_control.py", _BRIDGE)
    ),
    _C.RESUME: Use(("Control.resume", "Control.resume_all"), "control.py", "`resume`", (_TESTS, _CLIENT, _VERBS)),
    _C.CONTINUE: Use(("Control.continue_tests",), "control.py", "`continue`", (_TESTS, _CLIENT, _VERBS)),
    _C.JUMP: Use(("Control.jump",), "control.py", "`jump`", (_TESTS, _CLIENT, _VERBS)),
    _C.UPDATE_META_VARIABLES: Use(
        ("Control.update_meta_variables",), "values.py", "`set_mv` of several values", (_TESTS, _CLIENT, _VERBS)
    ),
    _C.GET_SERIAL: Use(
        ("Service.get_serial",),
        "cycler.py",
        "not over MQTT: `info` has the serial number from the login",
        (_TESTS, _CLIENT),
    ),
    _C.GET_START_DATA: Use(
        ("Service.get_start_data",),
        "extended.py",
        "not over MQTT: `schedules` lists what can be assigned, readings show what is",
        (_TESTS, _CLIENT, "client/interface/test_control.py"),
    ),
    _C.START_EXTENDED: Use(
        ("Control.start_extended",),
        "extended.py",
        "not over MQTT: `start` takes a schedule, `jump` goes to a step",
        (_TESTS, _CLIENT),
    ),
    _C.GET_RESUME_DATA: Use(
        ("Service.get_resume_data",),
        "extended.py",
        "not over MQTT: for an extended resume only",
        (_TESTS, _CLIENT),
    ),
    _C.RESUME_EXTENDED: Use(
        ("Control.resume_extended",),
        "extended.py",
        "not over MQTT: `resume` takes the state that the cycler kept",
        (_TESTS, _CLIENT),
    ),
    _C.START_CALIBRATION: Use(
        ("Service.start_calibration",),
        "cycler.py",
        "not over MQTT: it concerns the whole cycler and is the job of a person who stands at it",
        (_TESTS, _CLIENT),
    ),
    _C.SEND_MESSAGE: Use(("Service.send_message",), "cycler.py", "`message`", (_TESTS, _CLIENT, _VERBS)),
    _C.BROWSE: Use(
        ("FileClient.browse",),
        "desk.py",
        "`schedules`; everything else by `cti-mqtt files ls`",
        ("client/test_files.py", _FILES, _VERBS),
    ),
    _C.DOWNLOAD: Use(
        ("FileClient.download", "FileClient.download_bytes"),
        "desk.py",
        "not over MQTT: files are large; `cti-mqtt files get`",
        ("client/test_downloads.py", _FILES),
    ),
    _C.UPLOAD: Use(
        ("FileClient.upload", "FileClient.upload_bytes"),
        "desk.py",
        "not over MQTT: files are large; `cti-mqtt files put`",
        ("client/test_uploads.py", _FILES),
    ),
    _C.NEW_OR_DELETE: Use(
        ("FileClient.new_or_delete",),
        "desk.py",
        "not over MQTT: deprecated; the two below do the same",
        ("client/test_files.py", _FILES),
    ),
    _C.NEW_FOLDER: Use(
        ("FileClient.make_folder",),
        "desk.py",
        "not over MQTT: it changes the PC, not a test; `cti-mqtt files mkdir`",
        ("client/test_files.py", _FILES),
    ),
    _C.DELETE: Use(
        ("FileClient.delete",),
        "desk.py",
        "not over MQTT: it changes the PC, not a test; `cti-mqtt files rm`",
        ("client/test_files.py", _FILES),
    ),
}

CODEC_TEST = "cti/test_messages.py"  # byte by byte and there and back, all messages


def overview() -> str:
    """Every command, request and feedback, and where it is used."""
    rows = [
        "| command | codes | port | codec: request → feedback | client | simulator | MQTT | tests |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [_row(overview_cells(command)) for command in COMMANDS]
    unknown = UNKNOWN_COMMAND.cls.__name__
    cells = ["[any that is unknown](#unknown-command)", f"any → `{UNKNOWN_COMMAND.code:08X}`", "both", f"→ `{unknown}`"]
    cells += ["`UnsupportedCommandError`", "`connection.py`", "outcome `failed`, reason `unsupported`"]
    return "\n".join([*rows, _row([*cells, _test_links((CODEC_TEST, "client/test_control.py"))])])


def overview_cells(command: Command) -> list[str]:
    """The cells of one row; a command without a use is a KeyError."""
    request, feedback = command.request, command.feedback
    use = USES[request.code]
    return [
        f"[{request.code.text}](#{_anchor(title(request))})",
        f"`{request.code:08X}` → `{feedback.code:08X}`",
        _port(request),
        f"`{request.cls.__name__}` → `{feedback.cls.__name__}`",
        ", ".join(f"`{name}`" for name in use.client),
        f"`{use.simulator}`",
        use.mqtt,
        _test_links((CODEC_TEST, *use.tests)),
    ]


def _test_links(paths: tuple[str, ...]) -> str:
    return ", ".join(f"[{path.removesuffix('.py')}](../tests/{path})" for path in paths)


def _port(request: MessageType) -> str:
    return {session.__name__: "both", files.__name__: "9032"}.get(request.cls.__module__, "9031")


def title(request: MessageType) -> str:
    """The heading of a command."""
    return request.code.text.capitalize()


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


# --- layouts --------------------------------------------------------------------------------------------------------

RECORDS: tuple[type[Any], ...] = (
    channels.ChannelRecord,
    extended.StartData,
    extended.ResumeData,
    extended.ResumeState,
    extended.ExtendedStart,
    extended.ExtendedResume,
    files.Entry,
    variables.MetaVariableUpdate,
)
_ITEMS = {
    "B": "u8",
    "H": "u16",
    "I": "u32",
    "Q": "u64",
    "b": "i8",
    "h": "i16",
    "i": "i32",
    "f": "f32",
    "d": "f64",
}


def layouts() -> str:
    """Every message, command by command."""
    parts = []
    told: dict[type[Any], str] = {}
    for command in COMMANDS:
        request, feedback = command.request, command.feedback
        heading = title(request)
        parts += [f"### {heading}", f"**Request** {_message(request, Direction.REQUEST)}"]
        if feedback.cls in told:
            first = told[feedback.cls]
            parts.append(f"**Feedback** `{feedback.cls.__name__}`: as that of [{first.lower()}](#{_anchor(first)}).")
        else:
            parts.append(f"**Feedback** {_message(feedback, Direction.FEEDBACK)}")
            told[feedback.cls] = heading
    parts += ["### Unknown command", f"**Feedback** {_message(UNKNOWN_COMMAND, Direction.FEEDBACK)}"]
    return "\n\n".join(parts)


def records() -> str:
    """What messages hold several of."""
    return "\n\n".join(
        f"### {cls.__name__}\n\n{_about(cls)}\n\n{_size_of(Layout(cls))}\n\n{_table(cls, 0)}" for cls in RECORDS
    )


def _message(message_type: MessageType, direction: Direction) -> str:
    layout = message_type.layout
    if layout.fixed_size is not None:
        frame = OVERHEAD + layout.fixed_size
        size = f"Frame: {frame} bytes; its length field says {frame - direction.value}."
    else:
        size = f"Frame: {OVERHEAD + layout.min_size} bytes and more, at most {_in_words(message_type.bound)}."
    head = f"`{message_type.cls.__name__}`, code `{message_type.code:08X}`. {_about(message_type.cls)}"
    return f"{head}\n{size}\n\n{_table(message_type.cls, HEADER.size)}"


def _size_of(layout: Layout[Any]) -> str:
    return f"{layout.min_size} bytes." if layout.fixed_size is not None else f"{layout.min_size} bytes and more."


def _in_words(size: int) -> str:
    return f"{size // MIB} MiB" if size % MIB == 0 else f"{size // KIB} KiB"


def _about(cls: type[Any]) -> str:
    """The first paragraph of a class's docstring, and its source."""
    text = inspect.getdoc(cls) or ""
    source = re.search(r"^Source: (.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return _one_line(text.partition("\n\n")[0]) + (f" Source: {_one_line(source[1])}" if source else "")


def _attributes(cls: type[Any]) -> dict[str, str]:
    """What a docstring says of its fields."""
    section = re.search(r"^Attributes:\n((?:    .*\n?)+)", inspect.getdoc(cls) or "", re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section[1] if section else "", re.MULTILINE)
    return {name: _one_line(text).removesuffix(".") for name, text in found}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(cls: type[Any], start: int) -> str:
    rows = ["| offset | size | field | type | meaning |", "|---|---|---|---|---|"]
    rows += [_row(cells) for cells in field_rows(cls, start)]
    return "\n".join(rows)


def field_rows(cls: type[Any], start: int) -> Iterator[list[str]]:
    """Offset, size, name, type and meaning of each field and each reserved stretch."""
    said = _attributes(cls) | {name: text for (of, name), text in _MORE.items() if of is cls}
    offset: int | None = start
    for name, hint in get_type_hints(cls, include_extras=True).items():
        wire, kind = hint.__metadata__[0], hint.__origin__
        size = _fixed_size(wire)
        place = "" if offset is None else str(offset)
        meaning = "; ".join(filter(None, (said.get(name, ""), _kind_meaning(kind, wire))))
        yield [place, "varies" if size is None else str(size), f"`{name}`", _type_of(wire, kind), meaning]
        offset = None if offset is None or size is None else offset + size
        if isinstance(wire, Field) and wire.reserved:
            yield ["" if offset is None else str(offset), str(wire.reserved), "", "reserved", "zero"]
            offset = None if offset is None else offset + wire.reserved


def _fixed_size(wire: Any) -> int | None:
    if isinstance(wire, Field):
        return struct.calcsize(f"<{wire.item}")
    return wire.fixed_size if isinstance(wire, Layout) else None


def _type_of(wire: Any, kind: Any) -> str:
    return _WORDS[type(wire)](wire, kind)


def _record_link(cls: type[Any]) -> str:
    return f"[{cls.__name__}](#{cls.__name__.lower()})"


def _field_type(wire: Field, kind: Any) -> str:
    if wire.item in _ITEMS:
        return _ITEMS[wire.item]
    size = struct.calcsize(f"<{wire.item}")
    inner = getattr(wire.decode, "__self__", None)
    if isinstance(inner, struct.Struct):
        return f"{_ITEMS[inner.format[-1]]}[{re.sub(r'[^0-9]', '', inner.format)}]"
    if kind is str and wire.encode is not None:
        try:
            sample = wire.encode("A")
        except InvalidRequestError:
            return f"u8[{size}]"
        return f"wchar[{size // 2}]" if len(sample) == 2 else f"char[{size}]"
    return f"u8[{size}]"


def _members(kind: type[Enum]) -> str:
    return ", ".join(f"{member.value} {member.name.lower().replace('_', ' ')}" for member in kind)


_NO_CHANNEL = f"{tests.NO_CHANNEL} where the answer names none"
_FIRST_OF_MITS_X = 0x01000000

# What the annotations do not say of a field.
_MORE: dict[tuple[type[Any], str], str] = {
    (session.LoginFeedback, "version"): ", ".join(f"{n} {server_version(n)}" for n in (0, 1, 2))
    + f", {_FIRST_OF_MITS_X:#010x} and up MITS X",
    (channels.ChannelsInfoRequest, "channel"): f"{channels.ALL_CHANNELS} for many, by `selection`",
    (tests.StartFeedback, "channel"): _NO_CHANNEL,
    (tests.ContinueFeedback, "channel"): _NO_CHANNEL,
    (variables.SetMetaVariableRequest, "mv_type"): f"{variables.META_VARIABLE}",
    (variables.SetMetaVariableRequest, "meta_code"): "see [meta variables](#meta-variables)",
    (variables.SetMetaVariableRequest, "value_type"): f"{variables.FLOAT_VALUE}",
    (variables.MetaVariableUpdate, "meta_code"): "see [meta variables](#meta-variables)",
    (
        files.UploadFeedback,
        "content",
    ): "`time f64`, `packages u32`, `index u32`, `result u32` (v1.1); or `result` first, then the others (v4.5)",
    (files.NewOrDeleteRequest, "type"): _members(files.NewOrDelete),
    (files.Entry, "type"): _members(files.EntryType),
}

_WORDS: dict[type[Any], Callable[[Any, Any], str]] = {
    Field: lambda wire, kind: f"`{_field_type(wire, kind)}`",
    Layout: lambda _, kind: _record_link(kind),
    CountedBytes: lambda _wire, _kind: "`u32` n, then n bytes",
    SizedRest: lambda _wire, _kind: "`u64` n, then n bytes, which end the message",
    Rest: lambda _wire, _kind: "the bytes that are left",
    CountedNumbers: lambda wire, _: f"`u32` n, then n times `{_ITEMS[wire.item]}`",
    CountedRecords: lambda _, kind: f"`u32` n, then n times {_record_link(get_args(kind)[0])}",
    Texts: lambda wire, _: f"as many times as `{wire.counted_by}` says: `u32` n, then n bytes of UTF-8",
    channels.ExtrasCodec: lambda _wire, _kind: "see [the variable part](#the-variable-part-of-a-channel-record)",
    variables.UpdatesCodec: lambda _wire, _kind: (
        f"`u16` n, 18 reserved bytes (or 22, see [below](#where-the-sources-disagree)), then n times "
        f"{_record_link(variables.MetaVariableUpdate)}"
    ),
}


def _kind_meaning(kind: Any, wire: Any) -> str:
    if not isinstance(wire, Field) or isinstance(kind, UnionType) or not isinstance(kind, type):
        return ""
    told = ""
    if kind is bool:
        told = "0 or 1"
    elif kind is ChannelStatus:
        told = "see [channel status](#channel-status)"
    elif issubclass(kind, Code) and kind.__module__ == results.__name__:
        told = f"see [results](#results), `{kind.__name__}`"
    elif issubclass(kind, Flag):
        told = ", ".join(f"0x{member.value:X} {member.name}" for member in kind)
    elif issubclass(kind, Enum):
        told = _members(kind)
    return told


# --- numbers --------------------------------------------------------------------------------------------------------


def result_class(command: Command) -> type[Code] | None:
    """What the result number of a command's feedback is one of."""
    hint = get_type_hints(command.feedback.cls, include_extras=True).get("result")
    kind = getattr(hint, "__origin__", None)
    return kind if isinstance(kind, type) and issubclass(kind, Code) else None


def _control_results() -> dict[type[Code], str]:
    """The results of the commands whose feedback is a channel and a result, and what to call their column."""
    found: dict[type[Code], str] = {}
    for command in COMMANDS:
        kind = result_class(command)
        if kind is not None and "channel" in get_type_hints(command.feedback.cls):
            found.setdefault(kind, command.request.code.text)
    return found


def control_results() -> str:
    """Number by number, command by command."""
    kinds = _control_results()
    numbers = sorted({member.value for kind in kinds for member in kind})
    rows = [_row(["hex", *kinds.values()]), "|---" * (len(kinds) + 1) + "|"]
    for number in numbers:
        cells = [kind(number).text if kind(number).known else "" for kind in kinds]
        rows.append(_row([f"{number:02X}", *cells]))
    return "\n".join(rows)


def other_results() -> str:
    """The results of the other commands."""
    control = _control_results()
    users: dict[type[Code], list[str]] = {}
    for command in COMMANDS:
        kind = result_class(command)
        if kind is not None:
            users.setdefault(kind, []).append(command.request.code.text)
    rows = ["| of | name in the code | numbers |", "|---|---|---|"]
    for kind in _result_classes():
        if kind not in control:
            numbers = ", ".join(f"{member.value} {member.text}" for member in kind)
            rows.append(_row([", ".join(users.get(kind, _ELSEWHERE.get(kind, []))), f"`{kind.__name__}`", numbers]))
    return "\n".join(rows)


_ELSEWHERE: dict[type[Code], list[str]] = {
    results.StartDataCode: ["each record of get start data, get resume data"],
    results.UploadResult: ["upload"],
}


def _result_classes() -> list[type[Code]]:
    return [
        each
        for each in vars(results).values()
        if isinstance(each, type) and issubclass(each, Code) and each.__module__ == results.__name__
    ]


def statuses() -> str:
    """Channel states, and what each means for a command."""
    rows = ["| number | status | counts as |", "|---|---|---|"]
    rows += [_row([str(each.value), each.text, each.meaning.name.lower()]) for each in ChannelStatus]
    return "\n".join(rows)


def meta_codes() -> str:
    """The codes of meta variables."""
    names = [f"MV_UD{index}" for index in range(1, META_VARIABLE_COUNT + 1)]
    codes = [str(meta_code(index)) for index in range(1, META_VARIABLE_COUNT + 1)]
    return "\n".join((_row(["", *names]), "|---" * (META_VARIABLE_COUNT + 1) + "|", _row(["code", *codes])))


# --- the page -------------------------------------------------------------------------------------------------------

PARTS = {
    "overview": overview,
    "layouts": layouts,
    "records": records,
    "control results": control_results,
    "other results": other_results,
    "statuses": statuses,
    "meta codes": meta_codes,
}


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The whole page."""
    text = TEMPLATE.read_text(encoding="utf-8")
    return NOTICE + re.sub(r"^\{\{ (.*?) \}\}$", lambda match: PARTS[match[1]](), text, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
