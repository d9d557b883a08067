"""Options that several subcommands share."""

import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from cti_mqtt import config
from cti_mqtt.cli.logs import LogFormat, LogLevel
from cti_mqtt.errors import ConfigurationError

CONFIGURATION_STATUS = 2

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file (YAML).")]
OptionalConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Take the broker from this configuration file.")
]
LogFormatOption = Annotated[LogFormat, typer.Option(help="Log lines for people or for machines.")]
LogLevelOption = Annotated[LogLevel, typer.Option(help="From which level on to log.")]
MqttHost = Annotated[str | None, typer.Option(help="The broker, instead of a configuration file.")]
MqttPort = Annotated[int | None, typer.Option(help="Its port.", min=1, max=65535)]
BaseTopic = Annotated[str | None, typer.Option(help="The bridge's base topic.")]
Protocol = Annotated[str | None, typer.Option(help="MQTT version: 3.1.1 (every broker speaks it) or 5.")]


def load(path: Path, content: config.Content | None = None) -> config.Config:
    """A configuration, as the file is now or as it was seen; or the end of the program with every mistake named."""
    try:
        return config.load(path, content=content)
    except ConfigurationError as error:
        raise complain(error) from error


def complain(error: ConfigurationError) -> typer.Exit:
    """Print what is wrong; the exception that ends the program."""
    typer.echo(str(error), err=True)
    return typer.Exit(CONFIGURATION_STATUS)


def broker(
    purpose: str,
    path: Path | None,
    host: str | None,
    port: int | None,
    base_topic: str | None,
    protocol: str | None,
) -> config.Mqtt:
    """The broker for a client subcommand, from a file, from options, or both; under a client id of its own."""
    try:
        settings = config.load_mqtt(path) if path else _from_environment()
        wanted = {"host": host, "port": port, "base_topic": base_topic, "protocol": protocol}
        changes = {key: value for key, value in wanted.items() if value is not None}
        if changes.get("protocol") == "5":
            changes["protocol"] = 5
        client_id = f"cti-mqtt-{purpose}-{secrets.token_hex(4)}"
        return config.Mqtt.model_validate({**dict(settings), **changes, "client_id": client_id})
    except ConfigurationError as error:
        raise complain(error) from error
    except ValidationError as error:
        problems = [f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}" for e in error.errors()]
        raise complain(ConfigurationError("command line", problems)) from error


def _from_environment() -> config.Mqtt:
    """Without a file: 3.1.1, which every broker speaks."""
    return config.Mqtt.model_validate(
        {
            "protocol": _UNIVERSAL,
            "username": os.environ.get("MQTT_USERNAME"),
            "password": os.environ.get("MQTT_PASSWORD"),
        }
    )


_UNIVERSAL: Literal["3.1.1"] = "3.1.1"
