"""The program `cti-mqtt`: one module a subcommand."""

from typing import Annotated

import typer

from cti_mqtt import __version__
from cti_mqtt.cli import files
from cti_mqtt.cli.audit import audit
from cti_mqtt.cli.check import check
from cti_mqtt.cli.demo import demo
from cti_mqtt.cli.health import health
from cti_mqtt.cli.run import run
from cti_mqtt.cli.send import send
from cti_mqtt.cli.simulate import simulate
from cti_mqtt.cli.watch import watch

app = typer.Typer(
    name="cti-mqtt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, demo, simulate, check, watch, send, health, audit):
    app.command()(command)
app.add_typer(files.app, name="files")


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
