"""Assigning schedules."""

from collections.abc import Callable, Mapping

from cti_mqtt.bridge.orders import Assign
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.verdict import Verdict, of_code, of_error
from cti_mqtt.cti.codes import META_VARIABLE_COUNT, MITS_7_VERSION
from cti_mqtt.cti.results import StartDataCode
from cti_mqtt.errors import CtiMqttError, NotSentError, OutcomeUnknownError, UnsupportedCommandError


async def assign(station: Station, channel: int, order: Assign, gate: Callable[[], None]) -> Verdict:
    """Assign a schedule to one channel; on MITS 7, with the meta variables that it holds."""
    try:
        values = {**await _held(station, channel, order), **order.values_for(channel)}
        code = await station.cycler.assign(
            channel,
            order.schedule,
            barcode=order.barcode,
            capacity_ah=order.capacity_ah or 0.0,
            meta_variables=[values.get(index, 0.0) for index in range(1, META_VARIABLE_COUNT + 1)],
            gate=gate,
        )
    except CtiMqttError as error:
        return of_error(error)
    return of_code(code, f"{order.schedule} assigned" if code == 0 else "")


async def _held(station: Station, channel: int, order: Assign) -> Mapping[int, float]:
    """The meta variables that an assignment would overwrite, where it would (MITS 7).

    Raises:
        NotSentError: they cannot be read, so the assignment must not be sent.
    """
    if station.info is None or station.info.version != MITS_7_VERSION or len(order.values or ()) == META_VARIABLE_COUNT:
        return {}
    try:
        record = (await station.cycler.get_start_data([channel])).get(channel)
    except (OutcomeUnknownError, UnsupportedCommandError) as error:
        raise NotSentError(
            f"the values that an assignment would overwrite cannot be read, so none was made: {error}"
        ) from error
    if record is None or record.code not in {StartDataCode.OK, StartDataCode.EMPTY_TEST_NAME}:
        why = "no answer for the channel" if record is None else record.code.text
        raise NotSentError(f"the values that an assignment would overwrite cannot be read, so none was made: {why}")
    return dict(enumerate(record.meta_variables, 1))
