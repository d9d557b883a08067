"""`cti-mqtt health`: does the bridge call itself healthy? For container health checks and monitoring."""

import asyncio
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from cti_mqtt import config as configuration
from cti_mqtt.bridge.mqtt import Incoming, MqttLink, Subscription
from cti_mqtt.bridge.outputs.plain import ONLINE
from cti_mqtt.bridge.topics import Topics
from cti_mqtt.cli.logs import LogFormat, LogLevel, set_up
from cti_mqtt.cli.loops import run_to_end
from cti_mqtt.cli.options import ConfigFile, load

UNHEALTHY_STATUS = 1
MISSED_VERDICTS = 3  # so many health intervals without a new verdict: the bridge hangs, or has gone


@dataclass(slots=True)
class Heard:
    """What the broker keeps of the bridge; None until it came."""

    availability: bytes | None = None
    health: bytes | None = None

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.availability is not None and (self.availability != ONLINE or self.health is not None)


def health(
    config: ConfigFile,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the broker.", min=0.1)] = 10.0,
) -> None:
    """Ask the broker whether the bridge is there and calls itself healthy, and whether that verdict is fresh.

    Reads the bridge's retained messages, as any MQTT client could. Fresh means younger than three health_interval_s.

    Exit status: 0 healthy, 1 not, 2 the configuration is wrong.

    Example: cti-mqtt health -c /etc/cti-mqtt/config.yaml
    """
    settings = load(config)
    set_up(LogLevel.ERROR, LogFormat.TEXT)
    heard, failure = run_to_end(_listen(settings.mqtt, timeout))
    max_age_s = MISSED_VERDICTS * settings.health_interval_s
    reasons = [failure] if failure else reasons_against(heard, datetime.now(UTC), max_age_s)
    if reasons:
        typer.echo(f"not healthy: {'; '.join(reasons)}", err=True)
        raise typer.Exit(UNHEALTHY_STATUS)
    typer.echo("healthy")


def reasons_against(heard: Heard, now: datetime, max_age_s: float) -> list[str]:
    """Why the bridge is not healthy; empty if it is.

    Args:
        heard: the retained messages.
        now: on the clock of this machine, which is held against the bridge's.
        max_age_s: how old the verdict may be.
    """
    if heard.availability is None:
        return ["the broker knows no bridge under this base topic"]
    if heard.availability != ONLINE:
        return ["the bridge is offline"]
    try:
        body = orjson.loads(heard.health or b"")
        age_s = (now - datetime.fromisoformat(body["ts"])).total_seconds()
        verdict, reasons = body["healthy"], [str(reason) for reason in body["reasons"]]
    except (ValueError, TypeError, KeyError):
        return ["there is no readable health message"]
    if age_s > max_age_s:
        reasons.append(f"the last verdict is {age_s:.0f} s old, more than {max_age_s:g} s")
    elif age_s < -max_age_s:
        reasons.append(f"the last verdict is {-age_s:.0f} s in the future; the clocks differ")
    if verdict is not True and not reasons:
        reasons.append("the bridge says so")
    return reasons


async def _listen(settings: configuration.Mqtt, timeout_s: float) -> tuple[Heard, str]:
    """What the broker keeps, and why it could not be asked (empty if it could)."""
    topics = Topics(settings.base_topic)
    availability, verdict = f"{topics.bridge}/availability", f"{topics.bridge}/health"
    heard, failures = Heard(), list[str]()
    done = asyncio.Event()

    def hear(incoming: Incoming) -> None:
        if incoming.topic == availability:
            heard.availability = incoming.payload
        elif incoming.topic == verdict:
            heard.health = incoming.payload
        if heard.complete:
            done.set()

    def follow(connected: bool, text: str) -> None:
        if not connected:
            failures.append(text)
            done.set()

    own_id = settings.model_copy(update={"client_id": f"cti-mqtt-health-{secrets.token_hex(4)}"})
    subscriptions = [Subscription(availability), Subscription(verdict)]
    link = MqttLink(own_id, hear, subscriptions=subscriptions, on_state=follow)
    task = asyncio.create_task(link.run(), name="mqtt")
    try:
        async with asyncio.timeout(timeout_s):
            await done.wait()
    except TimeoutError:
        if not link.connected:
            failures.append(f"no answer from {settings.host}:{settings.port} within {timeout_s:g} s")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return heard, failures[0] if failures else ""
