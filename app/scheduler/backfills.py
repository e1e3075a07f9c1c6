"""Backfill: the fires a task would have had in a past range, recorded now and run at a pace.

Each fire is a row of the ledger, unique by (task, scheduled fire time): what is there already stays as it is, and
two backfills of one range, at once or one after the other, record it once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from app.core.errors import InvalidRequest, NotFound
from app.core.language import Said
from app.models.task_execution import ACTIVE_STATES, Execution, ExecutionState, is_not_success, state_in
from app.scheduler.arming import trigger_of
from app.scheduler.executions import execution_of, executions
from app.scheduler.family import call_off_descendants
from app.scheduler.firing import OwnerOf, insert_fires, ledger_row, read_task
from app.scheduler.pace import BACKFILL, Backfill, Known, Pace, Stopped
from app.scheduler.policies import OverlapPolicy
from app.scheduler.windows import hours_of

MAX_FIRES = 10_000
"""Fires of one backfill, at most."""
MAX_LOOKED_AT = 50_000
"""Fires of its range, at most, with those that the ledger has."""
_AT_ONCE = 500
_TICK = timedelta(microseconds=1)


def preview_backfill(
    connection: Connection, task_id: int, start: datetime, end: datetime, now: datetime
) -> Backfill:
    """What a backfill of [`start`, `end`) would record.

    Raises:
        NotFound: no such task.
        InvalidRequest: it has no schedule, the range is empty, not past, or holds too many fires.
    """
    return _missing(connection, _task(connection, task_id, lock=False), start, end, now)


def record_backfill(
    connection: Connection,
    task_id: int,
    start: datetime,
    end: datetime,
    *,
    now: datetime,
    pace: Pace,
    triggered_by: str | None,
    owner_of: OwnerOf,
) -> tuple[Backfill, list[Execution]]:
    """Record the missing fires of [`start`, `end`), oldest first, and return them with their executions.

    With `at_once` they share a concurrency key; with `every_seconds` each is due that much later than the one
    before. Unless the overlap policy is `allow`, they start only while the task has nothing else under way or
    waiting, and one after the other.

    Raises:
        NotFound, InvalidRequest: as `preview_backfill`; or the task has a concurrency key that `at_once` would
        replace, or an overlap policy that it would break.
    """
    task = _task(connection, task_id, lock=True)
    found = _missing(connection, task, start, end, now)
    paced = _paced(task, pace)
    rows = []
    for position, fire in enumerate(found.fires):
        row = ledger_row(task, now, scheduled_for=fire, trigger=BACKFILL) | paced | {"triggered_by": triggered_by}
        if pace.every_seconds is not None:
            row["run_at"] = now + timedelta(seconds=position * pace.every_seconds)
        row["owner"] = owner_of(row)
        rows.append(row)
    recorded = [execution_of(row) for row in insert_fires(connection, rows)]
    fires = tuple(execution.scheduled_for for execution in recorded if execution.scheduled_for is not None)
    ids = tuple(execution.id for execution in recorded)
    return Backfill(fires, found.known, found.closed, ids), recorded


def cancel_backfill(connection: Connection, task_id: int, now: datetime) -> Stopped:
    """End what is left of the backfills of a task, and the children of that: what waits at once, what a node holds
    when that lets go.

    Raises:
        NotFound: no such task.
    """
    _task(connection, task_id, lock=True)
    of_backfill = (
        select(executions.c.id, executions.c.state, executions.c.owner)
        .where(executions.c.task_id == task_id, executions.c.trigger == BACKFILL)
        .order_by(executions.c.id)
        .with_for_update()
    )
    parked = and_(is_not_success(executions.c.state), executions.c.state == ExecutionState.PARKED.value)
    left = [
        row
        for state in (state_in(executions.c.state, ACTIVE_STATES), parked)
        for row in connection.execute(of_backfill.where(state))
    ]
    is_held = {row.id: row.state == ExecutionState.RUNNING or row.owner is not None for row in left}
    ended = [one for one, held in is_held.items() if not held]
    asked = [one for one, held in is_held.items() if held]
    cancelled = {"state": ExecutionState.CANCELLED.value, "finished_at": now, "reason": None}
    for ids, values in ((ended, cancelled), (asked, {})):
        for start in range(0, len(ids), _AT_ONCE):
            some = executions.c.id.in_(ids[start : start + _AT_ONCE])
            connection.execute(update(executions).where(some).values(cancel_requested_at=now, **values))
    descendants = call_off_descendants(connection, list(is_held), now)
    return Stopped((*ended, *descendants.ended), (*asked, *descendants.asked))


def _task(connection: Connection, task_id: int, *, lock: bool) -> Row[Any]:
    task = read_task(connection, task_id, lock=lock)
    if task is None:
        raise NotFound("task", task_id)
    return task


def _paced(task: Row[Any], pace: Pace) -> dict[str, Any]:
    turns = {"exclusive": task.overlap_policy != OverlapPolicy.ALLOW}
    if turns["exclusive"] and (pace.at_once or 1) > 1:
        raise InvalidRequest.of(
            "pace.at_once",
            Said(
                f"no two runs of the task may overlap (its overlap policy is {task.overlap_policy}), so they run"
                f" one after the other; leave at_once out, or change the policy to allow",
                f"任务的运行不得重叠（重叠策略为 {task.overlap_policy}），补跑只能逐一进行；请不要填写 at_once，"
                f"或把策略改为 allow",
            ),
        )
    if pace.every_seconds is not None:
        return turns
    if task.concurrency_key is not None:
        if pace.at_once is None:
            return turns
        raise InvalidRequest.of(
            "pace.at_once",
            Said(
                f"the task has the concurrency key {task.concurrency_key!r}, which paces the backfill too;"
                f" leave at_once out, or give every_seconds",
                f"任务的并发键 {task.concurrency_key!r} 已限制补跑的节奏；请不要填写 at_once，"
                f"或改用 every_seconds",
            ),
        )
    return turns | {"concurrency_key": f"{BACKFILL}:{task.id}", "concurrency_limit": pace.at_once or 1}


def _missing(connection: Connection, task: Row[Any], start: datetime, end: datetime, now: datetime) -> Backfill:
    trigger = trigger_of(task)
    if trigger is None:
        raise InvalidRequest.of(
            "task_id",
            Said(
                "the task has no schedule, so there is nothing to make up for",
                "任务没有计划，因此没有可补跑的触发",
            ),
        )
    if end <= start:
        raise InvalidRequest.of("end", Said("end must be later than start", "结束时间须晚于开始时间"))
    if end > now:
        raise InvalidRequest.of(
            "end",
            Said(
                f"end must be past (it is {now.isoformat()} now); the schedule does the rest",
                f"结束时间须早于现在（{now.isoformat()}）；之后的触发由计划负责",
            ),
        )
    # Bounded before anything is read: the writer, and with it everybody who records, waits for this.
    fires = trigger.walk(start - _TICK, end - _TICK, limit=MAX_LOOKED_AT + 1)
    if len(fires) > MAX_LOOKED_AT:
        raise _too_many(MAX_LOOKED_AT)
    known = {
        row.scheduled_for: Known(row.scheduled_for, row.id, row.state)
        for row in connection.execute(
            select(executions.c.scheduled_for, executions.c.id, executions.c.state)
            .where(
                executions.c.task_id == task.id,
                executions.c.scheduled_for >= start,
                executions.c.scheduled_for < end,
            )
            .order_by(executions.c.scheduled_for)
            .limit(MAX_LOOKED_AT + 1)
        )
    }
    if len(known) > MAX_LOOKED_AT:  # of a denser schedule that it had before
        raise _too_many(MAX_LOOKED_AT)
    missing = [fire for fire in fires if fire not in known]
    if len(missing) > MAX_FIRES:
        raise _too_many(MAX_FIRES)
    hours = hours_of(task.run_window, task.calendar, task.timezone)
    wanted = tuple(fire for fire in missing if hours is None or hours.is_open(fire))
    return Backfill(wanted, tuple(known.values()), len(missing) - len(wanted))


def _too_many(most: int) -> InvalidRequest:
    return InvalidRequest.of(
        "end",
        Said(
            f"the range holds more than {most} fires; choose a shorter one",
            f"该范围内的触发超过 {most} 次；请缩短范围",
        ),
    )
