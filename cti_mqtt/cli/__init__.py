"""The program `cti-mqtt`: one module a subcommand."""

from typing import Annotated

import typer

from cti_mqtt import __version__
from cti_mqtt.cli.lazily import LazyGroup

app = typer.Typer(
    name="cti-mqtt",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A bridge between Arbin battery cyclers (CTI) and MQTT. Try it without any hardware: cti-mqtt demo."""
    del version


def main() -> None:
    """Entry point."""
    app()
