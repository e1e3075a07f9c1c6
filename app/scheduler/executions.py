"""Every guarded write of executions and attempts, in SQL.

The fence: a row belongs to its `owner`, at its `attempt`. Every write of a running attempt names both and the
state it expects; where that matches no row, somebody else has taken over and the write does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, cast

from sqlalchemy import (
    Column,
    Connection,
    Executable,
    Select,
    Table,
    Update,
    and_,
    literal_column,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from app.core.errors import NotFound
from app.db.bulk import BulkInsert, BulkUpdate, Parameters
from app.models.node import Node
from app.models.scheduled_task import ScheduledTask
from app.models.task_attempt import ExecutionLog, TaskAttempt
from app.models.task_execution import (
    ACTIVE_STATES,
    EXECUTION_FIELDS,
    EXECUTION_STATES,
    FINAL_STATES,
    HAS_KEY,
    WAITING_STATES,
    Execution,
    ExecutionState,
    RepeatedExecution,
    TaskExecution,
    beside_id,
    is_not_success,
    is_running,
    state_in,
)
from app.scheduler.context import LogLine
from app.scheduler.family import (
    CalledOff,
    GotOver,
    call_off_descendants,
    lock_in_order,
    unsuccessful_descendants,
    wake_parents,
)
from app.scheduler.states import Move, moved, sources
from app.scheduler.steps import Fence, StepRow, Suspension, begin_waits, holders, store_steps
from app.services.scheduler_service import TaskStatus

executions = cast("Table", TaskExecution.__table__)
attempts = cast("Table", TaskAttempt.__table__)
logs = cast("Table", ExecutionLog.__table__)
nodes = cast("Table", Node.__table__)
tasks = cast("Table", ScheduledTask.__table__)

_SERVER_SIDE = {
    "parent_id",
    "child_key",
    "children_awaited",
    "attempt",
    "failures",
    "rescues",
    "cancel_requested_at",
    "started_at",
    "message",
    "error",
} | {
    "result",
    "duration_seconds",
    "progress",
    "progress_message",
    "waits_for",
    "due_at",
}
_INSERT = BulkInsert(executions, [name for name in EXECUTION_FIELDS if name not in _SERVER_SIDE])
_INSERT_ATTEMPTS = BulkInsert(attempts, [column.name for column in attempts.columns])
_INSERT_LINES = BulkInsert(logs, [column.name for column in logs.columns if column.name != "id"])


# -------------------------------------------------------------------- record


def allocate_ids(connection: Connection, count: int) -> range | list[int]:
    """Ids for `count` new executions, so that a bulk insert knows them without asking row by row.

    Call it inside a write transaction: SQLite's next id is read under the write lock, PostgreSQL's come from the
    sequence. Ids are never used twice, also not after the newest rows were pruned.
    """
    if connection.dialect.name == "sqlite":
        last = connection.scalar(text("SELECT seq FROM sqlite_sequence WHERE name = 'task_executions'")) or 0
        return range(last + 1, last + 1 + count)
    return list(
        connection.scalars(
            text(
                "SELECT nextval(pg_get_serial_sequence('task_executions', 'id')) FROM generate_series(1, :count)"
            ),
            {"count": count},
        )
    )


Carry = Callable[[Connection, Sequence[Execution]], None]
"""Writes, in the transaction that recorded executions, what their engine needs to find them."""


class Recorded(NamedTuple):
    """A recorded execution; `is_new` is False where the idempotency key had been used before."""

    execution: Execution
    is_new: bool


@dataclass(frozen=True, slots=True)
class RecordExecution:
    """A new execution; `carry` (alike for all of a process) writes what else it takes to get it run."""

    rank: ClassVar[int | None] = 0
    must_land: ClassVar[bool] = False
    values: dict[str, Any]
    carry: Carry = field(default=lambda *_: None)

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[RecordExecution]) -> Sequence[Recorded]:
        plain = [write.values for write in writes if write.values["idempotency_key"] is None]
        insert_executions(connection, plain)
        recorded = [
            Recorded(execution_of(write.values), is_new=True)
            if write.values["idempotency_key"] is None
            else insert_once(connection, write.values)
            for write in writes
        ]
        writes[0].carry(connection, [one.execution for one in recorded if one.is_new])
        return recorded


def insert_executions(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Insert rows of one shape in bulk, giving each its id."""
    if not rows:
        return
    disown_buried(connection, rows)
    for row, execution_id in zip(rows, allocate_ids(connection, len(rows)), strict=True):
        row["id"] = execution_id
    _INSERT.execute(connection, rows)


def insert_once(connection: Connection, values: dict[str, Any]) -> Recorded:
    """Insert a row with an idempotency key, or find the one that has it."""
    disown_buried(connection, [values])
    inserted = connection.execute(once(connection.dialect.name, values)).scalar()
    if inserted is not None:
        return Recorded(execution_of(values | {"id": inserted}), is_new=True)
    return Recorded(RepeatedExecution.from_row(connection.execute(under_key(values)).one()), is_new=False)


def is_buried(connection: Connection, node: str) -> bool:
    """Whether `node` has been declared dead, which itself may not know yet.

    To be asked in the transaction that gives it something: what a node gets after its burial nobody would rescue.
    Its row stays as it is until the commit.
    """
    query = select(nodes.c.stopped_at).where(nodes.c.id == node).with_for_update(read=True)
    return connection.scalar(query) is not None


def disown_buried(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Rows about to be inserted for a dead node are for anyone to claim."""
    owners = {row["owner"] for row in rows} - {None}
    buried = {owner for owner in owners if is_buried(connection, owner)}
    if buried:
        for row in rows:
            if row["owner"] in buried:
                row["owner"] = None


def once(dialect_name: str, values: dict[str, Any]) -> Executable:
    """INSERT that does nothing where the idempotency key is taken; returns the new id, if any."""
    dialect = sqlite if dialect_name == "sqlite" else postgresql
    statement: sqlite.Insert | postgresql.Insert = dialect.insert(executions).values(values)
    return statement.on_conflict_do_nothing(
        index_elements=["idempotency_key"], index_where=text(HAS_KEY)
    ).returning(executions.c.id)


def under_key(values: dict[str, Any]) -> Select[Any]:
    """SELECT of the execution that has this idempotency key."""
    return select(executions).where(executions.c.idempotency_key == values["idempotency_key"])


def execution_of(values: dict[str, Any]) -> Execution:
    """The recorded execution, from the values it was inserted with."""
    found = list(map(values.get, EXECUTION_FIELDS, _UNSAID))
    found[_STATE] = EXECUTION_STATES[values["state"]]
    return Execution._make(found)


_UNSAID = [Execution._field_defaults.get(name) for name in EXECUTION_FIELDS]
_STATE = EXECUTION_FIELDS.index("state")


# -------------------------------------------------------------------- attempts


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
    last = {write.task_id: write for write in writes if write.task_id is not None and write.is_over}
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


# -------------------------------------------------------------------- release


def release(connection: Connection, *, node: str, execution_ids: Sequence[int]) -> int:
    """Let go of waiting executions that `node` owns, so that any node may claim them."""
    if not execution_ids:
        return 0
    return connection.execute(
        update(executions)
        .where(
            executions.c.id.in_(execution_ids),
            executions.c.owner == node,
            state_in(executions.c.state, WAITING_STATES),
        )
        .values(owner=None)
    ).rowcount


# -------------------------------------------------------------------- cancel, retry, park


def read_execution(execution_id: int, connection: Connection, *, lock: bool = False) -> Execution:
    """The execution as it stands in this transaction; `lock` keeps it so until the transaction ends.

    Raises:
        NotFound: no such execution.
    """
    query = select(executions).where(executions.c.id == execution_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound("execution", execution_id)
    return Execution.from_row(row)


def request_cancel(
    connection: Connection, execution_id: int, now: datetime, *, mine: str | None = None
) -> tuple[Execution, CalledOff]:
    """Cancel what waits; ask for the end of what another node holds or what runs. Its children, theirs and so on
    go with it; the second of what is returned names them.

    `mine` names a node that has just let the execution go from memory: owned by it counts as waiting.

    Raises:
        NotFound; Conflict: it is over already.
    """
    execution = read_execution(execution_id, connection, lock=True)
    target = moved(execution.state, Move.CANCEL)
    held = execution.state is ExecutionState.RUNNING or execution.owner not in (None, mine)
    values: dict[str, Any] = {"cancel_requested_at": now}
    if not held:
        values |= {"state": target.value, "finished_at": now, "owner": None, "reason": None}
    connection.execute(update(executions).where(executions.c.id == execution_id).values(values))
    called_off = call_off_descendants(connection, [execution_id], now)
    if not held:
        wake_parents(connection, [execution.parent_id], now)
    return read_execution(execution_id, connection), called_off


def reopen(
    connection: Connection,
    execution_id: int,
    now: datetime,
    got_over: GotOver = lambda *_: (),
) -> list[Execution]:
    """Put an execution that failed, was cancelled or is parked back in line, its failures forgiven; and with it
    those of its children that failed or were cancelled, save the failures that their parent has got over. Returns
    it, and then them.

    Raises:
        NotFound; Conflict: it succeeded, was skipped, or is still under way.
    """
    execution = read_execution(execution_id, connection, lock=True)
    target = moved(execution.state, Move.REOPEN)
    ids = [execution_id, *unsuccessful_descendants(connection, execution, got_over)]
    connection.execute(
        update(executions)
        .where(executions.c.id.in_(ids))
        .values(
            state=target.value,
            reason=None,
            owner=None,
            run_at=now,
            finished_at=None,
            cancel_requested_at=None,
            failures=0,
            rescues=0,
            progress=None,
            progress_message=None,
            waits_for=None,
            due_at=None,
        )
    )
    return [read_execution(reopened, connection) for reopened in ids]


def cancel_requests(connection: Connection, node: str) -> list[int]:
    """The executions of `node` that somebody wants ended."""
    return list(
        connection.scalars(
            select(executions.c.id).where(_is_held(node), executions.c.cancel_requested_at.is_not(None))
        )
    )


def held_by(connection: Connection, node: str) -> list[tuple[int, int]]:
    """The executions that `node` holds, each with its latest attempt."""
    query = select(executions.c.id, executions.c.attempt)
    return [(row.id, row.attempt) for row in connection.execute(query.where(_is_held(node)))]


def still_held(connection: Connection, node: str, execution_ids: Sequence[int]) -> list[Execution]:
    """Those of `execution_ids` that `node` holds."""
    query = select(executions).where(_is_held(node), executions.c.id.in_(execution_ids))
    return [Execution.from_row(row) for row in connection.execute(query)]


def _is_held(node: str) -> ColumnElement[bool]:
    return and_(executions.c.owner == node, state_in(executions.c.state, ACTIVE_STATES))


def parked(connection: Connection, reason: str, limit: int = 500) -> list[Execution]:
    """Parked executions with that reason, oldest first."""
    query = (
        select(executions)
        .where(
            is_not_success(executions.c.state),
            executions.c.state == ExecutionState.PARKED.value,
            executions.c.reason == reason,
        )
        .order_by(executions.c.id)
        .limit(limit)
    )
    return [Execution.from_row(row) for row in connection.execute(query)]


def unpark(connection: Connection, execution_ids: Sequence[int], now: datetime) -> int:
    """Put parked executions back in line."""
    if not execution_ids:
        return 0
    target = moved(ExecutionState.PARKED, Move.UNPARK)
    return connection.execute(
        update(executions)
        .where(executions.c.id.in_(execution_ids), executions.c.state == ExecutionState.PARKED.value)
        .values(state=target.value, reason=None, run_at=now, error=None, message=None)
    ).rowcount
