"""What becomes of an execution after an attempt. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from app.core.errors import ReplayMismatch
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.policies import RetryPolicy, asked_patience, retry_delay
from app.services.scheduler_service import Refusal, TaskExecutionResult, TaskExecutor, TaskStatus

# Words for why an attempt was stopped from outside.
CANCELLED = "cancelled"
HANDED_BACK = "handed_back"
LEASE_LOST = "node_lost"
UNSTORABLE = "unstorable"
TIMED_OUT = "timeout"
# … and why one ended by itself, not by returning.
SUSPENDED = "suspended"
REPLAY_MISMATCH = ReplayMismatch.code


class Verdict(NamedTuple):
    """What becomes of an execution after an attempt."""

    status: TaskStatus
    state: ExecutionState
    reason: str | None
    failures: int
    run_at: datetime


def decide(
    execution: Execution,
    result: TaskExecutionResult,
    stop: str | None,
    policy: RetryPolicy,
    *,
    now: datetime,
    uniform: float,
) -> Verdict:
    """The verdict over an attempt that ended with `result`, or was stopped from outside (`stop`)."""
    if result.success:
        return Verdict(TaskStatus.SUCCESS, ExecutionState.SUCCESS, None, execution.failures, execution.run_at)
    if stop is None and isinstance(result, Refusal):
        return Verdict(TaskStatus.FAILED, ExecutionState.PARKED, result.code, execution.failures, execution.run_at)
    if stop == CANCELLED:
        return Verdict(TaskStatus.FAILED, ExecutionState.CANCELLED, None, execution.failures, execution.run_at)
    if stop == REPLAY_MISMATCH:
        return Verdict(TaskStatus.FAILED, ExecutionState.FAILED, stop, execution.failures + 1, execution.run_at)
    if stop in (HANDED_BACK, LEASE_LOST):
        again = min(execution.run_at, now)  # it had its turn: nobody who came later is before it
        return Verdict(TaskStatus.FAILED, ExecutionState.PENDING, stop, execution.failures, again)
    failures = execution.failures + 1
    delay = retry_delay(policy, failures, result.error, uniform)
    reason = TIMED_OUT if stop == TIMED_OUT else None
    if delay is None:
        return Verdict(TaskStatus.FAILED, ExecutionState.FAILED, reason, failures, execution.run_at)
    delay = max(delay, asked_patience(result.metadata))
    return Verdict(TaskStatus.FAILED, ExecutionState.RETRYING, reason, failures, now + timedelta(seconds=delay))


def stopped_result(stop: str, deadline_seconds: float | None) -> TaskExecutionResult:
    """The result of an attempt that was stopped from outside."""
    if stop == TIMED_OUT:
        unit = "second" if deadline_seconds == 1 else "seconds"
        return TaskExecutionResult.failure_result(
            message="任务执行超时", error=f"TimeoutError: no result within {deadline_seconds:g} {unit}"
        )
    if stop == CANCELLED:
        return TaskExecutionResult.failure_result(message="任务已取消", error="Cancelled")
    return TaskExecutionResult.failure_result(
        message="任务被中断，将重新执行", error=f"Interrupted: {stop.replace('_', ' ')}"
    )


def policy_of(execution: Execution, executor: TaskExecutor | None) -> RetryPolicy:
    """The policy recorded with the execution, or else the executor's default."""
    if execution.retry:
        policy = RetryPolicy.model_validate(execution.retry)
        if executor is not None and executor.waits_for_others:
            return policy.model_copy(update={"retry_on": executor.retry_on})
        return policy
    return _default_policy(executor.max_attempts, executor.retry_on) if executor is not None else RetryPolicy()


@lru_cache
def _default_policy(max_attempts: int, retry_on: tuple[str, ...] | None) -> RetryPolicy:
    return RetryPolicy(max_attempts=max_attempts, retry_on=retry_on)
