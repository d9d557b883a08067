"""`cti-mqtt files`: look at, get, put and remove files on a cycler's PC; straight to the cycler, not over MQTT."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cti_mqtt import config
from cti_mqtt.cli.options import ConfigFile, complain, load
from cti_mqtt.client.file_exchanges import Progress as OnProgress
from cti_mqtt.client.file_exchanges import no_progress
from cti_mqtt.client.files import FileClient
from cti_mqtt.client.session import Credentials, Endpoint
from cti_mqtt.cti.messages.files import Entry, EntryType
from cti_mqtt.cti.paths import SEPARATOR, cti_path, file_path
from cti_mqtt.cti.stream import ChecksumPolicy
from cti_mqtt.errors import ConfigurationError, CtiMqttError

FAILURE_STATUS = 1
_SEPARATORS = ("/", SEPARATOR)

T = TypeVar("T")

CyclerId = Annotated[
    str | None, typer.Option("--cycler", help="Which cycler of the file; not needed where it has one only.")
]
Remote = Annotated[str, typer.Argument(help="A path on the cycler's PC, such as Work/CCCV.sdx (or with \\).")]

app = typer.Typer(name="files", no_args_is_help=True, add_completion=False)


@app.callback()
def files() -> None:
    """Look at, get, put and remove files on a cycler's PC, over its file port (not over MQTT).

    Paths begin with Simulation, Work, Support, "SMB Config" or "CANBMS Config". Only .sdx, .sdu, .can, .smb and .txt
    are written or deleted. Exit status: 0 done, 1 refused or failed, 2 wrong usage or configuration.

    Example: cti-mqtt files ls Work -c config.yaml --cycler arbin1
    """


@app.command("ls")
def list_directory(
    config: ConfigFile,
    path: Annotated[str, typer.Argument(help="A directory, such as Work; all of them unless given.")] = "",
    cycler: CyclerId = None,
) -> None:
    """List a directory: size in bytes, when it was modified, name; directories end with a slash.

    Example: cti-mqtt files ls Work -c config.yaml
    """
    listing = _run(config, cycler, lambda client: client.browse(path))
    sizes = [_size(entry) for entry in listing.entries]
    width = max(map(len, sizes), default=0)
    for entry, size in zip(listing.entries, sizes, strict=True):
        slash = "/" if entry.type == EntryType.DIRECTORY else ""
        typer.echo(f"{size:>{width}}  {_printable(entry.modified):<19}  {_printable(entry.name)}{slash}")


@app.command()
def get(
    config: ConfigFile,
    remote: Remote,
    local: Annotated[
        Path | None, typer.Argument(help="A file or a directory here; the present one by default.")
    ] = None,
    cycler: CyclerId = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is here already.")] = False,
) -> None:
    """Bring a file here, whole or not at all; each piece is verified.

    Example: cti-mqtt files get Work/CCCV.sdx schedules/ -c config.yaml
    """
    with _reported():
        name = cti_path(remote).name
        target = Path(name) if local is None else local / name if local.is_dir() else local

    async def bring(client: FileClient) -> int:
        with _bar(name) as progress:
            return await client.download(remote, target, progress, overwrite=force)

    size = _run(config, cycler, bring)
    typer.echo(f"{target}: {size} bytes")


@app.command()
def put(
    config: ConfigFile,
    local: Annotated[Path, typer.Argument(help="A file here.", exists=True, dir_okay=False, readable=True)],
    remote: Annotated[str, typer.Argument(help="Its path there, or with a slash at the end the directory for it.")],
    cycler: CyclerId = None,
) -> None:
    """Send a file to the cycler's PC; each piece is verified. A file of that name is replaced there.

    Example: cti-mqtt files put CCCV.sdx Work/ -c config.yaml
    """
    with _reported():
        into = remote.endswith(_SEPARATORS) or not cti_path(remote).inside
        path = str(file_path(f"{remote.rstrip(''.join(_SEPARATORS))}{SEPARATOR}{local.name}" if into else remote))

    async def send(client: FileClient) -> int:
        with _bar(local.name) as progress:
            return await client.upload(local, path, progress)

    size = _run(config, cycler, send)
    typer.echo(f"{path}: {size} bytes")


@app.command()
def rm(config: ConfigFile, remote: Remote, cycler: CyclerId = None) -> None:
    """Delete a file, or a folder if the cycler lets you.

    Example: cti-mqtt files rm Work/Old.sdx -c config.yaml
    """
    _run(config, cycler, lambda client: client.delete(remote))
    typer.echo(f"{remote}: deleted")


@app.command()
def mkdir(config: ConfigFile, remote: Remote, cycler: CyclerId = None) -> None:
    """Make a folder.

    Example: cti-mqtt files mkdir Work/Formation -c config.yaml
    """
    _run(config, cycler, lambda client: client.make_folder(remote))
    typer.echo(f"{remote}: made")


# --- the cycler ---


def _run(path: Path, cycler: str | None, work: Callable[[FileClient], Awaitable[T]]) -> T:
    """Do something with a cycler's files, or end the program with what stood against it."""
    name, settings = _choose(path, load(path), cycler)
    with _reported():
        return asyncio.run(_with_client(name, settings, work))


async def _with_client(name: str, settings: config.Cycler, work: Callable[[FileClient], Awaitable[T]]) -> T:
    password = settings.password.get_secret_value() if settings.password else ""
    endpoint = Endpoint(name, settings.host, settings.file_port, settings.timeout_s, ChecksumPolicy(settings.checksum))
    async with FileClient.connect(endpoint, Credentials(settings.username or "", password)) as client:
        return await work(client)


def _choose(path: Path, settings: config.Config, wanted: str | None) -> tuple[str, config.Cycler]:
    names = ", ".join(settings.cyclers)
    if wanted is None and len(settings.cyclers) > 1:
        raise complain(ConfigurationError("command line", [f"--cycler: say which one of {path}: {names}"]))
    name = wanted or next(iter(settings.cyclers))
    if name not in settings.cyclers:
        raise complain(ConfigurationError("command line", [f"--cycler: {name!r} is not in {path}: {names}"]))
    return name, settings.cyclers[name]


# --- what a person sees ---


@contextmanager
def _reported() -> Iterator[None]:
    """An error is one line and exit status 1."""
    try:
        yield
    except FileExistsError as error:
        typer.echo(f"{error}; --force replaces it", err=True)
        raise typer.Exit(FAILURE_STATUS) from error
    except (CtiMqttError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILURE_STATUS) from error


@contextmanager
def _bar(name: str) -> Iterator[OnProgress]:
    """A progress bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}", markup=False), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(_printable(name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _size(entry: Entry) -> str:
    return "-" if entry.type == EntryType.DIRECTORY else str(entry.size)


def _printable(text: str) -> str:
    """Text from the cycler, without anything that would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
