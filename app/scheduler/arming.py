"""From the columns of a task to its trigger, to the fire it waits for, and to its next run."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

from app.core.errors import InvalidRequest
from app.scheduler.schedules import DstPolicy, from_columns
from app.scheduler.triggers import ScheduleTrigger, make_trigger
from app.scheduler.windows import ClosedPolicy, hours_of, next_run

_NO_ANCHOR = datetime(1970, 1, 1, tzinfo=UTC)


class ScheduledRow(Protocol):
    """The schedule columns of `scheduled_tasks`, of an ORM object or of a Core row."""

    schedule_type: str | None
    schedule_expression: str | None
    timezone: str
    dst_policy: str
    start_at: datetime | None
    end_at: datetime | None
    created_at: datetime


class ArmedRow(ScheduledRow, Protocol):
    """With the columns that say which of its fires run."""

    next_run_at: datetime | None
    run_window: dict[str, Any] | None
    calendar: dict[str, Any] | None
    closed_policy: str


def trigger_of(task: ScheduledRow) -> ScheduleTrigger | None:
    """The trigger of a task; None: it has no schedule.

    Raises:
        InvalidRequest: the columns (plain SQL may have written them) make no schedule; the field is named.
    """
    if task.schedule_type is None or task.schedule_expression is None:
        return None
    # Only intervals count from an anchor; without it, tasks with the same cron expression share a trigger.
    anchor = task.created_at if task.schedule_type == "interval" else _NO_ANCHOR
    return _trigger(
        task.schedule_type,
        task.schedule_expression,
        task.timezone,
        task.dst_policy,
        anchor,
        task.start_at,
        task.end_at,
    )


@lru_cache(maxsize=20_000)
def _trigger(
    schedule_type: str,
    expression: str,
    zone: str,
    dst_policy: str,
    anchor: datetime,
    start_at: datetime | None,
    end_at: datetime | None,
) -> ScheduleTrigger:
    return make_trigger(
        from_columns(schedule_type, expression),
        zone=zone,
        dst_policy=DstPolicy(dst_policy),
        anchor=anchor,
        start_at=start_at,
        end_at=end_at,
    )


def first_fire(task: ScheduledRow, now: datetime) -> datetime | None:
    """The fire a task waits for once it is armed; None: its schedule is over.

    A one-off moment counts even when it has just passed: whether it is too late is for the misfire policy to say.
    """
    trigger = trigger_of(task)
    if trigger is None:
        return None
    return trigger.next_after(min(task.created_at, now) if task.schedule_type == "at" else now)


def next_run_of(task: ArmedRow) -> datetime | None:
    """When a task runs next: its next fire that is not skipped because it is closed then, or the opening to which
    that fire is put off. None: no fire is left, or it is closed at all that it looked at.

    Where this process cannot read the columns, it is the next fire.
    """
    if task.next_run_at is None or (task.run_window is None and task.calendar is None):
        return task.next_run_at
    try:
        trigger, hours = trigger_of(task), hours_of(task.run_window, task.calendar, task.timezone)
    except InvalidRequest:
        return task.next_run_at
    run = None if trigger is None else next_run(trigger, hours, ClosedPolicy(task.closed_policy), task.next_run_at)
    return None if run is None else run.at
