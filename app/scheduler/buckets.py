"""The table `rate_limits`: read and written in the transaction that claims, and mended where its line has holes.

Claims are one after the other, so nobody changes a bucket between a claim's read and its write; who mends a line
takes part in that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from pydantic import ValidationError
from sqlalchemy import Connection, Row, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.bulk import BulkUpdate
from app.models.flow import RateBucket
from app.models.task_execution import WAITING_STATES, state_in
from app.scheduler.executions import executions
from app.scheduler.rates import Bucket, RateLimit, RateRule, believed, next_starts, tokens

buckets = cast("Table", RateBucket.__table__)

IDLE = timedelta(days=1)
"""A bucket that has been full for this long may go; without a record it is full as well."""
_LIMIT = 500
_NEAR = timedelta(seconds=2)
"""Lines are looked at once a second; meanwhile the starts of the next one must be as close as they may."""
_AT_A_TURN = 2_000
_WHOLE_LINE = 10_000
_NOT_MUCH = timedelta(minutes=1)
"""By how much those behind may go on being late until their moment is near."""

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

_BRING_FORWARD = BulkUpdate(
    {"x_id": executions.c.id, "x_waits_for": executions.c.waits_for, "x_run_at": executions.c.run_at},
    lambda given: (
        update(executions)
        .where(executions.c.id == given["x_id"], executions.c.waits_for == given["x_waits_for"])
        .values(run_at=given["x_run_at"])
    ),
)
"""Who has started meanwhile waits for nothing any more, and stays as it is."""


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


def close_gaps(connection: Connection, rates: Mapping[str, RateLimit], now: datetime) -> int:
    """Bring forward those who wait longer than their bucket makes them; returns how many. To be called with the
    lock of the claims.

    Who leaves a line (cancelled, deleted) leaves a gap at which nobody takes the token that is there. And a line
    that was formed under a slower limit, or before a clock went back, waits for moments that mean nothing any
    more. `rates` are the executors' limits as they are now; of other buckets the limit applied last is known.
    """
    lines = connection.execute(select(buckets).where(buckets.c.line_end > now).limit(_LIMIT)).all()
    moved = 0
    changed: dict[str, tuple[RateRule, Bucket]] = {}
    for row in lines:
        limit = _present_limit(row, rates)
        stored = Bucket(row.tat, row.line_end, row.line_priority)
        bucket = believed(stored, limit, now)
        line = _tighten(connection, row.key, bucket, limit, now)
        moved += line.moved
        if line.is_whole:
            bucket = replace(bucket, line_end=line.end)
        applied = (row.rate, row.per_seconds, row.burst)
        if bucket != stored or applied != (limit.limit, limit.per_seconds, limit.capacity):
            changed[row.key] = RateRule(row.key, limit), bucket
    write_buckets(connection, changed, now)
    return moved


def _present_limit(row: Row[Any], rates: Mapping[str, RateLimit]) -> RateLimit:
    kind, _, name = row.key.partition(":")
    if kind == "executor":
        for task_type, limit in rates.items():
            if name == task_type or (limit.key is not None and name.startswith(f"{task_type}:")):
                return limit
    return limit_of(row)


def has_line(connection: Connection, now: datetime) -> bool:
    """Whether anybody waits in the line of a bucket."""
    return connection.execute(select(buckets.c.key).where(buckets.c.line_end > now).limit(1)).first() is not None


@dataclass(frozen=True, slots=True)
class _Line:
    """What a look at a line came to."""

    moved: int
    """How many were brought forward."""
    by: timedelta
    """The one that waited much too long by how much, at most."""
    is_whole: bool
    """Whether all in line were looked at."""
    end: datetime | None
    """When the last of them tries again; None: nobody waits."""


def _tighten(connection: Connection, key: str, bucket: Bucket, limit: RateLimit, now: datetime) -> _Line:
    """Give those in line the moments at which they may start, where they have later ones: those whose moment is
    near, and all of them where these were far too late."""
    near = tokens(bucket, limit, now) + int(_NEAR / limit.interval)
    line = _bring_forward(connection, key, next_starts(bucket, limit, now, max(1, min(near, _AT_A_TURN))))
    if line.is_whole or line.by <= _NOT_MUCH:
        return line
    whole = _bring_forward(connection, key, next_starts(bucket, limit, now, _WHOLE_LINE))
    return replace(whole, moved=line.moved + whole.moved)


def _bring_forward(connection: Connection, key: str, moments: Sequence[datetime]) -> _Line:
    """Let the first of those in line try at these moments, none of them later than it would."""
    waiting = (
        select(executions.c.id, executions.c.run_at)
        .where(
            executions.c.waits_for == key,
            executions.c.owner.is_(None),
            state_in(executions.c.state, WAITING_STATES),
        )
        .order_by(executions.c.run_at, executions.c.id)
        .limit(len(moments))
    )
    rows = connection.execute(waiting).all()
    early = [(row, moment) for row, moment in zip(rows, moments, strict=False) if row.run_at > moment]
    if early:
        # Whoever holds a row now is starting, cancelling or changing it, and may want what we hold.
        ids = select(executions.c.id).where(executions.c.id.in_([row.id for row, _ in early]))
        free = set(connection.scalars(ids.with_for_update(skip_locked=True)))
        early = [(row, moment) for row, moment in early if row.id in free]
    _BRING_FORWARD.execute(
        connection, [{"x_id": row.id, "x_waits_for": key, "x_run_at": moment} for row, moment in early]
    )
    return _Line(
        moved=len(early),
        by=max((row.run_at - moment for row, moment in early), default=timedelta()),
        is_whole=len(rows) < len(moments),
        end=max((min(row.run_at, moment) for row, moment in zip(rows, moments, strict=False)), default=None),
    )


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
