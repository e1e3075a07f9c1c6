"""What is the matter now: the tables, asked about one rule's condition. Reads, outside any write transaction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, Table, func, select
from sqlalchemy.orm import Session

from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import ExecutionState, TaskExecution, is_not_success
from app.scheduler.alerting.conditions import (
    Breach,
    Condition,
    Failed,
    Late,
    NoSuccess,
    Parked,
    Slow,
    Subject,
    failures_in_a_row,
    p99_of,
    slow_after,
)
from app.scheduler.pace import BACKFILL

tasks = cast("Table", ScheduledTask.__table__)
executions = cast("Table", TaskExecution.__table__)

DELIVERY = "alert_delivery"
"""The executor that delivers. No rule looks at what becomes of its executions: alerts must not breed alerts."""
_MEASURED_RUNS = 500
_COUNTED_RUNS = 1000
"""A longer row of failures is told as so many or more."""
_ERROR_LENGTH = 200
_RAN = (ExecutionState.SUCCESS.value, ExecutionState.FAILED.value)


def observe(session: Session, condition: Condition, task_id: int | None, now: datetime) -> dict[str, Breach]:
    """Who breaches `condition` at `now`, by the subject's key; of one task, or (None) of all."""
    found: Iterator[Breach]
    match condition:
        case Failed():
            found = _failed(session, condition, task_id)
        case Late():
            found = _late(session, condition, task_id, now)
        case Slow():
            found = _slow(session, condition, task_id, now)
        case NoSuccess():
            found = _without_success(session, condition, task_id, now)
        case Parked():
            found = _parked(session, condition, task_id)
    return {breach.subject.key: breach for breach in found}


def _active(*columns: Any, task_id: int | None) -> Select[Any]:
    query = select(tasks.c.id, tasks.c.name, *columns).where(tasks.c.is_active, tasks.c.task_type != DELIVERY)
    return query if task_id is None else query.where(tasks.c.id == task_id)


def _failed(session: Session, condition: Failed, task_id: int | None) -> Iterator[Breach]:
    suspects = _active(task_id=task_id).where(
        tasks.c.last_state.is_not(None), tasks.c.last_state != ExecutionState.SUCCESS.value
    )
    for task in session.execute(suspects).all():
        ran = (
            select(executions.c.state, executions.c.error)
            .where(
                executions.c.task_id == task.id,
                executions.c.state.in_(_RAN),
                executions.c.trigger != BACKFILL,  # the past says nothing of how the schedule does now
            )
            .order_by(executions.c.id.desc())
        )
        newest = session.execute(ran.limit(condition.times)).all()
        if failures_in_a_row([run.state for run in newest]) < condition.times:
            continue
        times = failures_in_a_row([run.state for run in session.execute(ran.limit(_COUNTED_RUNS))])
        details = {"times": times, "error": (newest[0].error or "")[:_ERROR_LENGTH]}
        yield Breach(
            Subject.task(task.id, task.name), details | ({"or_more": True} if times == _COUNTED_RUNS else {})
        )


def _late(session: Session, condition: Late, task_id: int | None, now: datetime) -> Iterator[Breach]:
    before = now - timedelta(seconds=condition.seconds)
    unfired = _active(tasks.c.next_run_at.label("since"), task_id=task_id).where(
        tasks.c.next_run_at.is_not(None), tasks.c.next_run_at < before
    )
    due_since = func.coalesce(executions.c.due_at, executions.c.run_at)  # what puts it off is why it is late
    waiting = (
        select(executions.c.task_id.label("id"), tasks.c.name, func.min(due_since).label("since"))
        .join(tasks, tasks.c.id == executions.c.task_id)
        .where(
            is_not_success(executions.c.state),
            executions.c.state == ExecutionState.PENDING.value,
            due_since < before,
            executions.c.task_type != DELIVERY,
            executions.c.trigger != BACKFILL,  # one after the other is no delay
        )
        .group_by(executions.c.task_id, tasks.c.name)
    )
    if task_id is not None:
        waiting = waiting.where(executions.c.task_id == task_id)
    since: dict[Subject, datetime] = {}
    for task in (*session.execute(unfired), *session.execute(waiting)):
        subject = Subject.task(task.id, task.name)
        since[subject] = min(task.since, since.get(subject, task.since))
    for subject, moment in since.items():
        yield Breach(subject, {"late_seconds": (now - moment).total_seconds()})


def _slow(session: Session, condition: Slow, task_id: int | None, now: datetime) -> Iterator[Breach]:
    running = (
        select(executions.c.id, executions.c.task_id, executions.c.started_at, tasks.c.name)
        .join(tasks, tasks.c.id == executions.c.task_id)
        .where(
            is_not_success(executions.c.state),
            executions.c.state == ExecutionState.RUNNING.value,
            executions.c.started_at < now - timedelta(seconds=condition.at_least_seconds),
            executions.c.task_type != DELIVERY,
        )
        .order_by(executions.c.started_at.desc())  # the one that has run longest is written last, and stays
    )
    if task_id is not None:
        running = running.where(executions.c.task_id == task_id)
    for run in session.execute(running).all():
        durations = session.scalars(_durations(run.task_id)).all()
        limit = slow_after(condition, durations)
        seconds = (now - run.started_at).total_seconds()
        if limit is not None and seconds > limit:
            details = {
                "running_seconds": seconds,
                "p99_seconds": p99_of(durations),
                "execution_id": run.id,
            }
            yield Breach(Subject.task(run.task_id, run.name), details)


def _durations(task_id: int) -> Select[Any]:
    """How long the task's last runs took."""
    return (
        select(executions.c.duration_seconds)
        .where(
            executions.c.task_id == task_id,
            executions.c.state.in_(_RAN),
            executions.c.duration_seconds.is_not(None),
        )
        .order_by(executions.c.id.desc())
        .limit(_MEASURED_RUNS)
    )


def _without_success(
    session: Session, condition: NoSuccess, task_id: int | None, now: datetime
) -> Iterator[Breach]:
    before = now - timedelta(seconds=condition.seconds)
    has_succeeded: ColumnElement[bool] = tasks.c.last_state == ExecutionState.SUCCESS.value
    suspects = _active(tasks.c.last_run_at, tasks.c.last_state, tasks.c.updated_at, task_id=task_id).where(
        tasks.c.updated_at < before,
        tasks.c.last_state.is_(None) | ~(has_succeeded & (tasks.c.last_run_at >= before)),
    )
    if task_id is None:
        suspects = suspects.where(tasks.c.schedule_type.is_not(None))
    for task in session.execute(suspects).all():
        last = (
            task.last_run_at
            if task.last_state == ExecutionState.SUCCESS
            else session.scalar(
                select(executions.c.finished_at)
                .where(
                    executions.c.task_id == task.id,
                    executions.c.state == ExecutionState.SUCCESS.value,
                    executions.c.trigger != BACKFILL,
                )
                .order_by(executions.c.id.desc())
                .limit(1)
            )
        )
        since = max(task.updated_at, last) if last is not None else task.updated_at
        if since < before:
            yield Breach(Subject.task(task.id, task.name), {"silent_seconds": (now - since).total_seconds()})


def _parked(session: Session, condition: Parked, task_id: int | None) -> Iterator[Breach]:
    query = (
        select(
            executions.c.task_id,
            func.max(executions.c.task_name).label("task_name"),
            executions.c.task_type,
            func.count().label("count"),
            func.max(executions.c.reason).label("reason"),
        )
        .where(
            is_not_success(executions.c.state),
            executions.c.state == ExecutionState.PARKED.value,
            executions.c.task_type != DELIVERY,
        )
        .group_by(executions.c.task_id, executions.c.task_type)
        .having(func.count() >= condition.count)
    )
    if task_id is not None:
        query = query.where(executions.c.task_id == task_id)
    for row in session.execute(query).all():
        subject = (
            Subject.task(row.task_id, row.task_name or row.task_type)
            if row.task_id is not None
            else Subject.task_type(row.task_type)
        )
        yield Breach(subject, {"count": row[3], "reason": row.reason or "?"})
