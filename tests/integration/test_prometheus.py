"""The alert rules and the dashboard, judged by a real Prometheus (Debian's package `prometheus`)."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

import app.observability
from app.models.task_execution import ExecutionState
from app.observability.prometheus import PrometheusMetrics
from app.observability.telemetry import observe
from app.scheduler.breaker import CircuitBreaker
from tests.support import Recorder, daily_far_off, ended, fail_with, running, until

SHIPPED = Path(app.observability.__file__).parent
CASES = Path(__file__).with_name("alerts_test.yml")


def promtool(*arguments: str, directory: Path, given: bytes | None = None) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=directory, input=given, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    if shutil.which("promtool") is None:
        pytest.skip("Debian's package `prometheus` is not installed")
    shutil.copy(SHIPPED / "alerts.yml", tmp_path)
    shutil.copy(CASES, tmp_path)
    return tmp_path


def test_the_alert_rules_are_valid_fire_and_keep_quiet(rules: Path) -> None:
    promtool("check", "rules", "alerts.yml", directory=rules)
    promtool("test", "rules", "alerts_test.yml", directory=rules)


async def test_promtool_finds_nothing_wrong_with_the_exposition(sqlite_url: str, rules: Path) -> None:
    async with running(sqlite_url, Recorder("work")) as (service, runtime):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        await service.wait((await service.enqueue("work")).id, 10)
        promtool("check", "metrics", directory=rules, given=metrics.exposition())


async def test_an_executor_that_holds_the_loop_is_named_and_so_is_a_thread_that_does_not(sqlite_url: str) -> None:
    executors = (
        Recorder("greedy", lambda *_: time.sleep(0.8), lane="loop"),  # longer than from one look to the next
        Recorder("threaded", lambda *_: time.sleep(0.8)),
    )
    async with running(sqlite_url, *executors, start=False) as (service, runtime):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        service.start()
        for task_type in ("threaded", "greedy"):
            await service.wait((await service.enqueue(task_type)).id, 20)

        def held_by_greedy() -> float | None:
            return _samples(metrics).get('contenthub_loop_lag_seconds_count{task_type="greedy"}')

        await until(held_by_greedy)
        samples = _samples(metrics)
    assert samples['contenthub_loop_lag_seconds_sum{task_type="greedy"}'] > 0
    assert 'contenthub_loop_lag_seconds_count{task_type="threaded"}' not in samples


async def test_without_a_database_a_process_still_tells_of_itself(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(sqlite_url, Recorder("work")) as (_, runtime):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        assert _samples(metrics)["contenthub_database_reached"] == 1
        file = Path(sqlite_url.removeprefix("sqlite:///"))
        with monkeypatch.context() as gone:
            gone.setattr(runtime, "sessions", sessionmaker(create_engine(f"sqlite:///{file.parent}/no/such.db")))
            samples = _samples(metrics)
    assert samples["contenthub_database_reached"] == 0
    assert samples['contenthub_lane_free{lane="thread"}'] == 4
    assert not [name for name in samples if name.startswith(("contenthub_queue", "contenthub_node"))]


async def test_what_a_circuit_puts_off_is_overdue_and_its_circuit_is_told(sqlite_url: str) -> None:
    breaker = CircuitBreaker(failure_rate=1, window=1, minimum=1, open_seconds=3600)
    broken = Recorder("broken", fail_with(RuntimeError("no")), circuit_breaker=breaker)
    async with running(sqlite_url, broken) as (service, runtime):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        await ended(runtime, (await service.enqueue("broken")).id)
        await until(lambda: _samples(metrics).get('contenthub_circuit_open{task_type="broken"}') == 1)
        waiting = await service.enqueue("broken")
        await until(lambda: runtime.history.get(waiting.id).reason == "circuit_open")
        await asyncio.sleep(0.05)
        assert 0 < _samples(metrics)["contenthub_queue_oldest_due_seconds"] < 60
        await runtime.commands.reset_circuit("broken")
        assert _samples(metrics)['contenthub_circuit_open{task_type="broken"}'] == 0


async def test_a_backfill_is_neither_late_nor_overdue(sqlite_url: str) -> None:
    let_go = threading.Event()
    async with running(sqlite_url, Recorder("work", lambda *_: let_go.wait(20) and None), start=False) as (
        service,
        runtime,
    ):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        service.start()
        task = runtime.tasks.create(
            runtime.definition({"name": "t", "task_type": "work", "schedule": daily_far_off()})
        )
        now = datetime.now(UTC)
        await service.backfill(task.id, now - timedelta(days=3), now)
        await until(lambda: len(runtime.history.page(states=[ExecutionState.RUNNING])) == 1)
        assert _samples(metrics)["contenthub_queue_oldest_due_seconds"] == 0
        let_go.set()
        await until(lambda: _samples(metrics).get(ENDED_WELL) == 3)
        assert not [name for name in _samples(metrics) if name.startswith("contenthub_fire_late_seconds_count")]


ENDED_WELL = 'contenthub_attempts_total{state="success",task_type="work"}'


def _samples(metrics: PrometheusMetrics) -> dict[str, float]:
    lines = [line for line in metrics.exposition().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_every_metric_of_dashboard_and_rules_exists(sqlite_url: str) -> None:
    dashboard = json.loads((SHIPPED / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = set(re.findall(r"contenthub_\w+", " ".join([*asked, (SHIPPED / "alerts.yml").read_text()])))
    guarded = Recorder("work", circuit_breaker=CircuitBreaker(failure_rate=1))
    async with running(sqlite_url, guarded) as (service, runtime):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        await service.wait((await service.enqueue("work")).id, 10)
        await until(lambda: "contenthub_circuit_open{" in metrics.exposition().decode())
        text = metrics.exposition().decode()
    known = set()
    for family in text_string_to_metric_families(text):
        known |= {
            family.name,
            f"{family.name}_total",
            f"{family.name}_bucket",
            f"{family.name}_sum",
            f"{family.name}_count",
        }
    assert named
    assert named <= known
