"""User names and passwords: from the environment, else from a `.env` file beside the configuration, else from that."""

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from cti_mqtt.errors import ConfigurationError
from cti_mqtt.yaml_file import is_sound

LONGEST_CREDENTIAL = 32  # bytes in the login message
_CREDENTIAL = re.compile(r"(ARBIN_CTI|MQTT)_(USERNAME|PASSWORD)")


def read_beside(path: Path) -> bytes:
    """What is in the `.env` file beside a configuration; nothing where there is none.

    Raises:
        ConfigurationError: it cannot be read.
    """
    file = path.parent / ".env"
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ConfigurationError(str(path), [f"{file} cannot be read: {error.strerror}"]) from error


def read_secrets(path: Path, environment: Mapping[str, str] | None, content: bytes | None = None) -> dict[str, str]:
    """Every variable that is set; those that count can be written down.

    Args:
        path: the configuration.
        environment: what comes first; the process environment unless given.
        content: of the `.env` file; read anew unless given.

    Raises:
        ConfigurationError: one cannot, or the `.env` file cannot be read.
    """
    try:
        text = (read_beside(path) if content is None else content).decode()
    except UnicodeDecodeError:
        raise ConfigurationError(str(path), [f"{path.parent / '.env'} is not UTF-8 text"]) from None
    beside = dotenv_values(stream=io.StringIO(text))
    found = {key: value for key, value in beside.items() if value}
    found |= {key: value for key, value in (os.environ if environment is None else environment).items() if value}
    unsound = [key for key, value in found.items() if _CREDENTIAL.match(key) and not is_sound(value)]
    if unsound:
        raise ConfigurationError(str(path), [f"{key}: is not UTF-8 text, or has a NUL" for key in unsound])
    return found


def filled_in(section: Any, secrets: Mapping[str, str], prefix: str, name: str | None = None) -> Any:
    """A section with user name and password as the environment gives them, the more specific first."""
    if not isinstance(section, dict):
        return section
    filled = dict(section)
    for key in ("username", "password"):
        general = f"{prefix}_{key.upper()}"
        specific = f"{general}_{_suffix(name)}" if name else general
        value = secrets.get(specific) or secrets.get(general)
        if value:
            filled[key] = value
    return filled


def missing_credentials(cyclers: Mapping[Any, Any]) -> list[str]:
    """Where a user or a password is missing, or does not fit into the login message, and what to do."""
    problems = []
    for name, cycler in cyclers.items():
        if not isinstance(cycler, dict):
            continue
        for key in ("username", "password"):
            value = cycler.get(key)
            variable = f"ARBIN_CTI_{key.upper()}"
            if not value:
                problems.append(
                    f"cyclers.{name}.{key}: missing; set {variable} or {variable}_{_suffix(str(name))} in the "
                    "environment or in a .env file beside the configuration"
                )
            elif isinstance(value, str) and len(value.encode()) > LONGEST_CREDENTIAL:
                problems.append(f"cyclers.{name}.{key}: too long; at most {LONGEST_CREDENTIAL} bytes fit into a login")
    return problems


def name_collisions(cyclers: Mapping[Any, Any]) -> list[str]:
    """Ids that would have their credentials in the same variables."""
    owners: dict[str, str] = {}
    problems = []
    for name in map(str, cyclers):
        other = owners.setdefault(_suffix(name), name)
        if other != name:
            problems.append(
                f"cyclers.{name}: shares the environment variable ARBIN_CTI_PASSWORD_{_suffix(name)} with "
                f"cyclers.{other}; choose another id"
            )
    return problems


def _suffix(cycler: str) -> str:
    return cycler.upper().replace("-", "_")
