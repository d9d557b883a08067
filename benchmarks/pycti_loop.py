"""What one writes without this project: pycti-arbin in a loop, each reading to MQTT as JSON with paho."""

import argparse
import json
import logging
import os
import time

from plain_paho import plain_client
from pyctiarbin import CyclerInterface

HOST = "127.0.0.1"


def main() -> None:
    """Until killed."""
    parser = argparse.ArgumentParser(description="pycti-arbin and paho in a loop.")
    parser.add_argument("cti_port", type=int)
    parser.add_argument("mqtt_port", type=int)
    parser.add_argument("--qos", type=int, choices=[0, 1], default=0)
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between polls; 0: as fast as it goes")
    options = parser.parse_args()
    os.environ.setdefault("ARBIN_CTI_USERNAME", "admin")
    os.environ.setdefault("ARBIN_CTI_PASSWORD", "admin")
    logging.getLogger("pyctiarbin").setLevel(logging.CRITICAL)  # it complains of each auxiliary, which takes time
    client = plain_client()
    client.connect(HOST, options.mqtt_port)
    client.loop_start()
    cycler = CyclerInterface({"ip_address": HOST, "port": options.cti_port}, "no such file")
    due = time.monotonic()
    while True:
        for channel in range(1, cycler.get_num_channels() + 1):
            reading = cycler.read_channel_status(channel)
            if not reading:
                raise SystemExit(f"no reading of channel {channel}")
            client.publish(f"cti/pycti/channel/{channel}/state", json.dumps(reading), options.qos, retain=True)
        due += options.interval
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
