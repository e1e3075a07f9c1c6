"""`add_to_pool` and `publish_due`: contents wait in the pool until their turn, then go out, each once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.clock import Clock, SystemClock
from app.core.errors import NotFound
from app.db.outage import DATABASE_AWAY, OUTLIVED_ATTEMPTS
from app.models.content_pool import PoolState
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.context import current_execution, find_current_execution
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error
from app.workflows.pool import Published, add, claim_due, settle

LARGEST_ID = 2**31 - 1
Target = Literal["directory", "webhook"]


class AddToPoolParams(BaseModel):
    """Params of `add_to_pool`."""

    model_config = ConfigDict(extra="forbid")

    content_id: int = Field(ge=1, le=LARGEST_ID, description="The content that is ready.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="A higher one goes out first.")
    not_before: AwareDatetime | None = Field(
        default=None, description="Not before this moment; by default at once."
    )
    target: Target = Field(default="directory", description="Where it goes, as in publishing.")


class PublishDueParams(BaseModel):
    """Params of `publish_due`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=1, ge=1, le=100, description="How many go out at most in one run.")
    target: Target = Field(default="directory", description="The entries for this kind of place.")


class AddToPoolExecutor(TaskExecutor):
    """Puts a content into the pool. Repeated, it changes what is there."""

    params_model = AddToPoolParams
    max_attempts = OUTLIVED_ATTEMPTS
    retry_on = DATABASE_AWAY

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    @property
    def executor_type(self) -> str:
        return "add_to_pool"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = AddToPoolParams.model_validate(task_params)
        now = self._clock.now()
        execution = find_current_execution()
        try:
            entry = add(
                db,
                params.content_id,
                target=params.target,
                priority=params.priority,
                not_before=params.not_before or now,
                added_by=execution.id if execution is not None else None,
                now=now,
            )
        except NotFound as error:
            return TaskExecutionResult.failure_result("加入内容池失败", error=describe_error(error))
        is_out = entry.state == PoolState.PUBLISHED
        message = "内容此前已发布" if is_out else f"内容已在池中，优先级 {entry.priority}"
        return TaskExecutionResult.success_result(
            message, data={"pool_id": entry.id, "content_id": entry.content_id, "state": entry.state}
        )


class PublishDueExecutor(TaskExecutor):
    """Takes what is due from the pool and publishes each entry by a `publishing` execution of its own.

    Taking is a step, committed with what it took: after a crash the same entries go on, and no other scanner has
    them. A schedule and `limit` make the rate.
    """

    params_model = PublishDueParams
    max_attempts = OUTLIVED_ATTEMPTS
    retry_on = DATABASE_AWAY

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    @property
    def executor_type(self) -> str:
        return "publish_due"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = PublishDueParams.model_validate(task_params)
        execution = current_execution()
        now = self._clock.now()
        taken: list[dict[str, int]] = await execution.step(
            "claim", claim_due, db, execution.id, target=params.target, limit=params.limit, now=now
        )
        for entry in taken:
            await execution.spawn(
                f"entry {entry['id']}",
                "publishing",
                {"content_id": entry["content_id"], "target": params.target},
            )
        await execution.wait_for_children()
        children = execution.children()
        outcomes = [Published(entry["id"], _error_of(children[f"entry {entry['id']}"])) for entry in taken]
        await execution.step("settle", settle, db, execution.id, outcomes, self._clock.now())
        return _result(taken, outcomes)


def _error_of(child: Execution) -> str | None:
    if child.state is ExecutionState.SUCCESS:
        return None
    return child.error or child.reason or child.state.value.capitalize()


def _result(taken: list[dict[str, int]], outcomes: list[Published]) -> TaskExecutionResult:
    failed = {outcome.entry_id: outcome.error for outcome in outcomes if outcome.error is not None}
    data = {
        "published": [entry["content_id"] for entry in taken if entry["id"] not in failed],
        "failed": [entry["content_id"] for entry in taken if entry["id"] in failed],
    }
    if failed:
        return TaskExecutionResult.failure_result(
            f"内容池发布: {len(data['published'])} 篇成功，{len(failed)} 篇失败",
            error=next(iter(failed.values())),
            data=data,
        )
    count = len(data["published"])
    return TaskExecutionResult.success_result(
        f"已从内容池发布 {count} 篇" if count else "内容池没有到期内容", data=data
    )
