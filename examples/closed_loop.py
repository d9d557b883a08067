"""Charge a cell under control from here: each second the current is adapted to its voltage and temperature.

Every write comes with a lease: who dies here is noticed by the bridge, which then takes the current away by itself. So
this program writes only while it sees good readings, and `state` must bring every one: no dead bands in the bridge's
configuration. It needs paho-mqtt and nothing else. The schedule must take its charge current from MV_UD1, as
`ClosedLoop.sdx` of the simulated cycler does; docs/mits-pro.md says how to write one. Where the broker asks for a user,
set MQTT_USERNAME and MQTT_PASSWORD in the environment, and `--user` where its access rules want the name in the topic.

Try it beside `cti-mqtt demo`, and end it in a rough way (`kill -9`) to see the lease run out::

    python closed_loop.py arbin1 1 my-cell --current 1.5
"""

import argparse
import json
import os
import queue
import sys
import threading
import time
import uuid
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

STATUS_BY_OUTCOME = {"succeeded": 0, "refused": 3, "failed": 4, "unknown": 5}
NO_BROKER_STATUS, NO_ANSWER_STATUS = 1, 6
ANSWER_S = 40.0  # a start or stop has its result by then
AT_REST = {"Idle", "Finished", "Unsafe", "Error"}


def current_for(state: dict[str, Any], most_a: float) -> float:
    """The current to charge with: all of it below 4.0 V and 35 degrees, nothing at 4.15 V or 45 degrees."""
    by_voltage = (4.15 - float(state["voltage_v"])) / 0.15
    temperatures = [each["value"] for each in state["aux"].get("temperature", ()) if each["value"] is not None]
    by_temperature = (45.0 - max(temperatures)) / 10.0 if temperatures else 1.0
    return round(most_a * max(0.0, min(1.0, by_voltage, by_temperature)), 3)


class Channel:
    """One channel of a cycler, as the broker shows it; connect before anything is asked.

    Attributes:
        subscribed: set when results and readings are heard.
        lease_id: of the lease that the last result told of.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.subscribed = threading.Event()
        self.lease_id: str | None = None
        self.refused = ""
        self._topic = f"{options.base}/{options.cycler}/channel/{options.channel}"
        self._user = f"/{options.user}" if options.user else ""
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._state: tuple[float, dict[str, Any]] | None = None
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        client.on_connect, client.on_message = self._on_connect, self._on_message
        client.on_subscribe = lambda *_: self.subscribed.set()
        if username := os.environ.get("MQTT_USERNAME"):
            client.username_pw_set(username, os.environ.get("MQTT_PASSWORD"))
        client.connect(options.host, options.port)
        client.loop_start()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _more: Properties | None
    ) -> None:
        if reason.is_failure:
            self.refused = str(reason)
        else:  # after a reconnect too
            client.subscribe([(f"{self._topic}/result", 1), (f"{self._topic}/state", 1)])

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        body = json.loads(message.payload)
        if message.topic.endswith("/result"):
            self._results.put(body)
        elif not message.retain:  # what is stored may be old
            self._state = time.monotonic(), body

    def state(self, youngest_s: float) -> dict[str, Any] | None:
        """The last reading, if it is good and not older than this."""
        if self._state is None:
            return None
        heard_at, body = self._state
        good = body["quality"] == "good" and body["voltage_v"] is not None
        return body if good and time.monotonic() - heard_at < youngest_s else None

    def ask(self, verb: str, body: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Send a command and wait for its result; None where none came in time."""
        identity = uuid.uuid4().hex  # by which its result is found; never the same twice
        if self.lease_id and verb != "stop":
            body = {**body, "lease_id": self.lease_id}
        self._client.publish(f"{self._topic}/command/{verb}{self._user}", json.dumps({"id": identity, **body}), qos=1)
        until = time.monotonic() + timeout_s
        while (left_s := until - time.monotonic()) > 0:
            try:
                result = self._results.get(timeout=left_s)
            except queue.Empty:
                break
            if result["id"] == identity:
                self.lease_id = result.get("lease_id", self.lease_id)
                return result
        return None


def control(channel: Channel, lease: dict[str, Any], options: argparse.Namespace) -> None:
    """Adapt the current until the test is over; without a good reading nothing is written, so nothing is renewed."""
    while True:
        time.sleep(options.interval)
        state = channel.state(3 * options.interval)
        if state is None:
            print("no good reading: not renewed", flush=True)
            continue
        if state["status"] in AT_REST:
            print(f"the test is over: {state['status']}, {state['exit_condition']}", flush=True)
            return
        current_a = current_for(state, options.current)
        # Too late is worse than not at all: a write that was held up somewhere is refused.
        body = {"values": {"1": current_a}, "lease": lease, "ttl_s": options.lease}
        result = channel.ask("set_mv", body, options.interval)
        outcome = f"{result['outcome']}: {result['message']}" if result else "no answer"
        print(f"{state['voltage_v']:.4f} V  {state['current_a']:.4f} A  -> {current_a:g} A  {outcome}", flush=True)


def start(channel: Channel, lease: dict[str, Any], options: argparse.Namespace) -> dict[str, Any] | None:
    """Start without current, and only where nothing runs; the result."""
    body = {
        "test_name": options.test_name,
        "schedule": options.schedule,
        "values": {"1": 0.0},
        "expect": {"running": False},
        "ttl_s": 10,
        "lease": lease,
    }
    return channel.ask("start", body, ANSWER_S)


def run(channel: Channel, options: argparse.Namespace) -> int:
    """Start, control, stop; the exit status."""
    if not channel.subscribed.wait(10) or channel.refused:
        print(f"the broker does not let us in: {channel.refused or 'no answer'}", file=sys.stderr)
        return NO_BROKER_STATUS
    lease = {"ttl_s": options.lease, "on_expiry": {"set_mv": {"1": 0.0}}}
    try:
        result = start(channel, lease, options)
        if result and result["outcome"] == "succeeded":
            print(result["message"], flush=True)
            control(channel, lease, options)
    except KeyboardInterrupt:
        result = channel.ask("stop", {}, ANSWER_S)
    if result is None:
        print("no answer; whether the channel runs is not known here", file=sys.stderr)
        return NO_ANSWER_STATUS
    print(f"{result['command']}: {result['outcome']}: {result['message']}", flush=True)
    return STATUS_BY_OUTCOME.get(result["outcome"], NO_ANSWER_STATUS)


def main() -> int:
    """Charge under control until the test is over or Ctrl-C stops it; the exit status."""
    parser = argparse.ArgumentParser(description="Charge a cell, with the current adapted each second.")
    parser.add_argument("cycler", help="its id in the bridge's configuration, such as arbin1")
    parser.add_argument("channel", type=int, help="from 1, as printed on the cycler")
    parser.add_argument("test_name")
    parser.add_argument("--schedule", default="ClosedLoop.sdx", help="takes its current from MV_UD1 (%(default)s)")
    parser.add_argument("--current", type=float, default=1.0, help="the largest, in A (default %(default)g)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between writes (default %(default)g)")
    parser.add_argument("--lease", type=float, default=5.0, help="seconds without a write to be noticed (%(default)g)")
    parser.add_argument("--user", help="the last level of the topic, where the broker's rules ask for it")
    parser.add_argument("--host", default="127.0.0.1", help="the broker (default %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="its port (default %(default)s)")
    parser.add_argument("--base", default="cti", help="the bridge's base topic (default %(default)s)")
    options = parser.parse_args()
    try:
        channel = Channel(options)
    except OSError as error:
        print(f"cannot connect to {options.host}:{options.port}: {error}", file=sys.stderr)
        return NO_BROKER_STATUS
    try:
        return run(channel, options)
    finally:
        channel.close()


if __name__ == "__main__":
    sys.exit(main())
