"""Meta variables from outside: one at a time, and many at once.

The table of results has no code for a missing right or channel: both are "set failed".
"""

from math import inf
from typing import Any

from cti_mqtt.cti.codes import meta_index
from cti_mqtt.cti.messages.tests import NO_CHANNEL
from cti_mqtt.cti.messages.variables import (
    FLOAT_VALUE,
    MAX_UPDATES,
    META_VARIABLE,
    MetaVariableUpdate,
    SetMetaVariableFeedback,
    SetMetaVariableRequest,
    UpdateMetaVariablesFeedback,
    UpdateMetaVariablesRequest,
)
from cti_mqtt.cti.results import SetMetaVariableResult, UpdateMetaVariablesResult
from cti_mqtt.simulator.cabinet import Cabinet, signed
from cti_mqtt.simulator.channel import finite
from cti_mqtt.simulator.clock import Clock
from cti_mqtt.simulator.users import Session

UPDATE_INTERVAL_S = 0.2  # between two advanced updates; one that comes sooner is refused and does not count


class Values:
    """Writes meta variables of the channels of a cabinet.

    Args:
        cabinet: the channels.
        monotonic: real seconds.

    Attributes:
        handlers: request class -> what answers it.
    """

    def __init__(self, cabinet: Cabinet, monotonic: Clock) -> None:
        self._cabinet = cabinet
        self._monotonic = monotonic
        self._updated_s = -inf
        self.handlers: dict[type[Any], Any] = {
            SetMetaVariableRequest: self._set_meta_variable,
            UpdateMetaVariablesRequest: self._update,
        }

    def _set_meta_variable(self, request: SetMetaVariableRequest, session: Session) -> list[SetMetaVariableFeedback]:
        return [SetMetaVariableFeedback(signed(request.channel), self._set_one(request, session))]

    def _set_one(self, request: SetMetaVariableRequest, session: Session) -> SetMetaVariableResult:
        ours = (request.mv_type, request.value_type) == (META_VARIABLE, FLOAT_VALUE)
        if not (session.allow_control and ours and self._cabinet.exists(request.channel)):
            return SetMetaVariableResult.SET_FAILED
        index = meta_index(request.meta_code)
        if index is None:
            return SetMetaVariableResult.META_CODE_DOES_NOT_EXIST
        return self._cabinet.channel(request.channel).set_meta_variable(index, request.value)

    # --- many at once ------------------------------------------------------------------------------------------------

    def _update(self, request: UpdateMetaVariablesRequest, session: Session) -> list[UpdateMetaVariablesFeedback]:
        return self.update(request, session, per_channel=False)

    def update(
        self, request: UpdateMetaVariablesRequest, session: Session, *, per_channel: bool
    ) -> list[UpdateMetaVariablesFeedback]:
        """Carry out an advanced update.

        Answered once a channel, a channel's values are taken together or not at all; answered once, the whole packet
        is, and the feedback names the first channel, or the one that was at fault.
        """
        entries = request.updates.entries
        channels = dict.fromkeys(entry.channel for entry in entries)
        refusal = self._refusal(entries, session)
        if refusal is not None:
            named = list(channels) if per_channel and channels else [next(iter(channels), NO_CHANNEL)]
            return [UpdateMetaVariablesFeedback(channel, refusal) for channel in named]
        self._updated_s = self._monotonic()
        if not per_channel:
            return [self._write(entries)]
        groups = ([entry for entry in entries if entry.channel == channel] for channel in channels)
        return [self._write(group) for group in groups]

    def _refusal(self, entries: tuple[MetaVariableUpdate, ...], session: Session) -> UpdateMetaVariablesResult | None:
        """Why no value is even looked at."""
        if not (session.allow_control and 0 < len(entries) <= MAX_UPDATES):
            return UpdateMetaVariablesResult.SET_FAILED
        if self._monotonic() - self._updated_s < UPDATE_INTERVAL_S:
            return UpdateMetaVariablesResult.UPDATED_WITHIN_200_MS
        return None

    def _write(self, entries: tuple[MetaVariableUpdate, ...] | list[MetaVariableUpdate]) -> UpdateMetaVariablesFeedback:
        """All of these values, or none."""
        for entry in entries:
            result = self._check(entry)
            if result is not UpdateMetaVariablesResult.OK:
                return UpdateMetaVariablesFeedback(entry.channel, result)
        for entry in entries:
            self._cabinet.channel(entry.channel).set_meta_variable(meta_index(entry.meta_code) or 0, entry.value)
        return UpdateMetaVariablesFeedback(entries[0].channel, UpdateMetaVariablesResult.OK)

    def _check(self, entry: MetaVariableUpdate) -> UpdateMetaVariablesResult:
        if not self._cabinet.exists(entry.channel) or finite(entry.value) != entry.value:
            return UpdateMetaVariablesResult.SET_FAILED
        if meta_index(entry.meta_code) is None:
            return UpdateMetaVariablesResult.META_CODE_DOES_NOT_EXIST
        if not self._cabinet.channel(entry.channel).active:
            return UpdateMetaVariablesResult.NOT_RUNNING
        return UpdateMetaVariablesResult.OK
