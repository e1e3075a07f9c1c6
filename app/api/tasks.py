"""`/tasks`: stored definitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from app.api import cursor as cursors
from app.api.auth import Admin, Operator, RuntimeOf, Viewer
from app.api.problems import PreconditionFailed, documented
from app.api.schemas import (
    BackfillAnswer,
    BackfillCancelled,
    BackfillRange,
    BackfillRequest,
    ExecutionAnswer,
    Explanation,
    PreviewAnswer,
    RecentRun,
    RunRequest,
    SearchText,
    TaskAnswer,
    TaskChangeAnswer,
    TaskChangePage,
    TaskPage,
    TaskRuns,
)
from app.core.errors import InvalidRequest, VersionConflict, sentence_of
from app.core.language import Language, Said
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import ExecutionState
from app.scheduler.definitions import TaskDefinition
from app.scheduler.preview import preview
from app.scheduler.schedules import Moment
from app.scheduler.tasks import TaskOrder

router = APIRouter(prefix="/tasks", tags=["tasks"])

Id = Annotated[int, Field(ge=1, lt=2**63)]
TaskId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a task.")]
IfMatch = Annotated[
    str | None, Header(description="Version (the ETag) the change is meant for; another stored one: 412.")
]
Count = Annotated[int, Query(ge=1, le=100, description="How many fires.")]
InLanguage = Annotated[Language, Query(description="Of the sentence and the warnings.")]

_EXAMPLE = {
    "name": "morning-digest",
    "task_type": "content_generation",
    "params": {"account_id": 1, "topic": "人工智能的未来发展"},
    "schedule": {"type": "cron", "expression": "0 9 * * 1-5"},
    "timezone": "Asia/Shanghai",
    "retry": {"max_attempts": 3},
}

_CHANGES: dict[str, Any] = {
    name: (Annotated[field.rebuild_annotation() | None, Field(description=field.description)], None)
    for name, field in TaskDefinition.model_fields.items()
}
TaskChanges: type[BaseModel] = create_model(
    "TaskChanges",
    __config__=ConfigDict(extra="forbid", json_schema_extra={"examples": [{"priority": 5}]}),
    __doc__="The fields to change; what is left out stays.",
    **_CHANGES,
)
SchedulePreview: type[BaseModel] = create_model(
    "SchedulePreview",
    __config__=ConfigDict(extra="forbid"),
    __doc__="A task that may still be without a name and a type.",
    **_CHANGES,
)
_UNNAMED = {"name": "preview", "task_type": "preview"}


def _answer(task: ScheduledTask, response: Response) -> TaskAnswer:
    response.headers["ETag"] = f'"{task.version}"'
    return TaskAnswer.of(task)


def _version(if_match: str | None) -> int | None:
    """The version in an `If-Match` header."""
    if if_match is None or if_match.strip() == "*":
        return None
    plain = if_match.strip().removeprefix("W/").strip('"')
    if not plain.isascii() or not plain.isdecimal() or len(plain) > 18:
        raise InvalidRequest.of(
            "If-Match", Said("send the ETag of the task as it was read, or *", "请发送读取任务时得到的 ETag，或 *")
        )
    return int(plain)


@contextmanager
def _matching(if_match: str | None) -> Iterator[int | None]:
    """The version in `If-Match`; where the client sent one, a conflict over it is 412."""
    version = _version(if_match)
    try:
        yield version
    except VersionConflict as error:
        if version is None:
            raise
        raise PreconditionFailed(sentence_of(error)) from error


@router.get("", summary="List tasks", responses=documented())
def list_tasks(
    runtime: RuntimeOf,
    _caller: Viewer,
    task_type: Annotated[SearchText | None, Query(description="Of this executor type.")] = None,
    is_active: Annotated[bool | None, Query(description="Not paused.")] = None,
    last_state: Annotated[ExecutionState | None, Query(description="How the last run ended.")] = None,
    search: Annotated[SearchText | None, Query(description="Part of the name.")] = None,
    order: Annotated[TaskOrder, Query(description="What comes first.")] = TaskOrder.ID,
    cursor: cursors.Cursor = None,
    limit: cursors.Limit = 50,
) -> TaskPage:
    """Tasks; by id: in the order they were made."""
    found = runtime.tasks.page(
        after_id=cursors.decode(cursor) or 0,
        limit=limit + 1,
        task_type=task_type,
        is_active=is_active,
        last_state=last_state,
        search=search,
        order=order,
    )
    more = len(found) > limit
    return TaskPage(
        items=[TaskAnswer.of(task) for task in found[:limit]],
        next_cursor=cursors.encode(found[limit - 1].id) if more else None,
    )


@router.post("", status_code=201, summary="Create a task", responses=documented(409))
def create_task(
    definition: Annotated[TaskDefinition, Body(examples=[_EXAMPLE])],
    runtime: RuntimeOf,
    caller: Operator,
    response: Response,
) -> TaskAnswer:
    """Store a task and arm its schedule. Nothing is stored unless every field is right."""
    task = runtime.tasks.create(runtime.definition(definition.model_dump(exclude_unset=True)), by=caller.name)
    response.headers["Location"] = f"/api/v1/scheduler/tasks/{task.id}"
    return _answer(task, response)


@router.post("/preview", summary="Preview a schedule", responses=documented())
def preview_definition(
    definition: Annotated[SchedulePreview, Body(examples=[_EXAMPLE])],  # type: ignore[valid-type]
    runtime: RuntimeOf,
    _caller: Viewer,
    count: Count = 10,
    language: InLanguage = "en",
    anchor: Annotated[
        Moment | None,
        Query(description="Where an interval counts from, as a task's `created_at`; by default now."),
    ] = None,
) -> PreviewAnswer:
    """What a schedule would do, in words and moments; nothing is stored."""
    wanted = runtime.definition({**_UNNAMED, **definition.model_dump(exclude_unset=True)})  # type: ignore[attr-defined]
    return _preview(runtime, wanted, count, anchor or runtime.clock.now(), language)


@router.get("/runs", summary="List the last runs of tasks", responses=documented())
def list_runs(
    runtime: RuntimeOf,
    _caller: Viewer,
    task_id: Annotated[list[Id], Query(min_length=1, max_length=100, description="Of these tasks.")],
    count: Annotated[int, Query(ge=1, le=50, description="How many of each.")] = 12,
) -> list[TaskRuns]:
    """The last executions of each task, newest first."""
    found = runtime.history.recent(list(dict.fromkeys(task_id)), count)
    return [
        TaskRuns(task_id=key, runs=[RecentRun.model_validate(execution) for execution in executions])
        for key, executions in found.items()
    ]


@router.get("/{task_id}", summary="Show a task", responses=documented(404))
def get_task(task_id: TaskId, runtime: RuntimeOf, _caller: Viewer, response: Response) -> TaskAnswer:
    """One task; its version is in the ETag."""
    return _answer(runtime.tasks.get(task_id), response)


@router.patch("/{task_id}", summary="Change a task", responses=documented(404, 409, 412))
def update_task(
    task_id: TaskId,
    changes: TaskChanges,  # type: ignore[valid-type]  # made by create_model from TaskDefinition
    runtime: RuntimeOf,
    caller: Operator,
    response: Response,
    if_match: IfMatch = None,
) -> TaskAnswer:
    """Change the fields that are sent. Limits (`rate_limit`, `concurrency_key`, `concurrency_limit`) hold for what
    waits too, everything else from the next fire on. Masked secrets stay what they are; who changes params beside
    them and is no admin writes them anew. Send `If-Match` so that nobody's change in between is overwritten."""
    with _matching(if_match) as version:
        wanted = changes.model_dump(exclude_unset=True)  # type: ignore[attr-defined]
        task = runtime.tasks.update(
            task_id, wanted, expected_version=version, by=caller.name, lends_secrets=caller.lends_secrets
        )
        return _answer(task, response)


@router.delete("/{task_id}", status_code=204, summary="Delete a task", responses=documented(404, 412))
def delete_task(task_id: TaskId, runtime: RuntimeOf, caller: Admin, if_match: IfMatch = None) -> None:
    """Delete the task and cancel what waits; its history stays. One that the code declares comes back at
    the next start."""
    with _matching(if_match) as version:
        runtime.tasks.delete(task_id, expected_version=version, by=caller.name)


@router.post("/{task_id}/run", status_code=202, summary="Run a task now", responses=documented(404))
async def run_task(
    task_id: TaskId, runtime: RuntimeOf, caller: Operator, request: RunRequest | None = None
) -> ExecutionAnswer:
    """Fire the task now, under its own policies: it may be skipped because an earlier run is not over."""
    execution = await runtime.commands.run_now(
        task_id,
        params=request.params if request else None,
        trigger="api",
        triggered_by=caller.name,
        lends_secrets=caller.lends_secrets,
    )
    return ExecutionAnswer.model_validate(execution)


@router.post("/{task_id}/backfill/preview", summary="Preview a backfill", responses=documented(404))
def preview_backfill(
    task_id: TaskId, wanted: BackfillRange, runtime: RuntimeOf, _caller: Viewer
) -> BackfillAnswer:
    """Which fires of a past range a backfill would record, and which the ledger has already."""
    return BackfillAnswer.of(runtime.preview_backfill(task_id, wanted.start, wanted.end))


@router.post("/{task_id}/backfill", status_code=202, summary="Make up for the past", responses=documented(404))
async def backfill_task(
    task_id: TaskId, wanted: BackfillRequest, runtime: RuntimeOf, caller: Operator
) -> BackfillAnswer:
    """Record the fires of a past range that the ledger lacks and run them at a pace, oldest first."""
    found = await runtime.commands.backfill(
        task_id, wanted.start, wanted.end, pace=wanted.pace, triggered_by=caller.name
    )
    return BackfillAnswer.of(found)


@router.post("/{task_id}/backfill/cancel", summary="Cancel a backfill", responses=documented(404))
async def cancel_backfill(task_id: TaskId, runtime: RuntimeOf, _caller: Operator) -> BackfillCancelled:
    """End what is left of the backfills of a task: what waits at once, what runs as soon as its code lets go. The
    schedule goes on."""
    called_off = await runtime.commands.cancel_backfill(task_id)
    return BackfillCancelled(cancelled=len(called_off.ended), ending=len(called_off.asked))


@router.post("/{task_id}/pause", summary="Pause a task", responses=documented(404))
def pause_task(task_id: TaskId, runtime: RuntimeOf, caller: Operator, response: Response) -> TaskAnswer:
    """Stop firing; what is under way goes on."""
    return _answer(runtime.tasks.pause(task_id, by=caller.name), response)


@router.post("/{task_id}/resume", summary="Resume a task", responses=documented(404))
def resume_task(task_id: TaskId, runtime: RuntimeOf, caller: Operator, response: Response) -> TaskAnswer:
    """Fire again from now on."""
    return _answer(runtime.tasks.resume(task_id, by=caller.name), response)


@router.get("/{task_id}/explain", summary="Explain a task", responses=documented(404))
def explain_task(
    task_id: TaskId,
    runtime: RuntimeOf,
    _caller: Viewer,
    at: Annotated[Moment | None, Query(description="The moment to account for, with its offset.")] = None,
    language: InLanguage = "en",
) -> Explanation:
    """Why it ran, or did not, at that moment; without `at`: what it does next."""
    return Explanation(explanation=runtime.explain(task_id, at, language))


@router.get("/{task_id}/changes", summary="Read a task's history", responses=documented())
def list_changes(
    task_id: TaskId,
    runtime: RuntimeOf,
    _caller: Viewer,
    cursor: cursors.Cursor = None,
    limit: cursors.Limit = 50,
) -> TaskChangePage:
    """Who changed the task, when, and what it was before; newest first. A deleted task's history remains."""
    found = runtime.tasks.changes(task_id, before_id=cursors.decode(cursor), limit=limit + 1)
    return TaskChangePage(
        items=[TaskChangeAnswer.model_validate(change) for change in found[:limit]],
        next_cursor=cursors.encode(found[limit - 1].id) if len(found) > limit else None,
    )


@router.get("/{task_id}/preview", summary="Preview a task", responses=documented(404))
def preview_task(
    task_id: TaskId, runtime: RuntimeOf, _caller: Viewer, count: Count = 10, language: InLanguage = "en"
) -> PreviewAnswer:
    """The task's next fires, in words and moments."""
    task = runtime.tasks.get(task_id)
    found = _preview(runtime, TaskDefinition.of(task), count, task.created_at, language)
    if task.schedule_error is None:
        return found
    why = Said(
        f"does not fire: its schedule could not be read: {task.schedule_error}",
        f"不会触发：它的计划无法解析：{task.schedule_error}",
    )
    return PreviewAnswer(fires=[], description=found.description, warnings=[why.in_(language)])


def _preview(
    runtime: RuntimeOf, definition: TaskDefinition, count: int, anchor: datetime, language: Language
) -> PreviewAnswer:
    if definition.schedule is None:
        raise InvalidRequest.of(
            "schedule", Said("the task has no schedule; it runs when asked to", "任务没有计划；它只在被要求时运行")
        )
    found = preview(
        definition.schedule,
        zone=definition.timezone,
        dst_policy=definition.dst_policy,
        after=runtime.clock.now(),
        count=count,
        start_at=definition.start_at,
        end_at=definition.end_at,
        anchor=anchor,
        jitter_seconds=definition.jitter_seconds,
        hours=definition.hours(),
        closed_policy=definition.closed_policy,
        language=language,
    )
    return PreviewAnswer(fires=list(found.fires), description=found.description, warnings=list(found.warnings))
