"""`/metrics`, where the extra `[metrics]` is installed; for callers who may read."""

from __future__ import annotations

from importlib.util import find_spec

from fastapi import FastAPI, Response

from app.api.auth import Viewer


def install_metrics(app: FastAPI) -> None:
    """Add `/metrics` to `app`. Without `prometheus-client` nothing is imported, counted or served."""
    if find_spec("prometheus_client") is None:
        return
    from app.observability.prometheus import PrometheusMetrics  # an extra

    metrics = PrometheusMetrics(app.state.runtime)

    @app.get("/metrics", include_in_schema=False)
    def show_metrics(_caller: Viewer) -> Response:
        return Response(metrics.exposition(), media_type=metrics.content_type)
