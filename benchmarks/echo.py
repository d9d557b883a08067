"""An MQTT client that does nothing but answer: the other end of a bare round trip, as a process of its own."""

import sys
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from plain_paho import plain_client


def main(host: str, port: str, heard: str, said: str, answer_bytes: str) -> None:
    """Answer each message on the topic `heard` on the topic `said`, both at QoS 1, until killed."""
    answer = b"x" * int(answer_bytes)
    client = plain_client()

    def on_message(_client: Client, _data: Any, _message: MQTTMessage) -> None:
        client.publish(said, answer, qos=1)

    def on_connect(*_: Any) -> None:
        client.subscribe(heard, qos=1)

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.on_message = on_message
    client.connect(host, int(port))
    client.loop_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
