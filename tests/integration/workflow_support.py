"""A running service that knows workflows, approvals, and the executors of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.executors.approval import ApprovalExecutor
from app.executors.workflow import WorkflowExecutor
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.runtime import Runtime
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor
from tests.support import Recorder, running, until


def echo(_task_id: int, params: dict[str, Any], _db: Any) -> TaskExecutionResult:
    """Returns its params; `fail` makes it fail."""
    if params.get("fail"):
        return TaskExecutionResult.failure_result("坏", "Bad: luck", data=params)
    return TaskExecutionResult.success_result("好", data=params)


@asynccontextmanager
async def workflows(
    database_url: str, *executors: TaskExecutor, **settings: Any
) -> AsyncIterator[tuple[SchedulerService, Runtime]]:
    """As `running()`, with `workflow`, `approval`, and `work`, which returns its params."""
    async with running(database_url, start=False, **settings) as (service, runtime):
        for executor in (
            WorkflowExecutor(service),
            ApprovalExecutor(service),
            Recorder("work", echo),
            *executors,
        ):
            service.register_executor(executor)
        service.start()
        yield service, runtime


async def child(runtime: Runtime, workflow_id: int, key: str, state: ExecutionState) -> Execution:
    """The child under that key, once it is in that state."""

    def found() -> Execution | None:
        for execution in runtime.history.children(workflow_id):
            if execution.child_key == key and execution.state is state:
                return execution
        return None

    return await until(found)
