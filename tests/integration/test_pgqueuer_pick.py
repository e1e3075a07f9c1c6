"""The statement that picks jobs and claims their executions, put to a real PgQueuer."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from sqlalchemy import Engine, text

from app.core.clock import SystemClock
from app.core.config import Settings
from app.db.database import make_engine
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.engines import pgqueuer_jobs
from app.scheduler.engines.pgqueuer_pick import ClaimingQueries, Picked
from app.scheduler.executions import execution_of, insert_executions, read_execution
from app.scheduler.requests import execution_values

NODE = "here"


@dataclass
class Counter:
    """A desk with that many places, which takes what it gets."""

    free: int
    brought: list[Sequence[Picked]] = field(default_factory=list)

    async def places(self) -> int:
        return self.free

    def bring(self, picked: Sequence[Picked]) -> None:
        self.brought.append(picked)


@pytest.fixture
def database(pgqueuer_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=pgqueuer_url))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO nodes (id, host, pid, role, engine, version, started_at, heartbeat_at)"
                " VALUES (:id, 'h', 1, 'all', 'pgqueuer', '0', now(), now())"
            ),
            {"id": NODE},
        )
    yield engine
    engine.dispose()


@pytest.fixture
async def pool(pgqueuer_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(pgqueuer_jobs.asyncpg_dsn(pgqueuer_url), min_size=1, max_size=2) as pool:
        yield pool


def wait_in_line(database: Engine, **values: Any) -> Execution:
    """An execution that waits, and its job."""
    row = execution_values(datetime.now(UTC), task_type="work", params={"n": 1}) | values
    with database.begin() as connection:
        insert_executions(connection, [row])
        execution = execution_of(row)
        pgqueuer_jobs.send(connection, [execution])
    return execution


async def pick(pool: asyncpg.Pool, desk: Counter, batch_size: int = 10) -> list[Job]:
    queries = ClaimingQueries(
        AsyncpgPoolDriver(pool), desk=desk, node_id=NODE, clock=SystemClock(), ruled_types=list
    )
    return await queries.dequeue(
        batch_size,
        {pgqueuer_jobs.ENTRYPOINT: EntrypointExecutionParameter(concurrency_limit=0)},  # type: ignore[dict-item]
        uuid.uuid4(),  # type: ignore[arg-type]
        None,
        timedelta(seconds=30),
    )


def state_of(database: Engine, execution_id: int) -> Execution:
    with database.connect() as connection:
        return read_execution(execution_id, connection)


def attempts_of(database: Engine) -> list[tuple[int, int, str, str]]:
    with database.connect() as connection:
        rows = connection.execute(text("SELECT execution_id, number, node, status FROM task_attempts"))
        return [(row.execution_id, row.number, row.node, row.status) for row in rows]


async def test_what_is_picked_has_started(database: Engine, pool: asyncpg.Pool) -> None:
    execution, desk = wait_in_line(database), Counter(free=4)
    (job,) = await pick(pool, desk)
    ((picked,),) = desk.brought
    assert picked.job == job
    assert picked.execution == state_of(database, execution.id)
    assert picked.execution is not None
    assert (picked.execution.state, picked.execution.attempt) == (ExecutionState.RUNNING, 1)
    assert (picked.execution.owner, picked.execution.params) == (NODE, {"n": 1})
    assert attempts_of(database) == [(execution.id, 1, NODE, "running")]


@pytest.mark.parametrize(
    "held_up",
    [
        {"concurrency_key": "k", "concurrency_limit": 1},
        {"exclusive": True, "task_id": 1},
        {"owner": "elsewhere"},
    ],
)
async def test_what_a_limit_or_a_node_holds_up_is_picked_and_does_not_start(
    database: Engine, pool: asyncpg.Pool, held_up: dict[str, Any]
) -> None:
    execution, desk = wait_in_line(database, **held_up), Counter(free=4)
    await pick(pool, desk)
    ((picked,),) = desk.brought
    assert picked.execution is None
    assert state_of(database, execution.id).state is ExecutionState.PENDING
    assert attempts_of(database) == []


@pytest.mark.parametrize(
    "change",
    [
        "run_at = now() + interval '1 hour'",
        "cancel_requested_at = now()",
        "state = 'success'",
        "state = 'running', owner = 'elsewhere', attempt = 1",
    ],
)
async def test_what_has_changed_since_its_job_was_written_does_not_start(
    database: Engine, pool: asyncpg.Pool, change: str
) -> None:
    execution, desk = wait_in_line(database), Counter(free=4)
    with database.begin() as connection:
        connection.execute(text(f"UPDATE task_executions SET {change}"))
    before = state_of(database, execution.id)
    await pick(pool, desk)
    ((picked,),) = desk.brought
    assert picked.execution is None
    assert state_of(database, execution.id) == before


async def test_a_node_declared_dead_starts_nothing(database: Engine, pool: asyncpg.Pool) -> None:
    execution, desk = wait_in_line(database), Counter(free=4)
    with database.begin() as connection:
        connection.execute(text("UPDATE nodes SET stopped_at = now()"))
    await pick(pool, desk)
    ((picked,),) = desk.brought
    assert picked.execution is None
    assert state_of(database, execution.id).owner is None


async def test_of_two_jobs_for_one_execution_one_starts_it(database: Engine, pool: asyncpg.Pool) -> None:
    execution, desk = wait_in_line(database), Counter(free=4)
    with database.begin() as connection:
        connection.execute(text("UPDATE pgqueuer SET dedupe_key = NULL"))
        pgqueuer_jobs.send(connection, [execution])
    assert len(await pick(pool, desk)) == 2
    (picked,) = desk.brought
    assert [one.execution.id for one in picked if one.execution is not None] == [execution.id]
    assert attempts_of(database) == [(execution.id, 1, NODE, "running")]


async def test_a_job_that_names_no_execution_disturbs_nobody(database: Engine, pool: asyncpg.Pool) -> None:
    desk = Counter(free=9)
    execution = wait_in_line(database)
    queries = ClaimingQueries(
        AsyncpgPoolDriver(pool), desk=desk, node_id=NODE, clock=SystemClock(), ruled_types=list
    )
    for payload in (None, b"", b"\xff\x00", b"-1", b"1.5", b"9" * 40, b"999999"):
        await queries.enqueue(pgqueuer_jobs.ENTRYPOINT, payload)
    assert len(await pick(pool, desk)) == 8
    (picked,) = desk.brought
    assert [one.execution.id for one in picked if one.execution is not None] == [execution.id]


async def test_no_more_is_picked_than_there_are_places(database: Engine, pool: asyncpg.Pool) -> None:
    waiting = [wait_in_line(database) for _ in range(5)]
    assert await pick(pool, Counter(free=0)) == []
    desk = Counter(free=2)
    assert len(await pick(pool, desk)) == 2
    states = [state_of(database, execution.id).state for execution in waiting]
    assert states == [ExecutionState.RUNNING] * 2 + [ExecutionState.PENDING] * 3


async def test_the_desk_hears_of_a_pick_that_failed(database: Engine, pool: asyncpg.Pool) -> None:
    """It has counted on an answer: a node that shuts down waits for it."""
    desk = Counter(free=1)
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE task_attempts RENAME TO gone"))
    with pytest.raises(asyncpg.UndefinedTableError):
        await pick(pool, desk)
    assert desk.brought == [[]]
