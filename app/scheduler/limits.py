"""A task's limits reach what waits: each execution keeps them, so whoever changes a task changes these too."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from app.models.task_execution import ACTIVE_STATES, WAITING_STATES, state_in
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
        waiting = _waiting(connection, task_id)
        old = [row.id for row in waiting if row.concurrency_key == before["concurrency_key"]]
        _change(connection, old, {name: after[name] for name in keys})


def _waiting(connection: Connection, task_id: int) -> Sequence[Row[Any]]:
    """What waits, its rows locked. Whoever holds a row now is starting or cancelling it: not to be waited for by
    one who holds the task's row."""
    query = (
        select(*(executions.c[name] for name in ("id", "params", "concurrency_key", "waits_for")))
        .where(
            executions.c.task_id == task_id,
            executions.c.task_name.is_not(None),  # a fire writes it, a request does not
            executions.c.owner.is_(None),
            state_in(executions.c.state, ACTIVE_STATES),
            state_in(executions.c.state, WAITING_STATES),
        )
        .order_by(executions.c.id)
    )
    return connection.execute(query.with_for_update(skip_locked=True)).all()


def _limit_rate(connection: Connection, task_id: int, limit: Mapping[str, Any] | None) -> None:
    waiting = _waiting(connection, task_id)
    by_rule: dict[str, list[int]] = defaultdict(list)
    for row in waiting:
        rule = task_rule(task_id, limit, row.params).as_dict() if limit is not None else None
        by_rule[json.dumps(rule)].append(row.id)
    for rule_text, ids in by_rule.items():
        _change(connection, ids, {"rate_limit": json.loads(rule_text)})
    # The moments that the old limit gave them mean nothing any more: the next claim gives them new ones.
    bucket = f"task:{task_id}"
    in_line = [
        row.id for row in waiting if row.waits_for == bucket or (row.waits_for or "").startswith(f"{bucket}:")
    ]
    due = func.coalesce(executions.c.due_at, executions.c.run_at)
    _change(connection, in_line, {"run_at": due, "waits_for": None, "due_at": None, "reason": None})


def _change(connection: Connection, ids: Sequence[int], values: Mapping[str, Any]) -> None:
    for start in range(0, len(ids), _AT_ONCE):
        some = executions.c.id.in_(ids[start : start + _AT_ONCE])
        connection.execute(update(executions).where(some).values(**values))
