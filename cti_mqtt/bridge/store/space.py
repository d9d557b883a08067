"""How much room is left for what must be on record before anything is sent."""

import shutil
from dataclasses import dataclass
from pathlib import Path

LITTLE_BYTES = 200 * 10**6
LITTLE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Space:
    """Of the disk with the data directory, in bytes."""

    free: int
    total: int

    @property
    def objection(self) -> str:
        """Why a person should make room; '' while there is enough."""
        if self.free >= LITTLE_BYTES and self.free >= LITTLE_SHARE * self.total:
            return ""
        share = self.free / self.total if self.total else 0.0
        return f"the disk with data_dir has {self.free / 1e6:.0f} MB free ({share:.1%})"


def space_of(folder: Path) -> Space | None:
    """What a folder's disk says; None where it cannot be asked: then writing fails too, and says why."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return None
    return Space(found.free, found.total)
