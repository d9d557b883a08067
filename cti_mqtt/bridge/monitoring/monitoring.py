"""The HTTP port and systemd, as one part of the bridge: both only read the verdict."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus

from cti_mqtt import config
from cti_mqtt.bridge.health import HealthVerdict
from cti_mqtt.bridge.monitoring.http_port import Answer, HttpPort, Page
from cti_mqtt.bridge.monitoring.metrics import Metrics
from cti_mqtt.bridge.monitoring.systemd import Systemd


class Monitoring:
    """Tells the verdict while `run` runs.

    Args:
        settings: of the HTTP port; None: there is none.
        current: the last verdict with its age; asked from another thread too.
        broker_tried: whether the broker has been reached, or has been found not to be there.
        environment: where systemd says how it wants to be told.
    """

    def __init__(
        self,
        settings: config.Http | None,
        current: Callable[[], HealthVerdict],
        broker_tried: Callable[[], bool],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.http = HttpPort(settings, pages(current)) if settings else None
        self._systemd = Systemd(current, broker_tried, environment)

    def reasons(self) -> list[str]:
        """What is not as it should be, for the verdict.

        A port that cannot be had is a reason and no end: readings, leases and stops matter more than who watches them.
        """
        return [f"http: {self.http.problem}"] if self.http and self.http.problem else []

    async def run(self) -> None:
        """Answer and tell, until cancelled: that is when the bridge begins to end, and systemd is told so."""
        if self.http:
            self.http.start()
        try:
            await self._systemd.run()
        finally:
            if self.http:
                await asyncio.shield(asyncio.to_thread(self.http.stop))


def pages(current: Callable[[], HealthVerdict]) -> Mapping[str, Page]:
    """What can be asked for, by path."""
    metrics = Metrics(current)

    def healthz(_accept: str) -> Answer:
        verdict = current()
        status = HTTPStatus.OK if verdict.healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, "application/json", json.dumps(verdict.body).encode())

    def exposition(accept: str) -> Answer:
        text, content_type = metrics.exposition(accept)
        return Answer(HTTPStatus.OK, content_type, text)

    return {"/healthz": healthz, "/metrics": exposition}
