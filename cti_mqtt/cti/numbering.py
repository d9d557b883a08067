"""Channels are counted from 0 on the wire and from 1 on the cabinet: the one place that knows both."""


def as_printed(wire_channel: int) -> int:
    """The number that stands on the cabinet, from 1."""
    return wire_channel + 1


def on_wire(printed_channel: int) -> int:
    """The number that goes into a message, from 0."""
    return printed_channel - 1
