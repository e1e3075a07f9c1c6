"""A task's limits reach what waits: each execution keeps them, so whoever changes a task changes these too."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from app.models.task_execution import WAITING_STATES, state_in
from app.scheduler.executions import executions
from app.scheduler.rates import task_rule

_AT_ONCE = 500


def pass_on_limits(
    connection: Connection, task_id: int, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Give what waits of a task the limits that it has `after` a change, as far as its own fires made it.

    What was requested under the task's id has limits of its own, and a backfill may have a key of its own.
    """
    if before["rate_limit"] != after["rate_limit"]:
        _limit_rate(connection, task_id, after["rate_limit"])
    keys = ("concurrency_key", "concurrency_limit")
    if any(before[name] != after[name] for name in keys):
        old = executions.c.concurrency_key.is_not_distinct_from(before["concurrency_key"])
        connection.execute(
            update(executions).where(_waits(task_id), old).values({name: after[name] for name in keys})
        )


def _waits(task_id: int) -> ColumnElement[bool]:
    return and_(
        executions.c.task_id == task_id,
        executions.c.task_name.is_not(None),  # a fire writes it, a request does not
        executions.c.owner.is_(None),
        state_in(executions.c.state, WAITING_STATES),
    )


def _limit_rate(connection: Connection, task_id: int, limit: Mapping[str, Any] | None) -> None:
    buckets: dict[str | None, list[int]] = defaultdict(list)
    for row in connection.execute(select(executions.c.id, executions.c.params).where(_waits(task_id))):
        rule = task_rule(task_id, limit, row.params).as_dict() if limit is not None else None
        buckets[json.dumps(rule) if rule is not None else None].append(row.id)
    for rule_text, ids in buckets.items():
        rule = json.loads(rule_text) if rule_text is not None else None
        for start in range(0, len(ids), _AT_ONCE):
            some = executions.c.id.in_(ids[start : start + _AT_ONCE])
            connection.execute(update(executions).where(some, _waits(task_id)).values(rate_limit=rule))
    # The moments that the old limit gave them mean nothing any more: the next claim gives them new ones.
    bucket = f"task:{task_id}"
    in_line = or_(
        executions.c.waits_for == bucket, executions.c.waits_for.startswith(f"{bucket}:", autoescape=True)
    )
    connection.execute(
        update(executions)
        .where(_waits(task_id), in_line)
        .values(
            run_at=func.coalesce(executions.c.due_at, executions.c.run_at),
            waits_for=None,
            due_at=None,
            reason=None,
        )
    )
