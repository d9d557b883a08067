"""Subcommands that are imported when they are asked for."""

from collections import UserDict
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

NAMES = ("run", "demo", "simulate", "check", "watch", "send", "health", "audit", "files")


class _Subcommands(UserDict[str, Any]):
    """Click commands by name; one that is not looked at costs nothing."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(NAMES))

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if command is None:
            command = self[name] = _load(name)
        return command


class LazyGroup(TyperGroup):
    """`cti-mqtt`: somebody who sends a stop does not wait until the simulator and the broker are imported."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Subcommands()


def _load(name: str) -> Any:
    """A subcommand from the module of its name: there is a function of that name, or an `app` with several."""
    module = import_module(f"cti_mqtt.cli.{name}")
    app: typer.Typer | None = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name)(getattr(module, name))
    return typer.main.get_command(app)
