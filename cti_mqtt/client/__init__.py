"""The CTI client: one TCP session, what one can ask of a cycler, and staying connected (asyncio).

Channels are numbered from 1 here, as on the cabinet.
"""

from cti_mqtt.backoff import Backoff
from cti_mqtt.client.cycler import Credentials, Cycler, Endpoint
from cti_mqtt.client.exchange import ChannelOutcome, Gate
from cti_mqtt.client.supervisor import Supervisor

__all__ = ["Backoff", "ChannelOutcome", "Credentials", "Cycler", "Endpoint", "Gate", "Supervisor"]
