"""The table `rate_limits`: read and written in the transaction that claims, and mended where its line has holes.

Claims are one after the other, so nobody changes a bucket between a claim's read and its write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from pydantic import ValidationError
from sqlalchemy import Connection, Row, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.bulk import BulkUpdate
from app.models.flow import RateBucket
from app.models.task_execution import WAITING_STATES, state_in
from app.scheduler.executions import executions
from app.scheduler.rates import Bucket, RateLimit, RateRule, tokens

buckets = cast("Table", RateBucket.__table__)

IDLE = timedelta(days=1)
"""A bucket that has been full for this long may go; without a record it is full as well."""
_LIMIT = 500

_STORE = BulkUpdate(
    {
        "x_key": buckets.c.key,
        "x_rate": buckets.c.rate,
        "x_per_seconds": buckets.c.per_seconds,
        "x_burst": buckets.c.burst,
        "x_tat": buckets.c.tat,
        "x_line_end": buckets.c.line_end,
        "x_line_priority": buckets.c.line_priority,
        "x_updated_at": buckets.c.updated_at,
    },
    lambda given: (
        update(buckets)
        .where(buckets.c.key == given["x_key"])
        .values(
            rate=given["x_rate"],
            per_seconds=given["x_per_seconds"],
            burst=given["x_burst"],
            tat=given["x_tat"],
            line_end=given["x_line_end"],
            line_priority=given["x_line_priority"],
            updated_at=given["x_updated_at"],
        )
    ),
)


def read_buckets(connection: Connection, keys: Iterable[str]) -> dict[str, Bucket]:
    """The buckets of that name that have a record."""
    wanted = list(keys)
    if not wanted:
        return {}
    query = select(buckets.c.key, buckets.c.tat, buckets.c.line_end, buckets.c.line_priority)
    return {row.key: Bucket(*row[1:]) for row in connection.execute(query.where(buckets.c.key.in_(wanted)))}


def limit_of(row: Row[Any]) -> RateLimit:
    """The limit that was applied last; one that is allowed no longer, or was never, counts as a slow one."""
    try:
        return RateLimit(row.rate, row.per_seconds, row.burst)
    except ValidationError:
        return RateLimit(1, per_seconds=60)


def write_buckets(connection: Connection, changed: Mapping[str, tuple[RateRule, Bucket]], now: datetime) -> None:
    """Store buckets as they are now, with the limit that was applied, for whoever looks at them."""
    rows = [
        {
            "x_key": key,
            "x_rate": rule.limit.limit,
            "x_per_seconds": rule.limit.per_seconds,
            "x_burst": rule.limit.capacity,
            "x_tat": bucket.tat,
            "x_line_end": bucket.line_end,
            "x_line_priority": bucket.line_priority,
            "x_updated_at": now,
        }
        for key, (rule, bucket) in changed.items()
    ]
    if _STORE.execute(connection, rows) == len(rows):
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    missing = dialect.insert(buckets).on_conflict_do_nothing(index_elements=["key"])
    connection.execute(missing, [{name[2:]: value for name, value in row.items()} for row in rows])


def close_gaps(connection: Connection, now: datetime) -> int:
    """Bring forward those who wait longer than their bucket makes them; returns how many.

    Who leaves a line (cancelled, deleted) leaves a gap at which nobody takes the token that is there.
    """
    gaps = connection.execute(select(buckets).where(buckets.c.line_end > now).limit(_LIMIT)).all()
    moved = 0
    for row in gaps:
        limit = limit_of(row)
        free = tokens(Bucket(row.tat, row.line_end, row.line_priority), limit, now)
        if free:
            moved += _bring_forward(connection, row.key, free, now)
    return moved


def has_line(connection: Connection, now: datetime) -> bool:
    """Whether anybody waits in the line of a bucket."""
    return connection.execute(select(buckets.c.key).where(buckets.c.line_end > now).limit(1)).first() is not None


def _bring_forward(connection: Connection, key: str, count: int, now: datetime) -> int:
    """Let the first of those in line try now; if as many as there are tokens are due already, nobody."""
    waiting = (
        select(executions.c.id, executions.c.run_at)
        .where(
            executions.c.waits_for == key,
            executions.c.owner.is_(None),
            state_in(executions.c.state, WAITING_STATES),
        )
        .order_by(executions.c.run_at)
        .limit(count)
    )
    early = [row.id for row in connection.execute(waiting) if row.run_at > now]
    if early:
        still = update(executions).where(executions.c.id.in_(early), executions.c.waits_for == key)
        connection.execute(still.values(run_at=now))
    return len(early)


def next_put_off(connection: Connection, now: datetime) -> datetime | None:
    """When the next of all that were put off tries again; who may try now and did not start is held up
    otherwise."""
    earliest: datetime | None = connection.scalar(
        select(func.min(executions.c.run_at)).where(
            executions.c.waits_for.is_not(None),
            executions.c.owner.is_(None),
            state_in(executions.c.state, WAITING_STATES),
            executions.c.run_at > now,
        )
    )
    return earliest


def forget_idle(connection: Connection, now: datetime) -> int:
    """Delete the records of buckets that have long been full; returns how many."""
    return connection.execute(delete(buckets).where(buckets.c.tat < now - IDLE)).rowcount
