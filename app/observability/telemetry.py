"""Who hears what the scheduler tells: Prometheus, OpenTelemetry, both, or nobody.

OpenTelemetry is used where the application has set up a provider of its own, which is never replaced, or where the
environment names an OTLP endpoint: then the SDK is set up here. Otherwise nothing of it is imported or called.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from loguru import logger

from app.core.version import package_version
from app.observability.measures import Gauges, Measures, Sink
from app.scheduler.runtime import Runtime
from app.scheduler.telemetry import UNMEASURED, UNTRACED, Meter, Tracer

if TYPE_CHECKING:
    from app.observability.prometheus import PrometheusMetrics

_FLUSH_SECONDS = 5.0
"""How long the end of a process waits for an exporter."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What one runtime tells, and to whom."""

    tracer: Tracer = UNTRACED
    meter: Meter = UNMEASURED
    prometheus: PrometheusMetrics | None = None
    on_close: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Export what is left; gives up after a few seconds. Blocks."""
        # A daemon: an exporter that reaches nobody must not keep the process from ending.
        closing = threading.Thread(target=self._close, name="contenthub-telemetry", daemon=True)
        closing.start()
        closing.join(_FLUSH_SECONDS)

    def _close(self) -> None:
        for call in self.on_close:
            call()


def observe(runtime: Runtime) -> Telemetry:
    """Let everyone who wants to hear what `runtime` tells, from its next start on."""
    on_close: list[Callable[[], None]] = []
    gauges = Gauges(runtime)
    sinks: list[Sink] = []
    prometheus = _prometheus(gauges)
    if prometheus is not None:
        sinks.append(prometheus)
    tracer = _tracer(on_close)
    otel = _otel_metrics(gauges, on_close)
    if otel is not None:
        sinks.append(otel)
    meter: Meter = UNMEASURED
    if sinks:
        meter = measures = Measures(sinks)
        runtime.events.subscribe(measures.execution_changed)
    runtime.observe(tracer=tracer, meter=meter)
    return Telemetry(tracer, meter, prometheus, on_close)


def _prometheus(gauges: Gauges) -> PrometheusMetrics | None:
    if find_spec("prometheus_client") is None:
        return None
    from app.observability.prometheus import PrometheusMetrics  # an extra

    return PrometheusMetrics(gauges)


def _tracer(on_close: list[Callable[[], None]]) -> Tracer:
    if not _has_provider("trace"):
        if not _is_wanted("TRACES"):
            return UNTRACED
        from app.observability.otel_setup import flush, set_up_traces  # an extra

        set_up_traces(package_version())
        on_close.append(flush)
    from app.observability.tracing import OtelTracer

    return OtelTracer(package_version())


def _otel_metrics(gauges: Gauges, on_close: list[Callable[[], None]]) -> Sink | None:
    if not _has_provider("metrics"):
        if not _is_wanted("METRICS"):
            return None
        from app.observability.otel_setup import flush, set_up_metrics  # an extra

        set_up_metrics(package_version())
        on_close.append(flush)
    from app.observability.otel_metrics import OtelMetrics

    metrics = OtelMetrics(gauges, package_version())
    on_close.append(metrics.close)
    return metrics


def _has_provider(signal: str) -> bool:
    """Whether the application has set up a provider; until then the API answers with a proxy."""
    api = sys.modules.get(f"opentelemetry.{signal}")
    if api is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    provider = api.get_tracer_provider() if signal == "trace" else api.get_meter_provider()
    return "Proxy" not in type(provider).__name__


def _is_wanted(signal: str) -> bool:
    """Whether the environment asks us for an export of `TRACES` or `METRICS`; what we cannot do is logged."""
    endpoint = _variable(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or _variable("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporter = _variable(f"OTEL_{signal}_EXPORTER") or "otlp"
    if not endpoint or exporter == "none" or _variable("OTEL_SDK_DISABLED").lower() == "true":
        return False
    protocol = _variable(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or _variable("OTEL_EXPORTER_OTLP_PROTOCOL")
    if exporter != "otlp" or protocol not in ("", "http/protobuf"):
        logger.warning(
            "OTEL_{}_EXPORTER={}, OTEL_EXPORTER_OTLP_PROTOCOL={}: 这里只会设置 otlp 与 http/protobuf；"
            "其余请在启动前自行设置 OpenTelemetry 的 provider",
            signal,
            exporter,
            protocol or "(未设置)",
        )
        return False
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT 已设置，但未安装 contenthub-scheduler[otel]，不导出")
        return False
    return True


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
