"""Assigning schedules and writing meta variables."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from cti_mqtt.bridge.jobs import Job
from cti_mqtt.bridge.orders import Assign, Order
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_answer, of_code, of_error, refused
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


async def write_values(station: Station, channel: int, order: Order, gate: Callable[[], None]) -> Verdict:
    """Write an order's meta variables on one channel, one after the other; the worst outcome counts."""
    verdicts = []
    for index, value in order.values_for(channel).items():
        try:
            verdict = of_code(await station.cycler.set_meta_variable(channel, index, value, gate=gate))
        except CtiMqttError as error:
            verdict = of_error(error)
        if verdict.outcome is Outcome.SUCCEEDED:
            station.variables.accepted(channel, index, value)
            verdict = replace(verdict, message=f"MV_UD{index} = {value:g}")
        else:
            verdict = replace(verdict, message=f"MV_UD{index}: {verdict.message}")
        verdicts.append(verdict)
    worst = max(verdicts, key=lambda verdict: verdict.outcome)
    return replace(worst, message="; ".join(verdict.message for verdict in verdicts))


async def write_many(station: Station, job: Job) -> dict[int, Verdict]:
    """Write an order's meta variables on several channels, in as few packets as hold them."""
    wanted = {channel: job.order.values_for(channel) for channel in job.channels}
    values = {channel: variables for channel, variables in wanted.items() if variables}
    verdicts = {
        channel: refused("malformed", f"values: none for channel {channel}")
        for channel, variables in wanted.items()
        if not variables
    }
    if sum(map(len, values.values())) == 1:
        (channel,) = values
        return {**verdicts, channel: await write_values(station, channel, job.order, job.gate)}
    if not values:
        return verdicts
    try:
        answers = await station.cycler.update_meta_variables(values, gate=job.gate)
    except CtiMqttError as error:
        return {**verdicts, **dict.fromkeys(values, of_error(error))}
    for channel, variables in values.items():
        verdicts[channel] = _noted(station, channel, variables, of_answer(answers[channel]))
    return verdicts


def _noted(station: Station, channel: int, values: Mapping[int, float], verdict: Verdict) -> Verdict:
    """Remember what the cycler took, and say what it was."""
    if verdict.outcome is not Outcome.SUCCEEDED:
        return verdict
    for index, value in values.items():
        station.variables.accepted(channel, index, value)
    return replace(verdict, message="; ".join(f"MV_UD{index} = {value:g}" for index, value in values.items()))
