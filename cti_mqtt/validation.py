"""Pydantic's complaints in a person's words: one line a mistake, its path first, then what would be right."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MOST_MISTAKES = 50  # that are told at once; whoever has more has another problem
_NUMBERS = frozenset({"int_type", "int_parsing", "int_from_float", "float_type", "float_parsing"})
_SECTIONS = frozenset({"model_type", "model_attributes_type", "dict_type", "mapping_type"})


def describe(error: ValidationError, unknown_key: str = "unknown key") -> list[str]:
    """One line a mistake.

    Args:
        error: what pydantic found.
        unknown_key: what to say of a key that does not belong there.
    """
    wordings = {"extra_forbidden": unknown_key, "missing": "missing; this key is required"}
    found: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False)[:MOST_MISTAKES]:
        path = ".".join(str(part) for part in detail["loc"] if not _is_internal(part))
        message = wordings.get(detail["type"]) or _in_words(detail)
        found.setdefault(path, []).append(message)
    # Where a union failed, the branch that got further says more than the one that failed at once.
    told = {
        path: messages for path, messages in found.items() if not any(other.startswith(path + ".") for other in found)
    }
    return [f"{path}: {', or '.join(dict.fromkeys(messages))}".removeprefix(": ") for path, messages in told.items()]


def _in_words(detail: ErrorDetails) -> str:
    """What would be right. What stands there is not told: it may be a secret in the wrong place."""
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] in _SECTIONS:
        return "must have keys and values of its own, such as {KEY: VALUE}"
    if detail["type"] not in _NUMBERS:
        return detail["msg"].removeprefix("Value error, ")
    if name.endswith("_s") and not name.endswith("_per_s"):
        return "must be a number of seconds without a unit, such as 3600"
    if name.endswith("_bytes"):
        return "must be a number of bytes without a unit, such as 2000000000"
    return "must be a whole number" if detail["type"].startswith("int") else "must be a number"


def _is_internal(part: int | str) -> bool:
    """Pydantic names the branch of a union, and `[key]` for a mapping's key: neither stands in the input."""
    return isinstance(part, str) and (part == "[key]" or part.startswith(("tuple[", "list[", "literal[", "function-")))
