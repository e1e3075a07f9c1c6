"""`/executions`: what ran, runs and will run."""

from __future__ import annotations

import asyncio
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
    ExecutionSummary,
    LogAnswer,
    LogPage,
    RelativeAnswer,
    SearchText,
    SignalAnswer,
    SignalBody,
    StepAnswer,
)
from app.core.errors import InvalidRequest
from app.core.language import Said
from app.models.task_execution import ExecutionState
from app.scheduler.schedules import Moment
from app.workflows.approvals import refuse_bare_decision

router = APIRouter(prefix="/executions", tags=["executions"])

ExecutionId = Annotated[int, Path(ge=1, lt=2**63, description="Id of an execution.")]
_EXAMPLE = {"task_type": "content_generation", "params": {"account_id": 1, "topic": "人工智能的未来发展"}}


@router.get("", summary="List executions", responses=documented())
def list_executions(
    runtime: RuntimeOf,
    _caller: Viewer,
    state: Annotated[list[ExecutionState] | None, Query(description="Any of these states.")] = None,
    task_id: Annotated[int | None, Query(ge=1, lt=2**63, description="Of this task.")] = None,
    parent_id: Annotated[int | None, Query(ge=1, lt=2**63, description="Only children of this one.")] = None,
    task_type: Annotated[SearchText | None, Query(description="Of this executor type.")] = None,
    trigger: Annotated[
        SearchText | None, Query(description="What asked for it: schedule, catch_up, manual, api, code, parent.")
    ] = None,
    since: Annotated[Moment | None, Query(description="Recorded at or after; with its offset.")] = None,
    until: Annotated[Moment | None, Query(description="Recorded before; with its offset.")] = None,
    search: Annotated[SearchText | None, Query(description="Part of task name, message or error.")] = None,
    cursor: cursors.Cursor = None,
    limit: cursors.Limit = 50,
) -> ExecutionPage:
    """Executions in short, newest first: ask for one to read its params and its result. A page of a search may
    hold fewer than `limit` and yet not be the last: go on while there is a `next_cursor`."""
    before_id = cursors.decode(cursor)
    is_indexed = task_id is not None or parent_id is not None
    searches = not is_indexed and any(item is not None for item in (task_type, trigger, since, until, search))
    horizon = runtime.history.horizon(before_id) if searches else 0
    found = runtime.history.page(
        before_id=before_id,
        down_to=horizon,
        limit=limit + 1,
        states=state or (),
        task_id=task_id,
        parent_id=parent_id,
        task_type=task_type,
        trigger=trigger,
        since=since,
        until=until,
        search=search,
    )
    following = found[limit - 1].id if len(found) > limit else horizon
    return ExecutionPage(
        items=[ExecutionSummary.model_validate(execution) for execution in found[:limit]],
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
            raise InvalidRequest.of(
                "idempotency_key",
                Said(
                    "header and body name different keys; send one of them",
                    "请求头与请求体给出的键不同；请只发送其中一个",
                ),
            )
        wanted["idempotency_key"] = idempotency_key
    execution = await runtime.commands.enqueue(
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
    recorded = await runtime.commands.enqueue_many(items, trigger="api", triggered_by=caller.name)
    answers = [BulkItem(id=execution.id, is_repeat=execution.is_repeat) for execution in recorded]
    return BulkAnswer(items=answers, recorded=sum(not answer.is_repeat for answer in answers))


@router.get("/{execution_id}", summary="Show an execution", responses=documented(404))
def get_execution(execution_id: ExecutionId, runtime: RuntimeOf, _caller: Viewer) -> ExecutionDetail:
    """One execution with its attempts, its steps and signals, its parent and its children."""
    history = runtime.history
    execution = history.get(execution_id)
    parent = history.find(execution.parent_id) if execution.parent_id is not None else None
    children = history.last_children(execution_id)
    return ExecutionDetail(
        **ExecutionAnswer.model_validate(execution).__dict__,
        attempts=[AttemptAnswer.model_validate(attempt) for attempt in history.attempts(execution_id)],
        steps=[StepAnswer.model_validate(step) for step in history.steps(execution_id)],
        signals=[SignalAnswer.model_validate(signal) for signal in history.signals(execution_id)],
        parent=RelativeAnswer.model_validate(parent) if parent is not None else None,
        children=[RelativeAnswer.model_validate(child) for child in children],
        child_count=history.child_count(execution_id),
    )


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
    """A waiting one is cancelled at once; a running one as soon as its code lets go. Its children go with it."""
    return ExecutionAnswer.model_validate(await runtime.commands.cancel(execution_id))


@router.post("/{execution_id}/retry", summary="Retry an execution", responses=documented(404, 409))
async def retry_execution(execution_id: ExecutionId, runtime: RuntimeOf, _caller: Operator) -> ExecutionAnswer:
    """Run a failed, cancelled or parked execution again, as a further attempt: from the step that failed."""
    return ExecutionAnswer.model_validate(await runtime.commands.retry(execution_id))


@router.post(
    "/{execution_id}/signals", status_code=201, summary="Signal to an execution", responses=documented(404, 409)
)
async def signal_execution(
    execution_id: ExecutionId,
    request: Annotated[
        SignalBody, Body(examples=[{"name": "approved", "payload": {"by": "ops", "comment": "looks good"}}])
    ],
    runtime: RuntimeOf,
    caller: Operator,
) -> SignalAnswer:
    """What its code waits for, or will wait for: the signal is kept until then, and taken once."""
    refuse_bare_decision(await asyncio.to_thread(runtime.history.get, execution_id), request.name)
    signal = await runtime.commands.signal(
        execution_id, request.name, request.payload, db=None, signalled_by=caller.name
    )
    return SignalAnswer.model_validate(signal)
