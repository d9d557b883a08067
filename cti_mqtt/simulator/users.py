"""Who may do what at the simulated cycler, and who is there."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class User:
    """Somebody registered in MITS Pro."""

    name: str
    password: str
    may_control: bool = True
    super_user: bool = False

    def __repr__(self) -> str:
        """Without the password."""
        return f"User({self.name!r}, may_control={self.may_control})"


ADMIN = User("admin", "admin", super_user=True)


class ControlPolicy(Enum):
    """Who of the users that may control gets the right when logging in."""

    SHARED = "shared"  # everyone: so a lab can play with two clients
    FIRST = "first"  # the first session, until it closes: what the documents say
    REFUSED = "refused"  # nobody


@dataclass(slots=True, eq=False)
class Session:
    """One connection, as the cycler sees it.

    Attributes:
        number: counts up from 1.
        user: None until a login succeeded.
        allow_control: whether control requests are carried out.
        files: whether it came by the file port, where nothing is controlled.
        dry: its requests are answered, but nothing comes of them.
    """

    number: int
    user: User | None = None
    allow_control: bool = False
    files: bool = False
    dry: bool = False
