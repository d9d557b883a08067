"""What `cti-mqtt send` makes of its words."""

from typing import cast

import typer.main
from typer.core import TyperArgument, TyperGroup

from cti_mqtt import config
from cti_mqtt.cli import app
from cti_mqtt.cli.send import _body


def test_the_help_names_every_verb() -> None:
    send = cast("TyperGroup", typer.main.get_command(app)).commands["send"]
    (verb,) = (each for each in send.params if each.name == "verb")
    told = cast("TyperArgument", verb).help or ""
    assert [word for word in config.VERBS if word not in told.replace(".", "").replace(",", "").split()] == []


def test_a_run_stays_text_whatever_it_looks_like() -> None:
    for boot in ("1234567890123456", "12e4567890123456", "22ee66133d367899"):
        assert _body([f"boot={boot}", "from_seq=10"], None) == {"boot": boot, "from_seq": 10}
