"""From the columns of a task to its trigger, and to the fire it waits for."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from app.scheduler.schedules import DstPolicy, from_columns
from app.scheduler.triggers import ScheduleTrigger, make_trigger

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
