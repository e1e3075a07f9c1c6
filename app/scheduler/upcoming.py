"""What is going to fire: the next fires of all tasks in order, and how they pile up hour by hour."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import InvalidRequest
from app.models.scheduled_task import ScheduledTask
from app.scheduler.arming import trigger_of
from app.scheduler.policies import OverlapPolicy
from app.scheduler.windows import ClosedPolicy, hours_of, next_run

COUNTED = 200
"""Fires of one task that are counted one by one; a denser task's are taken to go on at the same rate."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Fire:
    """A task's schedule will say "now" at this moment."""

    at: datetime
    task_id: int
    task_name: str


@dataclass(frozen=True, slots=True)
class TaskLoad:
    """How often a task fires in each hour of a span."""

    task_id: int
    task_name: str
    counts: tuple[int, ...]
    is_estimate: bool
    """It fires too often to be counted one by one."""


class Upcoming:
    """Reads the active tasks that have a next fire; the schedules themselves say the rest."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def fires(self, limit: int, *, per_task: int | None = None) -> list[Fire]:
        """The next `limit` fires of all tasks, in order, of each the first `per_task`; one that is due and not
        yet recorded comes first."""
        with self._sessions() as session:
            tasks = session.scalars(
                _armed().order_by(ScheduledTask.next_run_at, ScheduledTask.id).limit(limit)
            ).all()
        each = (islice(_fires(task), per_task) for task in tasks)
        return list(islice(heapq.merge(*each, key=lambda fire: fire.at), limit))

    def load(self, since: datetime, hours: int, limit: int) -> tuple[list[TaskLoad], int]:
        """The fires of each hour from `since`, by task, of the `limit` tasks that fire first.

        Returns the loads, busiest first, and how many tasks there are in all.
        """
        until = since + timedelta(hours=hours)
        with self._sessions() as session:
            armed = _armed().where(ScheduledTask.next_run_at < until)
            tasks = session.scalars(armed.order_by(ScheduledTask.next_run_at, ScheduledTask.id).limit(limit)).all()
            total = session.scalar(select(func.count()).select_from(armed.subquery())) or 0
        loads = [_load(task, since, until, hours) for task in tasks]
        return sorted(loads, key=lambda load: -sum(load.counts)), total


def _armed() -> Select[ScheduledTask]:
    return select(ScheduledTask).where(ScheduledTask.is_active, ScheduledTask.next_run_at.is_not(None))


def _fires(task: ScheduledTask) -> Iterator[Fire]:
    return (Fire(at, task.id, task.name) for at in _moments(task))


def _moments(task: ScheduledTask, since: datetime | None = None) -> Iterator[datetime]:
    """When its fires from `since` on run. Of several that wait for one opening one does, unless runs overlap."""
    try:
        trigger, hours = trigger_of(task), hours_of(task.run_window, task.calendar, task.timezone)
    except InvalidRequest:
        return  # plain SQL has written a schedule that cannot be read; the clock says so in `schedule_error`
    at = task.next_run_at
    if trigger is not None and at is not None and since is not None and at < since:
        at = trigger.next_after(since - _TICK)  # nobody has fired for long; what is due is not to come
    stacks = task.overlap_policy == OverlapPolicy.ALLOW
    while at is not None and trigger is not None:
        run = next_run(trigger, hours, ClosedPolicy(task.closed_policy), at)
        if run is None:
            return
        yield run.at
        at = trigger.next_after(run.fire if stacks else run.at)


def _load(task: ScheduledTask, since: datetime, until: datetime, hours: int) -> TaskLoad:
    counted = list(_until(_moments(task, since), until, COUNTED))
    counts = [0] * hours
    for at in counted:
        counts[_hour(at, since)] += 1
    is_estimate = len(counted) == COUNTED
    if is_estimate and counted[-1] > counted[0]:  # or else all of them wait for one opening
        last = _hour(counted[-1], since)
        rate = (COUNTED - 1) / ((counted[-1] - counted[0]).total_seconds() / 3600)
        counts[last:] = [round(rate)] * (hours - last)
    return TaskLoad(task.id, task.name, tuple(counts), is_estimate)


def _until(moments: Iterable[datetime], until: datetime, limit: int) -> Iterator[datetime]:
    for at in islice(moments, limit):
        if at >= until:
            return
        yield at


def _hour(at: datetime, since: datetime) -> int:
    return int((at - since) / timedelta(hours=1))
