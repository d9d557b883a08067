"""Whether a command may be carried out: the checks, in the contract's order. The first that objects refuses."""

from collections import Counter
from collections.abc import Iterable

from cti_mqtt import config
from cti_mqtt.bridge.age import Deadline
from cti_mqtt.bridge.orders import CYCLER_VERBS, ORDERS, STATE_VERBS, Assign, Expect, Order, Start
from cti_mqtt.bridge.readings import ReadingBook
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.topics import CommandTopic
from cti_mqtt.bridge.transitions import in_test
from cti_mqtt.cti.codes import MITS_7_VERSION
from cti_mqtt.cti.messages.tests import AssignRequest, StartRequest
from cti_mqtt.cti.stream import pack_message
from cti_mqtt.errors import InvalidRequestError


class Refusal(Exception):  # noqa: N818  # not an error: the command's proper end
    """A check objects.

    Attributes:
        reason: in snake case, for programs.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


# --- what can be said before the payload is read ---


def check_addressee(topic: CommandTopic, station: Station | None) -> Station:
    """Unknown cycler, control off, unknown command."""
    if station is None:
        raise Refusal("unknown_cycler", f"there is no cycler {topic.cycler!r}")
    control = station.settings.control
    if not control.enabled:
        raise Refusal("not_allowed", f"control of {station.name} is switched off (cyclers.{station.name}.control)")
    if topic.verb not in ORDERS:
        raise Refusal("unknown_command", f"there is no command {topic.verb!r}; there are {', '.join(ORDERS)}")
    if topic.verb in CYCLER_VERBS and topic.channel_text is not None:
        raise Refusal("unknown_command", f"{topic.verb} is a command to the cycler, not to a channel")
    return station


def check_known(station: Station, verb: str) -> None:
    """Whether the cycler has been reached, so that its channels are known; what is kept on disk needs no cycler."""
    if station.info is None and verb != "replay":
        raise Refusal("not_connected", f"{station.name} has not been reached yet, so its channels are not known")


def check_verb_and_user(topic: CommandTopic, control: config.Control) -> None:
    """Whether this verb is permitted, and to whom."""
    if not control.allows_verb(topic.verb):
        raise Refusal("not_allowed", f"{topic.verb} is not among control.verbs")
    if topic.user is None:
        if control.require_user:
            raise Refusal("not_allowed", "control.require_user: the topic must end in the user's name")
    elif not topic.user or topic.user.removeprefix("-").isdigit():
        raise Refusal("not_allowed", "the user level of the topic must be a name, not empty and not a whole number")


def check_channel(channel: int | None, channel_text: str, station: Station) -> int:
    """Whether there is such a channel, and whether it may be commanded."""
    channels = station.cycler_channels
    if channel is None or channel not in channels:
        raise Refusal(
            "unknown_channel", f"{station.name} has no channel {channel_text!r}; it has 1 to {channels.stop - 1}"
        )
    return channel


def check_channel_allowed(channel: int, control: config.Control) -> None:
    """Whether this channel may be commanded."""
    if not control.allows_channel(channel):
        raise Refusal("not_allowed", f"channel {channel} is not among control.channels")


# --- what the payload must hold besides its form ---


def check_server_needs(order: Order, station: Station) -> None:
    """On MITS 7 an assignment overwrites the channel's capacity, so it must be given."""
    if station.info is None or station.info.version != MITS_7_VERSION or not isinstance(order, Assign | Start):
        return
    if order.schedule is None:
        return
    if order.capacity_ah is None:
        raise Refusal("malformed", "capacity_ah: missing; on MITS 7 an assignment overwrites the channel's capacity")


def check_fits(order: Order) -> None:
    """Whether everything the order will send can be put on the wire: before its first request goes out."""
    try:
        if isinstance(order, Start):
            pack_message(StartRequest(order.test_name, (0,)))
        if isinstance(order, Assign | Start) and order.schedule is not None:
            pack_message(AssignRequest(0, all_channels=False, schedule=order.schedule, barcode=order.barcode))
    except InvalidRequestError as error:
        raise Refusal("malformed", str(error)) from error


def check_permitted_steps(order: Order, control: config.Control) -> None:
    """A start that assigns needs both permissions."""
    if isinstance(order, Start) and order.schedule is not None and not control.allows_verb("assign"):
        raise Refusal("not_allowed", "assign is not among control.verbs, and a start with a schedule assigns first")


# --- what counts just now ---


def check_still_permitted(
    topic: CommandTopic, order: Order, channel: int | None, control: config.Control, *, dry_run: bool
) -> None:
    """What was permitted when it was heard, asked once more: a reload may have come since.

    A command about the cycler as a whole has no channel.
    """
    check_verb_and_user(topic, control)
    check_permitted_steps(order, control)
    if channel is not None:
        check_channel_allowed(channel, control)
    if control.mode == "shadow" and not dry_run:
        raise Refusal("not_allowed", "control.mode is shadow since it was heard")


def check_age(deadline: Deadline, now_s: float) -> None:
    """Not too late, and not from the future."""
    if late := deadline.expired(now_s):
        raise Refusal("expired", late)
    if skew := deadline.skewed():
        raise Refusal("clock_skew", skew)


def check_control_right(station: Station) -> None:
    """Whether the cycler lets this client control."""
    if station.info is not None and not station.info.allow_control:
        raise Refusal(
            "no_control_right", f"{station.name} does not let this user control; another user may be in control"
        )


def check_online(station: Station) -> None:
    """Whether the cycler is there."""
    if not station.online:
        raise Refusal("not_connected", f"{station.name} is not connected just now")


class BusyBoard:
    """Which channels of a cycler have an unfinished command that changes their state, or what is assigned to them."""

    def __init__(self) -> None:
        self._unfinished: Counter[tuple[int, str]] = Counter()

    def begin(self, channels: Iterable[int], verb: str) -> None:
        """A command was admitted."""
        self._unfinished.update((channel, verb) for channel in channels)

    def end(self, channel: int, verb: str) -> None:
        """It has been answered."""
        self._unfinished[channel, verb] -= 1
        if self._unfinished[channel, verb] <= 0:
            del self._unfinished[channel, verb]

    def is_starting(self, channel: int) -> bool:
        """Whether a start or resume of a channel is unfinished."""
        return bool(self._unfinished[channel, "start"] or self._unfinished[channel, "resume"])

    def check(self, station: Station, channel: int, verb: str) -> None:
        """A stop is never busy; an assignment must not come between the stages of a start.

        On MITS 7, where an assignment has to read first, a start must not overtake one.
        """
        rivals = STATE_VERBS if verb in STATE_VERBS else frozenset({"start"} if verb == "assign" else ())
        if verb == "start" and station.info is not None and station.info.version == MITS_7_VERSION:
            rivals |= {"assign"}
        for rival in sorted(rivals):
            if self._unfinished[channel, rival]:
                raise Refusal("busy", f"a {rival} of channel {channel} is not finished")


def check_expectation(expect: Expect, channel: int, book: ReadingBook) -> None:
    """Whether the channel is as the sender believes; the reading must be a good one."""
    reading = book.good(channel)
    if reading is None:
        raise Refusal("expectation", f"there is no good reading of channel {channel} to hold the expectation against")
    record = reading.record
    found = {
        "status": record.status.text,
        "test_name": record.test_name,
        "schedule": record.schedule,
        "step": book.step(channel),
        "running": in_test(record.status),
    }
    wrong = [
        f"{name} is {found[name]!r}, not {wanted!r}"
        for name, wanted in expect
        if wanted is not None and found[name] != wanted
    ]
    if wrong:
        raise Refusal("expectation", "; ".join(wrong))


def check_values(order: Order, channel: int, station: Station, reasons: Iterable[str] = ("rate", "limit")) -> None:
    """Limits and rates of the meta variables."""
    values = order.values_for(channel)
    for reason in reasons:
        for index, value in values.items():
            if objection := station.variables.objection(reason, channel, index, value, fresh=isinstance(order, Start)):
                raise Refusal(reason, objection)
