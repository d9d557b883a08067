"""Logging for a person or for a machine; what repeats itself is told in bounds."""

import json
import logging
import sys
import time
from enum import StrEnum

from cti_mqtt.cli.repeats import RepeatLimit


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """From which level on."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        body = {
            "ts": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False)


def set_up(level: LogLevel, log_format: LogFormat) -> None:
    """Log to standard error; from `info` on, what repeats itself is summed up (see `RepeatLimit`)."""
    handler = logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter
    if log_format is LogFormat.JSON:
        formatter = _JsonFormatter()
        formatter.converter = time.gmtime
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for before in root.handlers:
        if isinstance(before, RepeatLimit):
            before.close()
    root.handlers[:] = [RepeatLimit(handler)]
    root.setLevel(logging.WARNING)
    logging.getLogger("cti_mqtt").setLevel(level.value.upper())
