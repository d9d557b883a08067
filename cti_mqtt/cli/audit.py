"""`cti-mqtt audit`: what was commanded, by whom, and what came of it; and whether that record is whole."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from cti_mqtt.bridge.clock import stamp
from cti_mqtt.bridge.store.audit import COLUMNS, FIRST_HASH, AuditRow, verify
from cti_mqtt.bridge.store.reading import AuditReader, read_audit
from cti_mqtt.bridge.store.schema import FILE_NAME
from cti_mqtt.cli.options import complain
from cti_mqtt.config import load_data_dir
from cti_mqtt.errors import ConfigurationError, StorageError

BROKEN_STATUS = 1
WIDEST = 40  # characters up to which the text table keeps its columns in line; nothing is cut
_SHOWN = ("seq", *COLUMNS)

Entry = dict[str, Any]


class Format(StrEnum):
    """What entries look like."""

    TEXT = "text"
    CSV = "csv"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are wanted; None: any."""

    cycler: str | None = None
    channel: int | None = None
    id: str | None = None
    since: str | None = None
    until: str | None = None

    def __contains__(self, entry: Entry) -> bool:
        ts = str(entry.get("ts") or "")
        return (
            all(
                wanted is None or str(entry.get(key)) == str(wanted)
                for key, wanted in (("cycler", self.cycler), ("channel", self.channel), ("id", self.id))
            )
            and (self.since is None or ts >= self.since)
            and (self.until is None or ts < self.until)
        )


_EVERYTHING = Selection()


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-01-02 or 2026-01-02T03:04:05Z") from None
    return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _hash(text: str) -> str:
    if len(text) != len(FIRST_HASH) or set(text.lower()) - set("0123456789abcdef"):
        raise typer.BadParameter("a head is 64 hexadecimal digits, as --verify prints it")
    return text.lower()


def audit(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The configuration that names data_dir.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data directory or a copy, instead of a file.")] = None,
    cycler: Annotated[str | None, typer.Option(help="Only this cycler.")] = None,
    channel: Annotated[int | None, typer.Option(help="Only this channel.")] = None,
    command_id: Annotated[str | None, typer.Option("--id", help="Only the command with this id.")] = None,
    since: Annotated[
        str | None,
        typer.Option(parser=_moment, metavar="TIME", help="From this time on; UTC unless it says otherwise."),
    ] = None,
    until: Annotated[str | None, typer.Option(parser=_moment, metavar="TIME", help="Before this time.")] = None,
    last: Annotated[int | None, typer.Option(help="Only the last so many of them.", min=0)] = None,
    output: Annotated[
        Format | None,
        typer.Option("--format", help="A table, CSV with a header, or JSON: one object a line; a table by default."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--verify", help="First check the whole chain; print how many entries and its head.")
    ] = False,
    head: Annotated[
        str | None,
        typer.Option(
            parser=_hash, metavar="HASH", help="Check, and that this earlier head is still part of the chain."
        ),
    ] = None,
) -> None:
    """Print, export or verify the record of every command; also while the bridge runs. Nothing is written.

    With --verify or --head alone only the verdict is printed. With --format or a choice of entries these follow if the
    chain is whole, and the verdict goes to standard error. Whoever can write the file can also compute the whole chain
    anew or cut its end: note the head elsewhere from time to time and hold it against the chain with --head.

    Exit status: 0 done, 1 the chain is broken or cannot be read, 2 wrong usage or configuration.

    Example: cti-mqtt audit -c config.yaml --cycler arbin1 --since 2026-01-02 --format csv
    """
    path = _directory(config, data_dir) / FILE_NAME
    if not path.is_file():
        raise complain(ConfigurationError("data_dir", [f"{path}: there is no such file; no bridge has kept one there"]))
    selection = Selection(cycler, channel, command_id, since, until)
    checks = check or head is not None
    prints = not checks or output is not None or last is not None or selection != _EVERYTHING
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with read_audit(path) as reader:
            if checks:
                typer.echo(_verdict(path, reader, head), err=prints)
            if prints:
                _WRITERS[output or Format.TEXT](lambda: _chosen(reader, selection, last))
    except StorageError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BROKEN_STATUS) from error


def _directory(config: Path | None, data_dir: Path | None) -> Path:
    if (config is None) == (data_dir is None):
        raise complain(ConfigurationError("command line", ["--config or --data-dir: one of them says where to look"]))
    if data_dir is not None:
        return data_dir
    assert config is not None  # noqa: S101  # one of the two
    try:
        found = load_data_dir(config)
    except ConfigurationError as error:
        raise complain(error) from error
    if found is None:
        raise complain(ConfigurationError(str(config), ["data_dir: missing, so no audit is kept"]))
    return found


# --- verifying ---


def _verdict(path: Path, reader: AuditReader, noted: str | None) -> str:
    """That all is well.

    Raises:
        StorageError: it is not.
    """
    count, head, seen = 0, FIRST_HASH, noted in {None, FIRST_HASH}

    def passing() -> Iterator[AuditRow]:
        nonlocal count, head, seen
        for row in reader.rows():
            count, head, seen = count + 1, row.hash, seen or row.hash == noted
            yield row

    broken = verify(passing(), reader.last_seq())
    if broken is not None:
        raise StorageError(f"the chain is broken at entry {broken.seq}: {broken.message}")
    if not seen:
        raise StorageError(
            f"{path}: {noted} is not part of the chain ({count} entries, head {head}): "
            "its end was cut or it was rewritten"
        )
    return f"{path}: the chain is whole: {count} entries, head {head}"


# --- choosing ---


def _chosen(reader: AuditReader, selection: Selection, last: int | None) -> Iterable[Entry]:
    if last is None:
        return (entry for entry in map(_entry, reader.rows()) if entry in selection)
    newest = (entry for entry in map(_entry, reader.rows(backwards=True)) if entry in selection)
    return reversed(list(islice(newest, last)))


def _entry(row: AuditRow) -> Entry:
    """An entry with its number and hash; what somebody made unreadable is shown as it is."""
    try:
        body = json.loads(row.entry)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = {"message": f"unreadable entry: {row.entry}"}
    return {**body, "seq": row.seq, "hash": row.hash}


# --- printing ---

Again = Callable[[], Iterable[Entry]]
"""The chosen entries; each call begins anew."""


def _text(entries: Again) -> None:
    """A table in two passes, so that a million entries need no memory; the longest column stands last."""
    widths = [len(name) for name in _SHOWN]
    for entry in entries():
        widths = [max(width, min(len(cell), WIDEST)) for width, cell in zip(widths, _cells(entry), strict=True)]
    for cells in chain([list(_SHOWN)], map(_cells, entries())):
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())


def _cells(entry: Entry) -> list[str]:
    return [_printable(_plain(entry.get(name))) for name in _SHOWN]


def _csv(entries: Again) -> None:
    """Every column, the hash, and as JSON whatever else an entry says."""
    fixed = (*_SHOWN, "hash")
    _csv_line([*fixed, "more"])
    for entry in entries():
        more = {key: value for key, value in entry.items() if key not in fixed}
        _csv_line([*(_plain(entry.get(name)) for name in fixed), _plain(more or None)])


def _csv_line(cells: list[str]) -> None:
    line = StringIO(newline="")
    shown = map(_printable, cells) if sys.stdout.isatty() else cells
    csv.writer(line, lineterminator="\n").writerow(shown)
    typer.echo(line.getvalue(), nl=False, color=True)  # nothing is taken out of it


def _json(entries: Again) -> None:
    for entry in entries():
        typer.echo(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))


_WRITERS: dict[Format, Callable[[Again], None]] = {Format.TEXT: _text, Format.CSV: _csv, Format.JSON: _json}


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _printable(text: str) -> str:
    """Text from outside, without anything that would move a terminal's cursor or begin a new line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
