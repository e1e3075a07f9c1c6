"""`/metrics` counts what ran, tells what waits, and asks who wants to know."""

from __future__ import annotations

import os
import subprocess
import sys

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import API


def scrape(client: TestClient, token: str | None = None) -> dict[tuple[str, frozenset[str]], float]:
    """Every sample by its name and the values of its labels."""
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {token}"} if token else {})
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def run(client: TestClient, params: dict[str, object], state: str) -> None:
    made = client.post(f"{API}/executions", json={"task_type": "work", "params": params})
    assert made.status_code in (200, 201, 202), made.text
    for _ in range(1000):
        if client.get(f"{API}/executions/{made.json()['id']}").json()["state"] == state:
            return
    raise AssertionError(f"the execution did not end {state}")


def test_attempts_are_counted_by_type_and_state(client: TestClient) -> None:
    run(client, {}, "success")
    run(client, {"fail": True}, "failed")
    samples = scrape(client)
    assert samples["contenthub_attempts_total", frozenset({"work", "success"})] == 1
    assert samples["contenthub_attempts_total", frozenset({"work", "failed"})] == 1
    assert samples["contenthub_attempt_duration_seconds_count", frozenset({"work"})] == 2
    assert (
        samples["contenthub_journal_group_size_sum", frozenset()]
        >= samples["contenthub_journal_group_size_count", frozenset()]
        > 0
    )
    assert samples["contenthub_journal_commit_duration_seconds_sum", frozenset()] > 0


def test_the_database_tells_what_waits_and_who_beats(client: TestClient) -> None:
    samples = scrape(client)
    assert samples["contenthub_queue_executions", frozenset({"pending"})] == 0
    assert samples["contenthub_queue_oldest_due_seconds", frozenset()] == 0
    assert len([name for name, _ in samples if name == "contenthub_node_heartbeat_age_seconds"]) == 1
    assert (
        samples["contenthub_lane_busy", frozenset({"thread"})]
        + samples["contenthub_lane_free", frozenset({"thread"})]
        == 4
    )


def test_metrics_are_for_those_who_may_read(client: TestClient, tokens: dict[str, str]) -> None:
    assert client.get("/metrics").status_code == 401
    assert scrape(client, tokens["viewer"])


def test_without_the_extras_tasks_run_nothing_is_imported_called_or_served(sqlite_url: str) -> None:
    code = """
import sys
# FastAPI itself asks for opentelemetry-api: only the SDK and the Prometheus client can be absent.
for absent in ("prometheus_client", "opentelemetry.sdk", "opentelemetry.exporter"):
    sys.modules[absent] = None
from opentelemetry import metrics, trace
def refuse(*_, **__):
    raise AssertionError("nobody asked for telemetry")
for module, names in {
    trace: ("get_tracer", "get_current_span", "use_span", "NonRecordingSpan"), metrics: ("get_meter",)
}.items():
    for name in names:
        setattr(module, name, refuse)
EXTRAS = ("prometheus", "tracing", "otel_metrics", "otel_setup")
import asyncio
from app.core.config import Settings
from app.factory import create_app
from tests.support import Recorder, running
from app.observability.telemetry import observe
from app.scheduler.telemetry import UNMEASURED, UNTRACED
async def run():
    async with running(sys.argv[1], Recorder("work"), start=False) as (service, runtime):
        observe(runtime)
        service.start()
        execution = await service.enqueue("work")
        assert (await service.wait(execution.id, 30)).success
        assert execution.trace_context is None
        assert (runtime.tracer, runtime.meter) == (UNTRACED, UNMEASURED)
asyncio.run(run())
app = create_app(Settings(database_url=sys.argv[1]))
assert "/metrics" not in [getattr(route, "path", None) for route in app.routes]
ours = {name for name in sys.modules if name.startswith("app.observability")}
assert ours & {f"app.observability.{name}" for name in EXTRAS} == set(), ours
theirs = {name for name, module in sys.modules.items() if module is not None}
assert not {name for name in theirs if name.startswith(("google.protobuf", "prometheus_client", "requests"))}
assert not {name for name in theirs if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))}
"""
    subprocess.run([sys.executable, "-c", code, sqlite_url], check=True, timeout=60)


def test_with_the_extras_installed_tracing_costs_nothing_until_somebody_wants_it(sqlite_url: str) -> None:
    code = """
import sys
from app.core.config import Settings
from app.factory import create_app
from app.scheduler.telemetry import UNTRACED
app = create_app(Settings(database_url=sys.argv[1]))
assert app.state.runtime.tracer is UNTRACED
loaded = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
assert loaded == [], loaded
assert "app.observability.tracing" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, sqlite_url], check=True, timeout=60)


def test_a_provider_of_the_application_is_used_and_never_replaced(sqlite_url: str) -> None:
    code = """
import os, sys
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
traces, meters = TracerProvider(), MeterProvider()
trace.set_tracer_provider(traces)
metrics.set_meter_provider(meters)
from app.core.config import Settings
from app.factory import create_app
app = create_app(Settings(database_url=sys.argv[1]))
assert type(app.state.runtime.tracer).__name__ == "OtelTracer"
assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == (traces, meters)
assert "app.observability.otel_setup" not in sys.modules
assert traces._active_span_processor._span_processors == ()
"""
    subprocess.run([sys.executable, "-c", code, sqlite_url], check=True, timeout=60)


def test_telemetry_that_cannot_be_set_up_here_is_said_with_the_remedy(sqlite_url: str) -> None:
    def said(absent: str = "", **variables: str) -> str:
        code = """
import sys
if sys.argv[2]:
    sys.modules[sys.argv[2]] = None
from app.core.config import Settings
from app.factory import create_app
app = create_app(Settings(database_url=sys.argv[1]))
print(type(app.state.runtime.tracer).__name__)
"""
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
        ran = subprocess.run(
            [sys.executable, "-c", code, sqlite_url, absent],
            env={**os.environ, **endpoint, **variables},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert ran.stdout == "Untraced\n"
        return ran.stderr

    assert "OTEL_TRACES_EXPORTER=console" in said(OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="none")
    assert "PROTOCOL=grpc" in said(OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert "contenthub-scheduler[otel]" in said(absent="opentelemetry.sdk")
    assert "OTEL_" not in said(OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
    assert "OTEL_" not in said(OTEL_SDK_DISABLED="true")
