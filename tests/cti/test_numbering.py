"""Channels on the wire and on the cabinet."""

import pytest

from cti_mqtt.cti.numbering import as_printed, on_wire


@pytest.mark.parametrize(("wire", "printed"), [(0, 1), (15, 16), (199, 200)])
def test_channels_count_from_0_on_the_wire_and_from_1_on_the_cabinet(wire: int, printed: int) -> None:
    assert as_printed(wire) == printed
    assert on_wire(printed) == wire
