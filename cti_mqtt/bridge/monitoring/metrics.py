"""The verdict's figures for Prometheus."""

import platform
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from cti_mqtt import __version__
from cti_mqtt.bridge.health import HealthVerdict

PREFIX = "cti_mqtt_"


class Metrics:
    """Figures on request, in a registry of their own.

    Args:
        current: the last verdict with its age, from any thread.
    """

    def __init__(self, current: Callable[[], HealthVerdict]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(VerdictCollector(current))
        ProcessCollector(registry=self._registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type: OpenMetrics where the request's `Accept` asks for it."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class VerdictCollector(Collector):
    """Reads the verdict anew at each request, so nothing has to be kept up to date."""

    def __init__(self, current: Callable[[], HealthVerdict]) -> None:
        self._current = current

    def collect(self) -> Iterable[Metric]:
        """All figures; what is not known, such as the age of a poll before the first one, is left out."""
        verdict = self._current()
        yield InfoMetricFamily(
            PREFIX + "build",
            "The program.",
            value={"version": __version__, "python_version": platform.python_version()},
        )
        yield _gauge("healthy", "1 if all is as it should be, else 0; the reasons are on /healthz.", verdict.healthy)
        yield _gauge("verdict_age_seconds", "Since health was looked at last; it grows if the bridge hangs.",
                     verdict.age_s)  # fmt: skip
        yield _gauge("broker_connected", "1 while the bridge is connected to the broker, else 0.",
                     verdict.broker_connected)  # fmt: skip
        yield _gauge("queue_messages", "Messages, and polls in the journal, that wait for the broker.", verdict.queue)
        yield _counter("dropped", "Messages, and polls in the journal, that were given up.", verdict.dropped)
        if journal := verdict.journal:
            yield _gauge("journal_writable", "1 while polls can be written to disk, else 0.", not journal.problem)
            yield _gauge("journal_waiting_polls", "Polls that the broker has not got.", journal.waiting)
            yield _gauge("journal_filled_ratio", "Of the journal's room, what is taken by polls that wait.",
                         journal.filled)  # fmt: skip
            yield _counter("journal_dropped_polls", "Polls that were given up.", journal.dropped)
        yield from _cyclers(verdict)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=float(value))


def _cyclers(verdict: HealthVerdict) -> Iterable[Metric]:
    connected = GaugeMetricFamily(PREFIX + "cycler_connected", "1 while logged in, else 0.", labels=["cycler"])
    age = GaugeMetricFamily(PREFIX + "last_poll_age_seconds", "Since the last poll of all channels.", labels=["cycler"])
    duration = GaugeMetricFamily(PREFIX + "poll_duration_seconds", "Of the last poll of all channels.",
                                 labels=["cycler"])  # fmt: skip
    polls = CounterMetricFamily(PREFIX + "polls", "Polls that brought readings.", labels=["cycler"])
    errors = CounterMetricFamily(PREFIX + "errors", "Sessions lost and polls failed.", labels=["cycler"])
    reconnects = CounterMetricFamily(PREFIX + "reconnects", "Sessions after the first one.", labels=["cycler"])
    for name, cycler in verdict.cyclers.items():
        connected.add_metric([name], float(cycler.connected))
        polls.add_metric([name], cycler.polls)
        errors.add_metric([name], cycler.errors)
        reconnects.add_metric([name], cycler.reconnects)
        if cycler.last_poll_age_s is not None:
            age.add_metric([name], cycler.last_poll_age_s + verdict.age_s)
        if cycler.poll_duration_ms is not None:
            duration.add_metric([name], cycler.poll_duration_ms / 1000)
    return connected, age, duration, polls, errors, reconnects
