"""`/metrics`, where the extra `[metrics]` is installed; for callers who may read."""

from __future__ import annotations

from fastapi import FastAPI, Response

from app.api.auth import Viewer
from app.observability.telemetry import Telemetry


def install_metrics(app: FastAPI, telemetry: Telemetry) -> None:
    """Add `/metrics` to `app`, if there is something to show."""
    metrics = telemetry.prometheus
    if metrics is None:
        return

    @app.get("/metrics", include_in_schema=False)
    def show_metrics(_caller: Viewer) -> Response:
        return Response(metrics.exposition(), media_type=metrics.content_type)
