"""Reads of what ran: executions, attempts, log lines, nodes. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, func, literal, or_, select, union_all
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import NotFound
from app.core.jsonable import LARGEST_RESULT
from app.models.node import Node
from app.models.task_attempt import ExecutionLog, TaskAttempt
from app.models.task_execution import (
    ACTIVE_STATES,
    IN_SHORT,
    Execution,
    ExecutionState,
    TaskExecution,
    is_not_success,
    state_in,
)
from app.scheduler.family import count_children, size_of_children
from app.scheduler.steps import Signal, StepRow, stored_signals, stored_steps

executions = TaskExecution.__table__


CHILDREN_SHOWN = 200
"""Children that are shown with their parent."""
SCANNED = 50_000
"""Executions that one page looks through at most for what no index finds."""


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

    def find(self, execution_id: int) -> Execution | None:
        """The same, or None."""
        found = self._read(select(executions).where(executions.c.id == execution_id))
        return found[0] if found else None

    def all(self, task_id: int | None = None) -> list[Execution]:
        """All executions, of one task or of all, oldest first: where there are few, in tests."""
        query = select(executions).order_by(executions.c.id)
        return self._read(query if task_id is None else query.where(executions.c.task_id == task_id))

    def children(self, execution_id: int) -> list[Execution]:
        """All children of an execution, in the order they were spawned."""
        query = select(executions).where(executions.c.parent_id == execution_id)
        return self._read(query.order_by(executions.c.id))

    def bearable_children(self, execution_id: int) -> list[Execution]:
        """The same, but in short where their params and results are too large to be read together."""
        with self._sessions() as session:
            size = size_of_children(session.connection(), execution_id)
        if size <= LARGEST_RESULT:
            return self.children(execution_id)
        query = select(*IN_SHORT).where(executions.c.parent_id == execution_id)
        return self._read_short(query.order_by(executions.c.id))

    def child_count(self, execution_id: int) -> int:
        """How many children an execution has."""
        with self._sessions() as session:
            return count_children(session.connection(), execution_id)[0]

    def last_children(self, execution_id: int, limit: int = CHILDREN_SHOWN) -> list[Execution]:
        """The last `limit` children of an execution, in short, in the order they were spawned."""
        query = select(*IN_SHORT).where(executions.c.parent_id == execution_id)
        return self._read_short(query.order_by(executions.c.id.desc()).limit(limit))[::-1]

    def steps(self, execution_id: int, *, limit: int = 1000) -> list[StepRow]:
        """The first `limit` steps and waits of an execution."""
        with self._sessions() as session:
            return stored_steps(session.connection(), execution_id, limit=limit)

    def signals(self, execution_id: int, *, limit: int = 1000) -> list[Signal]:
        """The first `limit` signals that an execution was sent."""
        with self._sessions() as session:
            return stored_signals(session.connection(), execution_id, limit=limit)

    def page(
        self,
        *,
        before_id: int | None = None,
        limit: int = 50,
        states: Sequence[ExecutionState] = (),
        task_id: int | None = None,
        parent_id: int | None = None,
        task_type: str | None = None,
        trigger: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
        down_to: int = 0,
    ) -> list[Execution]:
        """Up to `limit` executions in short, with ids below `before_id`, newest first.

        `since` and `until` bound the moment of recording; `search` matches part of task name, message or error.
        `down_to`: do not look below this id (`horizon()`).
        """
        query = select(*IN_SHORT).order_by(executions.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(executions.c.id < before_id)
        if down_to:
            query = query.where(executions.c.id >= down_to)
        if states:
            query = query.where(executions.c.state.in_([state.value for state in states]))
            if ExecutionState.SUCCESS not in states:
                query = query.where(is_not_success(executions.c.state))
        for column, value in (
            ("task_id", task_id),
            ("parent_id", parent_id),
            ("task_type", task_type),
            ("trigger", trigger),
        ):
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
        return self._read_short(query)

    def horizon(self, before_id: int | None) -> int:
        """The id down to which one page should look for what no index finds; 0: to the end."""
        with self._sessions() as session:
            top = before_id or (session.scalar(select(func.max(executions.c.id))) or 0) + 1
            floor = max(top - SCANNED, 0)
            oldest = session.scalar(select(func.min(executions.c.id))) or 0
        return floor if floor > oldest else 0

    def recent(self, task_ids: Sequence[int], count: int) -> dict[int, list[Execution]]:
        """The last `count` executions of each of these tasks, in short, newest first."""
        found: dict[int, list[Execution]] = {task_id: [] for task_id in task_ids}
        if not found:
            return found
        latest = [
            select(*IN_SHORT).where(executions.c.task_id == task_id).order_by(executions.c.id.desc()).limit(count)
            for task_id in found
        ]
        query = union_all(*(select(one.subquery()) for one in latest))
        with self._sessions() as session:
            rows = [Execution.in_short(row) for row in session.execute(query).mappings()]
        for execution in sorted(rows, key=lambda row: -row.id):
            if execution.task_id is not None:
                found[execution.task_id].append(execution)
        return found

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

    def nodes(self, *, alive: bool = True, stopped_since: datetime | None = None) -> list[Node]:
        """The nodes that have not stopped, or not before `stopped_since`; `alive=False`: all that are remembered.
        Oldest first."""
        query = select(Node).order_by(Node.started_at)
        if stopped_since is not None:
            query = query.where(or_(Node.stopped_at.is_(None), Node.stopped_at >= stopped_since))
        elif alive:
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

    def _read_short(self, query: Select[tuple[object, ...]]) -> list[Execution]:
        with self._sessions() as session:
            return [Execution.in_short(row) for row in session.execute(query).mappings()]
