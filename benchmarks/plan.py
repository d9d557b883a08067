"""What is measured, how often and how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the program.

    Attributes:
        mosquitto: the broker's program.
        rounds: of each side of a comparison, in turn.
        seconds: per round and side.
        channels: of the one cycler of the pipeline, one measurement each.
        cyclers: how many cyclers, one measurement each.
        channels_each: how many channels these have.
        scale_s: how long each of these measurements is.
        warm_up: commands of each kind before they count.
        output: what the bridge publishes there; see `scale.OUTPUTS`.
    """

    mosquitto: str = "mosquitto"
    rounds: int = 5
    seconds: float = 1.0
    channels: tuple[int, ...] = (16, 128)
    cyclers: tuple[int, ...] = (1, 8, 64)
    channels_each: int = 128
    scale_s: float = 30.0
    warm_up: int = 50
    output: str = "readings"


QUICK = Plan(rounds=1, seconds=0.1, channels=(4,), cyclers=(1, 2), channels_each=4, scale_s=2.0, warm_up=3)
