"""One lease: who vouches for a channel, until when, and what follows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from cti_mqtt.bridge.clock import stamp
from cti_mqtt.bridge.orders import LeaseTerms, OnExpiry
from cti_mqtt.bridge.store import LeaseRow

UNREADABLE_TTL_S = 1.0  # it has run out; this only has to be one that may be


@dataclass(slots=True)
class Lease:
    """Who vouches for a channel, until when (monotonic), and what follows.

    Attributes:
        holder: the user level of who asked for it; None: whoever knows `lease_id`.
        pending: whether its time has not begun to count, since the start that it was granted to is still under way.
    """

    channel: int
    lease_id: str
    holder: str | None
    terms: LeaseTerms
    granted_at: datetime
    expires_at: datetime
    until_s: float
    pending: bool = False

    @classmethod
    def of_row(cls, row: LeaseRow, now: datetime, now_s: float) -> Self:
        """As it stands on record; one that ran out before has no time left, whatever the time of day says now."""
        terms = LeaseTerms.model_validate({"ttl_s": row.ttl_s, "on_expiry": json.loads(row.on_expiry)})
        expires_at = datetime.fromisoformat(row.expires_at)
        left_s = min(max(0.0, (expires_at - now).total_seconds()), row.ttl_s)
        until_s = now_s + (left_s if row.state == "running" else 0.0)
        granted_at = datetime.fromisoformat(row.granted_at)
        return cls(row.channel, row.lease_id, row.holder, terms, granted_at, expires_at, until_s)

    @classmethod
    def unreadable(cls, row: LeaseRow, now: datetime, now_s: float) -> Self:
        """What stands for one on record that cannot be read: nobody vouches any more, so the channel is stopped."""
        terms = LeaseTerms.model_validate({"ttl_s": UNREADABLE_TTL_S, "on_expiry": "stop"})
        holder = row.holder if isinstance(row.holder, str) else None
        return cls(row.channel, str(row.lease_id), holder, terms, now, now, now_s)

    def row(self, cycler: str, state: str) -> LeaseRow:
        """For the record; `state` is `running` or `expired`."""
        return LeaseRow(
            cycler,
            self.channel,
            self.lease_id,
            self.holder,
            stamp(self.granted_at),
            stamp(self.expires_at),
            self.terms.ttl_s,
            json.dumps(self.on_expiry),
            state,
        )

    @property
    def on_expiry(self) -> object:
        """As it is published."""
        return self.terms.model_dump(mode="json", include={"on_expiry"})["on_expiry"]

    @property
    def body(self) -> Mapping[str, object]:
        """The payload of the topic."""
        return {
            "holder": self.holder,
            "lease_id": self.lease_id,
            "granted_at": stamp(self.granted_at),
            "expires_at": stamp(self.expires_at),
            "on_expiry": self.on_expiry,
        }

    @property
    def words(self) -> str:
        """What follows, as a sentence."""
        match self.terms.on_expiry:
            case OnExpiry():
                values = ", ".join(f"MV_UD{index} = {value:g}" for index, value in self.terms.fallback.items())
                return f"{values} is written"
            case "stop":
                return "the channel is stopped"
        return "an alarm is raised"
