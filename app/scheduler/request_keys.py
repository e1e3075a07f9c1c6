"""The table `request_keys`: requests under one key come one after the other, in all processes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Connection, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.models.flow import RequestKey
from app.models.task_execution import Execution, RepeatedExecution
from app.scheduler.executions import Recorded, execution_of, executions, insert_executions
from app.scheduler.repeats import Action, Decision, Latest, Repeats, decide
from app.scheduler.steps import Carry

keys = cast("Table", RequestKey.__table__)

_ASKED_FOR = (
    "params",
    "priority",
    "retry",
    "timeout_seconds",
    "rate_limit",
    "concurrency_key",
    "concurrency_limit",
)
"""What the newest request decides, where it replaces one that waits."""
KEPT = timedelta(days=1)
"""A key that says nothing any more is kept for this long, in case clocks differ."""


def record_under(
    connection: Connection, values: dict[str, Any], policy: Repeats, now: datetime, carry: Carry
) -> Recorded:
    """Record a request under its key, or find the execution that stands for it, in the caller's transaction."""
    latest = _locked(connection, policy, values["task_type"])
    decision = decide(policy, latest, now)
    found = latest.execution if latest is not None else None
    if decision.action is Action.RECORD or found is None:
        recorded = _record(connection, values, decision)
        carry(connection, [recorded.execution])
    elif decision.action is Action.REPLACE:
        recorded = Recorded(_replaced(connection, found.id, values, decision), is_new=False)
    else:
        recorded = Recorded(RepeatedExecution._make(found), is_new=False)
    connection.execute(
        update(keys)
        .where(_is(policy, values["task_type"]))
        .values(execution_id=recorded.execution.id, since=decision.since, expires_at=decision.expires_at)
    )
    return recorded


def forget_expired(connection: Connection, now: datetime) -> int:
    """Delete keys that have long said nothing; returns how many."""
    return connection.execute(delete(keys).where(keys.c.expires_at < now - KEPT)).rowcount


def _is(policy: Repeats, task_type: str) -> Any:
    return (keys.c.kind == policy.kind) & (keys.c.task_type == task_type) & (keys.c.key == policy.key)


def _locked(connection: Connection, policy: Repeats, task_type: str) -> Latest | None:
    """What the key remembers; from here to the end of the transaction it is ours."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    row = {"kind": policy.kind, "task_type": task_type, "key": policy.key}
    # Also where it is there: on SQLite this takes the write lock.
    connection.execute(dialect.insert(keys).values(row).on_conflict_do_nothing())
    known = connection.execute(select(keys).where(_is(policy, task_type)).with_for_update()).one()
    if known.since is None or known.execution_id is None:
        return None
    query = select(executions).where(executions.c.id == known.execution_id).with_for_update()
    found = connection.execute(query).first()
    return Latest(Execution.from_row(found) if found is not None else None, known.since)


def _record(connection: Connection, values: dict[str, Any], decision: Decision) -> Recorded:
    row = values | ({"run_at": decision.run_at, "owner": None} if decision.run_at is not None else {})
    insert_executions(connection, [row])
    return Recorded(execution_of(row), is_new=True)


def _replaced(
    connection: Connection, execution_id: int, values: dict[str, Any], decision: Decision
) -> RepeatedExecution:
    """The waiting execution, as the newest request wants it. Its row is locked and still waits."""
    changes = {name: values[name] for name in _ASKED_FOR}
    row = connection.execute(
        update(executions)
        .where(executions.c.id == execution_id)
        .values(**changes, run_at=decision.run_at, reason=None, waits_for=None, due_at=None)
        .returning(*executions.c)
    ).one()
    return RepeatedExecution.from_row(row)
