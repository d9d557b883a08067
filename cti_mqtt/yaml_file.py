"""A YAML file of a person's: whatever is wrong with it is told in words, with its place, and without what stands there.

What stands there may be a password, and these words go to the log and to the broker.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from cti_mqtt.errors import ConfigurationError

MOST_BYTES = 1_000_000
_LONGEST_KEY = 60  # characters of a key that are told
_MOST_BITS = 64  # of a whole number; nothing that is configured comes near
_QUOTED = re.compile(r"'([^']*)'")
_CONTROL = re.compile("[\0\ud800-\udfff]")


def is_sound(text: str) -> bool:
    """Whether a text can be written down as UTF-8 and given to the system: no NUL, no half of a character."""
    return not _CONTROL.search(text)


def read_mapping(path: Path) -> dict[str, Any]:
    """What a YAML file says.

    Raises:
        ConfigurationError: it cannot be read, or is no mapping.
    """
    return parse_mapping(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """What is in the file.

    Raises:
        ConfigurationError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error.strerror}"]) from error
    if len(content) > MOST_BYTES:
        raise ConfigurationError(str(path), [f"is larger than {MOST_BYTES} bytes"])
    return content


def parse_mapping(path: Path, content: bytes) -> dict[str, Any]:
    """What the content of such a file says; `path` is for the words of what is wrong.

    Raises:
        ConfigurationError: it is no mapping.
    """
    try:
        data = yaml.load(content.decode(), _StrictLoader)  # noqa: S506  # a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), [f"is not UTF-8 text: {error.reason}"]) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(str(path), [f"is not valid YAML: {_in_words(error)}"]) from None
    except RecursionError:
        raise ConfigurationError(str(path), ["is not valid YAML: it is nested too deeply"]) from None
    if not isinstance(data, dict):
        raise ConfigurationError(str(path), ["must be a mapping with the keys mqtt, cyclers, publish, …"])
    return data


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key may stand only once, and whose values are all of some use."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # the signature is PyYAML's
        """A mapping, or an error for a key that stands twice."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _error("a key must be a text or a number", key_node)
            if key in seen:
                raise _error(f"the key {str(key)[:_LONGEST_KEY]!r} stands twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # as above
        """What a node means, or an error that says where it stands."""
        try:
            value = super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML passes on whatever comes up
            kind = node.tag.rpartition(":")[2]
            raise _error(f"this cannot be taken for a value of type {kind}; quote it if it is a text", node) from error
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise _error("this number is too large", node)
        if isinstance(value, str) and not is_sound(value):
            raise _error("a text must have no NUL and no halves of surrogate pairs", node)
        return value


def _error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _in_words(error: yaml.YAMLError) -> str:
    """What is wrong and where; not the text around it, and of names in it only those of keys."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
    told = [" ".join(words.split()) for words in (error.context, error.problem) if words]
    problem = ": ".join(told) or "it cannot be understood"
    if not problem.startswith("the key "):
        problem = _QUOTED.sub(_without_names, problem)
    mark = error.problem_mark or error.context_mark
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else problem


def _without_names(quoted: re.Match[str]) -> str:
    """Characters and tokens of the language may be told."""
    text = quoted[1]
    return quoted[0] if len(text) < 2 or text[0] in "\\<" else "'…'"
