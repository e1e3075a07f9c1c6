"""`/metrics`: what Prometheus scrapes. Needs the extra `[metrics]`; only this module imports its client."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from app.observability.instruments import INSTRUMENTS, Instrument, Kind
from app.observability.measures import Gauges


class PrometheusMetrics:
    """Everything in `INSTRUMENTS`, in a registry of its own: a sink of counts, and a reader of gauges."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, gauges: Gauges) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            one: Counter(one.prometheus_name, one.description, one.labels, registry=self._registry)
            for one in INSTRUMENTS
            if one.kind is Kind.COUNTER
        }
        self._histograms = {
            one: Histogram(
                one.prometheus_name, one.description, one.labels, buckets=one.bounds, registry=self._registry
            )
            for one in INSTRUMENTS
            if one.kind is Kind.HISTOGRAM
        }
        self._registry.register(_Readings(gauges))
        # The client looks for a series under a lock; there are few, and each attempt means three of them.
        self._counter = lru_cache(maxsize=None)(self._of_counter)
        self._histogram = lru_cache(maxsize=None)(self._of_histogram)

    def exposition(self) -> bytes:
        """All series in Prometheus's text format. Asks the database: not for the event loop."""
        return generate_latest(self._registry)

    def serve(self, host: str, port: int) -> int:
        """Answer scrapes there until the process ends, on a thread of its own; returns the port.

        Raises:
            OSError: nobody can listen there.
        """
        server, _ = start_http_server(port, host, self._registry)
        return int(server.server_port)

    def count(self, instrument: Instrument, *labels: str) -> None:
        self._counter(instrument, labels).inc()

    def observe(self, instrument: Instrument, value: float, *labels: str) -> None:
        self._histogram(instrument, labels).observe(value)

    def _of_counter(self, instrument: Instrument, labels: tuple[str, ...]) -> Counter:
        return self._counters[instrument].labels(*labels)

    def _of_histogram(self, instrument: Instrument, labels: tuple[str, ...]) -> Histogram:
        histogram = self._histograms[instrument]
        return histogram.labels(*labels) if labels else histogram


class _Readings(Collector):
    """The gauges, as they are at the moment of a scrape."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        """Nothing: asked at registration, when the database may not have its tables yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        families: dict[Instrument, GaugeMetricFamily] = {}
        for reading in self._gauges.read():
            of = reading.instrument
            if of not in families:
                families[of] = GaugeMetricFamily(of.prometheus_name, of.description, labels=of.labels)
            families[of].add_metric(reading.labels, reading.value)
        return families.values()
