"""Pydantic's complaints in a person's words: one line a mistake, its path first, then what would be right."""

from pydantic import ValidationError

MOST_MISTAKES = 50  # that are told at once; whoever has more has another problem


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
        message = wordings.get(detail["type"], detail["msg"].removeprefix("Value error, "))
        found.setdefault(path, []).append(message)
    # Where a union failed, the branch that got further says more than the one that failed at once.
    told = {
        path: messages for path, messages in found.items() if not any(other.startswith(path + ".") for other in found)
    }
    return [f"{path}: {', or '.join(dict.fromkeys(messages))}".removeprefix(": ") for path, messages in told.items()]


def _is_internal(part: int | str) -> bool:
    """Pydantic names the branch of a union, and `[key]` for a mapping's key: neither stands in the input."""
    return isinstance(part, str) and (part == "[key]" or part.startswith(("tuple[", "list[", "literal[", "function-")))
