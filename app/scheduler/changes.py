"""What has changed since the last look: one small read of the tables, for everybody who watches.

The tables are the one thing that all processes share, so this sees what any of them does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, func, select
from sqlalchemy.orm import Session, sessionmaker

from app.models.node import Node
from app.models.task_change import TaskChange
from app.models.task_execution import (
    IN_SHORT,
    Execution,
    ExecutionState,
    TaskExecution,
    is_not_success,
    is_suspended,
    state_in,
)

executions = TaskExecution.__table__
nodes = Node.__table__

LIMIT = 200
"""Executions told of in one look; where more have changed, `is_partial` says so."""
_OVERLAP = timedelta(seconds=3)
"""A row is stamped before it is committed: what finished, or was suspended, shortly before the newest one seen may
be new."""

_MOVING = ((ExecutionState.RUNNING,), (ExecutionState.PENDING, ExecutionState.RETRYING))
"""What is read at every look, the newest of each: what runs is older than all that waits behind it. Of the
suspended, of which there may be very many, only those that ran since the look before."""

_IS_SUSPENDED = is_suspended(executions.c.state)

_Shape = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is new since the look before."""

    executions: list[Execution]
    """As they are now, in short, oldest first."""
    is_partial: bool
    """More executions have changed than are told of: read the lists again."""
    tasks: bool
    nodes: bool

    def __bool__(self) -> bool:
        return bool(self.executions) or self.is_partial or self.tasks or self.nodes


class ChangeWatch:
    """Remembers what it has told. The first look finds only what is under way. Not for several threads at once."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._told: dict[int, _Shape] = {}
        self._moving: set[int] = set()
        self._last_id: int | None = None
        self._finished: datetime | None = None
        self._suspended: datetime | None = None
        self._tasks: object = None
        self._nodes: object = None

    def look(self) -> Changes:
        """Blocks for a few indexed queries."""
        with self._sessions() as session:
            connection = session.connection()
            found, is_partial = self._executions(connection)
            tasks = connection.scalar(select(func.max(TaskChange.id)))
            living = select(nodes.c.id).where(nodes.c.stopped_at.is_(None)).order_by(nodes.c.id)
            alive = tuple(connection.scalars(living))
        changes = Changes(
            found,
            is_partial,
            tasks=tasks != self._tasks or any(execution.task_id is not None for execution in found),
            nodes=alive != self._nodes,
        )
        self._tasks, self._nodes = tasks, alive
        return changes

    def _executions(self, connection: Connection) -> tuple[list[Execution], bool]:
        newest = select(*IN_SHORT).order_by(executions.c.id.desc()).limit(1)
        if self._last_id is None:
            self._last_id = max((row.id for row in _read(connection, newest)), default=0)
            last = select(func.max(executions.c.finished_at)).where(executions.c.finished_at.is_not(None))
            self._finished = connection.scalar(last)
            self._suspended = connection.scalar(select(func.max(executions.c.started_at)).where(_IS_SUSPENDED))
        new = _read(
            connection,
            select(*IN_SHORT).where(executions.c.id > self._last_id).order_by(executions.c.id).limit(LIMIT + 1),
        )
        active = [
            execution
            for states in _MOVING
            for execution in _read(
                connection,
                select(*IN_SHORT)
                .where(state_in(executions.c.state, states), is_not_success(executions.c.state))
                .order_by(executions.c.id.desc())
                .limit(LIMIT + 1),
            )
        ]
        over = select(*IN_SHORT).where(executions.c.finished_at.is_not(None))
        finished = _read(connection, _since(over, executions.c.finished_at, self._finished))
        left_off = select(*IN_SHORT).where(_IS_SUSPENDED)
        suspended = _read(connection, _since(left_off, executions.c.started_at, self._suspended))
        is_partial = any(len(rows) > LIMIT for rows in (new, finished, suspended))
        if len(new) > LIMIT:
            self._last_id = max(row.id for row in _read(connection, newest))
        left = self._moving - {execution.id for execution in (*finished, *suspended, *active, *new)}
        still = _read(connection, select(*IN_SHORT).where(executions.c.id.in_(left))) if left else []
        seen = {execution.id: execution for execution in (*still, *finished, *suspended, *active, *new)}
        self._moving = {execution.id for execution in active}
        changed = [seen[key] for key in sorted(seen) if self._told.get(key) != _shape(seen[key])]
        self._told = {key: _shape(execution) for key, execution in seen.items()}
        self._last_id = max(self._last_id, *seen, 0) if seen else self._last_id
        self._finished = _latest(self._finished, [execution.finished_at for execution in finished])
        self._suspended = _latest(self._suspended, [execution.started_at for execution in suspended])
        return changed[-LIMIT:], is_partial or len(changed) > LIMIT


def _since(
    query: Select[tuple[object, ...]], moment: ColumnElement[datetime], known: datetime | None
) -> Select[tuple[object, ...]]:
    """The latest of a query's rows by `moment`, from shortly before the latest that is `known`."""
    if known is not None:
        query = query.where(moment >= known - _OVERLAP)
    return query.order_by(moment.desc()).limit(LIMIT + 1)


def _latest(known: datetime | None, moments: Iterable[datetime | None]) -> datetime | None:
    return max((moment for moment in (known, *moments) if moment is not None), default=None)


def _read(connection: Connection, query: Select[tuple[object, ...]]) -> list[Execution]:
    return [Execution.in_short(row) for row in connection.execute(query).mappings()]


def _shape(execution: Execution) -> _Shape:
    """What makes a watcher want to see it again."""
    return (
        execution.state,
        execution.attempt,
        execution.progress,
        execution.progress_message,
        execution.cancel_requested_at,
        execution.finished_at,
        execution.run_at,
    )
