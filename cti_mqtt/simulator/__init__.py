"""A simulated cycler that behaves: what MITS Pro would answer, with batteries behind it.

State, clock and faults are plain Python; sockets are at the rim only::

    cycler = SimulatedCycler(channels=16, clock=SimulatedClock(speed=100))
    async with SimulatedServer(cycler) as server:
        print(server.port)

Channels are 0-based here, as on the wire; the record shows them 1-based, as printed on the cycler.
"""

from cti_mqtt.simulator.cell import Battery, Cell, CellState
from cti_mqtt.simulator.channel import Channel
from cti_mqtt.simulator.clock import Clock, ManualClock, SimulatedClock
from cti_mqtt.simulator.cycler import MAX_CHANNELS, Identity, SimulatedCycler
from cti_mqtt.simulator.faults import (
    LARGEST_FILE_BYTES,
    NO_FAULTS,
    AnswerStyle,
    ChecksumStyle,
    ChunkFault,
    Document,
    Faults,
    ForcedResult,
    TextStyle,
    UpdateAnswer,
)
from cti_mqtt.simulator.recorder import Recorder
from cti_mqtt.simulator.schedule import BUILT_IN, Schedule
from cti_mqtt.simulator.server import SimulatedServer
from cti_mqtt.simulator.users import ADMIN, ControlPolicy, Session, User

__all__ = [
    "ADMIN",
    "BUILT_IN",
    "LARGEST_FILE_BYTES",
    "MAX_CHANNELS",
    "NO_FAULTS",
    "AnswerStyle",
    "Battery",
    "Cell",
    "CellState",
    "Channel",
    "ChecksumStyle",
    "ChunkFault",
    "Clock",
    "ControlPolicy",
    "Document",
    "Faults",
    "ForcedResult",
    "Identity",
    "ManualClock",
    "Recorder",
    "Schedule",
    "Session",
    "SimulatedClock",
    "SimulatedCycler",
    "SimulatedServer",
    "TextStyle",
    "UpdateAnswer",
    "User",
]
