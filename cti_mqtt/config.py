"""The configuration file: YAML in, frozen models out; every mistake named at once, with its path.

Secrets come from the environment, else from a `.env` file beside the configuration, else from the YAML.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

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

from cti_mqtt.credentials import filled_in, missing_credentials, name_collisions, read_beside, read_secrets
from cti_mqtt.cti.codes import META_VARIABLE_COUNT
from cti_mqtt.errors import ConfigurationError
from cti_mqtt.publishing import Publish
from cti_mqtt.section import FiniteNumber, Model, PositiveNumber, Seconds
from cti_mqtt.validation import describe
from cti_mqtt.yaml_file import parse_mapping, read_bytes, read_mapping

VERBS = ("start", "stop", "resume", "continue", "jump", "assign", "set_mv", "release", "message", "schedules", "replay")
CYCLER_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
RESERVED_IDS = frozenset({"bridge"})
MAX_CHANNELS = 1024
DEFAULT_BASE_TOPIC = "cti"
MAX_CYCLERS = 256
_NO_DATA_DIR = (
    "data_dir: missing; where control is enabled the bridge must remember what it was told, so name a directory such "
    "as /var/lib/cti-mqtt"
)
_NO_JOURNAL_DIR = "data_dir: missing; journal.enabled needs a directory to write to, such as /var/lib/cti-mqtt"
_NO_READINGS = "journal.enabled: without publish.readings there is nothing to keep; set both to true, or none"

Verb = Literal[
    "start", "stop", "resume", "continue", "jump", "assign", "set_mv", "release", "message", "schedules", "replay"
]
Port = Annotated[int, Field(ge=1, le=65535)]


def _base_topic(text: str) -> str:
    levels = text.split("/")
    if not all(levels) or any(c in text for c in "+#\0") or text.startswith(("$", "spBv1.0")):
        raise ValueError("must be topic levels such as 'cti' or 'lab/cti': no '+', '#', empty levels, '$' or spBv1.0")
    return text


def _switch(word: str, value: object) -> Any:
    """YAML 1.1 reads a bare `on` or `off` as a truth value; take it for the word."""
    return word if value is (word == "on") else value


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


def address(cycler: Cycler) -> tuple[str, int]:
    """Where a cycler is; two that have the same are one machine."""
    return cycler.host.lower(), cycler.port


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


def _http_section(value: object) -> object:
    if value is not None and not isinstance(value, dict | Http):
        raise ValueError("must be a section such as {port: 9464}")
    return value


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
    http: Annotated[Http | None, BeforeValidator(_http_section)] = None

    @model_validator(mode="after")
    def _one_machine_has_one_commander(self) -> "Config":
        owners: dict[tuple[str, int], str] = {}
        for name, cycler in self.cyclers.items():
            if not cycler.control.enabled:
                continue  # readings may be taken twice
            if (other := owners.setdefault(address(cycler), name)) != name:
                raise ValueError(
                    f"cyclers.{name}: has the host and port of cyclers.{other} ({cycler.host}:{cycler.port}); two "
                    "with control enabled would command the same machine, neither knowing of the other"
                )
        return self

    @model_validator(mode="after")
    def _needs_are_met(self) -> "Config":
        if self.data_dir is None and any(cycler.control.enabled for cycler in self.cyclers.values()):
            raise ValueError(_NO_DATA_DIR)
        if self.data_dir is None and self.journal.enabled:
            raise ValueError(_NO_JOURNAL_DIR)
        if self.journal.enabled and not self.publish.readings:
            raise ValueError(_NO_READINGS)
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


@dataclass(frozen=True, slots=True)
class Content:
    """What the files of a configuration hold: `text` the YAML, `beside` the `.env` (nothing where there is none)."""

    text: bytes = field(repr=False)
    beside: bytes = field(repr=False)


def read_content(path: Path) -> Content:
    """What is in the file and in the `.env` beside it, to be looked at before it is loaded.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    return Content(read_bytes(path), read_beside(path))


def load(path: Path, environment: Mapping[str, str] | None = None, content: Content | None = None) -> Config:
    """Read and check a configuration file.

    Args:
        path: the YAML file; a `.env` file beside it is read too.
        environment: where secrets come from first; the process environment unless given.
        content: what counts instead of what the files hold now.

    Raises:
        ConfigurationError: with every mistake that was found.
    """
    content = content or read_content(path)
    data = parse_mapping(path, content.text)
    secrets = read_secrets(path, environment, content.beside)
    problems: list[str] = []
    _fill_empty_sections(data)
    cyclers = data.get("cyclers")
    if isinstance(cyclers, dict):
        if len(cyclers) > MAX_CYCLERS:
            raise ConfigurationError(str(path), [f"cyclers: {len(cyclers)} of them; at most {MAX_CYCLERS} are allowed"])
        problems += [*_bad_ids(cyclers), *name_collisions(cyclers)]
        data["cyclers"] = {name: filled_in(cycler, secrets, "ARBIN_CTI", str(name)) for name, cycler in cyclers.items()}
        problems += missing_credentials(data["cyclers"])
        problems += _unmet_needs(data)
    data["mqtt"] = filled_in(data.get("mqtt", {}), secrets, "MQTT")
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
    data = read_mapping(path)
    _fill_empty_sections(data)
    data["mqtt"] = filled_in(data.get("mqtt", {}), read_secrets(path, environment), "MQTT")
    try:
        return _absolute_tls(MqttOnly.model_validate(data).mqtt, path.parent)
    except ValidationError as error:
        raise ConfigurationError(str(path), describe(error)) from None


def load_data_dir(path: Path) -> Path | None:
    """Read only `data_dir` of a configuration file.

    Raises:
        ConfigurationError: the file cannot be read, or that is no path.
    """
    data_dir = read_mapping(path).get("data_dir")
    if data_dir is None:
        return None
    if not isinstance(data_dir, str) or not data_dir:
        raise ConfigurationError(str(path), ["data_dir: must be a path"])
    return path.parent / data_dir


def _fill_empty_sections(data: dict[str, Any]) -> None:
    """A section whose keys are all comments has all defaults."""
    for name in ("mqtt", "publish", "journal"):
        if data.get(name, ...) is None:
            data[name] = {}


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


def _unmet_needs(data: Mapping[str, Any]) -> list[str]:
    """What the model says only where everything else is right."""
    controls = [cycler.get("control") for cycler in data["cyclers"].values() if isinstance(cycler, dict)]
    enabled = any(isinstance(control, dict) and control.get("enabled") is True for control in controls)
    journal, publish = data.get("journal"), data.get("publish")
    keeps_journal = isinstance(journal, dict) and journal.get("enabled") is True
    problems = []
    if not data.get("data_dir"):
        problems += [_NO_DATA_DIR] * enabled + [_NO_JOURNAL_DIR] * keeps_journal
    if keeps_journal and isinstance(publish, dict) and publish.get("readings") is False:
        problems.append(_NO_READINGS)
    return problems


def _absolute_tls(mqtt: Mqtt, folder: Path) -> Mqtt:
    if mqtt.tls is None:
        return mqtt
    files = {key: folder / value for key, value in mqtt.tls if value is not None}
    return mqtt.model_copy(update={"tls": mqtt.tls.model_copy(update=files)})


def _resolve_paths(config: Config, folder: Path) -> Config:
    """Paths in the file are relative to the file."""
    data_dir = folder / config.data_dir if config.data_dir else None
    return config.model_copy(update={"mqtt": _absolute_tls(config.mqtt, folder), "data_dir": data_dir})
