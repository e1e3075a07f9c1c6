"""Every guarded write of an attempt: its start, its end, and what it says in between.

The fence: a row belongs to its `owner`, at its `attempt`. Every write of a running attempt names both and the
state it expects; where that matches no row, somebody else has taken over and the write does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, cast

from sqlalchemy import Column, Connection, Table, Update, and_, literal_column, null, update
from sqlalchemy.sql.elements import ColumnElement

from app.db.bulk import BulkInsert, BulkUpdate, Parameters
from app.models.scheduled_task import ScheduledTask
from app.models.task_attempt import ExecutionLog, TaskAttempt
from app.models.task_execution import FINAL_STATES, Execution, ExecutionState, beside_id, is_running, state_in
from app.scheduler.context import LogLine
from app.scheduler.executions import executions
from app.scheduler.family import lock_in_order, wake_parents
from app.scheduler.pace import BACKFILL
from app.scheduler.states import Move, sources
from app.scheduler.steps import Carry, Fence, StepRow, Suspension, begin_waits, holders, store_steps
from app.services.scheduler_service import TaskStatus

attempts = cast("Table", TaskAttempt.__table__)
logs = cast("Table", ExecutionLog.__table__)
tasks = cast("Table", ScheduledTask.__table__)

_INSERT_ATTEMPTS = BulkInsert(attempts, [column.name for column in attempts.columns])
_INSERT_LINES = BulkInsert(logs, [column.name for column in logs.columns if column.name != "id"])


@dataclass(slots=True)  # not frozen, which would triple the cost of making one; nobody changes it
class StartAttempt:
    """An attempt that starts from memory. Outcome: False where the fence refused it."""

    rank: ClassVar[int | None] = 1
    must_land: ClassVar[bool] = True
    execution_id: int
    attempt: int
    owner: str
    started_at: datetime

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[StartAttempt | FinishAttempt]) -> Sequence[bool]:
        return record_attempts(connection, writes)


@dataclass(slots=True)
class FinishAttempt:
    """How an attempt ended and what becomes of its execution. Outcome: False where the fence refused it."""

    rank: ClassVar[int | None] = 1
    must_land: ClassVar[bool] = True
    execution_id: int
    task_id: int | None
    attempt: int
    owner: str
    started_at: datetime
    finished_at: datetime
    duration_seconds: float
    status: TaskStatus
    state: ExecutionState
    reason: str | None
    message: str | None
    error: str | None
    result: dict[str, Any] | None
    failures: int
    run_at: datetime
    """When to try again; where the execution is over, as it was."""
    traceback: str | None = None
    progress: float | None = None
    progress_message: str | None = None
    lines: tuple[LogLine, ...] = field(default=(), repr=False)
    trigger: str | None = None
    """What asked for the execution: a backfill's end is not the task's last run."""
    parent_id: int | None = None
    steps: tuple[StepRow, ...] = field(default=(), repr=False)
    """Waits that ended and are not stored yet."""
    suspension: Suspension | None = None
    """What it waits for, where the state is `suspended`."""
    carry: Carry = field(default=lambda *_: None, repr=False)
    """For the parents that its end wakes."""

    @property
    def is_over(self) -> bool:
        return self.state in FINAL_STATES

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[StartAttempt | FinishAttempt]) -> Sequence[bool]:
        return record_attempts(connection, writes)


_FENCE: dict[str, Column[Any]] = {
    "x_id": executions.c.id,
    "x_owner": executions.c.owner,
    "x_attempt": executions.c.attempt,
}
_OUTCOME: dict[str, Column[Any]] = {
    "x_state": executions.c.state,
    "x_reason": executions.c.reason,
    "x_failures": executions.c.failures,
    "x_started_at": executions.c.started_at,
    "x_over_at": executions.c.finished_at,
    "x_run_at": executions.c.run_at,
    "x_message": executions.c.message,
    "x_error": executions.c.error,
    "x_result": executions.c.result,
    "x_duration": executions.c.duration_seconds,
    "x_progress": executions.c.progress,
    "x_progress_message": executions.c.progress_message,
}


def _waiting(given: Parameters) -> ColumnElement[bool]:
    """The fence of an attempt that has not started: still ours, and not tried meanwhile."""
    return and_(
        executions.c.id == given["x_id"],
        executions.c.owner == given["x_owner"],
        executions.c.attempt == given["x_attempt"] - literal_column("1"),
        state_in(beside_id(executions.c.state), sources(Move.START)),
    )


def _under_way(given: Parameters) -> ColumnElement[bool]:
    """The fence of an attempt that runs."""
    return and_(
        executions.c.id == given["x_id"],
        executions.c.owner == given["x_owner"],
        executions.c.attempt == given["x_attempt"],
        is_running(beside_id(executions.c.state)),
    )


def _with_outcome(given: Parameters) -> Update:
    return update(executions).values(
        attempt=given["x_attempt"], owner=null(), **{of.name: given[name] for name, of in _OUTCOME.items()}
    )


_START = BulkUpdate(
    {**_FENCE, "x_started_at": executions.c.started_at},
    lambda given: (
        update(executions)
        .where(_waiting(given))
        .values(
            state=literal_column(f"'{ExecutionState.RUNNING.value}'"),
            attempt=given["x_attempt"],
            started_at=given["x_started_at"],
        )
    ),
)
_FINISH = BulkUpdate({**_FENCE, **_OUTCOME}, lambda given: _with_outcome(given).where(_under_way(given)))
_START_AND_FINISH = BulkUpdate({**_FENCE, **_OUTCOME}, lambda given: _with_outcome(given).where(_waiting(given)))
_ATTEMPT_OUTCOME: dict[str, Column[Any]] = {
    "x_status": attempts.c.status,
    "x_reason": attempts.c.reason,
    "x_finished_at": attempts.c.finished_at,
    "x_duration": attempts.c.duration_seconds,
    "x_message": attempts.c.message,
    "x_error": attempts.c.error,
    "x_traceback": attempts.c.traceback,
}
_FINISH_ATTEMPT = BulkUpdate(
    {"x_id": attempts.c.execution_id, "x_attempt": attempts.c.number, **_ATTEMPT_OUTCOME},
    lambda given: (
        update(attempts)
        .where(attempts.c.execution_id == given["x_id"], attempts.c.number == given["x_attempt"])
        .values({of.name: given[name] for name, of in _ATTEMPT_OUTCOME.items()})
    ),
)
_LAST_RUN = BulkUpdate(
    {"x_task_id": tasks.c.id, "x_finished_at": tasks.c.last_run_at, "x_state": tasks.c.last_state},
    lambda given: (
        update(tasks)
        .where(tasks.c.id == given["x_task_id"])
        .values(last_run_at=given["x_finished_at"], last_state=given["x_state"])
    ),
)


class Fenced(Exception):  # not an error: the signal that some row of a bulk write was fenced
    """A guard matched fewer rows than it was given; applied one by one, each write tells its own outcome."""


def record_attempts(connection: Connection, writes: Sequence[StartAttempt | FinishAttempt]) -> list[bool]:
    """Store starts and finishes. An attempt whose start and finish meet here is stored as one.

    Raises:
        Fenced: of several writes some were refused; the caller rolls back and applies them one by one.
    """
    _lock_family(connection, writes)
    if len(writes) == 1:
        return [_record_one(connection, writes[0])]
    _record_bulk(connection, writes)
    return [True] * len(writes)


def _lock_family(connection: Connection, writes: Sequence[StartAttempt | FinishAttempt]) -> None:
    """Lock what belongs together before anything else; most executions have no parent and never suspend."""
    related = [
        write
        for write in writes
        if isinstance(write, FinishAttempt) and (write.parent_id is not None or write.suspension is not None)
    ]
    if related:
        parents = [write.parent_id for write in related if write.parent_id is not None]
        lock_in_order(connection, [*parents, *(write.execution_id for write in related)])


def _record_bulk(connection: Connection, writes: Sequence[StartAttempt | FinishAttempt]) -> None:
    starts = {(write.execution_id, write.attempt): write for write in writes if isinstance(write, StartAttempt)}
    finishes: list[FinishAttempt] = []
    whole: list[FinishAttempt] = []
    for write in writes:
        if isinstance(write, FinishAttempt):
            met = starts.pop((write.execution_id, write.attempt), None)
            (finishes if met is None else whole).append(write)
    finishes.sort(key=attrgetter("execution_id"))  # rows are locked in this order by whoever locks several
    matched = _START.execute(connection, _start_rows(starts.values()))
    matched += _START_AND_FINISH.execute(connection, [_outcome_row(write) for write in whole])
    matched += _FINISH.execute(connection, [_outcome_row(write) for write in finishes])
    if matched != len(starts) + len(whole) + len(finishes):
        raise Fenced
    fresh = [_running_attempt(write) for write in starts.values()] + [_ended_attempt(write) for write in whole]
    _INSERT_ATTEMPTS.execute(connection, fresh)
    _FINISH_ATTEMPT.execute(connection, [_attempt_row(write) for write in finishes])
    _after_finish(connection, whole + finishes)


def _record_one(connection: Connection, write: StartAttempt | FinishAttempt) -> bool:
    if isinstance(write, StartAttempt):
        if _START.execute(connection, _start_rows([write])) != 1:
            return False
        _INSERT_ATTEMPTS.execute(connection, [_running_attempt(write)])
        return True
    return finish_attempt(connection, write)


def finish_attempt(connection: Connection, write: FinishAttempt) -> bool:
    """Store the end of one running attempt under its fence; False, and nothing written, if it was refused.

    The executor's own transaction may overtake the attempt's start, which still waits in the journal; and on
    PostgreSQL the start may be committed between two statements here. So: as started, as not yet started, and
    once more as started.
    """
    outcome = [_outcome_row(write)]
    _lock_family(connection, [write])
    if _FINISH.execute(connection, outcome) == 1:
        _FINISH_ATTEMPT.execute(connection, [_attempt_row(write)])
    elif _START_AND_FINISH.execute(connection, outcome) == 1:
        _INSERT_ATTEMPTS.execute(connection, [_ended_attempt(write)])
    elif _FINISH.execute(connection, outcome) == 1:
        _FINISH_ATTEMPT.execute(connection, [_attempt_row(write)])
    else:
        return False
    _after_finish(connection, [write])
    return True


def _after_finish(connection: Connection, writes: Sequence[FinishAttempt]) -> None:
    insert_lines(connection, [(write.execution_id, write.attempt, write.lines) for write in writes])
    ended_runs = [write for write in writes if write.is_over and write.trigger != BACKFILL]
    last = {write.task_id: write for write in ended_runs if write.task_id is not None}
    _LAST_RUN.execute(
        connection,
        [
            {"x_task_id": task_id, "x_finished_at": write.finished_at, "x_state": write.state.value}
            for task_id, write in sorted(last.items())
        ],
    )
    store_steps(connection, [(write.execution_id, step) for write in writes for step in write.steps])
    waiting = {write.execution_id: write for write in writes if write.suspension is not None}
    if waiting:
        now = max(write.finished_at for write in waiting.values())
        begin_waits(connection, {key: write.suspension for key, write in waiting.items() if write.suspension}, now)
    ended = [write for write in writes if write.parent_id is not None and write.is_over]
    if ended:
        now = max(write.finished_at for write in ended)
        ended[0].carry(connection, wake_parents(connection, [write.parent_id for write in ended], now))


def hold(connection: Connection, start: StartAttempt) -> bool:
    """Keep a running attempt from being taken over until this transaction ends; False: it has been already.

    The attempt's start may still wait in the journal: then it is stored here, as in `finish_attempt()`.
    """
    fence = Fence(start.execution_id, start.owner, start.attempt)
    if holders(connection, [fence]):
        return True
    if _START.execute(connection, _start_rows([start])) == 1:
        _INSERT_ATTEMPTS.execute(connection, [_running_attempt(start)])
        return True
    return bool(holders(connection, [fence]))


def insert_lines(connection: Connection, kept: Iterable[tuple[int, int, Iterable[LogLine]]]) -> None:
    """Store log lines, given as (execution id, attempt, lines)."""
    rows = [
        {
            "execution_id": execution_id,
            "attempt": attempt,
            "logged_at": line.logged_at,
            "level": line.level,
            "message": line.message,
        }
        for execution_id, attempt, lines in kept
        for line in lines
    ]
    _INSERT_LINES.execute(connection, rows)


def _start_rows(writes: Any) -> list[dict[str, Any]]:
    return [
        {
            "x_id": write.execution_id,
            "x_owner": write.owner,
            "x_attempt": write.attempt,
            "x_started_at": write.started_at,
        }
        for write in writes
    ]


def _outcome_row(write: FinishAttempt) -> dict[str, Any]:
    return {
        "x_id": write.execution_id,
        "x_owner": write.owner,
        "x_attempt": write.attempt,
        "x_state": write.state.value,
        "x_reason": write.reason,
        "x_failures": write.failures,
        "x_started_at": write.started_at,
        "x_over_at": write.finished_at if write.is_over else None,
        "x_run_at": write.run_at,
        "x_message": write.message,
        "x_error": write.error,
        "x_result": write.result,
        "x_duration": write.duration_seconds,
        "x_progress": write.progress,
        "x_progress_message": write.progress_message,
    }


def _running_attempt(write: StartAttempt) -> dict[str, Any]:
    return {
        "execution_id": write.execution_id,
        "number": write.attempt,
        "node": write.owner,
        "status": TaskStatus.RUNNING.value,
        "reason": None,
        "started_at": write.started_at,
        "finished_at": None,
        "duration_seconds": None,
        "message": None,
        "error": None,
        "traceback": None,
    }


def _ended_attempt(write: FinishAttempt) -> dict[str, Any]:
    return {
        "execution_id": write.execution_id,
        "number": write.attempt,
        "node": write.owner,
        "status": write.status.value,
        "reason": write.reason,
        "started_at": write.started_at,
        "finished_at": write.finished_at,
        "duration_seconds": write.duration_seconds,
        "message": write.message,
        "error": write.error,
        "traceback": write.traceback,
    }


def _attempt_row(write: FinishAttempt) -> dict[str, Any]:
    return {
        "x_id": write.execution_id,
        "x_attempt": write.attempt,
        "x_status": write.status.value,
        "x_reason": write.reason,
        "x_finished_at": write.finished_at,
        "x_duration": write.duration_seconds,
        "x_message": write.message,
        "x_error": write.error,
        "x_traceback": write.traceback,
    }


@dataclass(frozen=True, slots=True)
class SpeakUp:
    """What running attempts said since the last time: log lines and how far they are."""

    rank: ClassVar[int | None] = 4
    must_land: ClassVar[bool] = False
    execution_id: int
    attempt: int
    owner: str
    progress: float | None
    progress_message: str | None
    lines: tuple[LogLine, ...]

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[SpeakUp]) -> Sequence[None]:
        latest = {
            write.execution_id: {
                "x_id": write.execution_id,
                "x_attempt": write.attempt,
                "x_owner": write.owner,
                "x_progress": write.progress,
                "x_message": write.progress_message,
            }
            for write in writes
        }
        _PROGRESS.execute(connection, list(latest.values()))
        insert_lines(connection, [(write.execution_id, write.attempt, write.lines) for write in writes])
        return [None] * len(writes)


_PROGRESS = BulkUpdate(
    {**_FENCE, "x_progress": executions.c.progress, "x_message": executions.c.progress_message},
    lambda given: (
        update(executions)
        .where(_under_way(given))
        .values(progress=given["x_progress"], progress_message=given["x_message"])
    ),
)


def insert_starts(connection: Connection, started: Sequence[Execution], node: str, now: datetime) -> None:
    """Store the running attempt of each, just claimed."""
    starts = [StartAttempt(execution.id, execution.attempt, node, now) for execution in started]
    _INSERT_ATTEMPTS.execute(connection, [_running_attempt(start) for start in starts])
