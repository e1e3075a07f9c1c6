"""The OpenTelemetry SDK, set up by its standard variables (`OTEL_…`), where the application has not done so."""

from __future__ import annotations

import uuid

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def set_up_traces(version: str) -> None:
    """Export spans by OTLP over HTTP. Sampler, batches, headers and limits are what `OTEL_…` say."""
    # Not at exit: an exporter that reaches nobody would hold the process for half a minute. See `Telemetry.close`.
    provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def set_up_metrics(version: str) -> None:
    """Export metrics by OTLP over HTTP, every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource=_resource(version), shutdown_on_exit=False))


def flush() -> None:
    """Export what has not been exported, of the providers set up here. Blocks while nobody answers."""
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        if isinstance(provider, (TracerProvider, MeterProvider)):
            provider.force_flush()


def _resource(version: str) -> Resource:
    """Who sends this; the variables `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win."""
    ours = {
        "service.name": "contenthub",
        "service.version": version,
        # Every process exports series of its own; without it they would be taken for one.
        "service.instance.id": str(_INSTANCE),
    }
    named = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in ours.items() if name not in named})


_INSTANCE = uuid.uuid4()
