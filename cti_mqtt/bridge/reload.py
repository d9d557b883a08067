"""What a changed configuration means for a bridge that runs: what can be applied, what needs a restart; pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cti_mqtt import config

APPLIED_TO_A_CYCLER = frozenset({"poll_interval_s", "aux", "control"})  # the rest is its session's
LONGEST_TEXT = 4000  # characters of an event; the log has all of it
_ADDRESS = ("host", "port", "username")  # which machine that is, and who we are there
_NO_MEMORY = "control needs data_dir, which needs a restart"
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs; `before` and `after` are None where it is not there."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class CyclerChange:
    """What can be applied to a cycler that runs.

    Attributes:
        settings: what it has from now on; where something needs a restart, as it runs.
        changes: what of it is new.
    """

    name: str
    settings: config.Cycler
    changes: tuple[Change, ...]

    @property
    def control_changes(self) -> tuple[Change, ...]:
        """Those that say what may be commanded."""
        return tuple(change for change in self.changes if change.path.startswith(f"cyclers.{self.name}.control"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload is to do.

    Attributes:
        changed: cyclers that get other settings.
        added: cyclers that are new.
        removed: cyclers that are gone.
        restart: the paths of what needs a restart, some with the reason behind them; nothing here says a value.
    """

    changed: tuple[CyclerChange, ...] = ()
    added: Mapping[str, config.Cycler] | None = None
    removed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a reload did.

    Attributes:
        applied: in words.
        held: what was not done, and why not.
        restart: as in the plan.
    """

    applied: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{words}: {'; '.join(entries)}"
            for words, entries in (
                ("applied", self.applied),
                ("not applied yet, it is tried again by itself", self.held),
                ("needs a restart", self.restart),
            )
            if entries
        ]
        return ". ".join(parts) or "nothing differs"


def compare(running: config.Config, wanted: config.Config) -> Plan:
    """What differs, and what of it can be applied while the bridge runs.

    Args:
        running: what the bridge runs with.
        wanted: what the file says now; valid as a whole.
    """
    restart = [
        change.path
        for name in type(running).model_fields
        if name != "cyclers"
        for change in _differences(name, getattr(running, name), getattr(wanted, name))
    ]
    changed, added = [], {}
    for name, cycler in wanted.cyclers.items():
        if name not in running.cyclers:
            if cycler.control.enabled and running.data_dir is None:
                restart.append(f"cyclers.{name} ({_NO_MEMORY})")
            else:
                added[name] = cycler
            continue
        settings, refused = _applicable(name, running.cyclers[name], cycler, has_memory=running.data_dir is not None)
        restart += refused
        if changes := tuple(_differences(f"cyclers.{name}", running.cyclers[name], settings)):
            changed.append(CyclerChange(name, settings, changes))
    removed = tuple(name for name in running.cyclers if name not in wanted.cyclers)
    return Plan(tuple(changed), added, removed, tuple(restart))


def with_cyclers(running: config.Config, cyclers: Mapping[str, config.Cycler]) -> config.Config:
    """What the bridge runs with after a reload; everything beside the cyclers needs a restart."""
    return running.model_copy(update={"cyclers": dict(cyclers)})


def switches_off(before: config.Control, after: config.Control) -> bool:
    """Whether nothing may be sent any more, where something may be sent now."""
    return may_send(before) and not may_send(after)


def may_send(control: config.Control) -> bool:
    """Whether anything may be sent to a cycler at all."""
    return control.enabled and control.mode == "on"


def for_farewell(control: config.Control, *, stops: bool) -> config.Control:
    """What still counts for a cycler that is about to go: nothing new is taken any more, stops perhaps."""
    verbs: tuple[config.Verb, ...] = ("stop",) if stops and control.allows_verb("stop") else ()
    return control.model_copy(update={"verbs": verbs})


def same_address(one: config.Cycler, other: config.Cycler) -> bool:
    """Whether two cyclers are the same machine, as far as the configuration tells."""
    return config.address(one) == config.address(other)


def differences(path: str, before: Any, after: Any) -> tuple[Change, ...]:
    """Every value that differs, with its path in the file."""
    return tuple(_differences(path, before, after))


def shortened(text: str) -> str:
    """A report as an event holds it."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} … (all of it is in the log)"


def _applicable(
    name: str, running: config.Cycler, wanted: config.Cycler, *, has_memory: bool
) -> tuple[config.Cycler, list[str]]:
    """The settings of a cycler that can count from now on, and the paths of what needs a restart."""
    base = f"cyclers.{name}"
    restart = [
        change.path
        for field in type(running).model_fields
        if field not in APPLIED_TO_A_CYCLER
        for change in _differences(f"{base}.{field}", getattr(running, field), getattr(wanted, field))
    ]
    control, refused = _applicable_control(f"{base}.control", running, wanted, has_memory=has_memory)
    settings = running.model_copy(
        update={"poll_interval_s": wanted.poll_interval_s, "aux": wanted.aux, "control": control}
    )
    return settings, restart + refused


def _applicable_control(
    path: str, running: config.Cycler, wanted: config.Cycler, *, has_memory: bool
) -> tuple[config.Control, list[str]]:
    """The control that counts from now on: that which runs or that which is wanted, never something of both.

    What is permitted on another machine is not permitted on this one. A dead man's variable is in the schedules that
    run, and what may be written depends on which one it is.
    """
    before, after = running.control, wanted.control
    if not any(_differences(path, before, after)):
        return before, []
    if any(getattr(running, name) != getattr(wanted, name) for name in _ADDRESS):
        return before, [f"{path} (belongs to the new address)"]
    if after.enabled and not has_memory:
        return before, [f"{path} ({_NO_MEMORY})"]
    if after.deadman_mv == before.deadman_mv:
        return after, []
    more = any(_differences(path, before, after.model_copy(update={"deadman_mv": before.deadman_mv})))
    return before, [f"{path}.deadman_mv", *([f"{path} (belongs to the new deadman_mv)"] if more else [])]


# --- what differs ---


def _differences(path: str, before: Any, after: Any) -> Iterator[Change]:
    """Every value that differs, with its path in the file."""
    if before == after:
        return
    inside_before, inside_after = _inside(before), _inside(after)
    if inside_before is None or inside_after is None:
        yield Change(path, _plain(before), _plain(after))
        return
    for key in {**inside_before, **inside_after}:
        yield from _differences(
            f"{path}.{key}", inside_before.get(key, _ABSENT), inside_after.get(key, _ABSENT)
        )  # fmt: skip


def _inside(value: Any) -> Mapping[Any, Any] | None:
    """The parts of a section, None where it is none."""
    if isinstance(value, BaseModel):
        return dict(value)
    return value if isinstance(value, Mapping) else None


def _plain(value: Any) -> Any:
    """For people and JSON; a password stays hidden."""
    if value is _ABSENT or value is None:
        return None
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
