"""examples/config.yaml is complete, loads, and tells the truth about the defaults."""

import re
import shutil
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
import yaml
from dotenv import dotenv_values
from pydantic import BaseModel

from cti_mqtt import config
from cti_mqtt.errors import ConfigurationError
from cti_mqtt.publishing import DeadBands, Publish
from tests.support.programs import ROOT

EXAMPLES = ROOT / "examples"

CREDENTIALS = {"ARBIN_CTI_USERNAME": "reader", "ARBIN_CTI_PASSWORD": "secret"}
MODELS: dict[str, type[BaseModel]] = {
    "": config.Config,
    "mqtt": config.Mqtt,
    "cyclers.arbin1": config.Cycler,
    "cyclers.arbin1.control": config.Control,
    "cyclers.arbin1.control.limits.1": config.Limit,
    "publish": Publish,
    "journal": config.Journal,
}


def section(path: str) -> Any:
    body: Any = yaml.safe_load((EXAMPLES / "config.yaml").read_text())
    for key in filter(None, path.split(".")):
        body = body[int(key) if key.isdigit() else key]
    return body


def test_loads() -> None:
    settings = config.load(EXAMPLES / "config.yaml", CREDENTIALS)
    assert settings.cyclers["arbin1"].control.limits[1].max == 5
    assert settings.cyclers["arbin1"].username == "reader"


def test_without_credentials_it_says_what_is_missing(tmp_path: Path) -> None:
    copy = shutil.copy(EXAMPLES / "config.yaml", tmp_path)
    with pytest.raises(ConfigurationError, match="ARBIN_CTI_PASSWORD"):
        config.load(Path(copy), {"UNRELATED": "1"})


@pytest.mark.parametrize("path", MODELS)
def test_every_key_is_there(path: str) -> None:
    assert set(section(path)) == set(MODELS[path].model_fields)


COMMENTED: dict[tuple[str, ...], type[BaseModel]] = {
    ("mqtt", "tls"): config.Tls,
    ("publish", "dead_bands"): DeadBands,
    ("http",): config.Http,
}


def uncommented(*path: str) -> str:
    """The file with a section that stands there as a comment."""
    text = (EXAMPLES / "config.yaml").read_text()
    indent = "  " * (len(path) - 1)
    text, count = re.subn(rf"^{indent}{path[-1]}: null.*\n", "", text, flags=re.MULTILINE)
    assert count == 1
    block = re.compile(rf"^{indent}# {path[-1]}:.*\n(?:{indent}#   .*\n)+", re.MULTILINE)
    text, count = block.subn(lambda found: re.sub(r"^( *)# ", r"\1", found[0], flags=re.MULTILINE), text)
    assert count == 1
    return text


@pytest.mark.parametrize("path", COMMENTED, ids=".".join)
def test_every_key_of_a_commented_section_is_there(path: tuple[str, ...]) -> None:
    body: Any = yaml.safe_load(uncommented(*path))
    for key in path:
        body = body[key]
    assert set(body) == set(COMMENTED[path].model_fields)


@pytest.mark.parametrize("path", COMMENTED, ids=".".join)
def test_a_commented_section_loads(path: tuple[str, ...], tmp_path: Path) -> None:
    copy = tmp_path / "config.yaml"
    copy.write_text(uncommented(*path))
    settings: Any = config.load(copy, CREDENTIALS)
    for key in path:
        settings = getattr(settings, key)
    assert isinstance(settings, COMMENTED[path])
    if isinstance(settings, config.Http):
        assert settings == config.Http(port=9464)
    if isinstance(settings, config.Tls):
        assert settings.ca_file == tmp_path / "ca.pem"


def leaves(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a model's plain keys."""
    return {
        name: field.default
        for name, field in model.model_fields.items()
        if not field.is_required() and field.default_factory is None and not isinstance(field.default, BaseModel)
    }


@pytest.mark.parametrize(
    ("path", "key", "default"),
    [(path, key, default) for path, model in MODELS.items() for key, default in leaves(model).items()],
)
def test_defaults_are_as_stated(path: str, key: str, default: Any) -> None:
    """What a comment calls the default is the default, where it is a number, a word or null."""
    parts = [part for part in [*path.split("."), key] if part]
    line = _line(parts)
    stated = re.search(r"default (\S+?)[,;:.]?(?: |$)", line)
    if stated is None:
        return  # its neighbours' comment speaks for it
    word = stated[1]
    if isinstance(default, bool) or default is None:
        assert word == {True: "true", False: "false", None: "null"}[default] or key == "verify_timeout_s"
    elif isinstance(default, int | float):
        assert float(word) == default
    elif isinstance(default, str):
        assert word == default
    else:
        assert word in {"all", "none"}


def _line(parts: list[str]) -> str:
    """The line of a key in the file, found by walking down the indentation."""
    depth, wanted = 0, list(parts)
    for line in (EXAMPLES / "config.yaml").read_text().splitlines():
        match = re.match(r"( *)(\w+):", line)
        if match and len(match[1]) == 2 * depth and match[2] == wanted[0]:
            wanted.pop(0)
            depth += 1
            if not wanted:
                return line
    raise AssertionError(f"{'.'.join(parts)} is not in the example")


def test_env_example_names_variables_that_count(tmp_path: Path) -> None:
    text = (EXAMPLES / ".env.example").read_text()
    path = tmp_path / "config.yaml"
    path.write_text("cyclers:\n  arbin1: {host: a}\n  arbin2: {host: b}\n")
    (tmp_path / ".env").write_text(re.sub(r"^# (\w+=)", r"\1", text, flags=re.MULTILINE))
    settings = config.load(path, {"UNRELATED": "1"})
    assert settings.cyclers["arbin1"].username == "reader"
    assert settings.cyclers["arbin2"].username == "another"
    assert settings.mqtt.username == "cti-mqtt"


def test_env_example_holds_no_real_password() -> None:
    values = dotenv_values(EXAMPLES / ".env.example")
    assert {value for name, value in values.items() if "PASSWORD" in name} == {"change-me"}


def test_all_models_are_looked_at() -> None:
    """A new model in the configuration must come into this file too."""
    seen: set[type[BaseModel]] = set()
    waiting: list[Any] = [config.Config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, BaseModel):
            if each not in seen:
                seen.add(each)
                waiting += [field.annotation for field in each.model_fields.values()]
        elif isinstance(each, UnionType) or get_args(each):
            waiting += get_args(each)
    assert seen == {*MODELS.values(), *COMMENTED.values()}
