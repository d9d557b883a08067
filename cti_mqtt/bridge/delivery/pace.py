"""How fast late readings go out: so many polls a second, and few messages that the broker has not acknowledged.

Few, since paho sends a bounded number of messages at a time, in order: live readings and results must find room there.
"""

import asyncio

MOST_IN_FLIGHT = 8  # messages


class Pace:
    """Shared by all that is sent late.

    Args:
        per_s: polls a second.
        most: how many messages may be unacknowledged.
    """

    def __init__(self, per_s: float, most: int = MOST_IN_FLIGHT) -> None:
        self._interval_s = 1.0 / per_s
        self._window = asyncio.Semaphore(most)
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait until the next poll may go."""
        now_s = asyncio.get_running_loop().time()
        due_s = max(now_s, self._next_s)
        self._next_s = due_s + self._interval_s
        await asyncio.sleep(due_s - now_s)

    async def room(self) -> None:
        """Wait until one more message may be on its way; `landed` must follow."""
        await self._window.acquire()

    def landed(self) -> None:
        """A message is settled, or did not go after all."""
        self._window.release()
