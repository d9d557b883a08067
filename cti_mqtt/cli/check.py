"""`cti-mqtt check`: is the configuration right, and does everything answer?"""

import asyncio
from typing import Annotated

import typer

from cti_mqtt import config
from cti_mqtt.bridge.mqtt import MqttLink
from cti_mqtt.bridge.station import connector
from cti_mqtt.cli.loops import run_to_end
from cti_mqtt.cli.options import ConfigFile, load
from cti_mqtt.config import missing_files
from cti_mqtt.cti.codes import server_version
from cti_mqtt.errors import CtiMqttError

UNREACHABLE_STATUS = 1
BROKER_TIMEOUT_S = 15.0


def check(
    config: ConfigFile,
    connect: Annotated[bool, typer.Option("--connect", help="Also log in to every cycler and to the broker.")] = False,
) -> None:
    """Check a configuration file; every mistake is named with its path.

    Exit status: 0 all is well, 1 something does not answer, 2 the file is wrong.

    Example: cti-mqtt check -c config.yaml --connect
    """
    settings = load(config)
    cyclers = ", ".join(f"{name} ({each.host}:{each.port})" for name, each in settings.cyclers.items())
    typer.echo(f"{config}: valid; cyclers: {cyclers}; broker {settings.mqtt.host}:{settings.mqtt.port}")
    for problem in missing_files(settings.mqtt):
        typer.echo(f"warning: {problem}", err=True)
    if connect and not run_to_end(_connect(settings)):
        raise typer.Exit(UNREACHABLE_STATUS)


async def _connect(settings: config.Config) -> bool:
    """Try everything, at the same time; whether all of it answered."""
    found = await asyncio.gather(
        _try_broker(settings.mqtt),
        *(_try_cycler(name, cycler) for name, cycler in settings.cyclers.items()),
    )
    for well, line in found:
        typer.echo(f"{'ok  ' if well else 'FAIL'} {line}", err=not well)
    return all(well for well, _ in found)


async def _try_cycler(name: str, settings: config.Cycler) -> tuple[bool, str]:
    try:
        async with connector(name, settings)() as cycler:
            info = cycler.info
            readings = await cycler.read_channels()
    except CtiMqttError as error:
        return False, str(error)
    control = "control allowed" if info.allow_control else "NO right to control"
    line = (
        f"{name}: logged in; serial {info.serial!r}, {server_version(info.version)}, {info.channel_count} channels, "
        f"{len(readings)} readings, {control}"
    )
    try:
        async with connector(name, settings.model_copy(update={"port": settings.file_port}))():
            return True, f"{line}; file port {settings.file_port} answers"
    except CtiMqttError as error:
        return True, f"{line}; file port: {error}"


async def _try_broker(settings: config.Mqtt) -> tuple[bool, str]:
    where = f"broker {settings.host}:{settings.port}"
    failures: list[str] = []
    own_id = settings.model_copy(update={"client_id": f"{settings.client_id}-check"})
    link = MqttLink(own_id, lambda _: None, on_state=lambda up, text: None if up else failures.append(text))
    task = asyncio.create_task(link.run(), name="check the broker")
    ready = asyncio.create_task(link.wait_connected(), name="wait for the broker")
    try:
        async with asyncio.timeout(BROKER_TIMEOUT_S):
            while not ready.done() and not failures:
                await asyncio.wait([ready], timeout=0.05)
    except TimeoutError:
        failures.append("no answer")
    finally:
        for each in (task, ready):
            each.cancel()
        await asyncio.gather(task, ready, return_exceptions=True)
    return (False, f"{where}: {failures[0]}") if failures else (True, f"{where}: connected")
