"""The configuration file: YAML in, frozen models out; every mistake named at once, with its path.

Secrets come from the environment, else from a `.env` file beside the configuration, else from the YAML.
"""

import os
import re
import socket
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.errors import ConfigurationError
from cti_mqtt.validation import describe

VERBS = ("start", "stop", "resume", "continue", "jump", "assign", "set_mv", "release", "message", "schedules", "replay")
CYCLER_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
RESERVED_IDS = frozenset({"bridge"})
MAX_CHANNELS = 1024
DEFAULT_BASE_TOPIC = "cti"
LONGEST_CREDENTIAL = 32  # bytes in the login message
_NO_DATA_DIR = (
    "data_dir: missing; where control is enabled the bridge must remember what it was told, so name a directory such "
    "as /var/lib/cti-mqtt"
)
_NO_JOURNAL_DIR = "data_dir: missing; journal.enabled needs a directory to write to, such as /var/lib/cti-mqtt"

Verb = Literal[
    "start", "stop", "resume", "continue", "jump", "assign", "set_mv", "release", "message", "schedules", "replay"
]
Port = Annotated[int, Field(ge=1, le=65535)]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = PositiveNumber
FiniteNumber = Annotated[float, Field(allow_inf_nan=False)]


def _base_topic(text: str) -> str:
    levels = text.split("/")
    if not all(levels) or any(c in text for c in "+#\0") or text.startswith(("$", "spBv1.0")):
        raise ValueError("must be topic levels such as 'cti' or 'lab/cti': no '+', '#', empty levels, '$' or spBv1.0")
    return text


def _switch(word: str, value: object) -> Any:
    """YAML 1.1 reads a bare `on` or `off` as a truth value; take it for the word."""
    return word if value is (word == "on") else value


class Model(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Tls(Model):
    """TLS to the broker; without `ca_file` the system's certificates count."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _key_belongs_to_certificate(self) -> "Tls":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class Mqtt(Model):
    """The broker and how to reach it."""

    host: str = Field("127.0.0.1", min_length=1)
    port: Port = 1883
    base_topic: Annotated[str, AfterValidator(_base_topic)] = DEFAULT_BASE_TOPIC
    protocol: Annotated[Literal[5, "3.1.1"], BeforeValidator(lambda value: 5 if value == "5" else value)] = 5
    client_id: str = Field(default_factory=lambda: f"cti-mqtt-{socket.gethostname()}", min_length=1, max_length=128)
    keepalive_s: int = Field(15, ge=1, le=65535)
    username: str | None = None
    password: SecretStr | None = None
    tls: Tls | None = None


class Limit(Model):
    """What a meta variable may be set to."""

    min: FiniteNumber | None = None
    max: FiniteNumber | None = None
    max_step: PositiveNumber | None = None
    max_rate_per_s: PositiveNumber | None = None
    initial: FiniteNumber | None = None

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> "Limit":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class Control(Model):
    """What may be commanded: nothing unless switched on, verb by verb and channel by channel."""

    enabled: bool = False
    mode: Annotated[Literal["on", "shadow"], BeforeValidator(lambda value: _switch("on", value))] = "on"
    verbs: tuple[Verb, ...] | Literal["all"] = ()
    channels: tuple[Annotated[int, Field(ge=1, le=MAX_CHANNELS)], ...] | Literal["all"] = ()
    require_user: bool = False
    limits: Mapping[Annotated[int, Field(ge=1, le=META_VARIABLE_COUNT)], Limit] = Field(default_factory=dict)
    max_age_s: Seconds = 10.0
    verify_timeout_s: Seconds | None = None
    stop_timeout_s: Seconds = 30.0
    max_running: Annotated[int, Field(ge=1)] | None = None
    max_starts_per_min: Annotated[int, Field(ge=1)] | None = None
    deadman_mv: Annotated[int, Field(ge=1, le=META_VARIABLE_COUNT)] | None = None

    @model_validator(mode="after")
    def _deadman_is_the_bridges_own(self) -> "Control":
        if self.deadman_mv in self.limits:
            raise ValueError(
                f"limits.{self.deadman_mv}: MV_UD{self.deadman_mv} is the dead man's variable (deadman_mv), which only "
                "the bridge writes"
            )
        return self

    def allows_verb(self, verb: str) -> bool:
        """Whether a verb is permitted."""
        return self.enabled and (self.verbs == "all" or verb in self.verbs)

    def allows_channel(self, channel: int) -> bool:
        """Whether a channel may be commanded."""
        return self.enabled and (self.channels == "all" or channel in self.channels)


class Cycler(Model):
    """One cycler."""

    host: str = Field(min_length=1)
    port: Port = 9031
    file_port: Port = 9032
    username: str | None = None
    password: SecretStr | None = None
    poll_interval_s: Annotated[float, Field(ge=0.05, le=3600, allow_inf_nan=False)] = 1.0
    timeout_s: Seconds = 10.0
    checksum: Literal["strict", "warn", "ignore"] = "warn"
    pipelining: Annotated[Literal["auto", "off"], BeforeValidator(lambda value: _switch("off", value))] = "auto"
    aux: tuple[Literal["aux", "bms", "smb"], ...] = ("aux", "bms", "smb")
    control: Control = Control()

    @property
    def verify_timeout_s(self) -> float:
        """How long to wait for the effect of a command: three polls unless configured."""
        return self.control.verify_timeout_s or 3 * self.poll_interval_s


class Publish(Model):
    """Which topics are published."""

    state: bool = True
    state_qos: Literal[0, 1] = 0
    values: Literal[False] = False
    readings: bool = True
    max_bytes: Annotated[int, Field(ge=1024)] | None = None


class Journal(Model):
    """Readings on disk until the broker has them, and a while longer for whoever asks for them again.

    Attributes:
        enabled: None: where there is a `data_dir`.
        max_bytes: of payload, compressed; beyond it the oldest go first, delivered ones before others.
        max_age_s: older ones are given up.
        replay_window_s: how long delivered ones are kept.
        backfill_per_s: polls a second that are sent late, beside the live ones.
    """

    enabled: bool | None = None
    max_bytes: Annotated[int, Field(ge=2**20)] = 2 * 10**9
    max_age_s: Seconds = 7 * 24 * 3600.0
    replay_window_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3600.0
    backfill_per_s: PositiveNumber = 50.0


class Http(Model):
    """Where health and metrics can be asked for."""

    host: str = Field("127.0.0.1", min_length=1)
    port: Annotated[int, Field(ge=0, le=65535)]


def _cycler_id(text: str) -> str:
    if not CYCLER_ID.fullmatch(text):
        raise ValueError("an id is 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or digit")
    if text in RESERVED_IDS:
        raise ValueError(f"{text!r} is reserved")
    return text


class Config(Model):
    """The whole file."""

    data_dir: Path | None = None
    health_interval_s: Seconds = 10.0
    mqtt: Mqtt = Mqtt()
    cyclers: Mapping[Annotated[str, AfterValidator(_cycler_id)], Cycler] = Field(min_length=1)
    publish: Publish = Publish()
    journal: Journal = Journal()
    http: Http | None = None

    @model_validator(mode="after")
    def _control_needs_a_memory(self) -> "Config":
        if self.data_dir is None and any(cycler.control.enabled for cycler in self.cyclers.values()):
            raise ValueError(_NO_DATA_DIR)
        if self.data_dir is None and self.journal.enabled:
            raise ValueError(_NO_JOURNAL_DIR)
        return self

    @property
    def journal_on(self) -> bool:
        """Whether readings are written to disk before they are published."""
        return self.data_dir is not None and self.publish.readings and self.journal.enabled is not False


class MqttOnly(BaseModel):
    """The part that a plain MQTT client needs; the rest of the file is another program's business."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    mqtt: Mqtt = Mqtt()


# --- reading ---


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # the signature is PyYAML's
        """A mapping, or an error for a key that stands twice."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration file.

    Args:
        path: the YAML file; a `.env` file beside it is read too.
        environment: where secrets come from first; the process environment unless given.

    Raises:
        ConfigurationError: with every mistake that was found.
    """
    data = _read_yaml(path)
    secrets = _secrets(path, environment)
    problems: list[str] = []
    cyclers = data.get("cyclers")
    if isinstance(cyclers, dict):
        problems += [*_bad_ids(cyclers), *_name_collisions(cyclers)]
        data["cyclers"] = {
            name: _with_credentials(cycler, secrets, "ARBIN_CTI", str(name)) for name, cycler in cyclers.items()
        }
        problems += _missing_credentials(data["cyclers"])
        problems += _missing_data_dir(data)
    data["mqtt"] = _with_credentials(data.get("mqtt", {}), secrets, "MQTT")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(str(path), list(dict.fromkeys(describe(error) + problems))) from None
    if problems:
        raise ConfigurationError(str(path), problems)
    return _resolve_paths(config, path.parent)


def load_mqtt(path: Path, environment: Mapping[str, str] | None = None) -> Mqtt:
    """Read only the `mqtt` section of a configuration file.

    Raises:
        ConfigurationError: with every mistake that was found.
    """
    data = _read_yaml(path)
    data["mqtt"] = _with_credentials(data.get("mqtt", {}), _secrets(path, environment), "MQTT")
    try:
        return _absolute_tls(MqttOnly.model_validate(data).mqtt, path.parent)
    except ValidationError as error:
        raise ConfigurationError(str(path), describe(error)) from None


def load_data_dir(path: Path) -> Path | None:
    """Read only `data_dir` of a configuration file.

    Raises:
        ConfigurationError: the file cannot be read, or that is no path.
    """
    data_dir = _read_yaml(path).get("data_dir")
    if data_dir is None:
        return None
    if not isinstance(data_dir, str) or not data_dir:
        raise ConfigurationError(str(path), ["data_dir: must be a path"])
    return path.parent / data_dir


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), [f"is not UTF-8 text: {error.reason}"]) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(str(path), [f"is not valid YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(data, dict):
        raise ConfigurationError(str(path), ["must be a mapping with the keys mqtt, cyclers, publish, …"])
    return data


def _secrets(path: Path, environment: Mapping[str, str] | None) -> dict[str, str]:
    beside = {key: value for key, value in dotenv_values(path.parent / ".env").items() if value}
    return {
        **beside,
        **{key: value for key, value in (os.environ if environment is None else environment).items() if value},
    }


def _suffix(cycler: str) -> str:
    return cycler.upper().replace("-", "_")


def _bad_ids(cyclers: Mapping[Any, Any]) -> list[str]:
    """What pydantic says of an id only where the rest of the entry is right."""
    problems = []
    for name in map(str, cyclers):
        try:
            _cycler_id(name)
        except ValueError as error:
            problems.append(f"cyclers.{name}: {error}")
    return problems


def missing_files(mqtt: Mqtt) -> list[str]:
    """What is named in `mqtt.tls` and not there; certificates may still come, so this is no mistake of the file."""
    files = dict(mqtt.tls) if mqtt.tls else {}
    return [f"mqtt.tls.{key}: there is no file {path}" for key, path in files.items() if path and not path.is_file()]


def _name_collisions(cyclers: Mapping[Any, Any]) -> list[str]:
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


def _with_credentials(section: Any, secrets: Mapping[str, str], prefix: str, name: str | None = None) -> Any:
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


def _missing_credentials(cyclers: Mapping[Any, Any]) -> list[str]:
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


def _missing_data_dir(data: Mapping[str, Any]) -> list[str]:
    """What the model says only where everything else is right."""
    controls = [cycler.get("control") for cycler in data["cyclers"].values() if isinstance(cycler, dict)]
    enabled = any(isinstance(control, dict) and control.get("enabled") is True for control in controls)
    journal = data.get("journal")
    keeps_journal = isinstance(journal, dict) and journal.get("enabled") is True
    if data.get("data_dir"):
        return []
    return [_NO_DATA_DIR] * enabled + [_NO_JOURNAL_DIR] * keeps_journal


def _absolute_tls(mqtt: Mqtt, folder: Path) -> Mqtt:
    if mqtt.tls is None:
        return mqtt
    files = {key: folder / value for key, value in mqtt.tls if value is not None}
    return mqtt.model_copy(update={"tls": mqtt.tls.model_copy(update=files)})


def _resolve_paths(config: Config, folder: Path) -> Config:
    """Paths in the file are relative to the file."""
    data_dir = folder / config.data_dir if config.data_dir else None
    return config.model_copy(update={"mqtt": _absolute_tls(config.mqtt, folder), "data_dir": data_dir})
