"""Fires: due tasks become rows of the ledger, in one transaction.

Invariant (guarantee 1): claiming a due task, inserting its execution rows and advancing its `next_run_at` commit
together or not at all, and (task, scheduled fire time) is unique. Every due fire ends in a row with its reason.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, cast

from loguru import logger
from sqlalchemy import Connection, Row, Table, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from app.core.errors import InvalidRequest, NotFound
from app.db.bulk import BulkUpdate
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import ACTIVE_STATES, IS_FIRE, Execution, ExecutionState, state_in
from app.scheduler.arming import first_fire, trigger_of
from app.scheduler.executions import allocate_ids, execution_of, executions, insert_executions
from app.scheduler.family import call_off_descendants
from app.scheduler.pace import BACKFILL
from app.scheduler.policies import (
    FirePlan,
    MisfirePolicy,
    OverlapPolicy,
    OverlapVerdict,
    overlap_verdict,
    plan_fires,
)
from app.scheduler.rates import task_rule
from app.scheduler.shelf import judged_here
from app.scheduler.telemetry import UNTRACED, Origin
from app.scheduler.triggers import ScheduleTrigger, fires_between, jitter_of
from app.scheduler.windows import ClosedPolicy, hours_of
from app.services.scheduler_service import describe_error

tasks = cast("Table", ScheduledTask.__table__)

CATCH_UP_LIMIT = 100
"""Under misfire policy `all`, at most this many missed fires of a task run; older ones are coalesced."""

OwnerOf = Callable[[dict[str, Any]], str | None]

_FIRE_COLUMNS = (
    "id",
    "name",
    "task_type",
    "params",
    "schedule_type",
    "schedule_expression",
    "timezone",
    "dst_policy",
    "start_at",
    "end_at",
    "jitter_seconds",
    "created_at",
    "priority",
    "timeout_seconds",
    "retry",
    "misfire_policy",
    "misfire_grace_seconds",
    "overlap_policy",
    "concurrency_key",
    "concurrency_limit",
    "next_run_at",
    "rate_limit",
    "run_window",
    "calendar",
    "closed_policy",
)


_DueTask = namedtuple("_DueTask", _FIRE_COLUMNS)  # type: ignore[misc]  # noqa: PYI024 - the fields are above
"""A row with those columns. A fire reads thirty of its fields, which a `Row` looks up by name each time."""


@dataclass(slots=True)
class Fired:
    """What one fire transaction did."""

    tasks: int = 0
    executions: list[Execution] = field(default_factory=list)
    cancel: list[int] = field(default_factory=list)
    """Executions that overlap policy `cancel_running` wants ended, and their children."""


def fire_due(
    connection: Connection, *, now: datetime, limit: int, owner_of: OwnerOf, origin: Origin = UNTRACED
) -> Fired:
    """Fire up to `limit` due tasks, the longest due first. One transaction, the caller's."""
    found = connection.execute(
        select(*(tasks.c[name] for name in _FIRE_COLUMNS))
        .where(
            tasks.c.is_active,
            tasks.c.next_run_at.is_not(None),
            tasks.c.next_run_at <= now,
            judged_here(connection.dialect),
        )
        .order_by(tasks.c.next_run_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    due: list[Any] = list(map(_DueTask._make, found))
    if not due:
        return Fired()
    careful = [task.id for task in due if task.overlap_policy != OverlapPolicy.ALLOW]
    active, backfilled = _active_executions(connection, careful), _backfilled(connection, careful)
    fired = Fired(tasks=len(due))
    rows: list[dict[str, Any]] = []
    advances: list[dict[str, Any]] = []
    # Herds are alike: thousands of tasks on `0 9 * * *` are due at one moment and wait for the same next one.
    plan_of = lru_cache(maxsize=None)(partial(_plan, now))
    for task in due:
        try:
            plan, next_fire = plan_of(
                trigger_of(task), task.next_run_at, task.misfire_policy, task.misfire_grace_seconds
            )
            rows += _rows_of(
                task,
                plan,
                active.get(task.id, []),
                now,
                owner_of,
                fired.cancel,
                in_turn=task.id in backfilled,
            )
        except Exception as error:  # noqa: BLE001 - one task that cannot be read must not stop all the others
            advances.append(_shelve(task, now, error))
        else:
            advances.append(_advance(task, next_fire, now))
    if rows and (trace_context := origin.trace_context()) is not None:
        rows = [row | {"trace_context": trace_context} for row in rows]
    recorded = insert_fires(connection, rows)
    _ADVANCE.execute(connection, advances)
    _request_ends(connection, fired.cancel, now)
    fired.executions = [execution_of(row) for row in recorded]
    origin.recorded(fired.executions)
    return fired


_ADVANCE = BulkUpdate(
    {
        "x_id": tasks.c.id,
        "x_next": tasks.c.next_run_at,
        "x_exhausted": tasks.c.exhausted_at,
        "x_error": tasks.c.schedule_error,
    },
    lambda given: (
        update(tasks)
        .where(tasks.c.id == given["x_id"])
        .values(next_run_at=given["x_next"], exhausted_at=given["x_exhausted"], schedule_error=given["x_error"])
    ),
)


def _advance(task: Any, next_fire: datetime | None, now: datetime, error: str | None = None) -> dict[str, Any]:
    exhausted = now if next_fire is None and error is None else None
    return {"x_id": task.id, "x_next": next_fire, "x_exhausted": exhausted, "x_error": error}


def _shelve(task: Any, now: datetime, error: Exception) -> dict[str, Any]:
    """Set a task aside, with the reason in its `schedule_error`, until somebody mends it."""
    reason = str(error) if isinstance(error, InvalidRequest) else describe_error(error)
    logger.error("任务 {} 的调度无法解析，已搁置: {}", task.id, reason)
    return _advance(task, None, now, error=reason)


def _plan(
    now: datetime, trigger: ScheduleTrigger | None, first: datetime, misfire_policy: str, grace_seconds: float
) -> tuple[FirePlan, datetime | None]:
    """Which of the due fires of a task run, the oldest of them `first`, and the fire it waits for next."""
    if trigger is None:
        return FirePlan(run=()), None
    policy = MisfirePolicy(misfire_policy)
    due = fires_between(trigger, first, now, limit=CATCH_UP_LIMIT if policy is MisfirePolicy.ALL else 2)
    plan = plan_fires(
        policy, first=first, newest=due.newest, count=due.count, now=now, grace_seconds=grace_seconds
    )
    return plan, due.next_fire


def _active_executions(connection: Connection, task_ids: Sequence[int]) -> dict[int, list[int]]:
    """The executions of those tasks that are not over, save those of a backfill: these neither have the fires of
    the schedule skipped nor are cancelled by them."""
    if not task_ids:
        return {}
    found: dict[int, list[int]] = {}
    for task_id, execution_id in connection.execute(
        select(executions.c.task_id, executions.c.id).where(
            executions.c.task_id.in_(task_ids),
            state_in(executions.c.state, ACTIVE_STATES),
            executions.c.trigger != BACKFILL,
        )
    ):
        found.setdefault(task_id, []).append(execution_id)
    return found


def _backfilled(connection: Connection, task_ids: Sequence[int]) -> set[int]:
    """Those tasks of which a backfill is not over.

    Their fires are exclusive whatever their policy: only a claim, and claims are one after the other, sees to it
    that none starts beside a run of the backfill.
    """
    if not task_ids:
        return set()
    of_backfill = select(executions.c.id).where(
        executions.c.task_id == tasks.c.id,
        state_in(executions.c.state, ACTIVE_STATES),
        executions.c.trigger == BACKFILL,
    )
    return set(connection.scalars(select(tasks.c.id).where(tasks.c.id.in_(task_ids), of_backfill.exists())))


def _rows_of(
    task: Any,
    plan: FirePlan,
    active: list[int],
    now: datetime,
    owner_of: OwnerOf,
    cancel: list[int],
    *,
    in_turn: bool,
) -> list[dict[str, Any]]:
    rows = []
    if plan.skipped is not None:
        skipped = plan.skipped
        rows.append(
            ledger_row(task, now, scheduled_for=skipped.last, trigger="schedule")
            | _skip(skipped.reason, now)
            | {"first_fire_at": skipped.first, "fire_count": skipped.count}
        )
    verdict = _overlap(task.overlap_policy, len(active))
    open_at = {fire: _open_at(task, fire, now) for fire in plan.run}
    if verdict.cancel and any(open_at.values()):
        cancel += active
    for position, fire in enumerate(plan.run):
        row = ledger_row(task, now, scheduled_for=fire, trigger="catch_up" if plan.catch_up else "schedule")
        opens = open_at[fire]
        if opens is None:
            rows.append(row | _skip("calendar", now))
            continue
        # Several fires made up at once go one after the other; they do not overlap-skip each other. The first one
        # too waits its turn: a node would start it from memory beside the second, claimed by another.
        if verdict.run or (position and not active):
            several = len(plan.run) > 1 and task.overlap_policy != OverlapPolicy.ALLOW
            row["exclusive"] = verdict.exclusive or in_turn or several
            start = fire if opens <= now else opens
            if task.jitter_seconds:
                # Also of what waits for its opening: many tasks open at the same moment.
                start += jitter_of(task.id, start, _jitter_seconds(task, start, now))
            row["run_at"] = max(now, start)
            if opens > now:
                row["reason"] = "deferred"
            row["owner"] = owner_of(row)
        else:
            row |= _skip("overlap", now)
        rows.append(row)
    return rows


def _open_at(task: Any, fire: datetime, now: datetime) -> datetime | None:
    """When a fire may run as far as its task's window and calendar are concerned; None: it is skipped.

    A fire that could not be recorded in time is judged by the time at which it would run.
    """
    hours = hours_of(task.run_window, task.calendar, task.timezone)
    if hours is None:
        return fire
    moment = fire if (now - fire).total_seconds() <= task.misfire_grace_seconds else now
    if hours.is_open(moment):
        return moment
    return hours.next_open(moment) if task.closed_policy == ClosedPolicy.DEFER else None


def _jitter_seconds(task: Any, start: datetime, now: datetime) -> float:
    """By how much a start may be delayed: never to where the task is closed."""
    hours = hours_of(task.run_window, task.calendar, task.timezone)
    longest: float = task.jitter_seconds
    if hours is None:
        return longest
    earliest = max(now, start)
    return min(longest, (earliest - start).total_seconds() + hours.open_for(earliest, longest))


@lru_cache(maxsize=1024)
def _overlap(policy: str, active: int) -> OverlapVerdict:
    return overlap_verdict(OverlapPolicy(policy), active)


def _skip(reason: str, now: datetime) -> dict[str, Any]:
    return {"state": ExecutionState.SKIPPED.value, "reason": reason, "finished_at": now}


def ledger_row(task: Any, now: datetime, *, scheduled_for: datetime | None, trigger: str) -> dict[str, Any]:
    """An execution of a task as a row, due now and nobody's."""
    return {
        "task_id": task.id,
        "task_name": task.name,
        "task_type": task.task_type,
        "params": task.params,
        "state": ExecutionState.PENDING.value,
        "reason": None,
        "trigger": trigger,
        "triggered_by": None,
        "scheduled_for": scheduled_for,
        "first_fire_at": None,
        "fire_count": 1,
        "run_at": now,
        "created_at": now,
        "finished_at": None,
        "owner": None,
        "retry": task.retry,
        "timeout_seconds": task.timeout_seconds,
        "priority": task.priority,
        "concurrency_key": task.concurrency_key,
        "concurrency_limit": task.concurrency_limit,
        "exclusive": False,
        "idempotency_key": None,
        "trace_context": None,
        "rate_limit": _rate_rule(task, task.params),
    }


def _rate_rule(task: Any, params: dict[str, Any]) -> dict[str, Any] | None:
    """The task's own limit with the bucket that its params make, as the execution keeps it."""
    if task.rate_limit is None:
        return None
    return task_rule(task.id, task.rate_limit, params).as_dict()


def insert_fires(connection: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Insert ledger rows; a fire that is in the ledger already (its task was set back by hand) is left out."""
    try:
        with connection.begin_nested():
            insert_executions(connection, rows)
    except IntegrityError:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        once = dialect.insert(executions).on_conflict_do_nothing(
            index_elements=["task_id", "scheduled_for"], index_where=text(IS_FIRE)
        )
        inserted = []
        for row in rows:
            row["id"] = next(iter(allocate_ids(connection, 1)))
            if connection.execute(once.values(row).returning(executions.c.id)).first() is not None:
                inserted.append(row)
        return inserted
    return rows


def _request_ends(connection: Connection, execution_ids: list[int], now: datetime) -> None:
    """Ask for the end of these and of their children. Who is suspended ends here: no node would come to it."""
    if not execution_ids:
        return
    connection.execute(
        update(executions)
        .where(executions.c.id.in_(execution_ids), executions.c.cancel_requested_at.is_(None))
        .values(cancel_requested_at=now)
    )
    connection.execute(
        update(executions)
        .where(executions.c.id.in_(execution_ids), executions.c.state == ExecutionState.SUSPENDED.value)
        .values(state=ExecutionState.CANCELLED.value, finished_at=now, reason=None)
    )
    execution_ids += call_off_descendants(connection, list(execution_ids), now).asked


def arm_tasks(connection: Connection, *, now: datetime, limit: int) -> int:
    """Compute the first fire of tasks that have none yet: those that plain SQL inserted. Returns how many."""
    unarmed = connection.execute(
        select(*(tasks.c[name] for name in _FIRE_COLUMNS))
        .where(
            tasks.c.is_active,
            tasks.c.next_run_at.is_(None),
            tasks.c.exhausted_at.is_(None),
            tasks.c.schedule_error.is_(None),
            tasks.c.schedule_type.is_not(None),
        )
        .order_by(tasks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    advances = []
    for task in unarmed:
        try:
            advances.append(_advance(task, first_fire(task, now), now))
        except Exception as error:  # noqa: BLE001 - as in fire_due()
            advances.append(_shelve(task, now, error))
    _ADVANCE.execute(connection, advances)
    return len(advances)


def skip_due(connection: Connection, task_id: int, *, now: datetime, reason: str) -> None:
    """Enter fires of a task that are due, but that nobody has fired yet, as skipped.

    To be called in the transaction that pauses, reschedules or deletes it, before the change: the next fire is
    about to be set anew, and no due fire may end without a row.
    """
    task = connection.execute(
        select(*(tasks.c[name] for name in _FIRE_COLUMNS)).where(
            tasks.c.id == task_id, tasks.c.is_active, tasks.c.next_run_at <= now
        )
    ).first()
    if task is None:
        return
    try:
        trigger = trigger_of(task)
    except InvalidRequest:
        return  # it could not have fired: what it was due for is about to be mended
    if trigger is None:
        return
    due = fires_between(trigger, task.next_run_at, now, limit=1)
    row = ledger_row(task, now, scheduled_for=due.latest, trigger="schedule") | _skip(reason, now)
    insert_fires(connection, [row | {"first_fire_at": task.next_run_at, "fire_count": due.count}])


def next_fire_at(connection: Connection) -> datetime | None:
    """When the next task is due that this process can fire; None: none is."""
    earliest: datetime | None = connection.execute(
        select(func.min(tasks.c.next_run_at)).where(
            tasks.c.is_active, tasks.c.next_run_at.is_not(None), judged_here(connection.dialect)
        )
    ).scalar()
    return earliest


def read_task(connection: Connection, task_id: int, *, lock: bool) -> Row[Any] | None:
    """What firing needs to know of a task; `lock` keeps it so until the transaction ends."""
    query = select(*(tasks.c[name] for name in _FIRE_COLUMNS)).where(tasks.c.id == task_id)
    return connection.execute(query.with_for_update() if lock else query).first()


def fire_now(
    connection: Connection,
    task_id: int,
    *,
    now: datetime,
    params: dict[str, Any] | None,
    trigger: str,
    triggered_by: str | None,
    owner_of: OwnerOf,
    origin: Origin = UNTRACED,
) -> Fired:
    """Fire a stored task by hand: it enters where a scheduled fire enters, under the same overlap policy.

    Raises:
        NotFound: no such task.
    """
    task = read_task(connection, task_id, lock=True)
    if task is None:
        raise NotFound("task", task_id)
    careful = [task_id] if task.overlap_policy != OverlapPolicy.ALLOW else []
    active = _active_executions(connection, careful)
    verdict = _overlap(task.overlap_policy, len(active.get(task_id, [])))
    row = ledger_row(task, now, scheduled_for=None, trigger=trigger) | {
        "triggered_by": triggered_by,
        "trace_context": origin.trace_context(),
    }
    if params is not None:
        row |= {"params": params, "rate_limit": _rate_rule(task, params)}
    fired = Fired(tasks=1)
    if verdict.run:
        row["exclusive"] = verdict.exclusive or bool(_backfilled(connection, careful))
        row["owner"] = owner_of(row)
        fired.cancel = active.get(task_id, []) if verdict.cancel else []
    else:
        row |= _skip("overlap", now)
    insert_executions(connection, [row])
    _request_ends(connection, fired.cancel, now)
    fired.executions = [execution_of(row)]
    origin.recorded(fired.executions)
    return fired
