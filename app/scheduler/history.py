"""Reads of what ran: executions, attempts, log lines, nodes. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, func, literal, or_, select, union_all
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import NotFound
from app.models.node import Node
from app.models.task_attempt import ExecutionLog, TaskAttempt
from app.models.task_execution import (
    ACTIVE_STATES,
    Execution,
    ExecutionState,
    TaskExecution,
    is_not_success,
    state_in,
)

executions = TaskExecution.__table__


class History:
    """Reads through short Sessions of their own; pages are by key, so the millionth row costs as the first."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def get(self, execution_id: int) -> Execution:
        """Raises NotFound."""
        found = self._read(select(executions).where(executions.c.id == execution_id))
        if not found:
            raise NotFound("execution", execution_id)
        return found[0]

    def page(
        self,
        *,
        before_id: int | None = None,
        limit: int = 50,
        states: Sequence[ExecutionState] = (),
        task_id: int | None = None,
        task_type: str | None = None,
        trigger: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
    ) -> list[Execution]:
        """Up to `limit` executions with ids below `before_id`, newest first.

        `since` and `until` bound the moment of recording; `search` matches part of task name, message or error.
        """
        query = select(executions).order_by(executions.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(executions.c.id < before_id)
        if states:
            query = query.where(executions.c.state.in_([state.value for state in states]))
            if ExecutionState.SUCCESS not in states:
                query = query.where(is_not_success(executions.c.state))
        for column, value in (("task_id", task_id), ("task_type", task_type), ("trigger", trigger)):
            if value is not None:
                query = query.where(executions.c[column] == value)
        if since is not None:
            query = query.where(executions.c.created_at >= since)
        if until is not None:
            query = query.where(executions.c.created_at < until)
        if search:
            query = query.where(
                or_(
                    executions.c.task_name.icontains(search, autoescape=True),
                    executions.c.message.icontains(search, autoescape=True),
                    executions.c.error.icontains(search, autoescape=True),
                )
            )
        return self._read(query)

    def attempts(self, execution_id: int) -> list[TaskAttempt]:
        """The attempts of an execution, first to last."""
        with self._sessions() as session:
            return list(
                session.scalars(
                    select(TaskAttempt)
                    .where(TaskAttempt.execution_id == execution_id)
                    .order_by(TaskAttempt.number)
                )
            )

    def logs(self, execution_id: int, *, after_id: int = 0, limit: int = 500) -> list[ExecutionLog]:
        """Up to `limit` kept log lines of an execution with ids above `after_id`, oldest first."""
        with self._sessions() as session:
            return list(
                session.scalars(
                    select(ExecutionLog)
                    .where(ExecutionLog.execution_id == execution_id, ExecutionLog.id > after_id)
                    .order_by(ExecutionLog.id)
                    .limit(limit)
                )
            )

    def counts(self) -> dict[ExecutionState, int]:
        """How many executions are in each state."""
        everything = "everything"
        query = union_all(
            select(executions.c.state, func.count())
            .where(is_not_success(executions.c.state))
            .group_by(executions.c.state),
            select(literal(everything), func.count()).select_from(executions),
        )
        with self._sessions() as session:
            found: dict[str, int] = {state: count for state, count in session.execute(query)}  # noqa: C416 - typed
        total = found.pop(everything)
        found[ExecutionState.SUCCESS.value] = total - sum(found.values())
        return {state: found.get(state.value, 0) for state in ExecutionState}

    def nodes(self, *, alive: bool = True) -> list[Node]:
        """The nodes that have not stopped (`alive=False`: all that are remembered), oldest first."""
        query = select(Node).order_by(Node.started_at)
        if alive:
            query = query.where(Node.stopped_at.is_(None))
        with self._sessions() as session:
            return list(session.scalars(query))

    def running_by_node(self) -> dict[str, int]:
        """How many executions each node is running; a node that runs none is not in it."""
        query = (
            select(executions.c.owner, func.count())
            .where(
                executions.c.owner.is_not(None),
                state_in(executions.c.state, ACTIVE_STATES),
                executions.c.state == ExecutionState.RUNNING.value,
            )
            .group_by(executions.c.owner)
        )
        with self._sessions() as session:
            return {owner: count for owner, count in session.execute(query)}  # noqa: C416 - typed

    def _read(self, query: Select[tuple[object, ...]]) -> list[Execution]:
        with self._sessions() as session:
            return [Execution.from_row(row) for row in session.execute(query)]
