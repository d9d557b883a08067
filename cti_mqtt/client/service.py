"""The cycler beside its channels: serial number, start and resume data, calibration, a message for its operator."""

from collections.abc import Collection
from datetime import datetime

from cti_mqtt.client.exchange import SingleExchange
from cti_mqtt.client.session import Session
from cti_mqtt.cti.messages.extended import (
    GetResumeDataFeedback,
    GetResumeDataRequest,
    GetStartDataFeedback,
    GetStartDataRequest,
    ResumeData,
    StartData,
)
from cti_mqtt.cti.messages.service import GetSerialRequest, SendMessageRequest, StartCalibrationRequest
from cti_mqtt.cti.numbering import as_printed
from cti_mqtt.cti.results import CalibrationResult, SendMessageResult


class Service(Session):
    """What one can ask of a cycler as a whole."""

    async def get_serial(self) -> int:
        """The serial number.

        Source: v1.1, "Get serial number".
        """
        return int((await self._connection.ask(SingleExchange(GetSerialRequest()))).serial)

    async def get_start_data(self, channels: Collection[int]) -> dict[int, StartData]:
        """With which test names and steps channels could start, and which meta variables they hold; by channel.

        Source: v1.1, "Get start data".
        """
        request = GetStartDataRequest(tuple(self._wire(channel) for channel in dict.fromkeys(channels)))
        feedback: GetStartDataFeedback = await self._connection.ask(SingleExchange(request))
        return {as_printed(record.channel): record for record in feedback.records}

    async def get_resume_data(self, channels: Collection[int]) -> dict[int, ResumeData]:
        """Where the last tests of channels stood; s, Ah, Wh; by channel.

        Source: v1.1, "Get resume data".
        """
        request = GetResumeDataRequest(tuple(self._wire(channel) for channel in dict.fromkeys(channels)))
        feedback: GetResumeDataFeedback = await self._connection.ask(SingleExchange(request))
        return {as_printed(record.channel): record for record in feedback.records}

    async def start_calibration(self) -> CalibrationResult:
        """Start the automatic calibration of the whole cycler.

        Source: v1.1 and v4.5, "Start automatic calibration"; they differ on what failure is.
        """
        return CalibrationResult((await self._connection.ask(SingleExchange(StartCalibrationRequest()))).result)

    async def send_message(self, text: str, moment: datetime) -> SendMessageResult:
        """Show a text to the person at the console, with its time.

        Raises:
            InvalidRequestError: time and text together are longer than 1023 UTF-16 units.

        Source: v1.1, "Send message to the console": `[date time]<-->[rich text]`.
        """
        request = SendMessageRequest(f"{moment:%Y-%m-%d %H:%M:%S}<-->{text}")
        return SendMessageResult((await self._connection.ask(SingleExchange(request))).result)
