"""The asyncio client for callers that wait: an event loop in a thread, and a session that is renewed when gone."""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from cti_mqtt.client.cycler import Credentials, Cycler, Endpoint
from cti_mqtt.cti.messages.session import LoginFeedback
from cti_mqtt.errors import ConnectionLostError, FeedbackTimeoutError, NotConnectedError, OutcomeUnknownError

T = TypeVar("T")
Operation = Callable[[Cycler], Awaitable[T]]

# Each of these ends the session it happens in; ChecksumError does not.
_SESSION_ENDED = (NotConnectedError, FeedbackTimeoutError, ConnectionLostError)
CLOSING_S = 5.0  # how long `close` waits for the thread; it needs milliseconds, unless a name look-up hangs

log = logging.getLogger(__name__)


class Link:
    """A session with a cycler, for use from any thread.

    The session is opened, with login, when a call finds none. Its thread is a daemon and ends with `stop`.

    Args:
        endpoint: where the cycler is.
        credentials: who logs in.
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._guard = threading.Lock()  # between posting a call and stopping: none may be posted to a loop that ends
        self._stopped = False
        self._stop = asyncio.Event()
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._cycler: Cycler | None = None
        self._info: LoginFeedback | None = None
        # With a factory the runner does not touch the event loop of the thread that is here now.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._serve, name=f"cti {endpoint.name}", daemon=True)
        self._thread.start()

    # --- from any thread ---

    @property
    def info(self) -> LoginFeedback:
        """What the cycler said at the last login.

        Raises:
            NotConnectedError: there has been none.
        """
        if self._info is None:
            raise NotConnectedError(f"{self._endpoint.name}: never connected")
        return self._info

    def connect(self) -> None:
        """Open the session now, if there is none.

        Raises:
            NotConnectedError, LoginRefusedError: as `Cycler.connect`, here and below.
        """
        self._wait_for(self._session())

    def read(self, operation: Operation[T]) -> T:
        """Ask for something that moves nothing; once more on a fresh session where the first one ends.

        Raises:
            NotConnectedError: closed, or the cycler is not there.
            OutcomeUnknownError: no answer, twice.
        """
        return self._wait_for(self._ask(operation, repeat=True))

    def control(self, operation: Operation[T]) -> T:
        """Ask for something that moves the cycler: what was sent is never sent again.

        Raises:
            NotConnectedError: closed, or the cycler is not there; nothing was sent.
            OutcomeUnknownError: it was sent, and no sound answer came.
        """
        return self._wait_for(self._ask(operation, repeat=False))

    def stop(self) -> None:
        """End session and thread soon; does not wait, so that the garbage collector may call it."""
        with self._guard:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        """End session and thread now. Calls that are under way in other threads end with an error."""
        self.stop()
        self._thread.join(CLOSING_S)

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._guard:
            if self._stopped:
                coroutine.close()
                raise self._closed_error()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._closed_error() from None
        except BaseException:  # Ctrl-C, say: nobody waits for it any more
            future.cancel()
            raise

    def _closed_error(self) -> NotConnectedError:
        return NotConnectedError(f"{self._endpoint.name}: closed on this side")

    # --- in the thread ---

    def _serve(self) -> None:
        with self._runner as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        """The runner cancels every call that is still there after this."""
        await self._stop.wait()
        await self._stack.aclose()
        await asyncio.sleep(0)  # calls whose request was out hear that its outcome is unknown, instead

    async def _session(self) -> Cycler:
        async with self._opening:
            if self._cycler is None:
                await self._stack.aclose()
                self._cycler = await self._stack.enter_async_context(Cycler.connect(self._endpoint, self._credentials))
                self._info = self._cycler.info
            return self._cycler

    async def _ask(self, operation: Operation[T], *, repeat: bool) -> T:
        """Once, and a second time where the session turned out to be gone and `repeat` or nothing sent allows it."""
        for last in (False, True):
            cycler = await self._session()
            try:
                return await operation(cycler)
            except _SESSION_ENDED as error:
                self._forget(cycler)
                if last or (isinstance(error, OutcomeUnknownError) and not repeat):
                    raise
                log.info("%s; connecting anew", error)
        raise AssertionError

    def _forget(self, cycler: Cycler) -> None:
        """The next call opens a new session; unless another thread's call has done so already."""
        if self._cycler is cycler:
            self._cycler = None
