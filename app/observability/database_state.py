"""What the database knows of all processes: who waits, how long already, which nodes beat, which
circuits are open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app.models.flow import CircuitState
from app.models.node import Node
from app.models.task_execution import ACTIVE_STATES, WAITING_STATES, TaskExecution, state_in
from app.scheduler.breaker import Phase
from app.scheduler.pace import BACKFILL

executions = TaskExecution.__table__


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """One look at the database, the same from every process."""

    depth: dict[str, int]
    """How many executions are in each state that is not final."""
    oldest_due_seconds: float
    """How long the execution that has been due longest has waited, also where a rate limit or a circuit has put it
    off; 0: none is due. What a backfill has recorded waits for its turn, and is not late."""
    circuit_open: dict[str, bool]
    """Of each executor whose circuit has heard something: whether it holds executions back, or lets probes alone
    through."""
    heartbeat_age_seconds: dict[str, float]
    """Of each node that has not stopped."""


def read_database_state(session: Session, now: datetime) -> DatabaseState:
    """Reads through the index over active executions: finished ones, however many, cost nothing."""
    depth = {state.value: 0 for state in ACTIVE_STATES}
    oldest: datetime | None = None
    due_since = func.coalesce(executions.c.due_at, executions.c.run_at)
    query = (
        select(executions.c.state, func.count(), func.min(case((executions.c.trigger != BACKFILL, due_since))))
        .where(state_in(executions.c.state, ACTIVE_STATES))
        .group_by(executions.c.state)
    )
    for state, count, first_due in session.execute(query):
        depth[state] = count
        if state in WAITING_STATES and first_due is not None and (oldest is None or first_due < oldest):
            oldest = first_due
    circuits = session.execute(select(CircuitState.task_type, CircuitState.state))
    beats = session.execute(select(Node.id, Node.heartbeat_at).where(Node.stopped_at.is_(None)))
    return DatabaseState(
        depth=depth,
        oldest_due_seconds=_age(oldest, now) if oldest is not None else 0.0,
        circuit_open={task_type: phase != Phase.CLOSED.value for task_type, phase in circuits},
        heartbeat_age_seconds={node: _age(beat, now) for node, beat in beats},
    )


def _age(moment: datetime, now: datetime) -> float:
    return max((now - moment).total_seconds(), 0.0)
