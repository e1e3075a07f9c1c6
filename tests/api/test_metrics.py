"""`/metrics` counts what ran, tells what waits, and asks who wants to know."""

from __future__ import annotations

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


def test_without_the_extra_tasks_run_nothing_is_imported_and_nothing_served(sqlite_url: str) -> None:
    code = """
import importlib.util
import sys
# FastAPI itself asks for opentelemetry-api: only the SDK and the Prometheus client can be absent.
present = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "prometheus_client" else present(name, *more)
for absent in ("prometheus_client", "opentelemetry.sdk"):
    sys.modules[absent] = None
import asyncio
from app.core.config import Settings
from app.factory import create_app
from tests.support import Recorder, running
async def run():
    async with running(sys.argv[1], Recorder("work")) as (service, _):
        execution = await service.enqueue("work")
        assert (await service.wait(execution.id, 30)).success
asyncio.run(run())
app = create_app(Settings(database_url=sys.argv[1]))
assert "/metrics" not in [getattr(route, "path", None) for route in app.routes]
assert "app.observability.prometheus" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, sqlite_url], check=True, timeout=60)
