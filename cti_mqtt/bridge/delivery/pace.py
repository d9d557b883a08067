"""How fast late readings go out: so many a second, and only so many that the broker has not acknowledged."""

import asyncio

MOST_IN_FLIGHT = 20


class Pace:
    """Shared by all that is sent late.

    Args:
        per_s: polls a second.
        most: how many may be unacknowledged.
    """

    def __init__(self, per_s: float, most: int = MOST_IN_FLIGHT) -> None:
        self._interval_s = 1.0 / per_s
        self._window = asyncio.Semaphore(most)
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait until one more may go; `landed` must follow."""
        await self._window.acquire()
        try:
            now_s = asyncio.get_running_loop().time()
            due_s = max(now_s, self._next_s)
            self._next_s = due_s + self._interval_s
            await asyncio.sleep(due_s - now_s)
        except asyncio.CancelledError:
            self._window.release()
            raise

    def landed(self) -> None:
        """One is settled, or did not go after all."""
        self._window.release()
