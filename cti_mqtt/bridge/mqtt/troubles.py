"""What can go wrong between us and the broker, each with the event that a user sees."""

import asyncio
import logging
from collections.abc import Callable

from cti_mqtt.bridge.mqtt.complaints import Complaints
from cti_mqtt.bridge.mqtt.reasons import Refusal
from cti_mqtt.bridge.mqtt.session import Session
from cti_mqtt.bridge.outbox import Message

log = logging.getLogger(__name__)

FAULT_STANDS_S = 60.0  # so long health tells of a message that the broker did not take
MOVED_STANDS_S = 300.0  # and of a broker that sends us to another one


class Troubles:
    """Logs and tells what went wrong, the same not more than once a minute.

    Args:
        on_fault: called in the event loop with the type of an event and its message; never from within another call.
    """

    def __init__(self, on_fault: Callable[[str, str], None]) -> None:
        self._on_fault = on_fault
        self._complaints = Complaints(self._tell_soon)

    @property
    def standing(self) -> list[str]:
        """What went wrong a short while ago, for the verdict on health."""
        return self._complaints.standing

    def too_large(self, message: Message, most: int) -> None:
        """A message is larger than the broker takes, and was not sent."""
        text = (
            f"not published: {len(message.payload)} bytes on {message.topic} are more than the broker takes "
            f"({most} with topic and header)"
        )
        self._complaints.say("message_too_large", "", text, stands_s=FAULT_STANDS_S)

    def refused(self, message: Message, refusal: Refusal) -> None:
        """The broker acknowledged a message by refusing it."""
        text = f"the broker refused a message on {message.topic}: {refusal.text}"
        self._complaints.say("publish_refused", refusal.name, text, stands_s=FAULT_STANDS_S)

    def dropped(self, count: int, why: str) -> None:
        """Messages for the broker were given up."""
        text = f"{count} messages for the broker were given up: {why}"
        self._complaints.say("messages_dropped", "", text, count=count, stands_s=FAULT_STANDS_S)

    def unheard(self, topic: str) -> None:
        """A message came before we were ready, and there was no room to keep it."""
        text = f"a message on {topic} was not heard: too many came before the broker let us answer"
        self._complaints.say("commands_dropped", "", text, stands_s=FAULT_STANDS_S)

    def lost(self, session: Session, reason: str, *, news: bool) -> None:
        """A connection ended, or an attempt came to nothing.

        Args:
            session: its end.
            reason: for people.
            news: whether the attempt before did not end in the same way.
        """
        refusal = session.refusal
        if not news:
            return
        if session.taken or (refusal is None and not session.lasted_s):  # told elsewhere, or never begun
            log.warning("MQTT: %s", reason)
            return
        stands_s = MOVED_STANDS_S if refusal and refusal.moved else 0.0
        self._complaints.say(refusal.event if refusal else "broker_lost", reason, reason, stands_s=stands_s)

    def _tell_soon(self, kind: str, text: str) -> None:
        """Not at once: whoever hears it publishes, and we may be in the midst of that."""
        asyncio.get_running_loop().call_soon(self._on_fault, kind, text)
