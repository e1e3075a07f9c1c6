"""A finished execution as the result its caller waits for."""

from __future__ import annotations

from app.models.task_execution import Execution, ExecutionState
from app.services.scheduler_service import TaskExecutionResult


def outcome_of(execution: Execution) -> TaskExecutionResult:
    """The recorded result; for an execution that ended without an attempt's result, one that says how."""
    stored = execution.result or {}
    if execution.state is ExecutionState.SUCCESS:
        return TaskExecutionResult(
            success=True,
            message=execution.message or "",
            data=stored.get("data"),
            duration=execution.duration_seconds,
            metadata=stored.get("metadata") or {},
        )
    if execution.state is ExecutionState.SKIPPED:
        message, error = "任务已跳过", f"Skipped: {execution.reason}"
    elif execution.state is ExecutionState.CANCELLED:
        message, error = "任务已取消", "Cancelled"
    else:
        message, error = execution.message or "任务失败", execution.error or execution.reason or "Failed"
    return TaskExecutionResult.failure_result(
        message=message,
        error=error,
        duration=execution.duration_seconds,
        metadata=stored.get("metadata") or {},
        data=stored.get("data"),
    )
