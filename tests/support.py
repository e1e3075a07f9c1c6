"""What the tests share: small executors, and a running service in one line."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from app.core.config import Settings
from app.core.errors import SchedulerError
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.runtime import Runtime, build_service, runtime_of
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor


def free_port() -> int:
    """A port that nobody has, below those from which the system chooses for connections (and for port 0): no
    connection of the test takes it before the server that is to have it."""
    while True:
        port = random.randrange(16_384, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def daily_far_off() -> str:
    """A cron expression that fires once a day, half a day from now: a clock that runs meanwhile fires nothing."""
    far = datetime.now(UTC) + timedelta(hours=12)
    return f"{far.minute} {far.hour} * * *"


class Recorder(TaskExecutor):
    """An executor of any type that runs a function; `calls` counts its attempts."""

    def __init__(self, task_type: str, run: Callable[..., Any] | None = None, **attributes: Any) -> None:
        self._task_type = task_type
        self._run = run
        self.calls: list[dict[str, Any]] = []
        for name, value in attributes.items():
            setattr(self, name, value)

    @property
    def executor_type(self) -> str:
        return self._task_type

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Any) -> TaskExecutionResult:
        self.calls.append(task_params)
        outcome = self._run(task_id, task_params, db) if self._run is not None else None
        if asyncio.iscoroutine(outcome):
            outcome = await outcome
        return outcome if outcome is not None else TaskExecutionResult.success_result("完成")


def fail_with(error: BaseException) -> Callable[..., Any]:
    """A run that raises."""

    def run(*_: Any) -> None:
        raise error

    return run


@asynccontextmanager
async def running(
    database_url: str, *executors: TaskExecutor, start: bool = True, role: str = "all", **settings: Any
) -> AsyncIterator[tuple[SchedulerService, Runtime]]:
    """A service on a database that has its schema, started, and drained afterwards."""
    defaults: dict[str, Any] = {
        "scheduler_concurrency": 4,
        "scheduler_grace_seconds": 1,
        "scheduler_lease_seconds": 3,
    }
    service = build_service(Settings(database_url=database_url, **(defaults | settings)), role=role)
    runtime = runtime_of(service)
    for executor in executors:
        service.register_executor(executor)
    if start:
        service.start()
    try:
        yield service, runtime
    finally:
        await service.drain()
        await asyncio.to_thread(runtime.close)


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Wait until `condition()` is true and return its value; an AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except SchedulerError:
            value = None
        if value:
            return value
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def ended(runtime: Runtime, execution_id: int, seconds: float = 15.0) -> Execution:
    """The execution once it is over (or parked)."""

    def over() -> Execution | None:
        execution = runtime.history.get(execution_id)
        return execution if execution.is_final or execution.state is ExecutionState.PARKED else None

    return await until(over, seconds)
