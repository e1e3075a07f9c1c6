"""One process of the deployment under test: `python -m tests.faults.server`, told everything by its environment.

`FAULTS_BREAK` makes a build that breaks a promise, so that the checker can be seen to find it: `ledger` (no unique
constraint, and tasks are advanced a moment after their fires are committed), `fence` (whoever finishes last wins),
`replay` (an attempt forgets what those before it have stored).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from app.api.application import install_api
from app.core.clock import SystemClock
from app.core.config import Settings
from app.core.logging import configure_logging
from app.db.bulk import BulkUpdate
from app.executors.approval import ApprovalExecutor
from app.executors.workflow import WorkflowExecutor
from app.scheduler import attempts, durable, firing
from app.scheduler.context import current_execution
from app.scheduler.executions import executions
from app.scheduler.runtime import build_service, runtime_of
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor
from tests.faults.diary import Diary
from tests.faults.journey import Journey, Marks


class SteppedClock(SystemClock):
    """The machine's clock, off by the seconds that a file holds."""

    def __init__(self, offset: Path) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(self._offset.read_text()))


class Effect(TaskExecutor):
    """Writes a row through its Session and its comings and goings into the diary; fails now and then."""

    max_attempts = 4

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    @property
    def executor_type(self) -> str:
        return "effect"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        run = current_execution()
        key = task_params.get("key")
        self._diary.write("begin", execution=run.id, attempt=run.attempt, key=key, node=run.node)
        try:
            await asyncio.sleep(task_params.get("seconds", 0.05))
            if random.Random(f"{run.id}/{run.attempt}").random() < task_params.get("failing", 0.0):
                return TaskExecutionResult.failure_result("失败", "ConnectionError: by chance")
            # Last, because a write held open across an await would lock everybody else out.
            db.execute(
                text("INSERT INTO fault_effects (execution, attempt) VALUES (:execution, :attempt)"),
                {"execution": run.id, "attempt": run.attempt},
            )
            return TaskExecutionResult.success_result("好")
        finally:
            self._diary.write("end", execution=run.id, attempt=run.attempt, key=key, node=run.node)


class _LateUpdate(BulkUpdate):
    """An update that happens a moment after the transaction it belongs to."""

    def __init__(self, update: BulkUpdate) -> None:
        self._update = update

    def execute(self, connection: Connection, rows: Any) -> int:
        def later() -> None:
            with connection.engine.begin() as own:
                self._update.execute(own, rows)

        threading.Timer(0.3, later).start()
        return len(rows)


def break_promise(name: str) -> None:
    """Make this process a build that breaks a promise.

    Raises:
        ValueError: no such promise.
    """
    if name == "ledger":
        firing._ADVANCE = _LateUpdate(firing._ADVANCE)
    elif name == "fence":
        table = executions

        def whoever_comes(given: Any) -> Any:
            return table.c.id == given["x_id"]

        attempts._FINISH = BulkUpdate(
            {**attempts._FENCE, **attempts._OUTCOME},
            lambda given: attempts._with_outcome(given).where(whoever_comes(given)),
        )
    elif name == "replay":
        durable.stored_steps = lambda *_, **__: []  # type: ignore[assignment]
    else:
        raise ValueError(f"no promise is called {name!r}")


def make_app(folder: Path) -> FastAPI:
    """The application: API and scheduler, with the executor of the harness and a clock that can be stepped."""
    settings = Settings()
    configure_logging(settings.log_level)
    service = build_service(settings, role=settings.scheduler_role, clock=SteppedClock(folder / "clock"))
    service.register_executor(Effect(Diary(folder / "diary")))
    service.register_executor(Journey(Diary(folder / "diary"), Marks(folder / "marks")))
    service.register_executor(WorkflowExecutor(service))
    service.register_executor(ApprovalExecutor(service))
    runtime = runtime_of(service)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.drain()
            await asyncio.to_thread(runtime.close)

    app = FastAPI(lifespan=lifespan)
    app.state.runtime = runtime
    install_api(app)
    return app


if __name__ == "__main__":
    if broken := os.environ.get("FAULTS_BREAK"):
        break_promise(broken)
    uvicorn.run(
        make_app(Path(os.environ["FAULTS_FOLDER"])),
        port=int(os.environ["PORT"]),
        log_level="error",
        timeout_graceful_shutdown=3,
    )
