"""Limits hold between processes: four of them on one database, each with both limits, on every engine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.core.config import Settings
from app.models.task_attempt import TaskAttempt
from app.models.task_execution import ExecutionState, TaskExecution
from app.scheduler.rates import RateLimit
from app.scheduler.runtime import build_service, runtime_of
from tests.support import Recorder, until

PROCESSES = 4
LIMIT = RateLimit(20, per_seconds=1, burst=4)
RATED, KEYED = 80, 40
PLACES = 3

PROGRAM = f"""
import asyncio, os, sys, time
from app.core.config import Settings
from app.scheduler.rates import RateLimit
from app.scheduler.runtime import build_service, runtime_of
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor

diary = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

class Rated(TaskExecutor):
    executor_type = "rated"
    rate_limit = RateLimit({LIMIT.limit}, per_seconds={LIMIT.per_seconds}, burst={LIMIT.burst})
    async def execute(self, task_id, task_params, db):
        return TaskExecutionResult.success_result("ok")

class Keyed(TaskExecutor):
    executor_type = "keyed"
    async def execute(self, task_id, task_params, db):
        os.write(diary, b"+")
        time.sleep(0.02)
        os.write(diary, b"-")
        return TaskExecutionResult.success_result("ok")

async def main():
    service = build_service(Settings())
    service.register_executor(Rated())
    service.register_executor(Keyed())
    service.start()
    print("up", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await service.drain()
    runtime_of(service).close()

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgres", "pgqueuer"])
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment of the processes, on a database that has its schema."""
    url = request.getfixturevalue(f"{request.param}_url")
    engine = "pgqueuer" if request.param == "pgqueuer" else "embedded"
    return {"DATABASE_URL": url, "SCHEDULER_ENGINE": engine, "SCHEDULER_CONCURRENCY": "4", "LOG_LEVEL": "ERROR"}


@pytest.fixture
def processes(settings: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    """Four running processes; yields the file in which their executions say when they run."""
    diary = tmp_path / "diary"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(diary)],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
        yield diary
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
        assert [process.wait(30) for process in started] == [0] * PROCESSES
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


async def test_neither_rate_nor_key_is_ever_exceeded(processes: Path, settings: dict[str, str]) -> None:
    service = build_service(
        Settings(database_url=settings["DATABASE_URL"], scheduler_engine=settings["SCHEDULER_ENGINE"])
    )
    for task_type in ("rated", "keyed"):
        service.register_executor(Recorder(task_type))
    runtime = runtime_of(service)
    keyed: dict[str, Any] = {"concurrency_key": "k", "concurrency_limit": PLACES}
    items = [{"task_type": "rated"}] * RATED + [{"task_type": "keyed", **keyed}] * KEYED
    await service.enqueue_many(items)
    await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == RATED + KEYED, 90)
    with runtime.sessions() as session:
        starts = session.scalars(
            select(TaskAttempt.started_at)
            .join(TaskExecution, TaskExecution.id == TaskAttempt.execution_id)
            .where(TaskExecution.task_type == "rated")
        ).all()
        nodes = set(session.scalars(select(TaskAttempt.node)))
    await asyncio.to_thread(runtime.close)
    assert len(starts) == RATED
    assert most_within(list(starts), timedelta(seconds=LIMIT.per_seconds)) <= LIMIT.limit + LIMIT.capacity - 1
    assert most_at_once(processes.read_text()) <= PLACES
    assert len(nodes) > 1


def most_within(starts: list[datetime], span: timedelta) -> int:
    return max(sum(first <= one < first + span for one in starts) for first in starts)


def most_at_once(diary: str) -> int:
    running = most = 0
    for mark in diary:
        running += 1 if mark == "+" else -1
        most = max(most, running)
    return most
