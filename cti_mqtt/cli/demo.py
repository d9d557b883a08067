"""`cti-mqtt demo`: everything on this machine, nothing to install: broker, simulated cycler, bridge."""

import asyncio
import contextlib
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from cti_mqtt import config
from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.bridge.presence import Timing
from cti_mqtt.cli.embedded_broker import embedded_broker
from cti_mqtt.cli.logs import LogFormat, LogLevel, set_up
from cti_mqtt.cli.loops import run_until_signalled
from cti_mqtt.cli.ports import free_port
from cti_mqtt.simulator import MAX_CHANNELS, SimulatedClock, SimulatedCycler, SimulatedServer, User

PROGRAM = "cti-mqtt"
HOST = "127.0.0.1"
USER = PASSWORD = "admin"  # noqa: S105  # of a simulated cycler on loopback


def demo(
    mqtt_port: Annotated[int, typer.Option(help="Of the broker; 0 takes a free one.", min=0, max=65535)] = 1883,
    cti_port: Annotated[int, typer.Option(help="Of the cycler; 0 takes a free one.", min=0, max=65535)] = 9031,
    channels: Annotated[int, typer.Option(help="Of the cycler.", min=1, max=MAX_CHANNELS)] = 16,
    speed: Annotated[float, typer.Option(help="Simulated seconds per second.", min=0.001)] = 1.0,
) -> None:
    """Try it: an embedded broker, a simulated cycler, and the bridge between them. End it with Ctrl-C.

    Example: cti-mqtt demo --speed 60
    """
    set_up(LogLevel.WARNING, LogFormat.TEXT)
    mqtt_port = mqtt_port or free_port(HOST)
    try:
        run_until_signalled(lambda stop: _demo(stop, mqtt_port, cti_port, channels, speed))
    except OSError as error:
        typer.echo(f"cannot start: {error}\n(a port in use? take free ones: --mqtt-port 0 --cti-port 0)", err=True)
        raise typer.Exit(1) from error


async def _demo(stop: asyncio.Event, mqtt_port: int, cti_port: int, channels: int, speed: float) -> None:
    async with AsyncExitStack() as stack:
        cycler = SimulatedCycler(channels, clock=SimulatedClock(speed), users=[User(USER, PASSWORD, super_user=True)])
        await stack.enter_async_context(embedded_broker(HOST, mqtt_port))
        server = await stack.enter_async_context(SimulatedServer(cycler, host=HOST, port=cti_port, file_port=0))
        data_dir = Path(stack.enter_context(TemporaryDirectory(prefix="cti-mqtt-demo-", ignore_cleanup_errors=True)))
        settings = _settings(data_dir, mqtt_port, server.port, server.file_port)
        bridge = Bridge(settings, timing=Timing(listen=False))  # on a broker of its own
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bridge.run(stop), name="bridge")
            await bridge.ready.wait()
            where = {"mqtt_port": mqtt_port, "cti_port": server.port, "channels": channels}
            typer.echo(_WELCOME.format(program=_own_name(), **where))


def _own_name() -> str:
    """How to call this program from another terminal: by its name where that is found, else by its path."""
    path = Path(sys.argv[0])
    if path.stem != PROGRAM:
        return f"{Path(sys.executable).name} -m cti_mqtt"
    if shutil.which(PROGRAM) is not None:
        return PROGRAM
    with contextlib.suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path.absolute())


def _settings(data_dir: Path, mqtt_port: int, cti_port: int, file_port: int) -> config.Config:
    return config.Config.model_validate(
        {
            "data_dir": data_dir,
            "mqtt": {"host": HOST, "port": mqtt_port, "protocol": "3.1.1", "client_id": "cti-mqtt-demo"},
            "cyclers": {
                "arbin1": {
                    "host": HOST,
                    "port": cti_port,
                    "file_port": file_port,
                    "username": USER,
                    "password": PASSWORD,
                    "control": {
                        "enabled": True,
                        "verbs": "all",
                        "channels": "all",
                        "limits": {index: {"min": -10, "max": 10} for index in range(1, 17)},
                    },
                }
            },
        }
    )


_WELCOME = """\
cti-mqtt demo: broker on 127.0.0.1:{mqtt_port}, simulated cycler on 127.0.0.1:{cti_port} with {channels} channels.

See everything:
  mosquitto_sub -h 127.0.0.1 -p {mqtt_port} -t 'cti/#' -v
  {program} watch --mqtt-port {mqtt_port}

Topics to begin with:
  cti/bridge/availability             online
  cti/arbin1/channel/1/state          the reading of channel 1, each second
  cti/arbin1/channel/1/event          what happens to it
  cti/arbin1/channel/1/result         what became of a command

Start a test on channel 1, and stop it again:
  mosquitto_pub -h 127.0.0.1 -p {mqtt_port} -t cti/arbin1/channel/1/command/start \\
    -m '{{"test_name": "first", "schedule": "CCCV.sdx"}}'
  mosquitto_pub -h 127.0.0.1 -p {mqtt_port} -t cti/arbin1/channel/1/command/stop -n

The same without Mosquitto's tools:
  {program} send arbin1/1 start test_name=first schedule=CCCV.sdx --mqtt-port {mqtt_port}
  {program} send arbin1/1 stop --mqtt-port {mqtt_port}

Schedules: CCCV.sdx Discharge.sdx Rest.sdx Formation.sdx Pause.sdx ClosedLoop.sdx. Ctrl-C ends everything.
"""
