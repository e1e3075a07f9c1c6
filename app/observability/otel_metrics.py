"""The same metrics by OpenTelemetry's API: exported by OTLP, or by whatever the application has set up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from app.observability.instruments import ATTRIBUTES, INSTRUMENTS, Instrument, Kind
from app.observability.measures import Gauges, Reading

_LOOK_SECONDS = 0.5
"""Gauges are asked for one after the other; within this time, one look at the database answers all."""


class OtelMetrics:
    """A sink of counts, and observable gauges."""

    def __init__(self, gauges: Gauges, version: str) -> None:
        self._gauges: Gauges | None = gauges
        self._readings: list[Reading] = []
        self._read_at: float | None = None
        meter = metrics.get_meter("contenthub.scheduler", version)
        self._counters = {
            one: meter.create_counter(one.name, one.unit, one.description)
            for one in INSTRUMENTS
            if one.kind is Kind.COUNTER
        }
        self._histograms = {
            one: meter.create_histogram(
                one.name, one.unit, one.description, explicit_bucket_boundaries_advisory=one.bounds
            )
            for one in INSTRUMENTS
            if one.kind is Kind.HISTOGRAM
        }
        for one in INSTRUMENTS:
            if one.kind is Kind.GAUGE:
                read: Callable[[CallbackOptions], Iterable[Observation]] = partial(self._observations, one)
                meter.create_observable_gauge(one.name, [read], one.unit, one.description)

    def count(self, instrument: Instrument, *labels: str) -> None:
        self._counters[instrument].add(1, _attributes(instrument, labels))

    def observe(self, instrument: Instrument, value: float, *labels: str) -> None:
        self._histograms[instrument].record(value, _attributes(instrument, labels))

    def close(self) -> None:
        """Read no gauge any more: what they tell of has ended."""
        self._gauges = None

    def _observations(self, instrument: Instrument, _options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(reading.value, _attributes(instrument, reading.labels))
            for reading in self._look()
            if reading.instrument is instrument
        ]

    def _look(self) -> list[Reading]:
        if self._gauges is None:
            return []
        now = time.monotonic()
        if self._read_at is None or now - self._read_at > _LOOK_SECONDS:
            self._readings, self._read_at = self._gauges.read(), now
        return self._readings


@lru_cache(maxsize=1000)
def _attributes(instrument: Instrument, labels: tuple[str, ...]) -> dict[str, str]:
    return {ATTRIBUTES[label]: value for label, value in zip(instrument.labels, labels, strict=True)}
