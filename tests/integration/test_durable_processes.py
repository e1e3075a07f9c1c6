"""Durable executions in real processes that are killed: what was stored is not done again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.core.config import Settings
from app.db.database import make_engine

PROGRAM = """
import asyncio, json, os, sys
from app.core.config import Settings
from app.scheduler.context import current_execution
from app.scheduler.runtime import build_service
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor
from sqlalchemy import text

done = open(sys.argv[2], "a", buffering=1)

class Journey(TaskExecutor):
    executor_type = "journey"
    max_attempts = 100

    async def execute(self, task_id, task_params, db):
        me = current_execution()

        async def part(number):
            await asyncio.sleep(0.03)
            print(json.dumps(["ran", me.id, number]), file=done)
            if number % 3 == 0:
                db.execute(text("INSERT INTO accounts (name) VALUES (:name)"), {"name": f"{me.id}/{number}"})
            return number

        for number in range(12):
            await me.step(f"part {number}", part, number)
            print(json.dumps(["stored", me.id, number]), file=done)
            if number == 5:
                await me.sleep(0.2)
            if number == 8:
                await me.call("child", "child")
        return TaskExecutionResult.success_result("there")

class Child(TaskExecutor):
    executor_type = "child"

    async def execute(self, task_id, task_params, db):
        return TaskExecutionResult.success_result("child")

async def main():
    settings = Settings(database_url=sys.argv[1], scheduler_concurrency=4, scheduler_lease_seconds=2,
                        scheduler_max_rescues=1000, scheduler_job_heartbeat_seconds=2)
    service = build_service(settings)
    service.register_executor(Journey())
    service.register_executor(Child())
    service.start()
    for number in range(8):
        await service.enqueue("journey", idempotency_key=f"journey {number}")
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgresql", "pgqueuer"])
def database_url(request: pytest.FixtureRequest) -> str:
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "pgqueuer": "pgqueuer_url"}[request.param]
    found: str = request.getfixturevalue(fixture)
    return found


@contextmanager
def node(database_url: str, diary: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, database_url, str(diary)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def lines(diary: Path) -> list[tuple[str, int, int]]:
    return [tuple(json.loads(line)) for line in diary.read_text().splitlines()] if diary.exists() else []


@pytest.mark.timeout(240)
def test_a_killed_process_repeats_no_step_whose_result_was_stored(database_url: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    engine = make_engine(Settings(database_url=database_url))

    def ask(statement: str) -> Any:
        with engine.connect() as connection:
            return connection.execute(text(statement)).all()

    def is_over() -> bool:
        states = Counter(row.state for row in ask("SELECT state FROM task_executions WHERE task_type = 'journey'"))
        return states == {"success": 8}

    kills = 0
    end = time.monotonic() + 200
    while not is_over():
        assert time.monotonic() < end
        with node(database_url, diary):
            before = len(lines(diary))
            # The first are killed a moment after they got somewhere, so each makes some way; the last may end it.
            while not is_over() and time.monotonic() < end and (kills == 4 or len(lines(diary)) < before + 25):
                time.sleep(0.05)
        kills += 1
    journeys = [row.id for row in ask("SELECT id FROM task_executions WHERE task_type = 'journey'")]
    accounts = Counter(row.name for row in ask("SELECT name FROM accounts"))
    engine.dispose()
    assert kills > 2
    stored: set[tuple[int, int]] = set()
    for event, execution, number in lines(diary):
        if event == "stored":
            stored.add((execution, number))
        else:
            assert (execution, number) not in stored, f"part {number} of execution {execution} ran again"
    assert stored == {(execution, number) for execution in journeys for number in range(12)}
    # What steps wrote through db is there once, whatever was killed when.
    assert accounts == {f"{execution}/{number}": 1 for execution in journeys for number in (0, 3, 6, 9)}
