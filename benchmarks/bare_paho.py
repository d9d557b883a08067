"""The ceiling: paho publishing payloads that are ready, and nothing else.

Topics, payload size, QoS and retain flag are those of the bridge. paho is used either as its documentation shows, with
its network thread (`--thread`), or without: then `publish` writes to the socket itself; at QoS 0 that is twice as fast.

With `--interval` a burst, one message a channel, goes out each so many seconds, each message with its time (Unix, s).
"""

import argparse
import itertools
import select
import time
from typing import Any

from paho.mqtt.client import Client
from plain_paho import plain_client

HOST = "127.0.0.1"
STAMP = b'{"test_time_s":%.6f,"x":"'
AHEAD = 500  # messages that paho may hold: enough that it never waits for more


def catch_up(client: Client, most: int) -> None:
    """Read and write until paho holds no more than this."""
    sock: Any = client.socket()
    while len(client._out_messages) > most or client.want_write():  # noqa: SLF001  # paho does not tell otherwise
        readable, writable, _ = select.select([sock], [sock] if client.want_write() else [], [], 1.0)
        if readable:
            client.loop_read()
        if writable:
            client.loop_write()


def connected(port: int) -> Client:
    """A client that the broker has accepted."""
    client = plain_client()
    client.connect(HOST, port)
    while not client.is_connected():
        client.loop(0.1)
    return client


def flood(client: Client, topics: list[str], payload: bytes, qos: int) -> None:
    """As fast as it goes."""
    while True:
        for topic in topics:
            client.publish(topic, payload, qos, retain=True)
            catch_up(client, AHEAD)
        client.loop_misc()


def flood_thread(client: Client, topics: list[str], payload: bytes, qos: int) -> None:
    """The same with paho's network thread."""
    client.loop_start()
    for number, topic in enumerate(itertools.cycle(topics), 1):
        sent = client.publish(topic, payload, qos, retain=True)
        if number % AHEAD == 0:
            sent.wait_for_publish()


def burst(client: Client, topics: list[str], size: int, qos: int, interval_s: float) -> None:
    """One message a topic each interval."""
    due = time.monotonic()
    while True:
        began = STAMP % time.time()
        payload = began + b"x" * (size - len(began) - 2) + b'"}'
        for topic in topics:
            client.publish(topic, payload, qos, retain=True)
        catch_up(client, 0)
        client.loop_misc()
        due += interval_s
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    """Until killed."""
    parser = argparse.ArgumentParser(description="Ready payloads through paho.")
    parser.add_argument("mqtt_port", type=int)
    parser.add_argument("cycler", help="a level of the topics")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--bytes", type=int, default=700)
    parser.add_argument("--qos", type=int, choices=[0, 1], default=0)
    parser.add_argument("--interval", type=float, default=0.0)
    parser.add_argument("--thread", action="store_true", help="use paho's network thread")
    options = parser.parse_args()
    client = connected(options.mqtt_port)
    topics = [f"cti/{options.cycler}/channel/{channel}/state" for channel in range(1, options.channels + 1)]
    if options.interval:
        burst(client, topics, options.bytes, options.qos, options.interval)
    (flood_thread if options.thread else flood)(client, topics, b"x" * options.bytes, options.qos)


if __name__ == "__main__":
    main()
