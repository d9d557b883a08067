"""cti-mqtt: a bridge between Arbin battery cyclers and MQTT.

For scripts there is a synchronous API to one cycler, too::

    from cti_mqtt import CyclerInterface

    with CyclerInterface({"ip_address": "192.0.2.10", "port": 9031}) as cycler:
        print(cycler.read_channel_status(channel=1)["voltage_v"])
"""

import logging
from typing import TYPE_CHECKING

__all__ = ["ChannelInterface", "CyclerInterface", "__version__"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cti_mqtt.client.interface import ChannelInterface, CyclerInterface
else:  # so that a type checker still sees a typing error

    def __getattr__(name: str) -> object:
        """The interfaces, loaded when first asked for: the program needs `__version__` and not them."""
        if name in __all__:
            from cti_mqtt.client import interface  # noqa: PLC0415 - see above

            return getattr(interface, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# What is logged goes where the program that uses this says, and nowhere unless it does.
logging.getLogger(__name__).addHandler(logging.NullHandler())
