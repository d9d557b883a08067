"""`cti-mqtt run`: the bridge."""

import asyncio
from pathlib import Path

import typer

from cti_mqtt import config as configuration
from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.cli.collector import calm_collector
from cti_mqtt.cli.logs import LogFormat, LogLevel, set_up
from cti_mqtt.cli.loops import hangups, ignore_hangups, run_until_signalled
from cti_mqtt.cli.options import ConfigFile, LogFormatOption, LogLevelOption, complain, load
from cti_mqtt.cli.reloads import ConfigWatch, follow
from cti_mqtt.errors import ConfigurationError


def run(
    config: ConfigFile,
    log_level: LogLevelOption = LogLevel.INFO,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Run the bridge until it is interrupted or terminated.

    The configuration is read again when it changes, and at SIGHUP. What can be applied is; what needs a restart is
    named in the log and in the event `reloaded`.

    Example: cti-mqtt run -c /etc/cti-mqtt/config.yaml --log-format json
    """
    ignore_hangups()
    watch = ConfigWatch(config)
    settings = load(config, watch.taken)
    set_up(log_level, log_format)
    calm_collector()
    try:
        run_until_signalled(lambda stop: _run(settings, config, watch, stop))
    except* ConfigurationError as errors:
        problem = errors.exceptions[0]
        if not isinstance(problem, ConfigurationError):
            raise
        raise complain(problem) from problem
    except* KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _run(settings: configuration.Config, path: Path, watch: ConfigWatch, stop: asyncio.Event) -> None:
    """The bridge, and beside it whoever follows its configuration."""
    bridge = Bridge(settings)
    following = asyncio.create_task(follow(bridge, path, watch, hangups()), name="configuration")
    try:
        await bridge.run(stop)
    finally:
        following.cancel()
        await asyncio.wait([following])
