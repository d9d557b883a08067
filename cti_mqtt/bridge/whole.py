"""Commands about the cycler as a whole: a message for its operator, the list of schedules."""

from collections.abc import Callable

from cti_mqtt.bridge.orders import ShowMessage
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.verdict import Outcome, Verdict, of_error
from cti_mqtt.cti.results import SendMessageResult
from cti_mqtt.errors import CtiMqttError


async def show_message(station: Station, order: ShowMessage, gate: Callable[[], None]) -> Verdict:
    """Show a text at the console."""
    try:
        gate()
        result = await station.cycler.send_message(order.text, station.local_time())
    except CtiMqttError as error:
        return of_error(error)
    if result is SendMessageResult.SHOWN:
        return Verdict(Outcome.SUCCEEDED, 0, "ok", "the message is shown at the console")
    return Verdict(Outcome.FAILED, int(result), result.reason, f"the cycler answered: {result.text}")


async def list_schedules(station: Station) -> Verdict:
    """Publish anew which schedule files there are."""
    try:
        names = await station.publish_schedules()
    except CtiMqttError as error:
        return of_error(error)
    return Verdict(Outcome.SUCCEEDED, None, "ok", f"{len(names)} schedules")
