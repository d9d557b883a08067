"""`cti-mqtt run`: the bridge."""

import typer

from cti_mqtt.bridge.bridge import Bridge
from cti_mqtt.cli.logs import LogFormat, LogLevel, set_up
from cti_mqtt.cli.loops import run_until_signalled
from cti_mqtt.cli.options import ConfigFile, LogFormatOption, LogLevelOption, complain, load
from cti_mqtt.errors import ConfigurationError


def run(
    config: ConfigFile,
    log_level: LogLevelOption = LogLevel.INFO,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Run the bridge until it is interrupted or terminated.

    Example: cti-mqtt run -c /etc/cti-mqtt/config.yaml --log-format json
    """
    settings = load(config)
    set_up(log_level, log_format)
    try:
        run_until_signalled(lambda stop: Bridge(settings).run(stop))
    except* ConfigurationError as errors:
        problem = errors.exceptions[0]
        if not isinstance(problem, ConfigurationError):
            raise
        raise complain(problem) from problem
    except* KeyboardInterrupt:
        raise typer.Exit(0) from None
