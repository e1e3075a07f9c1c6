"""Claims: waiting executions that nobody has become attempts of a node, within every limit.

Limits (concurrency keys, executions that want their task for themselves) are decided in the one transaction that
also starts the attempts, and claims are one after the other: no two nodes can take the last place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Connection, Select, and_, bindparam, func, or_, select, text, true, update
from sqlalchemy.sql.elements import ColumnElement

from app.core.clock import Clock
from app.models.task_execution import (
    ACTIVE_STATES,
    WAITING_STATES,
    Execution,
    ExecutionState,
    beside_id,
    is_running,
    is_suspended,
    state_in,
)
from app.scheduler.executions import executions, insert_starts, is_buried
from app.scheduler.family import wake_parents
from app.scheduler.states import Move, moved

_CLAIM_LOCK = 0x434F4E54
"""Key of the advisory lock that makes claims one after the other on PostgreSQL ("CONT")."""


@dataclass(frozen=True, slots=True)
class Types:
    """Some executor types: these, or all but these."""

    names: frozenset[str]
    but: bool = False

    def condition(self) -> ColumnElement[bool]:
        if self.but:
            return executions.c.task_type.not_in(self.names) if self.names else true()
        return executions.c.task_type.in_(self.names)


ANY_TYPE = Types(frozenset(), but=True)


def claim(
    connection: Connection,
    *,
    node: str,
    now: datetime,
    limit: int,
    only: Sequence[int] | None = None,
    types: Types = ANY_TYPE,
    clock: Clock | None = None,
) -> list[Execution]:
    """Take up to `limit` waiting executions for `node` and start an attempt of each, highest priority first;
    returned as they are then: running, their `attempt` the one that starts.

    Concurrency keys and exclusive executions are decided here, in the one transaction that also starts them;
    claims are one after the other (SQLite's write lock, an advisory lock on PostgreSQL), so no two nodes can
    take the last place of a key. `only` restricts the claim to these ids, `types` to these executors. A node
    declared dead gets nothing. An attempt starts when `clock` says (None: at `now`) once its place was seen to be
    free: who left the place has ended before.
    """
    lock_claims(connection)
    if is_buried(connection, node):
        return []
    taken: list[Execution] = []
    priority: int | None = None
    while len(taken) < limit:
        priority = _next_priority(connection, below=priority)
        if priority is None:
            break
        taken += _claim_priority(connection, priority, node, now, limit - len(taken), only, types, clock)
    return taken


def lock_claims(connection: Connection) -> None:
    """Wait until no other transaction claims (SQLite's write lock has done so); held to the end of this one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIM_LOCK})


def _claimable() -> ColumnElement[bool]:
    return and_(executions.c.owner.is_(None), state_in(executions.c.state, WAITING_STATES))


def _next_priority(connection: Connection, below: int | None) -> int | None:
    """The highest priority that waits, below the last one: a walk down the index, one seek a step."""
    query = select(executions.c.priority).where(_claimable()).order_by(executions.c.priority.desc()).limit(1)
    if below is not None:
        query = query.where(executions.c.priority < below)
    return connection.execute(query).scalar()


def unlimited(now: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Whether an execution, found by its id, may start at `now` whatever else runs: no two nodes can fight over
    more than its row, so it may be claimed without the lock."""
    return and_(
        executions.c.owner.is_(None),
        state_in(beside_id(executions.c.state), WAITING_STATES),
        executions.c.run_at <= now,
        executions.c.concurrency_key.is_(None),
        executions.c.exclusive.is_(False),
        executions.c.cancel_requested_at.is_(None),
    )


def waiting() -> Select[Any]:
    """SELECT of the executions that nobody has and that are not over, whenever they are due."""
    return select(executions).where(_claimable())


def free_places() -> ColumnElement[int]:
    """How many more executions may run under an execution's concurrency key."""
    other = executions.alias("other")
    running = (
        select(func.count())
        .select_from(other)
        .where(other.c.concurrency_key == executions.c.concurrency_key, is_running(other.c.state))
        .scalar_subquery()
    )
    return func.coalesce(executions.c.concurrency_limit, 1) - running


def ready(now: datetime) -> Select[Any]:
    """SELECT of the executions that may start at `now`: nobody's, due, and held up by no key and no other of
    their task."""
    other = executions.alias("other")
    # Who is suspended has had its turn and is not over; it gives way to who runs, but to none that is suspended
    # too.
    goes_first = or_(
        is_running(other.c.state),
        and_(is_suspended(other.c.state), ~is_suspended(executions.c.state)),
    )
    same_task = select(other.c.id).where(
        other.c.task_id == executions.c.task_id, state_in(other.c.state, ACTIVE_STATES), goes_first
    )
    free = and_(
        or_(
            executions.c.concurrency_key.is_(None),
            free_places() > 0,
        ),
        or_(executions.c.exclusive.is_(False), ~same_task.exists()),
    )
    return select(executions).where(_claimable(), executions.c.run_at <= now, free)


def _claim_priority(
    connection: Connection,
    priority: int,
    node: str,
    now: datetime,
    limit: int,
    only: Sequence[int] | None,
    types: Types,
    clock: Clock | None,
) -> list[Execution]:
    """Claim at one priority, the longest due first."""
    query = (
        ready(now)
        .where(executions.c.priority == priority, types.condition())
        .order_by(executions.c.run_at, executions.c.id)
        .limit(limit)
        # Whoever holds a row now is cancelling it, or deleting its task: it is not for us.
        .with_for_update(of=executions, skip_locked=True)
    )
    if only is not None:
        query = query.where(executions.c.id.in_(only))
    found = [Execution.from_row(row) for row in connection.execute(query)]
    _end_unwanted(connection, [execution for execution in found if execution.cancel_requested_at], now)
    candidates = [execution for execution in found if execution.cancel_requested_at is None]
    accepted = _within_limits(connection, candidates)
    return _start_claimed(connection, accepted, node, clock.now() if clock is not None else now)


@dataclass(frozen=True, slots=True)
class ClaimNamed:
    """A claim of one execution, brought here by a job. Outcome: the execution, started, or None where it cannot
    start (now, or ever again)."""

    rank: ClassVar[int | None] = 5
    must_land: ClassVar[bool] = False
    execution_id: int
    node: str
    clock: Clock

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[ClaimNamed]) -> Sequence[Execution | None]:
        node, clock = writes[0].node, writes[0].clock
        now = clock.now()
        if is_buried(connection, node):
            return [None] * len(writes)
        wanted = {write.execution_id for write in writes}
        called_off = waiting().where(executions.c.id.in_(wanted), executions.c.cancel_requested_at.is_not(None))
        rows = connection.execute(called_off.with_for_update(of=executions, skip_locked=True))
        _end_unwanted(connection, [Execution.from_row(row) for row in rows], now)
        lock_claims(connection)
        now = clock.now()
        query = ready(now).where(executions.c.id.in_(wanted)).order_by(executions.c.run_at, executions.c.id)
        rows = connection.execute(query.with_for_update(of=executions, skip_locked=True))
        accepted = _within_limits(connection, [Execution.from_row(row) for row in rows])
        # Only now: who left the places they take has ended before.
        started = _start_claimed(connection, accepted, node, clock.now())
        claimed = {execution.id: execution for execution in started}
        # Two jobs may name one execution: the first has it.
        return [claimed.pop(write.execution_id, None) for write in writes]


def _end_unwanted(connection: Connection, unwanted: list[Execution], now: datetime) -> None:
    """Cancel what was asked to end while a node held it, and has come back to wait (a failure, a dead node)."""
    if unwanted:
        connection.execute(
            update(executions)
            .where(executions.c.id.in_([execution.id for execution in unwanted]))
            .values(state=moved(unwanted[0].state, Move.CANCEL).value, finished_at=now, reason=None)
        )
        wake_parents(connection, [execution.parent_id for execution in unwanted], now)


def _within_limits(connection: Connection, candidates: list[Execution]) -> list[Execution]:
    """The candidates that may start together: those of one key or task also exclude each other."""
    running: dict[str, int] = {}
    started: set[int | None] = set()
    accepted = []
    for execution in candidates:
        key = execution.concurrency_key
        if key is not None:
            if key not in running:
                running[key] = _running_under(connection, key)
            if running[key] >= (execution.concurrency_limit or 1):
                continue
        if execution.exclusive and execution.task_id is not None and execution.task_id in started:
            continue
        started.add(execution.task_id)
        if key is not None:
            running[key] += 1
        accepted.append(execution)
    return accepted


def _running_under(connection: Connection, key: str) -> int:
    return (
        connection.scalar(
            select(func.count())
            .select_from(executions)
            .where(executions.c.concurrency_key == key, is_running(executions.c.state))
        )
        or 0
    )


def _start_claimed(connection: Connection, accepted: list[Execution], node: str, now: datetime) -> list[Execution]:
    if not accepted:
        return []
    connection.execute(
        update(executions)
        .where(executions.c.id == bindparam("x_id"))
        .values(
            state=ExecutionState.RUNNING.value,
            attempt=bindparam("x_attempt"),
            owner=node,
            started_at=now,
        ),
        [{"x_id": execution.id, "x_attempt": execution.attempt + 1} for execution in accepted],
    )
    started = [
        execution._replace(state=ExecutionState.RUNNING, attempt=execution.attempt + 1, owner=node, started_at=now)
        for execution in accepted
    ]
    insert_starts(connection, started, node, now)
    return started
