"""Old history goes, a little at a time."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from app.models.alerting import Alert
from app.models.node import Node
from app.scheduler.attempts import attempts, logs
from app.scheduler.executions import executions
from app.scheduler.request_keys import keys
from app.scheduler.steps import signals, steps

BATCH = 500


def prune(connection: Connection, *, now: datetime, keep_days: float, limit: int = BATCH) -> int:
    """Delete up to `limit` executions that ended more than `keep_days` ago, with attempts, steps, signals and log
    lines.

    Returns how many; what is not over is never touched, nor what still answers requests under the key of a
    `Throttle` or `Once` whose period is longer than that. A child goes after its parent, whose steps refer to it,
    is gone. Stopped nodes and alerts that are over go after the same time.
    """
    before = now - timedelta(days=keep_days)
    parent = executions.alias("parent")
    # Few, if any: keys that outlast the history, of executions old enough to go.
    answers = select(keys.c.execution_id).where(
        keys.c.expires_at > now, keys.c.since < before, keys.c.kind != "debounce", keys.c.execution_id.is_not(None)
    )
    has_parent = select(parent.c.id).where(parent.c.id == executions.c.parent_id).exists()
    ids = list(
        connection.scalars(
            select(executions.c.id)
            .where(
                executions.c.finished_at.is_not(None),
                executions.c.finished_at < before,
                ~has_parent,
                executions.c.id.not_in(answers),
            )
            .order_by(executions.c.finished_at)
            .limit(limit)
            .with_for_update(of=executions, skip_locked=True)  # somebody is putting it back in line
        )
    )
    if ids:
        connection.execute(delete(logs).where(logs.c.execution_id.in_(ids)))
        connection.execute(delete(attempts).where(attempts.c.execution_id.in_(ids)))
        connection.execute(delete(steps).where(steps.c.execution_id.in_(ids)))
        connection.execute(delete(signals).where(signals.c.execution_id.in_(ids)))
        connection.execute(delete(executions).where(executions.c.id.in_(ids)))
    connection.execute(delete(Node).where(Node.stopped_at < before))
    connection.execute(delete(Alert).where(Alert.resolved_at.is_not(None), Alert.resolved_at < before))
    return len(ids)
