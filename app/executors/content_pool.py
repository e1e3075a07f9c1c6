"""`add_to_pool` and `publish_due`: contents wait in the pool until their turn, then go out, each once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.clock import Clock, SystemClock
from app.core.errors import NotFound
from app.db.outage import DATABASE_AWAY, OUTLIVED_ATTEMPTS
from app.models.content import LARGEST_ID
from app.models.content_pool import PoolState
from app.models.task_execution import ExecutionState
from app.scheduler.context import current_execution, find_current_execution
from app.scheduler.family import PARENT_CANCELLED
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error
from app.workflows.pool import Published, add, claim_again, claim_due, settle

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
    them. A schedule and `limit` make the rate. A retry asks the pool anew which of its entries are still its own,
    and publishes those.
    """

    params_model = PublishDueParams
    max_attempts = OUTLIVED_ATTEMPTS
    retry_on = DATABASE_AWAY

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    @property
    def executor_type(self) -> str:
        return "publish_due"

    def got_over(self, task_params: dict[str, Any], children: Mapping[str, ExecutionState]) -> Collection[str]:
        """All: since they ended, somebody may have withdrawn what they were to publish."""
        return children.keys()

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = PublishDueParams.model_validate(task_params)
        published: list[int] = []
        number = 0
        while True:
            found = await self._round(number, params, db)
            published += found.published
            if not found.is_past:
                return _result(published, found.failed)
            number += 1

    async def _round(self, number: int, params: PublishDueParams, db: Session) -> _Round:
        """Take entries, publish them, record what became of them; each retry is one round more."""
        execution = current_execution()
        suffix = f"~{number}" if number else ""
        now = self._clock.now()
        if number == 0:
            taken: list[dict[str, int]] = await execution.step(
                "claim", claim_due, db, execution.id, target=params.target, limit=params.limit, now=now
            )
        else:
            taken = await execution.step(f"claim{suffix}", claim_again, db, execution.id)
        for entry in taken:
            body = {"content_id": entry["content_id"], "target": params.target}
            await execution.spawn(f"entry {entry['id']}{suffix}", "publishing", body)
        await execution.wait_for_children()
        children = execution.children()
        runs = [(entry, children[f"entry {entry['id']}{suffix}"]) for entry in taken]
        ended = [(entry, run) for entry, run in runs if run.reason != PARENT_CANCELLED]
        found = _Round(is_past=len(ended) < len(runs))
        for entry, run in ended:
            if run.state is ExecutionState.SUCCESS:
                found.published.append(entry["content_id"])
            else:
                found.failed[entry["content_id"]] = run.error or run.reason or run.state.value.capitalize()

        def record() -> int:
            outcomes = [Published(entry["id"], found.failed.get(entry["content_id"])) for entry, _ in ended]
            settle(db, execution.id, outcomes, self._clock.now())
            return execution.attempt

        settled_by = await execution.step(f"settle{suffix}", record)
        if found.failed and settled_by != execution.attempt:
            found.is_past = True
        return found


@dataclass(slots=True)
class _Round:
    """What became of what was taken, by content."""

    is_past: bool
    """It belongs to an earlier try: its failures are recorded, or it was cancelled on the way. This is a retry."""
    published: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


def _result(published: list[int], failed: Mapping[int, str]) -> TaskExecutionResult:
    data = {"published": published, "failed": list(failed)}
    if failed:
        return TaskExecutionResult.failure_result(
            f"内容池发布: {len(published)} 篇成功，{len(failed)} 篇失败",
            error=next(iter(failed.values())),
            data=data,
        )
    return TaskExecutionResult.success_result(
        f"已从内容池发布 {len(published)} 篇" if published else "内容池没有到期内容", data=data
    )
