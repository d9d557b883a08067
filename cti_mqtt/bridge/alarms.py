"""What stands raised until it is over: kept across a restart, published as retained topics."""

import json
import logging
from typing import Any

from cti_mqtt.bridge.bus import Alarm, Bus, Happening
from cti_mqtt.bridge.clock import Clock, stamp
from cti_mqtt.bridge.store import AlarmRow, Store

log = logging.getLogger(__name__)

STOP_FAILED = "stop_failed"
LEASE_EXPIRED = "lease_expired"
NAMES = (STOP_FAILED, LEASE_EXPIRED)


class AlarmBoard:
    """The alarms that stand.

    Args:
        bus: where they are published.
        store: where they outlive the bridge.
        clock: stamps.
    """

    def __init__(self, bus: Bus, store: Store, clock: Clock) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock
        self._raised: dict[tuple[str, int, str], dict[str, Any]] = {}
        self._restored = False
        self._to_announce: list[tuple[str, int]] = []

    async def restore(self) -> None:
        """Take up what stood raised when the bridge ended.

        Raises:
            StorageError: that cannot be read.
        """
        for row in await self._store.alarms():
            try:
                self._take_up(row)
            except Exception:  # whatever is in one row must not keep the others from being taken up
                log.exception("an alarm on record cannot be read and is left out: %r", row)
        self._restored = True
        for cycler, channel in self._to_announce:
            self.announce(cycler, channel)

    def _take_up(self, row: AlarmRow) -> None:
        """What stood raised; where its words cannot be read, it stands without them."""
        where = row.cycler, row.channel, row.name
        if where in self._raised:
            return
        body = _body(row.body)
        if body is None:
            log.error("an alarm on record cannot be read, so it is raised anew: %r", row)
            self.raise_(*where, "it stood when the bridge ended; why is on record, but cannot be read")
        else:
            self._raised[where] = body
            self._publish(*where)

    def stands(self, cycler: str, channel: int, name: str) -> bool:
        """Whether an alarm is raised."""
        return (cycler, channel, name) in self._raised

    def standing(self, cycler: str) -> list[tuple[int, str]]:
        """The alarms of a cycler that are raised: the channel and the name."""
        return sorted((channel, alarm) for name, channel, alarm in self._raised if name == cycler)

    def announce(self, cycler: str, channel: int) -> None:
        """Say of each alarm of a channel whether it stands: nothing that an earlier bridge left may look alive.

        Only once that is known: what stood raised must not be taken away for a moment.
        """
        if not self._restored:
            self._to_announce.append((cycler, channel))
            return
        for name in NAMES:
            self._publish(cycler, channel, name)

    def raise_(self, cycler: str, channel: int, name: str, message: str, value: object = None) -> None:
        """Raise an alarm; one that stands keeps its time and gets the new words."""
        ts = stamp(self._clock.now())
        before = self._raised.get((cycler, channel, name))
        body = {
            "name": name,
            "severity": "critical",
            "raised_at": before["raised_at"] if before else ts,
            "value": value,
            "limit": None,
            "message": message,
            "state": "active",
        }
        self._raised[cycler, channel, name] = body
        self._store.put_alarm(AlarmRow(cycler, channel, name, json.dumps(body)))
        self._publish(cycler, channel, name)
        if before is None:
            self._tell("alarm_raised", cycler, channel, f"{name}: {message}")

    def clear(self, cycler: str, channel: int, name: str, why: str) -> None:
        """It is over."""
        if self._raised.pop((cycler, channel, name), None) is None:
            return
        self._store.drop_alarm(cycler, channel, name)
        self._publish(cycler, channel, name)
        self._tell("alarm_cleared", cycler, channel, f"{name}: {why}")

    def _publish(self, cycler: str, channel: int, name: str) -> None:
        self._bus.publish(Alarm(cycler, channel, name, self._raised.get((cycler, channel, name))))

    def _tell(self, kind: str, cycler: str, channel: int, message: str) -> None:
        self._bus.publish(Happening(stamp(self._clock.now()), kind, message, cycler, channel))
        self._store.audit(
            [
                {
                    "ts": stamp(self._clock.now()),
                    "who": "bridge",
                    "what": kind,
                    "cycler": cycler,
                    "channel": channel,
                    "message": message,
                }
            ]
        )


def _body(text: str) -> dict[str, Any] | None:
    """What an alarm says; None where it cannot be read."""
    try:
        body = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return body if isinstance(body, dict) and isinstance(body.get("raised_at"), str) else None
