"""What the database knows of all processes: who waits, how long already, and which nodes beat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models.node import Node
from app.models.task_execution import ACTIVE_STATES, WAITING_STATES, TaskExecution, state_in

executions = TaskExecution.__table__


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """One look at the database, the same from every process."""

    depth: dict[str, int]
    """How many executions are in each state that is not final."""
    oldest_due_seconds: float
    """How long the execution that has been due longest has waited; 0: none is due."""
    heartbeat_age_seconds: dict[str, float]
    """Of each node that has not stopped."""


def read_database_state(session: Session, now: datetime) -> DatabaseState:
    """Reads through the index over active executions: finished ones, however many, cost nothing."""
    depth = {state.value: 0 for state in ACTIVE_STATES}
    oldest: datetime | None = None
    query = (
        select(executions.c.state, func.count(), func.min(executions.c.run_at))
        .where(state_in(executions.c.state, ACTIVE_STATES))
        .group_by(executions.c.state)
    )
    for state, count, first_due in session.execute(query):
        depth[state] = count
        if state in WAITING_STATES and (oldest is None or first_due < oldest):
            oldest = first_due
    beats = session.execute(select(Node.id, Node.heartbeat_at).where(Node.stopped_at.is_(None)))
    return DatabaseState(
        depth=depth,
        oldest_due_seconds=_age(oldest, now) if oldest is not None else 0.0,
        heartbeat_age_seconds={node: _age(beat, now) for node, beat in beats},
    )


def _age(moment: datetime, now: datetime) -> float:
    return max((now - moment).total_seconds(), 0.0)
