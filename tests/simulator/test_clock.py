import pytest

from cti_mqtt.simulator import ManualClock, SimulatedClock


def test_a_simulated_clock_runs_faster_than_its_source() -> None:
    source = ManualClock(1000.0)
    clock = SimulatedClock(100.0, source)
    source.advance(2.5)
    assert clock() == pytest.approx(250.0)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_speed_must_be_positive(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        SimulatedClock(speed)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        ManualClock().advance(-1.0)
