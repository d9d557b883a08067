"""`cti-mqtt watch`: a live table in the terminal."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cti_mqtt.bridge.mqtt import Incoming, MqttLink, Subscription
from cti_mqtt.cli.loops import run_until_signalled
from cti_mqtt.cli.options import BaseTopic, MqttHost, MqttPort, OptionalConfigFile, Protocol, broker

REFRESH_S = 0.5
OLD_S = 10.0  # from this age on a reading is shown dim, unless bridge and channel are online: then it is only quiet
COLUMNS = ("cycler", "ch", "status", "test", "step", "V", "A", "degC", "age")
STATUS_STYLES = {"Charge": "green", "Discharge": "cyan", "Unsafe": "bold red", "Error": "bold red", "Pause": "yellow"}


@dataclass(slots=True)
class Board:
    """What has been heard."""

    base: str
    readings: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    offline: set[str] = field(default_factory=set)
    polled: set[tuple[str, int]] = field(default_factory=set)
    bridge: str = "not heard of yet"

    def hear(self, incoming: Incoming) -> None:
        """Take in a message; what is none of ours is passed over."""
        levels = incoming.topic[len(self.base) + 1 :].split("/")
        match levels:
            case ["bridge", "availability"]:
                self.bridge = incoming.payload.decode("utf-8", "replace")
            case [cycler, "availability"]:
                (self.offline.discard if incoming.payload == b"online" else self.offline.add)(cycler)
            case [cycler, "channel", channel, "state"] if channel.isascii() and channel.isdigit():
                self._reading(cycler, int(channel), incoming.payload)
            case [cycler, "channel", channel, "availability"] if channel.isascii() and channel.isdigit():
                keep = self.polled.add if incoming.payload == b"online" else self.polled.discard
                keep((cycler, int(channel)))

    def _reading(self, cycler: str, channel: int, payload: bytes) -> None:
        try:
            body = orjson.loads(payload)
        except ValueError:
            self.readings.pop((cycler, channel), None)
            return
        if isinstance(body, dict):
            self.readings[cycler, channel] = body

    def table(self, problem: str, now: datetime) -> Table:
        """Everything heard, as a table."""
        title = f"bridge: {self.bridge}" + (f" | {problem}" if problem else "")
        table = Table(title=title, title_justify="left", pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="right" if column in {"ch", "V", "A", "degC", "age"} else "left")
        for (cycler, channel), body in sorted(self.readings.items()):
            lives = not problem and self.bridge == "online" and (cycler, channel) in self.polled
            table.add_row(*_row(cycler, channel, body, now, offline=cycler in self.offline, lives=lives))
        return table


def _row(cycler: str, channel: int, body: dict[str, Any], now: datetime, *, offline: bool, lives: bool) -> list[str]:
    age_s = _age_s(body.get("ts"), now)
    status = str(body.get("status"))
    old = age_s is not None and age_s > OLD_S and not lives
    dim = offline or body.get("quality") != "good" or old
    style = "dim" if dim else STATUS_STYLES.get(status, "")
    cells = [
        cycler,
        str(channel),
        status if not offline else f"{status} (offline)",
        str(body.get("test_name") or ""),
        str(body.get("step_and_cycle") or ""),
        _number(body.get("voltage_v"), 4),
        _number(body.get("current_a"), 4),
        _number(_temperature(body), 1),
        "" if age_s is None else f"{age_s:.0f} s",
    ]
    return [f"[{style}]{_plain(cell)}[/]" if style else _plain(cell) for cell in cells]


def _plain(text: str) -> str:
    """Not markup, whatever a test is called."""
    return text.replace("[", "\\[")


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else ""


def _temperature(body: dict[str, Any]) -> object:
    try:
        return body["aux"]["temperature"][0]["value"]
    except (KeyError, IndexError, TypeError):
        return None


def _age_s(ts: object, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(str(ts))).total_seconds()
    except (ValueError, TypeError):
        return None


def watch(
    once: Annotated[bool, typer.Option("--once", help="Print the table once, after two seconds, and end.")] = False,
    config: OptionalConfigFile = None,
    mqtt_host: MqttHost = None,
    mqtt_port: MqttPort = None,
    base_topic: BaseTopic = None,
    protocol: Protocol = None,
) -> None:
    """Show all channels as a live table: status, test, step, voltage, current, temperature, age. End it with Ctrl-C.

    Example: cti-mqtt watch --mqtt-host 192.0.2.5
    """
    settings = broker("watch", config, mqtt_host, mqtt_port, base_topic, protocol)
    board = Board(settings.base_topic)
    base = settings.base_topic
    below = ("bridge/availability", "+/availability", "+/channel/+/availability", "+/channel/+/state")
    link = MqttLink(settings, board.hear, subscriptions=[Subscription(f"{base}/{topic}") for topic in below])

    async def show(stop: asyncio.Event) -> None:
        task = asyncio.create_task(link.run(), name="mqtt")
        try:
            await (_print_once(board, link) if once else _keep_showing(board, link, stop))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run_until_signalled(show)


async def _print_once(board: Board, link: MqttLink) -> None:
    await asyncio.sleep(2.0)
    Console().print(board.table(link.failure, datetime.now(UTC)))


async def _keep_showing(board: Board, link: MqttLink, stop: asyncio.Event) -> None:
    console = Console()
    console.print(f"watching {board.base}; Ctrl-C ends it")
    with Live(console=console, auto_refresh=False) as live:
        while not stop.is_set():
            live.update(board.table(link.failure, datetime.now(UTC)), refresh=True)
            try:
                await asyncio.wait_for(stop.wait(), REFRESH_S)
            except TimeoutError:
                continue
