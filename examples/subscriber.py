"""Print a line for each reading. Needs paho-mqtt and nothing else; works with every broker.

Where the broker asks for a user, set MQTT_USERNAME and MQTT_PASSWORD in the environment.
Try it beside `cti-mqtt demo`::

    python subscriber.py --host 127.0.0.1 --port 1883
"""

import argparse
import json
import os
import sys
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode


def lines(topic: str, payload: bytes | bytearray) -> list[str]:
    """What one message of `readings` says, a line a channel."""
    body = json.loads(payload)
    cycler = topic.split("/")[-2]
    return [f"{body['ts']}  {cycler}  {_line(reading)}" for reading in body["channels"]]


def _line(reading: dict[str, Any]) -> str:
    return (
        f"channel {reading['channel']:>3}  {reading['status']:<12}  {_number(reading['voltage_v']):>9} V  "
        f"{_number(reading['current_a']):>9} A  {reading['quality']}  {reading['test_name']}"
    ).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main() -> int:
    """Subscribe and print until Ctrl-C; the exit status."""
    parser = argparse.ArgumentParser(description="Print a line for each reading.")
    parser.add_argument("--host", default="127.0.0.1", help="the broker (default %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="its port (default %(default)s)")
    parser.add_argument("--base", default="cti", help="the bridge's base topic (default %(default)s)")
    options = parser.parse_args()

    client = Client(CallbackAPIVersion.VERSION2)
    if username := os.environ.get("MQTT_USERNAME"):
        client.username_pw_set(username, os.environ.get("MQTT_PASSWORD"))
    refused = False

    def on_connect(
        client: Client, _userdata: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        nonlocal refused
        if reason.is_failure:
            print(f"the broker refused the connection: {reason}", file=sys.stderr)
            refused = True
            client.disconnect()
        else:  # after a reconnect too
            client.subscribe(f"{options.base}/+/readings", qos=1)

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        print(*lines(message.topic, message.payload), sep="\n", flush=True)

    client.on_connect, client.on_message = on_connect, on_message
    try:
        client.connect(options.host, options.port)
    except OSError as error:
        print(f"cannot connect to {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    try:
        client.loop_forever()
    except KeyboardInterrupt:
        client.disconnect()
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
