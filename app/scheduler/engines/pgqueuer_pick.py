"""How jobs are picked: PgQueuer's own statement, made to claim the jobs' executions too.

A node picks only what it has places for, and what no limit holds up starts in the statement that picked its job:
one round trip and one commit from a queued job to a running attempt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from pgqueuer.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId
from sqlalchemy import TypeDecorator, bindparam, make_url

from app.core.clock import Clock
from app.models.task_execution import EXECUTION_FIELDS, Execution, ExecutionState
from app.scheduler.attempts import attempts
from app.scheduler.claims import unlimited
from app.scheduler.executions import executions, nodes
from app.services.scheduler_service import TaskStatus

_PICKED = "SELECT * FROM claimed ORDER BY priority DESC, id ASC;"
"""How PgQueuer's statement ends; `claimed` are the jobs it has just picked."""
_DIALECT = make_url("postgresql+psycopg://").get_dialect()()
_OF_EXECUTION = "x_"
"""What the names of an execution's columns begin with, beside those of its job."""


class Picked(NamedTuple):
    """A job that has come to this node; `execution`: the one it names, if it has been started."""

    job: Job
    execution: Execution | None


class Desk(Protocol):
    """Who wants jobs."""

    async def places(self) -> int:
        """How many executions could start now: waits until one could. 0: nothing more is wanted.

        Every number but 0 is answered by one call of `bring()`.
        """

    def bring(self, picked: Sequence[Picked]) -> None:
        """Take what has come: it may be fewer, or none."""


@dataclass
class ClaimingQueries(Queries):
    """PgQueuer's queries, with a `dequeue` that also claims, for `node_id`, what it picked (see the module)."""

    desk: Desk = field(kw_only=True)
    node_id: str = field(kw_only=True)
    clock: Clock = field(kw_only=True)
    ruled_types: Callable[[], Sequence[str]] = field(kw_only=True)
    """The executors with a rate limit or a circuit breaker: theirs are claimed through the gate."""
    _statements: dict[str, str] = field(init=False, default_factory=dict)

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[Job]:
        places = await self.desk.places()
        if not places:
            return []
        picked: list[Picked] = []
        try:
            query = self.qbq.build_dequeue_query(
                batch_size=min(batch_size, places),
                entrypoints=list(entrypoints),
                concurrency_limits=[one.concurrency_limit for one in entrypoints.values()],
                queue_manager_id=queue_manager_id,
                global_concurrency_limit=global_concurrency_limit,
                heartbeat_timeout=heartbeat_timeout,
            )
            statement = self._statements.get(query.sql)
            if statement is None:
                statement = self._statements[query.sql] = _and_claim(query.sql, len(query.args))
            ruled = list(self.ruled_types())
            rows = await self.driver.fetch(statement, *query.args, self.node_id, self.clock.now(), ruled)
            picked = [Picked(Job.model_validate(row), _execution_in(row)) for row in rows]
        finally:
            self.desk.bring(picked)
        return [one.job for one in picked]


def _and_claim(dequeue: str, parameters: int) -> str:
    """PgQueuer's statement and the claim in one; the node, the present moment and the executors with rules
    are its last parameters.

    The fence is the same as in every claim: the row is nobody's, waits, and is due. A node declared dead gets
    nothing: its row is locked against a burial until the commit. Where two jobs name one execution, one gets it.

    Raises:
        RuntimeError: PgQueuer's statement is not the one of the version this was written for.
    """
    if not dequeue.endswith(_PICKED):
        raise RuntimeError("PgQueuer's dequeue statement has changed: pgqueuer_pick.py must be adapted to it")
    node, now, ruled = (f"${parameters + further}" for further in (1, 2, 3))
    free = unlimited(bindparam("now", type_=executions.c.run_at.type)).compile(dialect=_DIALECT)
    is_free = re.sub(r"%\(now\)s", now, str(free))
    returned = ", ".join(f"execution.{name} AS {_OF_EXECUTION}{name}" for name in EXECUTION_FIELDS)
    brought = ", ".join(f"started.{_OF_EXECUTION}{name}" for name in EXECUTION_FIELDS)
    return f"""{dequeue.removesuffix(_PICKED).rstrip()},
named AS (
    SELECT id AS job_id, encode(payload, 'escape')::bigint AS execution_id
    FROM claimed
    WHERE encode(payload, 'escape') ~ '^[0-9]{{1,18}}$'
),
alive AS (
    SELECT id FROM {nodes.name}
    WHERE id = {node} AND stopped_at IS NULL AND EXISTS (SELECT 1 FROM named)
    FOR SHARE
),
started AS (
    UPDATE {executions.name}
    SET state = '{ExecutionState.RUNNING.value}', attempt = {executions.name}.attempt + 1,
        owner = alive.id, started_at = {now}
    FROM named, alive
    WHERE {executions.name}.id = named.execution_id AND {is_free}
        AND {executions.name}.task_type <> ALL({ruled}::text[])
    RETURNING named.job_id, {returned.replace("execution.", f"{executions.name}.")}
),
begun AS (
    INSERT INTO {attempts.name} (execution_id, number, node, status, started_at)
    SELECT {_OF_EXECUTION}id, {_OF_EXECUTION}attempt, {_OF_EXECUTION}owner, '{TaskStatus.RUNNING.value}',
        {_OF_EXECUTION}started_at
    FROM started
)
SELECT claimed.*, {brought}
FROM claimed LEFT JOIN started ON started.job_id = claimed.id
ORDER BY claimed.priority DESC, claimed.id
"""  # noqa: S608 - names of our own columns and tables, and PgQueuer's statement


def _converters() -> list[tuple[int, Callable[[Any], Any]]]:
    """Which of an execution's columns are of our own types, and what makes their values of what asyncpg read."""
    found: list[tuple[int, Callable[[Any], Any]]] = []
    for position, name in enumerate(EXECUTION_FIELDS):
        kind = executions.c[name].type
        convert = kind.result_processor(_DIALECT, None) if isinstance(kind, TypeDecorator) else None
        if convert is not None:
            found.append((position, convert))
    return found


_COLUMNS = [f"{_OF_EXECUTION}{name}" for name in EXECUTION_FIELDS]
_CONVERTERS = _converters()
_STATE = EXECUTION_FIELDS.index("state")


def _execution_in(row: dict[str, Any]) -> Execution | None:
    if row[_COLUMNS[0]] is None:
        return None
    values = [row[name] for name in _COLUMNS]
    for position, convert in _CONVERTERS:
        values[position] = convert(values[position])
    values[_STATE] = ExecutionState.RUNNING
    return Execution._make(values)
