"""The file area and the cycler behind it: what lies in the schedule directory can be assigned, what runs is in use."""

import asyncio

from cti_mqtt.cti.paths import SEPARATOR, file_path
from cti_mqtt.errors import InvalidRequestError
from cti_mqtt.simulator.cycler import SimulatedCycler
from cti_mqtt.simulator.filearea import SCHEDULE_DIRECTORY, FileArea
from cti_mqtt.simulator.schedule import BUILT_IN
from cti_mqtt.simulator.schedulefiles import EXTENSION, schedule_in, text_of


class Files:
    """Keeps a cycler's schedules as its files are.

    The cycler's schedules are written into the schedule directory where they are missing; whatever else lies there can
    be assigned from now on.

    Args:
        area: where the files are.
        cycler: whose they are.

    Raises:
        OSError: the directory cannot be read or written.
    """

    def __init__(self, area: FileArea, cycler: SimulatedCycler) -> None:
        self.area = area
        self._cycler = cycler
        self._known = {**BUILT_IN, **cycler.schedules}
        for name, schedule in list(cycler.schedules.items()):
            if _schedule_name(SCHEDULE_DIRECTORY + SEPARATOR + name):
                area.put_schedule(name, text_of(schedule))
        self._read()

    def _read(self) -> None:
        for name, content in self.area.schedule_files().items():
            own = self._known.get(name)
            same = own is not None and text_of(own) == content
            self._cycler.schedules[name] = own if own and same else schedule_in(content, name, self._known)

    def in_use(self, path: str) -> bool:
        """Whether a channel runs the schedule in this file."""
        name = _schedule_name(path)
        if not name:
            return False
        channels = map(self._cycler.channel, range(self._cycler.channel_count))
        return any(
            channel.active and channel.schedule is not None and channel.schedule.name.casefold() == name.casefold()
            for channel in channels
        )

    async def written(self, path: str) -> None:
        """A file was written: if it is a schedule, it can be assigned."""
        if _schedule_name(path):
            await asyncio.to_thread(self._read)

    def removed(self, path: str) -> None:
        """A file was deleted: if it was a schedule, it cannot be assigned any more."""
        self._cycler.schedules.pop(_schedule_name(path), None)


def _schedule_name(path: str) -> str:
    """The name of the schedule at a path; empty where no schedule can be."""
    try:
        parts = file_path(path).parts
    except InvalidRequestError:
        return ""
    is_schedule = parts[:-1] == (SCHEDULE_DIRECTORY,) and parts[-1].lower().endswith(EXTENSION)
    return parts[-1] if is_schedule else ""
