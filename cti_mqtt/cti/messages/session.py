"""Login and connect: who is there, and who is served."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Annotated

from cti_mqtt.cti.codes import UserType
from cti_mqtt.cti.fields import U32, Field, char, flag, number, wchar
from cti_mqtt.cti.layout import CountedBytes
from cti_mqtt.cti.results import ConnectResult, LoginResult
from cti_mqtt.errors import InvalidRequestError


def _encode_ip(text: str) -> bytes:
    try:
        return IPv4Address(text).packed
    except ValueError as error:
        raise InvalidRequestError(f"{text!r} is not an IPv4 address") from error


_IPV4 = Field("4s", lambda data: ".".join(map(str, data)), _encode_ip)


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """Who wants in; both texts may fill all their 32 bytes.

    Source: v1.1, "Login".
    """

    user: Annotated[str, char(32, may_fill=True)]
    password: Annotated[str, char(32, may_fill=True)]

    def __repr__(self) -> str:
        """Without the password: this ends up in logs."""
        return f"LoginRequest(user={self.user!r}, password=***)"


@dataclass(frozen=True, slots=True)
class LoginFeedback:
    """What the cycler says of itself and of the user's rights.

    Attributes:
        ip: the cycler's address, as it sees itself.
        version: see `codes.server_version`.
        allow_control: whether this client may control; only one user may at a time.
        channel_count: how many channels the cycler has.

    Source: v1.1, "Login feedback"; captured from serial 207855.
    """

    result: Annotated[LoginResult, number("I", LoginResult)]
    ip: Annotated[str, _IPV4]
    serial: Annotated[str, char(16)]
    note: Annotated[str, char(256)]
    nickname: Annotated[str, wchar(1024)]
    location: Annotated[str, wchar(1024)]
    emergency_contact: Annotated[str, wchar(1024)]
    comments: Annotated[str, wchar(1024)]
    email: Annotated[str, wchar(64)]
    phone: Annotated[str, wchar(16)]
    itac: U32
    version: U32
    allow_control: Annotated[bool, flag("I")]
    channel_count: U32
    user_type: Annotated[UserType, number("I", UserType)]
    picture: Annotated[bytes, CountedBytes()] = b""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Asks for a place at the server; also a ping. The documents contradict each other on what `kick_out` means.

    Source: v1.1, "Connect".
    """

    kick_out: Annotated[int, number("I", reserved=32)] = 0


@dataclass(frozen=True, slots=True)
class ConnectFeedback:
    """Whether there is a place; `kick_out` comes back as it was sent."""

    kick_out: U32
    result: Annotated[ConnectResult, number("I", ConnectResult, reserved=32)]
