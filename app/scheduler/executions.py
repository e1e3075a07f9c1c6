"""Executions in SQL: recorded, let go of, cancelled, put back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, cast

from sqlalchemy import Connection, Executable, Select, Table, and_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from app.core.errors import NotFound
from app.db.bulk import BulkInsert
from app.models.execution_step import ExecutionStep, StepKind
from app.models.node import Node
from app.models.task_execution import (
    ACTIVE_STATES,
    EXECUTION_FIELDS,
    EXECUTION_STATES,
    HAS_KEY,
    WAITING_STATES,
    Execution,
    ExecutionState,
    RepeatedExecution,
    TaskExecution,
    is_not_success,
    state_in,
)
from app.scheduler.family import (
    CalledOff,
    GotOver,
    call_off_descendants,
    unsuccessful_descendants,
    wake_parents,
)
from app.scheduler.states import Move, moved
from app.scheduler.steps import Carry, kept_calls

executions = cast("Table", TaskExecution.__table__)
nodes = cast("Table", Node.__table__)
steps = cast("Table", ExecutionStep.__table__)

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
    those of its children that failed or were cancelled, save those that their parent has got over: so `got_over`
    says, or its code has gone on with what their `call()` returned. Returns it, and then them.

    Raises:
        NotFound; Conflict: it succeeded, was skipped, or is still under way.
    """
    execution = read_execution(execution_id, connection, lock=True)
    target = moved(execution.state, Move.REOPEN)

    def left_behind(parent: Execution, children: Mapping[str, ExecutionState]) -> Collection[str]:
        return {*kept_calls(connection, parent.id), *got_over(parent, children)}

    ids = [execution_id, *unsuccessful_descendants(connection, execution, left_behind)]
    _put_off_deadlines(connection, ids, now)
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


def _put_off_deadlines(connection: Connection, execution_ids: Sequence[int], now: datetime) -> None:
    """Let open waits for signals wait as much longer as their executions were over: nobody could signal them."""
    query = (
        select(steps.c.execution_id, steps.c.name, steps.c.due_at, executions.c.finished_at)
        .join_from(steps, executions, executions.c.id == steps.c.execution_id)
        .where(
            steps.c.execution_id.in_(execution_ids),
            steps.c.kind == StepKind.SIGNAL.value,
            steps.c.finished_at.is_(None),
            steps.c.due_at.is_not(None),
            executions.c.finished_at.is_not(None),
        )
    )
    for wait in connection.execute(query).all():
        connection.execute(
            update(steps)
            .where(
                steps.c.execution_id == wait.execution_id,
                steps.c.kind == StepKind.SIGNAL.value,
                steps.c.name == wait.name,
            )
            .values(due_at=wait.due_at + (now - wait.finished_at))
        )


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
