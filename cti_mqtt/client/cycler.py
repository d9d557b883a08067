"""What one can ask of a cycler, typed; channels are numbered from 1."""

from cti_mqtt.client.control import Control
from cti_mqtt.client.readings import Readings
from cti_mqtt.client.service import Service
from cti_mqtt.client.session import Credentials, Endpoint

__all__ = ["Credentials", "Cycler", "Endpoint"]


class Cycler(Readings, Control, Service):
    """A cycler that one is logged in to, on its port for readings and control; made by `connect`.

    Every operation raises NotSentError (nothing reached the cycler), OutcomeUnknownError (it was sent, and no sound
    answer came) or UnsupportedCommandError (the cycler does not know the command), besides what it says itself.
    """
