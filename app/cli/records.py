"""Stored rows as `--json` writes them: what the API answers, so that a program needs to know one form. Secrets are
masked there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.models.node import Node
    from app.models.scheduled_task import ScheduledTask
    from app.models.task_attempt import ExecutionLog, TaskAttempt
    from app.models.task_execution import Execution
    from app.scheduler.steps import Signal, StepRow

# The imports are inside for the reason that session.py gives.


def task_record(task: ScheduledTask) -> dict[str, Any]:
    """A task."""
    from app.api.schemas import TaskAnswer

    return TaskAnswer.of(task).model_dump()


def execution_record(execution: Execution) -> dict[str, Any]:
    """An execution, without its attempts."""
    from app.api.schemas import ExecutionAnswer

    return ExecutionAnswer.model_validate(execution).model_dump()


def execution_summary(execution: Execution) -> dict[str, Any]:
    """An execution in a list: without params and result."""
    from app.api.schemas import ExecutionSummary

    return ExecutionSummary.model_validate(execution).model_dump()


def attempt_record(attempt: TaskAttempt) -> dict[str, Any]:
    """One attempt."""
    from app.api.schemas import AttemptAnswer

    return AttemptAnswer.model_validate(attempt).model_dump()


def step_record(step: StepRow) -> dict[str, Any]:
    """One step or wait."""
    from app.api.schemas import StepAnswer

    return StepAnswer.model_validate(step).model_dump()


def signal_record(signal: Signal) -> dict[str, Any]:
    """One signal."""
    from app.api.schemas import SignalAnswer

    return SignalAnswer.model_validate(signal).model_dump()


def relative_record(execution: Execution) -> dict[str, Any]:
    """A parent or a child."""
    from app.api.schemas import RelativeAnswer

    return RelativeAnswer.model_validate(execution).model_dump()


def log_record(line: ExecutionLog) -> dict[str, Any]:
    """One kept log line."""
    from app.api.schemas import LogAnswer

    return LogAnswer.model_validate(line).model_dump()


def node_record(node: Node, running: int) -> dict[str, Any]:
    """One node, and how many executions it is running."""
    from app.api.schemas import NodeAnswer

    return NodeAnswer.model_validate(node).model_dump() | {"running": running}
