"""Readings on disk until the broker has them, and a while longer for whoever asks for them again."""

from cti_mqtt.bridge.journal.gaps import Gaps
from cti_mqtt.bridge.journal.journal import Journal
from cti_mqtt.bridge.journal.records import Gap, KeptPoll, Lost, Portion, Span

__all__ = ["Gap", "Gaps", "Journal", "KeptPoll", "Lost", "Portion", "Span"]
