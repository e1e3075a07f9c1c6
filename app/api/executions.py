"""`/executions`: what ran, runs and will run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Header, Path, Query, Response

from app.api import cursor as cursors
from app.api.auth import Operator, RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import (
    AttemptAnswer,
    BulkAnswer,
    BulkItem,
    BulkRequest,
    EnqueuedAnswer,
    EnqueueOneRequest,
    ExecutionAnswer,
    ExecutionDetail,
    ExecutionPage,
    LogAnswer,
    LogPage,
    SearchText,
)
from app.core.errors import InvalidRequest
from app.models.task_execution import ExecutionState
from app.scheduler.schedules import Moment

router = APIRouter(prefix="/executions", tags=["executions"])

ExecutionId = Annotated[int, Path(ge=1, lt=2**63, description="Id of an execution.")]
_EXAMPLE = {"task_type": "content_generation", "params": {"account_id": 1, "topic": "人工智能的未来发展"}}


@router.get("", summary="List executions", responses=documented())
def list_executions(
    runtime: RuntimeOf,
    _caller: Viewer,
    state: Annotated[list[ExecutionState] | None, Query(description="Any of these states.")] = None,
    task_id: Annotated[int | None, Query(ge=1, lt=2**63, description="Of this task.")] = None,
    task_type: Annotated[SearchText | None, Query(description="Of this executor type.")] = None,
    trigger: Annotated[
        SearchText | None, Query(description="What asked for it: schedule, catch_up, manual, api, code.")
    ] = None,
    since: Annotated[Moment | None, Query(description="Recorded at or after; with its offset.")] = None,
    until: Annotated[Moment | None, Query(description="Recorded before; with its offset.")] = None,
    search: Annotated[SearchText | None, Query(description="Part of task name, message or error.")] = None,
    cursor: cursors.Cursor = None,
    limit: cursors.Limit = 50,
) -> ExecutionPage:
    """Executions, newest first. A page of a search may hold fewer than `limit` and yet not be the last: go on
    while there is a `next_cursor`."""
    before_id = cursors.decode(cursor)
    searches = task_id is None and any(item is not None for item in (task_type, trigger, since, until, search))
    horizon = runtime.history.horizon(before_id) if searches else 0
    found = runtime.history.page(
        before_id=before_id,
        down_to=horizon,
        limit=limit + 1,
        states=state or (),
        task_id=task_id,
        task_type=task_type,
        trigger=trigger,
        since=since,
        until=until,
        search=search,
    )
    following = found[limit - 1].id if len(found) > limit else horizon
    return ExecutionPage(
        items=[ExecutionAnswer.model_validate(execution) for execution in found[:limit]],
        next_cursor=cursors.encode(following) if following else None,
    )


@router.post("", status_code=202, summary="Run an executor once", responses=documented())
async def enqueue_execution(
    request: Annotated[EnqueueOneRequest, Body(examples=[_EXAMPLE])],
    runtime: RuntimeOf,
    caller: Operator,
    response: Response,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same as `idempotency_key` in the body.")
    ] = None,
) -> EnqueuedAnswer:
    """Record a request; it is durable when this answers. A repeated `Idempotency-Key` returns the first one; what
    else a repeated request does, `repeats` says. The answer `is_repeat` where an earlier request stands for it."""
    wanted = dict(request)
    if idempotency_key is not None:
        if request.idempotency_key not in (None, idempotency_key):
            raise InvalidRequest.of("idempotency_key", "header and body name different keys; send one of them")
        wanted["idempotency_key"] = idempotency_key
    execution = await runtime.enqueue(
        wanted.pop("task_type"), wanted.pop("params"), db=None, trigger="api", triggered_by=caller.name, **wanted
    )
    response.headers["Location"] = f"/api/v1/scheduler/executions/{execution.id}"
    return EnqueuedAnswer.model_validate(execution)


@router.post("/bulk", status_code=202, summary="Run executors many times", responses=documented(413))
async def enqueue_many(
    request: Annotated[BulkRequest, Body(examples=[{"items": [_EXAMPLE]}])], runtime: RuntimeOf, caller: Operator
) -> BulkAnswer:
    """Record up to 10,000 requests, all of them or none. A refusal names the items: `items.17.params.topic`."""
    items = [dict(item) for item in request.items]
    recorded = await runtime.enqueue_many(items, trigger="api", triggered_by=caller.name)
    answers = [BulkItem(id=execution.id, is_repeat=execution.is_repeat) for execution in recorded]
    return BulkAnswer(items=answers, recorded=sum(not answer.is_repeat for answer in answers))


@router.get("/{execution_id}", summary="Show an execution", responses=documented(404))
def get_execution(execution_id: ExecutionId, runtime: RuntimeOf, _caller: Viewer) -> ExecutionDetail:
    """One execution with its attempts."""
    execution = runtime.history.get(execution_id)
    attempts = [AttemptAnswer.model_validate(attempt) for attempt in runtime.history.attempts(execution_id)]
    return ExecutionDetail(**ExecutionAnswer.model_validate(execution).__dict__, attempts=attempts)


@router.get("/{execution_id}/logs", summary="Read an execution's log", responses=documented(404))
def get_logs(
    execution_id: ExecutionId,
    runtime: RuntimeOf,
    _caller: Viewer,
    after: Annotated[int, Query(ge=0, lt=2**63, description="`after` of the answer before.")] = 0,
    limit: cursors.Limit = 500,
) -> LogPage:
    """The kept log lines, oldest first; ask again with `after` to follow them."""
    runtime.history.get(execution_id)
    lines = runtime.history.logs(execution_id, after_id=after, limit=limit)
    return LogPage(
        items=[LogAnswer.model_validate(line) for line in lines], after=lines[-1].id if lines else after
    )


@router.post("/{execution_id}/cancel", summary="Cancel an execution", responses=documented(404, 409))
async def cancel_execution(execution_id: ExecutionId, runtime: RuntimeOf, _caller: Operator) -> ExecutionAnswer:
    """A waiting one is cancelled at once; a running one as soon as its code lets go."""
    return ExecutionAnswer.model_validate(await runtime.cancel(execution_id))


@router.post("/{execution_id}/retry", summary="Retry an execution", responses=documented(404, 409))
async def retry_execution(execution_id: ExecutionId, runtime: RuntimeOf, _caller: Operator) -> ExecutionAnswer:
    """Run a failed, cancelled or parked execution again, as a further attempt."""
    return ExecutionAnswer.model_validate(await runtime.retry(execution_id))
