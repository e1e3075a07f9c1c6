"""`workflow`: runs a definition, each step as an execution of its own.

It holds nothing while they run: it looks at its children, asks the planner, spawns what is next, and suspends
until enough of them have ended for there to be something new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from loguru import logger
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.core.errors import ExecutorNotFound, FieldError, InvalidParameters
from app.core.jsonable import LARGEST_RESULT
from app.core.language import Said
from app.db.outage import DATABASE_AWAY, OUTLIVED_ATTEMPTS
from app.models.task_execution import ExecutionState
from app.scheduler.context import CurrentExecution, current_execution, find_current_execution
from app.scheduler.family import size_of_children
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor
from app.workflows.checks import faults
from app.workflows.definition import WORKFLOW_TYPE, OnFailure, WorkflowDefinition, ancestors
from app.workflows.planner import Plan, Start, plan
from app.workflows.progress import UNDO, Child, StepState


class WorkflowExecutor(TaskExecutor):
    """See the module. `service` knows which executors its steps may name."""

    params_model = WorkflowDefinition
    max_attempts = OUTLIVED_ATTEMPTS
    retry_on = DATABASE_AWAY
    waits_for_others = True

    def __init__(self, service: SchedulerService) -> None:
        self._service = service

    @property
    def executor_type(self) -> str:
        return WORKFLOW_TYPE

    def validate_params(self, task_params: dict[str, Any]) -> bool:
        """Raises InvalidParameters: every fault of the definition, by field."""
        found = faults(WorkflowDefinition.model_validate(task_params), self._service.check, self._waits_for_others)
        if found:
            raise InvalidParameters(
                FieldError(f"params.{fault.field}", fault.message, fault.kind) for fault in found
            )
        return True

    def _waits_for_others(self, task_type: str) -> bool:
        """Asked when a workflow is written. One that runs was perhaps recorded before what would change nothing at
        such steps was refused; it goes on."""
        running = find_current_execution()
        if running is not None and running.task_type == WORKFLOW_TYPE:
            return False
        executor = self._service.get_executor(task_type)
        return executor is not None and executor.waits_for_others

    def refuse_retry(self, result: dict[str, Any] | None) -> str | None:
        undone = ((result or {}).get("data") or {}).get("undone")
        if undone and all(run["state"] == StepState.SUCCESS for run in undone):
            return Said(
                "its finished steps have been undone; run the workflow anew",
                "它完成的步骤已经撤销；请重新运行工作流",
            )
        return None

    def got_over(self, task_params: dict[str, Any], children: Mapping[str, ExecutionState]) -> Collection[str]:
        """What comes after a step with `on_failure: continue` has seen that it failed: the branch is chosen. One
        that was cancelled was so perhaps together with the workflow, which then has not gone on: it has where
        something after the step has begun. And a workflow that has begun to undo can only go on undoing."""
        if _undoes(children):
            return [key for key in children if not key.startswith(UNDO)]
        later = _later_steps(task_params)
        begun = {_step_of(key) for key in children}
        return {
            key
            for key, state in children.items()
            if _step_of(key) in later
            and (
                state is ExecutionState.FAILED
                or (state is ExecutionState.CANCELLED and later[_step_of(key)] & begun)
            )
        }

    def refuse_child_retry(
        self, task_params: dict[str, Any], key: str, children: Mapping[str, ExecutionState]
    ) -> str | None:
        if key not in self.got_over(task_params, children):
            return None
        if _undoes(children):
            return Said(
                "its workflow has begun to undo what it had done; run the workflow anew",
                "它的工作流已开始撤销；请重新运行工作流",
            )
        if not _later_steps(task_params)[_step_of(key)]:
            return None
        return Said(
            "its workflow went on without it, and what comes after it is decided; run the workflow anew",
            "它的工作流已越过它继续，后面的走向已定；请重新运行工作流",
        )

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        definition = WorkflowDefinition.model_validate(task_params)
        execution = current_execution()
        while True:
            size = _size_of_children(db, execution.id)
            if size > LARGEST_RESULT:
                return _too_large(size)
            children = {key: Child.of(child) for key, child in execution.children().items()}
            decided = plan(
                definition,
                children,
                workflow_id=execution.id,
                accept=self._refusal,
                pause=partial(_stop_if_cancelled, execution),
            )
            _tell(execution, decided)
            if decided.outcome is not None:
                return _result(decided, succeeded=decided.outcome)
            await asyncio.gather(*(_spawn(execution, start) for start in decided.starts))
            ended = sum(child.is_over for child in children.values())
            await execution.wait_for_children(ended=ended + decided.wake_after)

    def _refusal(self, task_type: str, params: dict[str, Any]) -> str | None:
        try:
            self._service.check(task_type, params)
        except (ExecutorNotFound, InvalidParameters) as error:
            return str(error)
        return None


def _step_of(key: str) -> str:
    return key.partition("[")[0]


def _undoes(children: Collection[str]) -> bool:
    return any(key.startswith(UNDO) for key in children)


def _later_steps(task_params: dict[str, Any]) -> dict[str, frozenset[str]]:
    """The steps whose failure the workflow goes on from, each with those that come after it."""
    try:
        steps = WorkflowDefinition.model_validate(task_params).steps
    except ValidationError:  # changed in plain SQL; its next attempt says so
        return {}
    before = ancestors(steps)
    return {
        step.id: frozenset(later for later, waited_for in before.items() if step.id in waited_for)
        for step in steps
        if step.on_failure is OnFailure.CONTINUE
    }


def _size_of_children(db: Session, execution_id: int) -> int:
    size = size_of_children(db.connection(), execution_id)
    db.rollback()  # nothing may be open in it when the execution is suspended
    return size


def _too_large(size: int) -> TaskExecutionResult:
    """Said before the children are read: to read them is what the process would not survive."""
    return TaskExecutionResult.failure_result(
        "工作流失败: 各步骤的参数与结果太大",
        error=f"ResultsTooLarge: the params and results of its steps have {size:,} characters together, and a "
        f"workflow at most {LARGEST_RESULT:,}; let steps keep large data elsewhere and return where it is. What "
        "runs goes on to its end, and nothing was undone",
    )


def _stop_if_cancelled(execution: CurrentExecution) -> None:
    """A plan may take seconds, in which nothing else of this attempt would notice."""
    if execution.cancelled:
        raise asyncio.CancelledError("somebody wants this attempt ended")


async def _spawn(execution: CurrentExecution, start: Start) -> None:
    await execution.spawn(
        start.key,
        start.type,
        start.params,
        max_attempts=start.max_attempts,
        timeout_seconds=start.timeout_seconds,
    )


def _tell(execution: CurrentExecution, decided: Plan) -> None:
    over = sum(progress.is_over for progress in decided.steps.values())
    execution.progress(over / len(decided.steps), f"{over}/{len(decided.steps)}")
    for start in decided.starts:
        logger.info("步骤 {} 开始 (类型: {})", start.key, start.type)


def _result(decided: Plan, *, succeeded: bool) -> TaskExecutionResult:
    data: dict[str, Any] = {
        "steps": {step_id: progress.as_result() for step_id, progress in decided.steps.items()},
        "undone": [{"step": run.key.partition(":")[2], **run.as_value()} for run in decided.undone],
    }
    if succeeded:
        skipped = sum(progress.state is StepState.SKIPPED for progress in decided.steps.values())
        note = f"，跳过 {skipped} 步" if skipped else ""
        return TaskExecutionResult.success_result(f"工作流完成: {len(decided.steps)} 步{note}", data=data)
    failed = decided.failed
    name, error = (failed.step.id, failed.first_error()) if failed is not None else ("?", None)
    undone = sum(run.state is StepState.SUCCESS for run in decided.undone)
    stuck = len(decided.undone) - undone
    note = (f"，已撤销 {undone} 步" if undone else "") + (f"，撤销失败 {stuck} 步" if stuck else "")
    return TaskExecutionResult.failure_result(
        f"工作流失败: 步骤 {name} 失败{note}", error=f"StepFailed: {name}: {error}", data=data
    )
