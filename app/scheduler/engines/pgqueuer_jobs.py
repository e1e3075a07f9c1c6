"""PgQueuer's jobs, as we use them: one a waiting execution, its payload nothing but the execution's id.

A job is only a messenger. Whoever it comes to claims the execution's row first, so a job too many, too late or too
often does no harm; and one too few is noticed: `send_missing()` looks for rows that may start and have none.
Jobs carry the execution in their dedupe key, which PgQueuer keeps unique among the waiting and the running.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from pgqueuer.db import SyncDriver
from pgqueuer.domain.models import CancellationEvent, Event, TableChangedEvent, utc_now
from pgqueuer.domain.settings import db_settings
from pgqueuer.domain.types import EVENT_TYPES
from pgqueuer.queries import Queries, SyncQueries
from sqlalchemy import Connection, Engine, Select, func, make_url, or_, select, text

from app.db.schema import migration_lock
from app.models.task_execution import WAITING_STATES, Execution, ExecutionState
from app.scheduler.claims import free_places, ready, waiting
from app.scheduler.executions import executions

ENTRYPOINT = "contenthub"
BATCH = 500
AGED_AT_ONCE = 1_000

_QUEUE = db_settings().qualified.queue_table
_HAS_A_LATE_JOB = (
    f"EXISTS (SELECT 1 FROM {_QUEUE} job WHERE job.status = 'queued'"  # noqa: S608 - as below
    f" AND job.dedupe_key = '{ENTRYPOINT}:' || line.id"
    " AND job.execute_after > now() + interval '1 second')"
)
_HAS_NO_JOB = (
    f"NOT EXISTS (SELECT 1 FROM {_QUEUE} job WHERE job.status IN ('queued', 'picked')"  # noqa: S608 - a name from PgQueuer's own settings
    f" AND job.dedupe_key = '{ENTRYPOINT}:' || line.id)"
)

_WITHDRAW = (
    f"DELETE FROM {_QUEUE} WHERE id IN (SELECT id FROM {_QUEUE}"  # noqa: S608 - as above
    " WHERE status IN ('queued', 'picked') AND dedupe_key = ANY(:keys) FOR UPDATE SKIP LOCKED)"
)
"""Whoever has locked a job is picking it, and will wait for its execution's row: we must not wait for the job."""
_IS_DUE = (
    f"SELECT EXISTS (SELECT 1 FROM {_QUEUE} WHERE status = 'queued'"  # noqa: S608 - as above
    f" AND entrypoint = '{ENTRYPOINT}' AND execute_after < now() + interval '0.1 second')"
)

_WORTH = (
    "one.priority + CAST(floor(extract(epoch FROM CAST(:now AS timestamptz) - coalesce(one.due_at, one.run_at))"
    " / :step) AS int)"
)
_AGE = (
    f"WITH late AS (SELECT job.id, {_WORTH} AS worth FROM {_QUEUE} job"  # noqa: S608 - as above
    f" JOIN task_executions one ON job.dedupe_key = '{ENTRYPOINT}:' || one.id"
    " WHERE job.status IN ('queued', 'picked') AND one.owner IS NULL AND one.state IN (%s)"
    f" AND one.run_at < :now AND job.priority < {_WORTH}"
    " ORDER BY one.run_at LIMIT :limit FOR UPDATE OF job SKIP LOCKED)"
    f" UPDATE {_QUEUE} job SET priority = late.worth FROM late WHERE job.id = late.id"
) % ", ".join(f"'{state.value}'" for state in WAITING_STATES)
"""A job that is picked while its execution waits was a dead worker's: PgQueuer takes it from there in its turn."""


class ConnectionDriver(SyncDriver):
    """PgQueuer's port over a SQLAlchemy connection, in whatever transaction that is in.

    PgQueuer's own synchronous driver insists on autocommit; a job must commit with its execution or not at all.
    Works on the synchronous face of an asynchronous connection too.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        if self._connection.dialect.paramstyle == "numeric_dollar":  # asyncpg
            result = self._connection.exec_driver_sql(query, args)
        else:
            named = re.sub(r"\$(\d+)", r"%(p\1)s", query.replace("%", "%%"))
            parameters = {f"p{number}": value for number, value in enumerate(args, 1)}
            result = self._connection.exec_driver_sql(named, parameters)
        return [dict(row) for row in result.mappings()]


def dedupe_key(execution_id: int) -> str:
    """The key under which PgQueuer holds at most one waiting or running job of an execution."""
    return f"{ENTRYPOINT}:{execution_id}"


def send(connection: Connection, recorded: Iterable[Execution]) -> int:
    """Write a job for each execution that is not over, in the caller's transaction; returns how many were new.

    A job waits until its execution is due. An execution that was suspended gets a new job: what is left of the old
    one waits for a later moment, or is about to be acknowledged by the worker on which it was suspended.
    """
    going = [execution for execution in recorded if not execution.is_final]
    suspended = [one.id for one in going if one.state is ExecutionState.SUSPENDED]
    if suspended:
        keys = [dedupe_key(execution_id) for execution_id in suspended]
        connection.execute(text(_WITHDRAW), {"keys": keys})
    return sum(_send_batch(connection, going[start : start + BATCH]) for start in range(0, len(going), BATCH))


def _send_batch(connection: Connection, batch: Sequence[Execution]) -> int:
    def delay(execution: Execution) -> timedelta | None:
        ahead = execution.run_at - now
        return ahead if ahead > timedelta() else None

    now = utc_now()
    jobs = SyncQueries(ConnectionDriver(connection)).enqueue(
        [ENTRYPOINT] * len(batch),
        [str(execution.id).encode() for execution in batch],
        [execution.priority for execution in batch],
        [delay(execution) for execution in batch],
        [dedupe_key(execution.id) for execution in batch],
        on_conflict="skip",
    )
    return sum(job is not None for job in jobs)


def send_missing(connection: Connection, now: datetime) -> int:
    """Write jobs for executions that may start now and have none, at most `BATCH`; returns how many.

    These are what was released, reopened, unparked or rescued, what a concurrency key or its own task held up, and
    what plain SQL inserted. Workers that rest hear of jobs whose moment has come: PgQueuer tells them of new ones
    only, and of one that was put back for a second they would learn at their next look.
    """
    sent = _send_next(connection, ready(now))
    if connection.scalar(text(_IS_DUE)):
        queue = db_settings().queue_table
        _tell(connection, TableChangedEvent, "table_changed_event", operation="update", table=queue)
    return sent


def send_followers(connection: Connection, ended: Execution, now: datetime) -> int:
    """Write jobs for what may start now that `ended` has left its concurrency key and its task."""
    follows = executions.c.concurrency_key == ended.concurrency_key
    if ended.exclusive:
        follows |= executions.c.exclusive & (executions.c.task_id == ended.task_id)
    return _send_next(connection, ready(now).where(follows))


def _send_next(connection: Connection, waiting_ready: Select[Any]) -> int:
    query = _next_in_line(waiting_ready)
    _hasten(connection, query)
    return send(connection, _without_job(connection, query))


def _next_in_line(waiting_ready: Select[Any]) -> Select[Any]:
    """Of each key only as many as have a place under it, of each task only the next that wants it for itself.

    A job for each of a thousand that wait for one place would keep every worker busy with what comes to nothing.
    """
    order = (executions.c.priority.desc(), executions.c.run_at, executions.c.id)
    line = waiting_ready.add_columns(
        func.row_number().over(partition_by=executions.c.concurrency_key, order_by=order).label("place"),
        free_places().label("free_places"),
        func.row_number()
        .over(partition_by=(executions.c.exclusive, executions.c.task_id), order_by=order)
        .label("turn"),
    ).subquery("line")
    return (
        select(*(line.c[column.name] for column in executions.c))
        .where(
            or_(line.c.concurrency_key.is_(None), line.c.place <= line.c.free_places),
            or_(line.c.exclusive.is_(False), line.c.turn == 1),
        )
        .order_by(line.c.run_at)
        .limit(BATCH)
    )


def _hasten(connection: Connection, query: Select[Any]) -> None:
    """Let jobs go that wait longer than their executions: `run_at` was changed, or a wall clock was, meanwhile."""
    late = [dedupe_key(row.id) for row in connection.execute(query.where(text(_HAS_A_LATE_JOB)))]
    if late:
        statement = (
            f"UPDATE {_QUEUE} SET execute_after = now() WHERE status = 'queued' AND dedupe_key = ANY(:late)"  # noqa: S608
        )
        connection.execute(text(statement), {"late": late})


def age(connection: Connection, now: datetime, step_seconds: float) -> int:
    """Raise jobs whose executions have waited to the priority that their wait is worth, at most `AGED_AT_ONCE`,
    the longest waiting first; returns how many. PgQueuer itself knows only the priority a job was sent with."""
    return connection.execute(
        text(_AGE),
        {"now": now, "step": step_seconds, "limit": AGED_AT_ONCE},
    ).rowcount


def send_all(connection: Connection) -> int:
    """Write jobs for everything that waits, whenever it is due; returns how many were new."""
    line = waiting().subquery("line")
    return send(connection, _without_job(connection, select(line)))


def _without_job(connection: Connection, query: Select[Any]) -> list[Execution]:
    return [Execution.from_row(row) for row in connection.execute(query.where(text(_HAS_NO_JOB)))]


def withdraw_all(connection: Connection) -> int:
    """Delete our jobs that wait; returns how many. The executions stay as they are."""
    statement = text(f"DELETE FROM {_QUEUE} WHERE entrypoint = :ours AND status = 'queued'")  # noqa: S608 - its name
    return connection.execute(statement, {"ours": ENTRYPOINT}).rowcount


class JobCourier:
    """Sends a job with every execution, and PgQueuer's cancellation event with every request for an end."""

    def carry(self, connection: Connection, executions: Sequence[Execution]) -> None:
        send(connection, executions)

    def carry_cancel(self, connection: Connection, execution_ids: Sequence[int]) -> None:
        keys = [dedupe_key(execution_id) for execution_id in execution_ids]
        running = text(f"SELECT id FROM {_QUEUE} WHERE status = 'picked' AND dedupe_key = ANY(:keys)")  # noqa: S608
        job_ids = connection.scalars(running, {"keys": keys}).all()
        if not job_ids:
            return
        _tell(connection, CancellationEvent, "cancellation_event", ids=list(job_ids))


def _tell(connection: Connection, kind: type[Event], name: EVENT_TYPES, **what: Any) -> None:
    """Have PostgreSQL tell PgQueuer's workers of an event, at the commit."""
    channel = db_settings().channel
    event = kind(channel=channel, sent_at=utc_now(), type=name, **what)
    connection.execute(
        text("SELECT pg_notify(:channel, :event)"), {"channel": channel, "event": event.model_dump_json()}
    )


def asyncpg_dsn(database_url: str) -> str:
    """SQLAlchemy's URL as asyncpg takes it."""
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)


def install(engine: Engine) -> None:
    """Make PgQueuer's tables, or bring them to this version's shape. Blocks, also on the thread of a running event
    loop; safe in several processes at once."""
    url = engine.url.render_as_string(hide_password=False)
    with migration_lock(engine), ThreadPoolExecutor(1) as beside_the_loop:
        beside_the_loop.submit(lambda: asyncio.run(_converge(url))).result()


def is_installed(engine: Engine) -> bool:
    """Whether PgQueuer's tables are there."""
    with engine.connect() as connection:
        return connection.scalar(text("SELECT to_regclass(:queue)"), {"queue": _QUEUE}) is not None


async def _converge(database_url: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(database_url))
    try:
        queries = Queries.from_asyncpg_connection(connection)
        if await queries.schema_is_installed():
            await queries.upgrade()
        else:
            await queries.install()
    finally:
        await connection.close()
