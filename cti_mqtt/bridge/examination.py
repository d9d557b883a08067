"""What can be said of a command before anything is put on record: who, where, what, and how old."""

from collections.abc import Mapping
from dataclasses import dataclass

from cti_mqtt.bridge import checks
from cti_mqtt.bridge.age import Deadline
from cti_mqtt.bridge.answers import Command
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.desk import Desk
from cti_mqtt.bridge.order_parsing import MalformedError, digest, parse_order, parse_stop, parse_stop_all, parse_value
from cti_mqtt.bridge.orders import CYCLER_VERBS, Order, Release, Replay, SetMv, Start, Stop
from cti_mqtt.bridge.overruling import Snapshot
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.topics import CommandTopic


@dataclass(frozen=True, slots=True)
class Plan:
    """A command that may be carried out as far as can be said without looking at the moment.

    Attributes:
        channels: where; empty for a command about the cycler as a whole.
        refused: why some of the channels of a command to the cycler are left out.
        overruled: how things stood when it was heard, and so what came since.
    """

    desk: Desk
    order: Order
    deadline: Deadline
    channels: tuple[int, ...]
    refused: Mapping[int, Refusal]
    overruled: Snapshot

    @property
    def lease_id(self) -> str | None:
        """Which lease its sender says he holds."""
        order = self.order
        if isinstance(order, Release):
            return order.lease_id
        if isinstance(order, Start | SetMv):
            return order.lease_id or (order.lease.lease_id if order.lease else None)
        return None

    @property
    def is_stop(self) -> bool:
        """A stop skips whatever could hold it up."""
        return isinstance(self.order, Stop)


def examine(command: Command, desk: Desk) -> Plan:
    """Every check that needs neither the record nor the moment, in the contract's order.

    Raises:
        Refusal: the first that objects.
    """
    topic, station = command.topic, desk.station
    control = station.settings.control
    checks.check_known(station, topic.verb)
    channel = None
    if topic.channel_text is not None:
        channel = checks.check_channel(topic.channel, topic.channel_text, station)
    check_sender(topic, station)
    order = parse(command)
    command.dry_run = order.dry_run or (control.mode == "shadow" and not isinstance(order, Replay))
    checks.check_permitted_steps(order, control)
    checks.check_fits(order)
    checks.check_server_needs(order, station)
    channels, left_out = ((channel,), {}) if channel is not None else _channels(order, topic, station)
    deadline = Deadline(order, command.received_at, command.began, command.incoming.expiry_s, control.max_age_s)
    if topic.verb != "stop":
        _check_age(deadline, command.began, channels, left_out, alone=topic.channel_text is not None)
    where = tuple(n for n in channels if n not in left_out)
    snapshot = desk.overruler.snapshot(where, leased=isinstance(order, Start | SetMv))
    return Plan(desk, order, deadline, where, left_out, snapshot)


def check_sender(topic: CommandTopic, station: Station) -> None:
    """Whether this verb, this user and this channel are permitted, as far as the topic says.

    Raises:
        Refusal: one of them is not.
    """
    control = station.settings.control
    checks.check_verb_and_user(topic, control)
    if topic.channel is not None:
        checks.check_channel_allowed(topic.channel, control)


def body_digest(command: Command) -> str | None:
    """What the payload asks for, as a hash; None where it is no JSON, so that it cannot have been accepted before."""
    try:
        return digest(command.incoming.payload)
    except MalformedError:
        return None


def parse(command: Command) -> Order:
    """The order behind a payload.

    Raises:
        Refusal: it is malformed.
    """
    topic, payload = command.topic, command.incoming.payload
    try:
        match topic:
            case CommandTopic(verb="stop", channel_text=None):
                order = parse_stop_all(payload)
            case CommandTopic(verb="stop"):
                order = parse_stop(payload)
            case CommandTopic(variable=int(variable)):
                order = parse_value(variable, payload)
            case _:
                order = parse_order(topic.verb, payload, to_cycler=topic.channel_text is None)
    except MalformedError as error:
        raise Refusal("malformed", str(error)) from error
    return order


def _channels(order: Order, topic: CommandTopic, station: Station) -> tuple[tuple[int, ...], dict[int, Refusal]]:
    """Which channels a command to the cycler means, and why some of them are left out."""
    if topic.verb in CYCLER_VERBS:
        return (), {}
    control = station.settings.control
    if order.channels == "all":
        wanted = tuple(channel for channel in station.cycler_channels if control.allows_channel(channel))
    else:
        wanted = tuple(order.channels or ())
    if strangers := _strangers(order, station):
        raise Refusal("malformed", f"per_channel: {station.name} has no channel {', '.join(strangers)}")
    if not wanted:
        raise Refusal("not_allowed", "control.channels permits no channel of this cycler")
    left_out = {}
    for channel in wanted:
        try:
            checks.check_channel(channel, str(channel), station)
            checks.check_channel_allowed(channel, control)
        except Refusal as refusal:
            left_out[channel] = refusal
    return wanted, left_out


def _strangers(order: Order, station: Station) -> list[str]:
    """Channels that have values of their own and do not exist."""
    if order.channels != "all" or not isinstance(order, SetMv):
        return []
    channels = set(map(str, station.cycler_channels))
    return [key for key in order.per_channel or {} if key not in channels]


def _check_age(
    deadline: Deadline, now_s: float, channels: tuple[int, ...], left_out: dict[int, Refusal], *, alone: bool
) -> None:
    """Raises Refusal; of a command over many channels, each of them is refused."""
    try:
        checks.check_age(deadline, now_s)
    except Refusal as refusal:
        if alone or not channels:
            raise
        for channel in channels:
            left_out.setdefault(channel, refusal)
