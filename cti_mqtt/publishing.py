"""The section `publish` of the configuration: which topics there are, and which readings are worth a message."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from cti_mqtt.cti.messages.channels import AuxKind
from cti_mqtt.section import Model

DEFAULT_HEARTBEAT_S = 60.0  # where there are dead bands and nothing is said of it
LONGEST_HEARTBEAT_S = 86400.0  # whoever wants to hear less than that wants no `state`

Band = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _refuse(_: object) -> Any:
    possible = ", ".join(DeadBands.model_fields)
    raise ValueError(f"has no dead band; those that can have one: {possible}")


class DeadBands(Model):
    """How far a number may move from what was last published without being published again; 0: not at all.

    The names are those of a reading in JSON. `aux` has one band a kind, for values and their changes per second; `bms`
    and `smb` have one for all numbers.
    """

    # As strict as every other section, but it says what is possible.
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_refuse)]]

    test_time_s: Band = 0.0
    step_time_s: Band = 0.0
    voltage_v: Band = 0.0
    current_a: Band = 0.0
    power_w: Band = 0.0
    charge_capacity_ah: Band = 0.0
    discharge_capacity_ah: Band = 0.0
    charge_energy_wh: Band = 0.0
    discharge_energy_wh: Band = 0.0
    internal_resistance_ohm: Band = 0.0
    dvdt_v_per_s: Band = 0.0
    acr_ohm: Band = 0.0
    aci_ohm: Band = 0.0
    aci_phase_deg: Band = 0.0
    aux: Mapping[AuxKind, Band] = Field(default_factory=dict)
    bms: Band = 0.0
    smb: Band = 0.0


class Publish(Model):
    """Which topics are published; with `dead_bands` or `heartbeat_s`, `state` only has what is new."""

    state: bool = True
    state_qos: Literal[0, 1] = 0
    values: Literal[False] = False
    readings: bool = True
    max_bytes: Annotated[int, Field(ge=1024)] | None = None
    dead_bands: DeadBands | None = None
    heartbeat_s: Annotated[float, Field(gt=0, le=LONGEST_HEARTBEAT_S, allow_inf_nan=False)] | None = None

    @property
    def longest_silence_s(self) -> float | None:
        """So old what was last published of a channel may get; None: every reading is published."""
        if self.dead_bands is None and self.heartbeat_s is None:
            return None
        return self.heartbeat_s or DEFAULT_HEARTBEAT_S
