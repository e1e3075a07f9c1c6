"""Ours: the same questions, put to ContentHub."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.core.config import Settings
from app.core.logging import configure_logging
from app.db.schema import upgrade
from app.observability.telemetry import Telemetry, observe
from app.scheduler.events import ExecutionChanged
from app.scheduler.runtime import Runtime, build_service, runtime_of
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor
from tests.benchmarks import probe
from tests.benchmarks.measure import (
    MICROSECONDS,
    MILLISECONDS,
    LoopWatch,
    percentile,
    resident_mib,
    row_watch,
    spread_ms,
)
from tests.benchmarks.otlp_receiver import receiver
from tests.benchmarks.served import serving
from tests.postgres import postgres_server


class NoOp(TaskExecutor):
    """Does nothing, at once."""

    @property
    def executor_type(self) -> str:
        return "no_op"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Any) -> TaskExecutionResult:
        return TaskExecutionResult.success_result("")


class Sleeper(TaskExecutor):
    """Blocks its thread for two seconds."""

    @property
    def executor_type(self) -> str:
        return "sleeper"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Any) -> TaskExecutionResult:
        time.sleep(2)
        return TaskExecutionResult.success_result("")


def _settings(folder: Path, synchronous: str = "FULL") -> Settings:
    database = f"sqlite:///{folder / 'ours.db'}"
    return Settings(database_url=database, sqlite_synchronous=synchronous, log_level="WARNING")  # type: ignore[arg-type]


def _postgres_settings(url: str, engine: str) -> Settings:
    return Settings(database_url=url, scheduler_engine=engine, log_level="WARNING")  # type: ignore[arg-type]


@asynccontextmanager
async def _running(
    settings: Settings, *, observed: bool = False
) -> AsyncIterator[tuple[SchedulerService, Runtime]]:
    configure_logging("WARNING")
    service = build_service(settings)
    await asyncio.to_thread(runtime_of(service).prepare_database)
    service.register_executor(NoOp())
    telemetry = observe(runtime_of(service)) if observed else Telemetry()
    service.start()
    try:
        yield service, runtime_of(service)
    finally:
        await service.drain()
        telemetry.close()
        runtime_of(service).close()


async def overhead(calls: int, level: str) -> probe.Figures:
    """`execute_task` over a bare await of the same coroutine, in microseconds a call."""
    configure_logging(level)
    service, executor = SchedulerService(), NoOp()
    service.register_executor(executor)
    db: Any = None
    started = time.perf_counter()
    for _ in range(calls):
        await executor.execute(1, {}, db)
    bare = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(calls):
        await service.execute_task(1, "no_op", {}, db)
    full = time.perf_counter() - started
    return {"bare_us": bare / calls * MICROSECONDS, "execute_task_us": full / calls * MICROSECONDS}


async def throughput(jobs: int, synchronous: str, callers: int) -> probe.Figures:
    """`callers` coroutines await their enqueues; done when every outcome is committed."""
    with probe.workspace() as folder:
        return await _throughput(_settings(folder, synchronous), jobs, callers)


async def postgres_throughput(jobs: int, engine: str, callers: int) -> probe.Figures:
    """The same on PostgreSQL, with either engine."""
    with postgres_server() as server:
        return await _throughput(_postgres_settings(server.get_uri(), engine), jobs, callers)


async def observed_throughput(jobs: int, by: str) -> probe.Figures:
    """The same while it is heard `by` nobody, by `prometheus`, or besides by an OTLP receiver that gets the spans
    of all (`otlp`) or of no (`otlp_unsampled`) executions."""
    with probe.workspace() as folder, receiver() as endpoint:
        if by.startswith("otlp"):
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
            os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = str(10 * jobs)  # whatever is dropped would cost nothing
        if by == "otlp_unsampled":
            os.environ["OTEL_TRACES_SAMPLER"] = "always_off"
        return await _throughput(_settings(folder, "NORMAL"), jobs, callers=256, observed=by != "nobody")


async def _throughput(settings: Settings, jobs: int, callers: int, *, observed: bool = False) -> probe.Figures:
    async with _running(settings, observed=observed) as (service, runtime):
        loop, all_done, done = asyncio.get_running_loop(), asyncio.Event(), 0

        def count(event: ExecutionChanged) -> None:
            nonlocal done
            done += 1
            if done == jobs:
                loop.call_soon_threadsafe(all_done.set)

        runtime.events.subscribe(count)
        numbers = iter(range(jobs))

        async def call() -> None:
            for _ in numbers:
                await service.enqueue("no_op")

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        await asyncio.wait_for(all_done.wait(), 120)
        return {"rate": jobs / (time.perf_counter() - started)}


async def latency(jobs: int, synchronous: str) -> probe.Figures:
    """One at a time on an idle scheduler: from the call of enqueue to the start of the attempt."""
    with probe.workspace() as folder:
        return await _latency(_settings(folder, synchronous), jobs)


async def postgres_latency(jobs: int, engine: str) -> probe.Figures:
    """The same on PostgreSQL, with either engine."""
    with postgres_server() as server:
        return await _latency(_postgres_settings(server.get_uri(), engine), jobs)


async def _latency(settings: Settings, jobs: int) -> probe.Figures:
    started_at = threading.Event()
    moments: list[float] = []

    class Note(NoOp):
        async def execute(self, task_id: int, task_params: dict[str, Any], db: Any) -> TaskExecutionResult:
            moments.append(time.perf_counter())
            started_at.set()
            return TaskExecutionResult.success_result("")

    seconds: list[float] = []
    async with _running(settings) as (service, _):
        service.register_executor(Note())
        await asyncio.sleep(0.5)
        for _ in range(jobs):
            started_at.clear()
            asked = time.perf_counter()
            await service.enqueue("no_op")
            await asyncio.to_thread(started_at.wait, 10)
            seconds.append(moments[-1] - asked)
            await asyncio.sleep(0.05)
    return spread_ms("start", seconds)


def _store_tasks(database: Path, count: int, due: datetime) -> None:
    moment = due.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO scheduled_tasks (name, task_type, schedule_type, schedule_expression, next_run_at)"
            " VALUES (?, 'no_op', 'cron', '0 0 1 1 *', ?)",
            ((f"task {number}", moment) for number in range(count)),
        )


async def fires(tasks: int) -> probe.Figures:
    """`tasks` tasks due at one instant: how late each fire is recorded and started; the loop's longest stall.

    A fire is recorded when another process can read its row: `created_at` is stamped before the commit.
    """
    with probe.workspace() as folder:
        settings, database = _settings(folder), folder / "ours.db"
        upgrade(settings)
        with row_watch(database, "task_executions", tasks) as ledger:
            due = datetime.now(UTC) + timedelta(seconds=3)
            _store_tasks(database, tasks, due)
            async with _running(settings) as (_, runtime):
                await asyncio.sleep(max((due - datetime.now(UTC)).total_seconds() - 0.3, 0))
                async with LoopWatch() as watch:
                    while (await asyncio.to_thread(runtime.history.counts))["success"] < tasks:  # type: ignore[index]
                        await asyncio.sleep(0.1)
                with runtime.engine.connect() as connection:
                    rows = connection.execute(text("SELECT started_at FROM task_executions")).all()
            recorded = [moment - due.timestamp() for moment in ledger.moments(timeout=10)]
    started = [_seconds(row.started_at) - due.timestamp() for row in rows]
    return {
        **spread_ms("fire_late", recorded),
        **spread_ms("start_late", started),
        "stall_ms": watch.longest_stall * MILLISECONDS,
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


async def footprint(tasks: int) -> probe.Figures:
    """Memory after start, and the time start takes, with `tasks` stored tasks that are not due."""
    with probe.workspace() as folder:
        settings = _settings(folder, "NORMAL")
        upgrade(settings)
        _store_tasks(folder / "ours.db", tasks, datetime.now(UTC) + timedelta(days=30))
        started = time.perf_counter()
        async with _running(settings):
            elapsed = time.perf_counter() - started
            await asyncio.sleep(2.5)
            return {"start_ms": elapsed * MILLISECONDS, "memory_mib": resident_mib()}


async def api_latency(blocked: int) -> probe.Figures:
    """p99 of GET /health/live, asked by another process, while `blocked` executors sleep in their threads."""
    with probe.workspace() as folder:
        async with serving(_settings(folder).model_copy(update={"publish_directory": folder / "site"})) as site:
            site.app.state.service.register_executor(Sleeper())
            for _ in range(blocked):
                await site.app.state.service.enqueue("sleeper")
            seconds = await site.ask("/health/live", seconds=1.5)
        return {"p99_ms": percentile(seconds, 99) * MILLISECONDS}


if __name__ == "__main__":
    probe.main(
        overhead,
        throughput,
        postgres_throughput,
        observed_throughput,
        latency,
        postgres_latency,
        fires,
        footprint,
        api_latency,
    )
