"""The synchronous API: for scripts that were written for pycti-arbin, and for new ones.

Constructors, methods and dictionaries are those of pycti-arbin 0.0.13; `docs/migrating.md` lists what differs. Every
method may be called from any thread, also several at once. A session that has ended is opened again, with login, by the
next call; a control request is never sent twice.
"""

import logging
import math
import os
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from cti_mqtt.client.blocking import Link
from cti_mqtt.client.cycler import Cycler, Endpoint
from cti_mqtt.client.dictionaries import Dictionary, login_dictionary, status_dictionary
from cti_mqtt.client.settings import ChannelSettings, CyclerSettings, credentials_from, validated
from cti_mqtt.cti.codes import META_VARIABLE_COUNT, MITS_7_VERSION, Code
from cti_mqtt.cti.messages.channels import AuxOption, ChannelRecord
from cti_mqtt.cti.results import StartDataCode
from cti_mqtt.errors import (
    FeedbackTimeoutError,
    InvalidRequestError,
    OutcomeUnknownError,
    UnsupportedCommandError,
)

_NO_VALUES = (0.0,) * META_VARIABLE_COUNT
_HOLDS_VALUES = frozenset({StartDataCode.OK, StartDataCode.EMPTY_TEST_NAME, StartDataCode.NO_RESUME_TABLE})

log = logging.getLogger(__name__)


class CyclerInterface:
    """A cycler: reads any of its channels.

    Connects and logs in at once. Ends with `close`, with the `with` block, or with the object itself.

    Args:
        config: a dictionary as `client.settings.CyclerSettings` describes it: `ip_address`, `port` and, optionally,
            `timeout_s` (3) and `msg_buffer_size` (no effect).
        env_path: a file with ARBIN_CTI_USERNAME and ARBIN_CTI_PASSWORD; unless given, `.env` in the working directory.
            What it does not hold is taken from the environment, which stays as it is.

    Raises:
        ConfigurationError: the dictionary is wrong, or user or password are set nowhere; it is a ValueError as well.
        NotConnectedError: nobody answers there.
        LoginRefusedError: the cycler said no.
        InvalidRequestError: user or password do not fit into the 32 bytes of their field.
    """

    def __init__(self, config: Mapping[str, Any], env_path: str | os.PathLike[str] | None = None) -> None:
        settings = validated(CyclerSettings, config)
        endpoint = Endpoint(
            name=f"{settings.ip_address}:{settings.port}",
            host=settings.ip_address,
            port=settings.port,
            timeout_s=settings.timeout_s,
            pipelining=False,  # some servers drop a second request; who calls waits anyway
        )
        self._link = Link(endpoint, credentials_from(env_path))
        self._finalizer = weakref.finalize(self, self._link.stop)
        try:
            self._link.connect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the session. Calls that are under way in other threads end with an error, and so does every later one."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get_num_channels(self) -> int:
        """How many channels the cycler announced at the last login."""
        return self._link.info.channel_count

    def get_login_feedback(self) -> Dictionary:
        """What the cycler said at the last login, as a dictionary of its own; see `client.dictionaries`."""
        return login_dictionary(self._link.info)

    def read_channel_status(self, channel: int, *, aux: bool = False) -> Dictionary:
        """The reading of one channel; its key `channel` counts from 0.

        Args:
            channel: from 1.
            aux: whether to ask for auxiliary, BMS and SMB values too; adds the keys `bms` and `smb`.

        Returns:
            the reading; an empty dictionary for a channel that the cycler does not have.

        Raises:
            NotConnectedError, LoginRefusedError: the cycler cannot be reached just now.
            OutcomeUnknownError: it did not answer, nor on a second connection.

        Source: v1.1, "Get channels info".
        """
        options = _options(aux=aux)
        record = None
        if 1 <= channel <= self.get_num_channels():
            record = self._link.read(lambda cycler: cycler.read_channel(channel, options)).get(channel)
        if record is None:
            log.error("The cycler has no channel %s", channel)
            return {}
        return status_dictionary(record, extras=aux)

    def read_all_channels(self, *, aux: bool = False) -> dict[int, Dictionary]:
        """The readings of all channels, by channel from 1; with one request, where the cycler knows how.

        Channels that it leaves out of that answer are asked for one by one.

        Args:
            aux: as in `read_channel_status`.

        Raises:
            NotConnectedError, LoginRefusedError, OutcomeUnknownError: as `read_channel_status`.
        """
        options = _options(aux=aux)

        async def read(cycler: Cycler) -> dict[int, ChannelRecord]:
            records = await cycler.read_channels(options)
            for channel in cycler.channels:
                if channel not in records:
                    records.update(await cycler.read_channel(channel, options))
            return records

        records = self._link.read(read)
        return {channel: status_dictionary(records[channel], extras=aux) for channel in sorted(records)}


class ChannelInterface(CyclerInterface):
    """One channel of a cycler: reads and controls it.

    A method that controls returns True if the cycler said yes, and False if it said no; the log says why. Where its
    answer does not come, it raises OutcomeUnknownError: the request may have been carried out and was not sent again.
    It raises NotConnectedError or LoginRefusedError where nothing was sent.

    Args:
        config: as for `CyclerInterface`, and `channel`; for tests `test_name` and `schedule_name`; for MITS 7
            `capacity_ah`.
        env_path: as for `CyclerInterface`.

    Raises:
        ConfigurationError, NotConnectedError, LoginRefusedError, InvalidRequestError: as `CyclerInterface`.
    """

    def __init__(self, config: Mapping[str, Any], env_path: str | os.PathLike[str] | None = None) -> None:
        self._settings = validated(ChannelSettings, config)
        self._tells_values = True
        super().__init__(config, env_path)

    # pycti-arbin's is a CyclerInterface too, and its method takes no channel: scripts rely on both.
    def read_channel_status(self, *, aux: bool = False) -> Dictionary:  # type: ignore[override]
        """The reading of this channel; otherwise as `CyclerInterface.read_channel_status`."""
        return super().read_channel_status(self._settings.channel, aux=aux)

    def assign_schedule(self) -> bool:
        """Put `schedule_name` on the channel; capacity and meta variables stay as they are.

        Returns:
            whether the cycler said yes; False without a request where there is no `schedule_name`.

        Raises:
            InvalidRequestError: the name is too long; or this is MITS 7, which overwrites the channel's capacity, and
                `capacity_ah` is not configured. Nothing was sent.

        Source: v1.1, "Assign schedule".
        """
        channel, schedule = self._settings.channel, self._settings.schedule_name
        if not schedule:
            log.error("schedule_name is not configured")
            return False
        capacity_ah, values = self._values_to_keep()
        result = self._link.control(
            lambda cycler: cycler.assign(channel, schedule, capacity_ah=capacity_ah, meta_variables=values)
        )
        return self._said_yes(result, f"assign {schedule}")

    def start_test(self) -> bool:
        """Assign `schedule_name`, then start it as `test_name`.

        Returns:
            whether the cycler said yes to both; False without a request where one of the names is missing.

        Raises:
            InvalidRequestError: as `assign_schedule`, also for a test name that is too long.

        Source: v4.5, "Start schedule".
        """
        channel, test_name = self._settings.channel, self._settings.test_name
        if not test_name:
            log.error("test_name is not configured")
            return False
        if not self.assign_schedule():
            return False
        outcome = self._link.control(lambda cycler: cycler.start([channel], test_name))[channel]
        if isinstance(outcome, OutcomeUnknownError):
            raise outcome
        return self._said_yes(outcome, f"start {test_name}")

    def stop_test(self) -> bool:
        """Stop the channel's test; goes ahead of what other threads wait for.

        Returns:
            whether the cycler said yes; to a channel without a test most say no (0x12, "not running").

        Source: v1.1, "Stop".
        """
        result = self._link.control(lambda cycler: cycler.stop(self._settings.channel))
        return self._said_yes(result, "stop")

    def set_meta_variable(self, mv_num: int, mv_value: float) -> bool:
        """Write MV_UD<mv_num> of the running test.

        Args:
            mv_num: 1 to 16.
            mv_value: finite; the wire holds a 32-bit float.

        Raises:
            InvalidRequestError: there is no such variable, or the value is no 32-bit number; nothing was sent.

        Source: v1.1, "Set meta variable".
        """
        if mv_num not in range(1, META_VARIABLE_COUNT + 1):
            raise InvalidRequestError(f"MV_UD{mv_num} does not exist; there are MV_UD1 to MV_UD{META_VARIABLE_COUNT}")
        if not math.isfinite(mv_value):
            raise InvalidRequestError(f"MV_UD{mv_num} cannot be {mv_value}")
        channel = self._settings.channel
        result = self._link.control(lambda cycler: cycler.set_meta_variable(channel, int(mv_num), mv_value))
        return self._said_yes(result, f"set MV_UD{mv_num} to {mv_value}")

    def _said_yes(self, result: Code, what: str) -> bool:
        if result == 0:
            log.info("Channel %d: %s: done", self._settings.channel, what)
            return True
        log.error("Channel %d: the cycler refused to %s: %s (%#04x)", self._settings.channel, what, result.text, result)
        return False

    def _values_to_keep(self) -> tuple[float, tuple[float, ...]]:
        """Capacity and meta variables to assign with, so that nothing is overwritten; they count on MITS 7 only."""
        if self._link.info.version != MITS_7_VERSION:
            return 0.0, _NO_VALUES
        values = self._values_held()
        if values is None:
            log.warning("The cycler does not tell its meta variables: if it is a MITS 7, they become 0 now")
            return self._settings.capacity_ah or 0.0, _NO_VALUES
        if self._settings.capacity_ah is None:
            raise InvalidRequestError("on MITS 7 an assignment overwrites the capacity: configure capacity_ah")
        return self._settings.capacity_ah, values

    def _values_held(self) -> tuple[float, ...] | None:
        """What the channel holds; None from a server that does not know the question.

        ArbinSpoofer is such a one: it says that it is a MITS 7, because its login feedback is full of zeros.
        """
        channel = self._settings.channel
        if not self._tells_values:
            return None
        try:
            data = self._link.read(lambda cycler: cycler.get_start_data([channel])).get(channel)
        except (UnsupportedCommandError, FeedbackTimeoutError):
            self._tells_values = False
            return None
        if data is None or data.code not in _HOLDS_VALUES:
            raise InvalidRequestError(f"the cycler does not tell the meta variables that channel {channel} holds")
        return data.meta_variables


def _options(*, aux: bool) -> AuxOption:
    return AuxOption.ALL if aux else AuxOption.NONE
