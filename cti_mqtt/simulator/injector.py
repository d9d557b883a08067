"""The faults of a server that is running: what is wrong, and how often it was."""

from cti_mqtt.simulator.clock import Clock
from cti_mqtt.simulator.faults import ChunkFault, Faults, ForcedResult


class Injector:
    """The faults of a server, and what has to be remembered to apply them.

    Args:
        faults: what is wrong now.
        monotonic: real seconds, for forced results that last a while.
    """

    def __init__(self, faults: Faults, monotonic: Clock) -> None:
        self.faults = faults
        self._monotonic = monotonic
        self._used: dict[ForcedResult, tuple[float, int]] = {}  # since when, how often
        self._struck: dict[str, int] = {}  # how often

    def forced_code(self, command: str) -> int | None:
        """The result code that a request must be answered with; None: no such thing."""
        now_s = self._monotonic()
        for forced in self.faults.results:
            since_s, times = self._used.get(forced, (now_s, 0))
            fresh = forced.duration_s is None or now_s - since_s < forced.duration_s
            if forced.command == command and fresh and (forced.times is None or times < forced.times):
                self._used[forced] = (since_s, times + 1)
                return forced.code
        return None

    def strikes(self, name: str, fault: ChunkFault | None, number: int) -> bool:
        """Whether a fault happens to this chunk, the `number`-th; counts that it did."""
        if fault is None or fault.number != number:
            return False
        times = self._struck.get(name, 0)
        if fault.times is not None and times >= fault.times:
            return False
        self._struck[name] = times + 1
        return True
