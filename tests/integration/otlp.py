"""A real receiver of OTLP over HTTP: what real processes export, decoded from the protocol's own protobuf."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.integration.command_line import until
from tests.integration.local_web import Answer, LocalWeb


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came over the wire."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    is_error: bool
    events: tuple[str, ...]


class Receiver:
    """Give `settings` to a process and look at what it sends."""

    def __init__(self, web: LocalWeb) -> None:
        self._web = web
        for path in ("/v1/traces", "/v1/metrics"):
            web.answer(path, Answer())

    @property
    def settings(self) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._web.url("").rstrip("/"),
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }

    def spans(self) -> list[Received]:
        return [
            Received(
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.kind,
                plain(span.attributes),
                plain(of_resource.resource.attributes),
                span.status.code == span.status.STATUS_CODE_ERROR,
                tuple(event.name for event in span.events),
            )
            for body in self._bodies("/v1/traces")
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def of_trace(self, trace_id: str, *names: str) -> list[Received]:
        """The spans of a trace, once all those names are among them, in the order of the names."""

        def found() -> list[Received] | None:
            spans = {span.name: span for span in self.spans() if span.trace_id == trace_id}
            return [spans[name] for name in names] if spans.keys() >= set(names) else None

        spans: list[Received] = until(found)
        return spans

    def metrics(self) -> dict[str, Metric]:
        """The latest of each name, of all processes."""
        return {
            metric.name: metric
            for body in self._bodies("/v1/metrics")
            for of_resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        }

    def _bodies(self, path: str) -> list[bytes]:
        return [received.body for received in list(self._web.received) if received.path == path]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens."""
    with LocalWeb().serving() as web:
        yield Receiver(web)


def plain(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    """Attributes as Python values."""
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in attributes}
