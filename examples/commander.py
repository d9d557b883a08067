"""Start a test on a channel, wait for the result and print it. Needs paho-mqtt and nothing else.

The exit status says how it ended: 0 succeeded, 3 refused, 4 failed, 5 unknown, 6 no answer, 1 no broker.
Where the broker asks for a user, set MQTT_USERNAME and MQTT_PASSWORD in the environment.

Try it beside `cti-mqtt demo`::

    python commander.py arbin1 1 my-first-test --schedule CCCV.sdx
"""

import argparse
import json
import os
import queue
import sys
import uuid
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

STATUS_BY_OUTCOME = {"succeeded": 0, "refused": 3, "failed": 4, "unknown": 5}
NO_BROKER_STATUS, NO_ANSWER_STATUS = 1, 6


def command(test_name: str, schedule: str | None) -> dict[str, Any]:
    """A start that is refused if it comes late, or while a test is under way."""
    body: dict[str, Any] = {
        "id": uuid.uuid4().hex,  # by which its result is found
        "test_name": test_name,
        "ttl_s": 10,
        "expect": {"running": False},
    }
    if schedule:
        body["schedule"] = schedule
    return body


def ask(options: argparse.Namespace, body: dict[str, Any]) -> dict[str, Any] | None:
    """Send the command when the subscription stands; its result, None where none came in time."""
    channel = f"{options.base}/{options.cycler}/channel/{options.channel}"
    results: queue.Queue[dict[str, Any] | ConnectionRefusedError] = queue.Queue()
    client = Client(CallbackAPIVersion.VERSION2)
    if username := os.environ.get("MQTT_USERNAME"):
        client.username_pw_set(username, os.environ.get("MQTT_PASSWORD"))

    def on_connect(
        client: Client, _userdata: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            results.put(ConnectionRefusedError(str(reason)))
            return
        # A cycler that the bridge does not know is answered on the bridge's own topic.
        client.subscribe([(f"{channel}/result", 1), (f"{options.base}/bridge/result", 1)])

    sent = False

    def on_subscribe(client: Client, *_: object) -> None:
        nonlocal sent
        if not sent:  # not again after a reconnect
            sent = True
            client.publish(f"{channel}/command/start", json.dumps(body), qos=1)  # never retained

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        result = json.loads(message.payload)
        if result.get("id") == body["id"]:
            results.put(result)

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect(options.host, options.port)
    client.loop_start()
    try:
        found = results.get(timeout=options.timeout)
    except queue.Empty:
        return None
    finally:
        client.disconnect()
        client.loop_stop()
    if isinstance(found, ConnectionRefusedError):
        raise found
    return found


def main() -> int:
    """Start a test; the exit status."""
    parser = argparse.ArgumentParser(description="Start a test on a channel and wait for the result.")
    parser.add_argument("cycler", help="its id in the bridge's configuration, such as arbin1")
    parser.add_argument("channel", type=int, help="from 1, as printed on the cycler")
    parser.add_argument("test_name")
    parser.add_argument("--schedule", help="assign this schedule first, such as CCCV.sdx")
    parser.add_argument("--host", default="127.0.0.1", help="the broker (default %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="its port (default %(default)s)")
    parser.add_argument("--base", default="cti", help="the bridge's base topic (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait (default %(default)g)")
    options = parser.parse_args()
    try:
        result = ask(options, command(options.test_name, options.schedule))
    except OSError as error:
        print(f"cannot connect to {options.host}:{options.port}: {error}", file=sys.stderr)
        return NO_BROKER_STATUS
    except KeyboardInterrupt:
        print("interrupted; whether the command was carried out is not known here", file=sys.stderr)
        return NO_ANSWER_STATUS
    if result is None:
        print(f"no answer within {options.timeout:g} s", file=sys.stderr)
        return NO_ANSWER_STATUS
    print(json.dumps(result, indent=2))
    print(f"{result['outcome']}: {result['message']}")
    return STATUS_BY_OUTCOME.get(result["outcome"], NO_ANSWER_STATUS)


if __name__ == "__main__":
    sys.exit(main())
