"""`cti-mqtt send`: one command, and its result."""

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import typer

from cti_mqtt import config as configuration
from cti_mqtt.bridge.mqtt import Incoming, MqttLink, Subscription
from cti_mqtt.bridge.outbox import Message
from cti_mqtt.bridge.topics import Topics
from cti_mqtt.cli.loops import run_to_end
from cti_mqtt.cli.options import BaseTopic, MqttHost, MqttPort, OptionalConfigFile, Protocol, broker

STATUS_BY_OUTCOME = {"succeeded": 0, "refused": 3, "failed": 4, "unknown": 5}
NO_ANSWER_STATUS = 6


@dataclass(frozen=True, slots=True)
class Target:
    """A cycler, or one of its channels."""

    cycler: str
    channel: str | None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """`arbin1` or `arbin1/7`."""
        cycler, slash, channel = text.partition("/")
        if not cycler or any(c in text for c in "+#\0") or (slash and not channel) or "/" in channel:
            raise typer.BadParameter(f"{text!r}: give a cycler, such as arbin1, or a channel, such as arbin1/7")
        return cls(cycler, channel or None)

    def topic(self, topics: Topics, leaf: str) -> str:
        """A topic of the target."""
        return topics.channel(self.cycler, self.channel, leaf) if self.channel else topics.cycler(self.cycler, leaf)


def send(
    target: Annotated[str, typer.Argument(help="The cycler, such as arbin1, or a channel, such as arbin1/7.")],
    verb: Annotated[str, typer.Argument(help=f"{', '.join(configuration.VERBS[:-1])} or {configuration.VERBS[-1]}.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(help="FIELD=VALUE, such as test_name=T12 schedule=CCCV.sdx values.1=2.5 channels=[1,2]"),
    ] = None,
    payload: Annotated[str | None, typer.Option("--json", help="The payload as JSON, instead of fields.")] = None,
    user: Annotated[str | None, typer.Option(help="Who commands: the last level of the topic.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the result.", min=0.1)] = 40.0,
    config: OptionalConfigFile = None,
    mqtt_host: MqttHost = None,
    mqtt_port: MqttPort = None,
    base_topic: BaseTopic = None,
    protocol: Protocol = None,
) -> None:
    """Send one command through the broker, wait for its result and print it.

    Exit status: 0 succeeded, 3 refused, 4 failed, 5 unknown, 6 no answer (2: wrong usage).

    Example: cti-mqtt send arbin1/7 start test_name=T12 schedule=CCCV.sdx
    """
    where = Target.parse(target)
    body = _body(fields or [], payload)
    if where.channel is None and verb == "stop":
        body.setdefault("channels", "all")
    body.setdefault("id", uuid.uuid4().hex)
    settings = broker("send", config, mqtt_host, mqtt_port, base_topic, protocol)
    leaf = f"command/{verb}" + (f"/{user}" if user else "")
    result = run_to_end(_ask(settings, where, leaf, body, timeout))
    if result is None:
        typer.echo(f"no answer within {timeout:g} s (is the bridge running, under this base topic?)", err=True)
        raise typer.Exit(NO_ANSWER_STATUS)
    typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    raise typer.Exit(STATUS_BY_OUTCOME.get(result.get("outcome", ""), NO_ANSWER_STATUS))


def _body(fields: list[str], payload: str | None) -> dict[str, Any]:
    if payload is not None:
        if fields:
            raise typer.BadParameter("give either fields or --json")
        try:
            body = json.loads(payload)
        except ValueError as error:
            raise typer.BadParameter(f"--json: {error}") from error
        if not isinstance(body, dict):
            raise typer.BadParameter("--json: must be an object")
        return body
    body = {}
    for text in fields:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise typer.BadParameter(f"{text!r}: write FIELD=VALUE")
        *parents, name = path.split(".")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{text!r}: {parent} has a value of its own already")
        place[name] = _value(name, value)
    return body


_TEXT_FIELDS = frozenset({"id", "text", "test_name", "schedule", "barcode", "status", "issued_at", "boot"})


def _value(name: str, text: str) -> Any:
    """JSON where it is JSON, else text; what is text by nature stays text, also a test called 42."""
    if name in _TEXT_FIELDS:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _ask(
    settings: configuration.Mqtt, target: Target, leaf: str, body: dict[str, Any], timeout_s: float
) -> dict[str, Any] | None:
    topics = Topics(settings.base_topic)
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def hear(incoming: Incoming) -> None:
        try:
            result = orjson.loads(incoming.payload)
        except ValueError:
            return
        if isinstance(result, dict) and result.get("id") == body["id"] and not answer.done():
            answer.set_result(result)

    results = [target.topic(topics, "result"), f"{topics.bridge}/result"]
    link = MqttLink(settings, hear, subscriptions=[Subscription(topic) for topic in results])
    task = asyncio.create_task(link.run(), name="mqtt")
    try:
        async with asyncio.timeout(timeout_s):
            await link.wait_connected()
            link.publish(Message(target.topic(topics, leaf), orjson.dumps(body), qos=1, keep=False))
            return await answer
    except TimeoutError:
        if link.failure:
            typer.echo(link.failure, err=True)
        return None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
