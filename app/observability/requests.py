"""Spans of HTTP requests: FastAPI's own, which it makes as soon as there is a provider."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

_QUIET = ("/health", "/metrics", "/scheduler", "/site", "/approvals")
"""Asked for every few seconds, or nothing but files: a trace of them tells nobody anything. Or the links by which
approvals are decided: whoever could read them in a trace could decide."""


def is_quiet(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is left out: probes, scrapes, files, and event streams, which last minutes."""
    path = str(scope.get("path", ""))
    return path.startswith(_QUIET) or path.endswith("/events")


REQUEST_SPANS: TelemetryConfig = {
    # Exporters are set up by `telemetry.py`, for processes without HTTP too; twice would send everything twice.
    "auto_configure": False,
    # A span a request; not one more for each dependency, for the endpoint and for the serialising.
    "operation_spans": False,
    "exclude": is_quiet,
}
