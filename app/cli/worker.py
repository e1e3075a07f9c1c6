"""`contenthub worker`: a node without HTTP."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from app.cli import output
from app.cli.session import load_settings, opened
from app.core.errors import InvalidRequest

if TYPE_CHECKING:
    from app.observability.telemetry import Telemetry
    from app.scheduler.runtime import Runtime


def worker() -> None:
    """Run executions, and fire schedules, until SIGTERM or Ctrl-C; no HTTP but METRICS_PORT.

    For more power than the API's processes have, on this machine or, with SCHEDULER_ENGINE=pgqueuer, on others.
    """
    settings = load_settings()
    with opened(executors=True, upgrade=True, role="worker") as runtime:
        from app.observability.logs import configure_logs  # both with SQLAlchemy, see session.py
        from app.observability.telemetry import observe

        configure_logs(settings.log_level, settings.log_format, lambda: runtime.tracer.ids())
        telemetry = observe(runtime)
        if settings.metrics_port is not None:
            _serve_metrics(telemetry, settings.metrics_host, settings.metrics_port)
        try:
            asyncio.run(_work(runtime))
        finally:
            telemetry.close()


def _serve_metrics(telemetry: Telemetry, host: str, port: int) -> None:
    """Raises InvalidRequest where they cannot be served."""
    if telemetry.prometheus is None:
        raise InvalidRequest.of("METRICS_PORT", "metrics need an extra; install contenthub-scheduler[metrics]")
    try:
        port = telemetry.prometheus.serve(host, port)
    except OSError as error:
        raise InvalidRequest.of(
            "METRICS_PORT", f"nobody can listen on {host}:{port} ({error.strerror}); choose another"
        ) from error
    output.note(f"Metrics: http://{host}:{port}/metrics")


async def _work(runtime: Runtime) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    runtime.service.start()
    output.note("Worker started.   Ctrl-C stops.")
    try:
        await stopping.wait()
    finally:
        await runtime.service.drain()
