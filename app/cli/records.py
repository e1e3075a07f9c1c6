"""Stored rows as the JSON that `--json` writes. Secrets are masked."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from app.core.redaction import redact

if TYPE_CHECKING:
    from app.models.node import Node
    from app.models.scheduled_task import ScheduledTask
    from app.models.task_attempt import ExecutionLog, TaskAttempt
    from app.models.task_execution import Execution

_TASK_FIELDS = (
    "id",
    "name",
    "description",
    "task_type",
    "params",
    "schedule",
    "timezone",
    "dst_policy",
    "start_at",
    "end_at",
    "jitter_seconds",
    "is_active",
    "priority",
    "timeout_seconds",
    "retry",
    "misfire_policy",
    "misfire_grace_seconds",
    "overlap_policy",
    "concurrency_key",
    "concurrency_limit",
    "next_run_at",
    "exhausted_at",
    "schedule_error",
    "last_run_at",
    "last_state",
    "version",
    "created_at",
    "updated_at",
)
_EXPRESSION_NAMES = {"cron": "expression", "interval": "seconds", "at": "at"}


def task_record(task: ScheduledTask) -> dict[str, Any]:
    """A task; its schedule has the form in which it is asked for."""
    values: dict[str, Any] = {"schedule": schedule_record(task)}
    values |= {name: getattr(task, name) for name in _TASK_FIELDS if name != "schedule"}
    values["params"] = redact(task.params)
    return {name: values[name] for name in _TASK_FIELDS} | {"declared_in_code": task.declared is not None}


def schedule_record(task: ScheduledTask) -> dict[str, Any] | None:
    """`{"type": "cron", "expression": …}`, or None. Also for columns that cannot be read."""
    if task.schedule_type is None:
        return None
    return {"type": task.schedule_type, _EXPRESSION_NAMES[task.schedule_type]: task.schedule_expression}


def execution_record(execution: Execution) -> dict[str, Any]:
    """An execution, as it is recorded."""
    values = asdict(execution)
    return values | {"params": redact(execution.params), "result": redact(execution.result)}


def attempt_record(attempt: TaskAttempt) -> dict[str, Any]:
    """One attempt."""
    return _columns(attempt, without={"execution_id"})


def log_record(line: ExecutionLog) -> dict[str, Any]:
    """One kept log line."""
    return _columns(line, without={"execution_id"})


def node_record(node: Node) -> dict[str, Any]:
    """One node."""
    return _columns(node, without=set())


def _columns(row: Any, *, without: set[str]) -> dict[str, Any]:
    return {
        column.name: getattr(row, column.name) for column in row.__table__.columns if column.name not in without
    }
