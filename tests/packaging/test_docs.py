"""What the documentation shows is held against what is there: links, commands, YAML, JSON, names in the code."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import typer.main
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup

from cti_mqtt import config, errors
from cti_mqtt.bridge.bus import Quality, Reading
from cti_mqtt.bridge.fragments import Fragments
from cti_mqtt.bridge.orders import ORDERS
from cti_mqtt.cli import app
from cti_mqtt.cti.messages.channels import RECORD
from tests.support.programs import ROOT

PAGES = (
    sorted(path for path in ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")) + [ROOT / "examples/README.md"]
)
TEXTS = [*PAGES, ROOT / "Makefile", ROOT / "Dockerfile", ROOT / ".ci/run", *(ROOT / "examples").glob("*.*")]
CREDENTIALS = {"ARBIN_CTI_USERNAME": "a", "ARBIN_CTI_PASSWORD": "b"}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fenced(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in these languages."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if match[1] in languages:
            yield match[2]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


# --- links ---


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code forges make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} does not exist"
        assert ROOT in target.resolve().parents
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_page_is_linked_from_the_readme_or_its_neighbours() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))
    }
    assert set((ROOT / "docs").rglob("*.md")) <= linked


# --- commands ---

PROGRAM = cast("TyperGroup", typer.main.get_command(app))


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The `cti-mqtt` command lines in console blocks, without what the shell does with them."""
    for block in fenced(page, "console", "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].rpartition("/")[2] == "cti-mqtt":
                yield words[1:]


def resolved(words: list[str]) -> tuple[TyperCommand, list[str]]:
    """The command behind the first word, or the first two, and its arguments; KeyError if there is none."""
    command, rest = PROGRAM.commands[words[0]], words[1:]
    if isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        command, rest = command.commands[rest[0]], rest[1:]
    return cast("TyperCommand", command), rest


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_shown_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in shown_commands(page):
        if words[:2] == ["files", "put"]:
            Path(words[2]).touch()  # a file to be sent must be there
        command, rest = resolved(words)
        command.make_context(words[0], rest)  # raises for an option or argument that is wrong


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_mentioned_commands_and_options_exist(page: Path) -> None:
    """In the running text: `cti-mqtt run -c FILE`."""
    for text in re.findall(r"`(?:[\w./]*/)?cti-mqtt ([^`\n]*)`", prose(page)):
        command, words = resolved(text.split())
        options = {name for each in command.params for name in [*each.opts, *each.secondary_opts]}
        used = {word for word in words if word.startswith("-")}
        assert used <= options | {"--help", "-h"}, text


def test_make_targets_that_are_shown_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


def test_readme_shows_every_subcommand() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in PROGRAM.commands if f"`cti-mqtt {name}`" not in readme} == set()


def test_readme_shows_every_subcommand_of_files() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = cast("TyperGroup", PROGRAM.commands["files"])
    assert {name for name in files.commands if f"cti-mqtt files {name} " not in readme} == set()


def test_ci_calls_what_the_readme_tells_developers() -> None:
    development = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Development")[2]
    shown = next(iter(re.findall(r"```console\n(.*?)```", development, re.DOTALL))).splitlines()
    assert shown == ["make test", "make check"]
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    calls = re.findall(r"^(make \w+)", script, re.MULTILINE)
    assert calls == shown
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


# --- YAML and JSON ---


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_shown_configuration_loads(page: Path, tmp_path: Path) -> None:
    for block in fenced(page, "yaml"):
        path = tmp_path / "config.yaml"
        path.write_text(block)
        config.load(path, CREDENTIALS)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_shown_json_is_json(page: Path) -> None:
    for block in fenced(page, "json"):
        json.loads(block)


# --- docs/topics.md and docs/configuration.md against the code ---

TOPICS = (ROOT / "docs/topics.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
BRIDGE_SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "cti_mqtt/bridge").rglob("*.py"))


def test_the_shown_reading_has_the_fields_of_a_reading() -> None:
    shown = json.loads(next(fenced(ROOT / "docs/topics.md", "json")))
    record, _ = RECORD.unpack_from(bytes(RECORD.min_size), 0)
    (text,) = Fragments()("arbin1", [Reading(1, record, Quality.GOOD, "", 1)])
    assert list(shown) == ["ts", "boot", "seq", *json.loads(text)]


def test_every_reason_for_a_refusal_is_told() -> None:
    reasons = set(re.findall(r'Refusal\(\s*"(\w+)"', BRIDGE_SOURCE)) | {"superseded"}
    assert len(reasons) > 10
    assert {reason for reason in reasons if f"`{reason}`" not in TOPICS} == set()


def test_every_field_of_a_command_is_told() -> None:
    fields = {name for order in ORDERS.values() for name in order.model_fields}
    assert {name for name in fields if f"`{name}`" not in TOPICS} == set()


def test_every_event_type_is_told() -> None:
    types = set(re.findall(r'Transition\(\s*"(\w+)"', BRIDGE_SOURCE))
    types |= set(re.findall(r'(?:_?say|_tell|Happening)\(\s*(?:[\w.]+\(?[^"\n]*,\s*)?"(\w+)"', BRIDGE_SOURCE))
    assert {"test_started", "broker_connected", "control_refused"} <= types
    assert {name for name in types if f"`{name}`" not in TOPICS} == set()


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and those of its sections."""
    yield model
    waiting: list[Any] = [field.annotation for field in model.model_fields.values()]
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield from models(each)
        else:
            waiting += get_args(each)


def test_every_verb_is_told() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = (ROOT / "examples/config.yaml").read_text(encoding="utf-8")
    assert set(ORDERS) == set(config.VERBS)
    for verb in ORDERS:
        assert f"**`{verb}`**" in TOPICS
        assert f"`{verb}`" in CONFIGURATION
        assert f"| `{verb}` |" in readme
        assert re.search(rf"verbs: .*\b{verb}\b", example)


def test_every_error_is_told() -> None:
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    names = {name for name, each in vars(errors).items() if isinstance(each, type)}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_key_of_the_configuration_is_told() -> None:
    keys = {name for model in models(config.Config) for name in model.model_fields}
    assert len(keys) > 30
    assert {key for key in keys if f"`{key}`" not in CONFIGURATION} == set()


# --- habits ---


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_no_paths_of_somebodys_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(?:home|root|Users|work|tmp|mnt|srv)/", text)
    assert not re.search(r"\b[A-Z]:\\", text)


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 60


def test_changelog_has_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "[Unreleased]"


def test_pyproject_and_docs_agree_on_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    everything = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=]", requirement)[0] for requirement in everything}
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert {name for name in names if name not in page} == set()
