"""Why a task ran, or did not, in a sentence: read from the fire ledger."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import literal_column, select
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import InvalidRequest, NotFound
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import Execution, ExecutionState, TaskExecution
from app.scheduler.arming import trigger_of
from app.scheduler.triggers import ScheduleTrigger

executions = TaskExecution.__table__

_SKIP_REASONS = {
    "overlap": "an earlier execution of the task was not over yet (overlap policy skip)",
    "misfire": "nobody could fire it in time, and it was later than its misfire grace (misfire policy skip)",
    "coalesced": "it was missed, and one catch-up run stands for it and the fires after it",
    "paused": "the task was paused before anybody had fired it",
    "rescheduled": "the task's schedule was changed before anybody had fired it",
}
_STATES = {
    ExecutionState.PENDING: "it waits for a free lane",
    ExecutionState.RUNNING: "it is running",
    ExecutionState.RETRYING: "it failed and will be tried again",
    ExecutionState.PARKED: "it is parked until its executor or params are repaired",
    ExecutionState.SUCCESS: "it ran and succeeded",
    ExecutionState.FAILED: "it ran and failed",
    ExecutionState.CANCELLED: "it was cancelled",
}


def explain(sessions: sessionmaker[Session], task_id: int, at: datetime | None, now: datetime) -> str:
    """Why did task `task_id` run, or not run, at `at`; without `at`: what it will do next.

    Raises:
        NotFound: no such task. InvalidRequest: `at` names no zone.
    """
    if at is not None and at.tzinfo is None:
        raise InvalidRequest.of("at", "give the moment a zone, for example 2030-01-01T09:00:00+08:00")
    with sessions() as session:
        task = session.get(ScheduledTask, task_id)
        if task is None:
            raise NotFound("task", task_id)
        if at is None:
            return f"Task {_name(task)} {_outlook(task)}"
        entry = _ledger_entry(session, task_id, at)
    moment = _local(at, task)
    if entry is not None:
        return f"Task {_name(task)} at {moment}: {_account(entry, task)}"
    return f"Task {_name(task)} has no fire recorded at {moment}: {_absence(task, at, now)}"


def _name(task: ScheduledTask) -> str:
    return f"{task.id} ({task.name})"


def _local(moment: datetime, task: ScheduledTask) -> str:
    return moment.astimezone(ZoneInfo(task.timezone)).isoformat(timespec="seconds")


def _outlook(task: ScheduledTask) -> str:
    if task.schedule_type is None:
        return "has no schedule; it runs when asked to."
    if task.schedule_error is not None:
        return f"does not fire because its schedule cannot be read: {task.schedule_error}"
    if not task.is_active:
        return "is paused; resume it and it fires again."
    if task.exhausted_at is not None:
        return f"has no fire left since {_local(task.exhausted_at, task)}."
    if task.next_run_at is None:
        return "has just been stored; the clock sets its first fire within a second."
    return f"fires next at {_local(task.next_run_at, task)}."


def _ledger_entry(session: Session, task_id: int, at: datetime) -> Execution | None:
    """The ledger row of the fire at that very second, or the skipped row that stands for it."""
    second = at.replace(microsecond=0)
    row = session.execute(
        select(executions)
        .where(
            executions.c.task_id == task_id,
            executions.c.scheduled_for >= second,
            executions.c.scheduled_for < second + timedelta(seconds=1),
        )
        .order_by(executions.c.scheduled_for)
        .limit(1)
    ).first()
    if row is None:
        row = session.execute(
            select(executions)
            .where(
                executions.c.task_id == task_id,
                executions.c.fire_count > literal_column("1"),  # word for word as in the index on spans
                executions.c.first_fire_at <= at,
                executions.c.scheduled_for >= at,
            )
            .order_by(executions.c.scheduled_for)
            .limit(1)
        ).first()
    return Execution.from_row(row) if row is not None else None


def _account(entry: Execution, task: ScheduledTask) -> str:
    if entry.state is ExecutionState.SKIPPED:
        why = _SKIP_REASONS.get(entry.reason or "", entry.reason or "skipped")
        if entry.fire_count > 1 and entry.first_fire_at is not None and entry.scheduled_for is not None:
            span = f"{_local(entry.first_fire_at, task)} to {_local(entry.scheduled_for, task)}"
            return f"it was skipped, one of {entry.fire_count} fires from {span}: {why}. Execution {entry.id}."
        return f"it was skipped: {why}. Execution {entry.id}."
    sentence = f"{_STATES[entry.state]}, as execution {entry.id}"
    if entry.started_at is not None:
        sentence += f", started {_local(entry.started_at, task)}"
    if entry.reason:
        sentence += f", reason {entry.reason}"
    if entry.error:
        sentence += f", error: {entry.error}"
    return sentence + "."


def _absence(task: ScheduledTask, at: datetime, now: datetime) -> str:
    """Why the ledger has no row for that moment: the first cause that applies."""
    if task.schedule_type is None:
        return "it has no schedule; it runs only when asked to."
    if at > now:
        return f"that moment is still to come. It {_outlook(task)}"
    if at < task.created_at:
        return f"the task was made later, at {_local(task.created_at, task)}."
    if task.schedule_error is not None:
        return f"its schedule cannot be read: {task.schedule_error}"
    trigger = trigger_of(task)
    fits = trigger is not None and _fires_in_second(trigger, at)
    if not task.is_active:
        return f"it is paused; it was last changed at {_local(task.updated_at, task)}."
    if trigger is not None and not fits:
        return f"its schedule does not fire then.{_neighbours(trigger, at, task)}"
    if at < task.updated_at:
        return (
            f"the task was changed later, at {_local(task.updated_at, task)}; "
            "before that it was paused or had another schedule."
        )
    if task.next_run_at is not None and task.next_run_at <= at:
        return "it is due, and no running scheduler has fired it yet: start one, it will catch up."
    return "its record is older than the retention, or has been deleted."


def _fires_in_second(trigger: ScheduleTrigger, at: datetime) -> bool:
    second = at.replace(microsecond=0)
    fire = trigger.next_after(second - timedelta(microseconds=1))
    return fire is not None and fire < second + timedelta(seconds=1)


def _neighbours(trigger: ScheduleTrigger, at: datetime, task: ScheduledTask) -> str:
    before, after = trigger.last_at_or_before(at), trigger.next_after(at)
    names = [f"the fire before is {_local(before, task)}"] if before is not None else []
    names += [f"the fire after is {_local(after, task)}"] if after is not None else []
    return f" Nearby: {', '.join(names)}." if names else ""
