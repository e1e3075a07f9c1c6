"""What a person should look at first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, Select, func, literal_column, select
from sqlalchemy.orm import Session, sessionmaker

from app.models.alerting import Alert
from app.models.flow import CircuitState
from app.models.node import Node
from app.models.scheduled_task import ScheduledTask
from app.models.task_execution import ACTIVE_STATES, ExecutionState, TaskExecution, is_not_success, state_in
from app.scheduler.breaker import Phase
from app.scheduler.shelf import left_to_others

executions = TaskExecution.__table__
tasks = ScheduledTask.__table__
nodes = Node.__table__
circuits = CircuitState.__table__
alerts = Alert.__table__

LATE = timedelta(seconds=10)
"""A fire that is due for longer than this and not recorded is late: no node fires."""
WAITING_LONG = timedelta(minutes=5)
"""An execution that could run for longer than this, and does not, waits for a lane that nobody has."""
RUNNING_LONG = timedelta(hours=6)
RECENT = timedelta(hours=24)
_NAMED = 5
"""How many examples a finding names."""


class Kind(StrEnum):
    """Stable words for what can be wrong."""

    LATE_FIRES = "late_fires"
    BROKEN_SCHEDULES = "broken_schedules"
    UNKNOWN_HOLIDAYS = "unknown_holidays"
    FAILING_TASKS = "failing_tasks"
    PARKED = "parked"
    WAITING_LONG = "waiting_long"
    RUNNING_LONG = "running_long"
    RESCUED = "rescued"
    LOST = "lost"
    DEAD_NODES = "dead_nodes"
    UNKNOWN_EXECUTORS = "unknown_executors"
    NO_NODE = "no_node"
    LOOP_HELD = "loop_held"
    CIRCUIT_OPEN = "circuit_open"
    ALERTS_OPEN = "alerts_open"


class Severity(StrEnum):
    """How soon to look: an error stops work, a warning may."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Example:
    """One of the things found: a task, an execution, a node, an executor or an alert."""

    kind: str
    id: int | str
    name: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at: how many of it, and the first few."""

    kind: Kind
    severity: Severity
    count: int
    examples: tuple[Example, ...]


def _types_in_use() -> Select[tuple[str | None]]:
    """The types of active tasks, and at last NULL: from each to the next by one look into the index; DISTINCT
    would go through all of it."""
    lowest = select(func.min(tasks.c.task_type).label("task_type")).where(tasks.c.is_active)
    found = lowest.cte("types_in_use", recursive=True)
    following = lowest.where(tasks.c.task_type > found.c.task_type).scalar_subquery()
    return select(found.union_all(select(following).where(found.c.task_type.is_not(None))).c.task_type)


_TYPES_IN_USE = _types_in_use()


class Attention:
    """Looks through the tables; nothing here writes."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def findings(self, now: datetime, *, known_types: Collection[str], node_timeout: timedelta) -> list[Finding]:
        """What is wrong, worst first. `node_timeout`: how long a node may be silent."""
        with self._sessions() as session:
            found = [
                *self._of_tasks(session, now, known_types),
                *self._of_executions(session, now),
                *self._of_nodes(session, now, node_timeout),
                *self._of_circuits(session),
                *self._of_alerts(session),
            ]
        order = list(Severity)
        return sorted(found, key=lambda finding: order.index(finding.severity))

    def _of_tasks(self, session: Session, now: datetime, known_types: Collection[str]) -> Iterator[Finding]:
        active = select(tasks.c.id, tasks.c.name).where(tasks.c.is_active)
        late = active.where(tasks.c.next_run_at.is_not(None), tasks.c.next_run_at < now - LATE)
        yield from _found(session, Kind.LATE_FIRES, Severity.ERROR, "task", late)
        yield from _found(
            session,
            Kind.BROKEN_SCHEDULES,
            Severity.ERROR,
            "task",
            active.where(tasks.c.schedule_error.is_not(None)),
        )
        unjudged = left_to_others(session.get_bind().dialect)
        if unjudged is not None:
            yield from _found(session, Kind.UNKNOWN_HOLIDAYS, Severity.WARNING, "task", unjudged)
        unknown = set(session.scalars(_TYPES_IN_USE)) - set(known_types) - {None}
        if unknown:
            forlorn = active.where(tasks.c.task_type.in_(unknown))
            yield from _found(session, Kind.UNKNOWN_EXECUTORS, Severity.ERROR, "task", forlorn)
        failing = active.where(tasks.c.last_state == literal_column("'failed'"))  # spelled as its index has it
        yield from _found(session, Kind.FAILING_TASKS, Severity.WARNING, "task", failing)

    def _of_executions(self, session: Session, now: datetime) -> Iterator[Finding]:
        def some(*conditions: ColumnElement[bool]) -> Select[tuple[int, str]]:
            name = func.coalesce(executions.c.task_name, executions.c.task_type)
            return select(executions.c.id, name).where(is_not_success(executions.c.state), *conditions)

        state = executions.c.state
        parked = some(state == ExecutionState.PARKED.value)
        yield from _found(session, Kind.PARKED, Severity.ERROR, "execution", parked)
        startable = (ExecutionState.PENDING.value, ExecutionState.SUSPENDED.value)
        pending = some(state.in_(startable), executions.c.run_at < now - WAITING_LONG)
        yield from _found(session, Kind.WAITING_LONG, Severity.WARNING, "execution", pending)
        running = some(state == ExecutionState.RUNNING.value, executions.c.started_at < now - RUNNING_LONG)
        yield from _found(session, Kind.RUNNING_LONG, Severity.WARNING, "execution", running)
        lost = some(
            state == ExecutionState.FAILED.value,
            executions.c.reason == "node_lost",
            executions.c.finished_at >= now - RECENT,
        )
        yield from _found(session, Kind.LOST, Severity.ERROR, "execution", lost)
        rescued = some(state_in(state, ACTIVE_STATES), executions.c.rescues > 0)
        yield from _found(session, Kind.RESCUED, Severity.INFO, "execution", rescued)

    def _of_nodes(self, session: Session, now: datetime, timeout: timedelta) -> Iterator[Finding]:
        silent = nodes.c.stopped_at.is_(None) & (nodes.c.heartbeat_at < now - timeout)
        buried = nodes.c.found_dead & (nodes.c.stopped_at >= now - RECENT)
        dead = select(nodes.c.id, nodes.c.host).where(silent | buried)
        yield from _found(session, Kind.DEAD_NODES, Severity.WARNING, "node", dead)
        alive = select(nodes.c.id).where(nodes.c.stopped_at.is_(None), nodes.c.heartbeat_at >= now - timeout)
        if session.execute(alive.limit(1)).first() is None:
            yield Finding(Kind.NO_NODE, Severity.ERROR, 1, ())

    def _of_circuits(self, session: Session) -> Iterator[Finding]:
        opened = select(circuits.c.task_type, circuits.c.task_type.label("name")).where(
            circuits.c.state != Phase.CLOSED.value
        )
        yield from _found(session, Kind.CIRCUIT_OPEN, Severity.ERROR, "executor", opened)

    def _of_alerts(self, session: Session) -> Iterator[Finding]:
        """What somebody has acknowledged is in good hands."""
        told = select(alerts.c.id, alerts.c.rule_name).where(
            alerts.c.resolved_at.is_(None), alerts.c.acknowledged_at.is_(None)
        )
        yield from _found(session, Kind.ALERTS_OPEN, Severity.WARNING, "alert", told)


def _found(
    session: Session,
    kind: Kind,
    severity: Severity,
    of: str,
    query: Select[tuple[int, str]] | Select[tuple[str, str]],
) -> Iterator[Finding]:
    """The finding, if the query finds anything. Columns: id, name."""
    count = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    if count:
        rows = session.execute(query.limit(_NAMED)).all()
        yield Finding(kind, severity, count, tuple(Example(of, *row) for row in rows))
