"""What only the pgqueuer engine does: jobs beside rows, workers on other machines, PostgreSQL coming and going."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pgqueuer.queries import Queries
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from app.core.config import Settings
from app.core.errors import InvalidRequest
from app.db.database import make_engine
from app.models.task_execution import ExecutionState
from app.scheduler.engines import choice, pgqueuer_jobs
from app.scheduler.runtime import build_service
from tests.support import Recorder, ended, fail_with, running, until


@pytest.fixture
def database(pgqueuer_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=pgqueuer_url))
    yield engine
    engine.dispose()


def jobs(database: Engine, status: str = "queued") -> list[int]:
    """The executions that have a job in that state."""
    with database.connect() as connection:
        rows = connection.execute(
            text("SELECT payload FROM pgqueuer WHERE status = CAST(:status AS pgqueuer_status) ORDER BY id"),
            {"status": status},
        )
        return [int(bytes(row.payload)) for row in rows]


def held(gate: asyncio.Event) -> Callable[..., Any]:
    """A run that waits for the gate, on the application's loop."""

    async def run(*_: Any) -> None:
        await gate.wait()

    return run


# ---------------------------------------------------------------- one transaction


async def test_an_execution_and_its_job_commit_together(pgqueuer_url: str, database: Engine) -> None:
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, _):
        plain = await service.enqueue("work")
        later = await service.enqueue("work", run_at=datetime.now(UTC) + timedelta(hours=1))
        with Session(database) as session:
            kept = await service.enqueue("work", db=session)
            session.commit()
        with Session(database) as session:
            await service.enqueue("work", db=session)
            session.rollback()
    assert jobs(database) == [plain.id, later.id, kept.id]
    with database.connect() as connection:
        waits = connection.scalar(text("SELECT max(execute_after) - now() FROM pgqueuer"))
    assert timedelta(minutes=59) < waits <= timedelta(hours=1)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_in_an_asynchronous_session_too(pgqueuer_url: str, database: Engine, driver: str) -> None:
    url = pgqueuer_url.replace("postgresql://", f"postgresql+{driver}://")
    engine = create_async_engine(url)
    try:
        async with running(pgqueuer_url, Recorder("work"), start=False) as (service, _):
            async with AsyncSession(engine) as session:
                kept = await service.enqueue("work", db=session)
                await session.commit()
            async with AsyncSession(engine) as session:
                await service.enqueue("work", db=session)
                await session.rollback()
    finally:
        await engine.dispose()
    assert jobs(database) == [kept.id]


async def test_a_fire_and_its_job_commit_together_and_a_worker_elsewhere_runs_it(
    pgqueuer_url: str, database: Engine
) -> None:
    executor = Recorder("work")
    async with running(pgqueuer_url, executor, role="api") as (_, clock):
        task = clock.tasks.create(
            clock.definition({"name": "t", "task_type": "work", "schedule": {"type": "interval", "seconds": 3600}})
        )
        with database.begin() as connection:
            connection.execute(text("UPDATE scheduled_tasks SET next_run_at = now()"))
        fired = (await until(lambda: clock.history.page(task_id=task.id)))[0]
        assert jobs(database) == [fired.id]
        assert executor.calls == []
        async with running(pgqueuer_url, executor, role="worker") as (_, worker):
            assert (await ended(worker, fired.id)).state is ExecutionState.SUCCESS
    assert jobs(database) == jobs(database, "picked") == []


async def test_ten_thousand_ids_go_into_few_statements(pgqueuer_url: str, database: Engine) -> None:
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, _):
        await asyncio.gather(*(service.enqueue("work") for _ in range(1200)))
    assert len(jobs(database)) == 1200


# ---------------------------------------------------------------- jobs and rows disagree


async def test_a_waiting_execution_without_a_job_gets_one(pgqueuer_url: str, database: Engine) -> None:
    async with running(pgqueuer_url, Recorder("work")) as (_, runtime):
        with database.begin() as connection:
            plain = connection.scalar(text("INSERT INTO task_executions (task_type) VALUES ('work') RETURNING id"))
        assert (await ended(runtime, plain)).state is ExecutionState.SUCCESS


async def test_a_job_that_waits_longer_than_its_execution_is_hastened(pgqueuer_url: str, database: Engine) -> None:
    async with running(pgqueuer_url, Recorder("work")) as (service, runtime):
        execution = await service.enqueue("work", run_at=datetime.now(UTC) + timedelta(hours=1))
        with database.begin() as connection:
            connection.execute(text("UPDATE task_executions SET run_at = now()"))
        assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS


async def test_workers_that_rest_hear_of_a_job_whose_moment_has_come(pgqueuer_url: str, database: Engine) -> None:
    """PgQueuer tells of new jobs only: one that was put back would wait for the next look at the queue."""
    told: asyncio.Queue[str] = asyncio.Queue()
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, runtime):
        await service.enqueue("work")
        await service.enqueue("work", run_at=datetime.now(UTC) + timedelta(hours=1))
        listener = await asyncpg.connect(pgqueuer_jobs.asyncpg_dsn(pgqueuer_url))
        try:
            await listener.add_listener("ch_pgqueuer", lambda *heard: told.put_nowait(heard[-1]))
            with database.begin() as connection:
                pgqueuer_jobs.send_missing(connection, runtime.clock.now())
            assert '"table_changed_event"' in await asyncio.wait_for(told.get(), 30)
            with database.begin() as connection:
                connection.execute(text("DELETE FROM pgqueuer WHERE execute_after <= now()"))
            await asyncio.wait_for(told.get(), 30)  # of the deletion
            with database.begin() as connection:
                pgqueuer_jobs.send_missing(connection, runtime.clock.now() - timedelta(minutes=1))
                connection.execute(text("NOTIFY ch_pgqueuer, 'nothing before this'"))
            assert await asyncio.wait_for(told.get(), 30) == "nothing before this"
        finally:
            await listener.close()


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("status = 'picked', queue_manager_id = gen_random_uuid()", id="not yet acknowledged"),
        pytest.param("status = 'queued', execute_after = now() + interval '1 hour'", id="for a later moment"),
    ],
)
async def test_what_is_woken_gets_a_job_at_once_whatever_is_left_of_its_last(
    pgqueuer_url: str, database: Engine, left: str
) -> None:
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, _):
        execution = await service.enqueue("work")
        with database.begin() as connection:
            old = connection.scalar(text(f"UPDATE pgqueuer SET {left} RETURNING id"))
            woken = execution._replace(state=ExecutionState.SUSPENDED)
            pgqueuer_jobs.JobCourier().carry(connection, [woken])
        with database.connect() as connection:
            query = text("SELECT id, status::text, execute_after <= now() AS is_due FROM pgqueuer")
            (job,) = connection.execute(query)
    assert (job.status, job.is_due) == ("queued", True)
    assert job.id != old


async def test_a_job_too_many_runs_nothing(pgqueuer_url: str, database: Engine) -> None:
    executor = Recorder("work")
    async with running(pgqueuer_url, executor) as (service, runtime):
        execution = await service.enqueue("work")
        await ended(runtime, execution.id)
        await until(lambda: not jobs(database) and not jobs(database, "picked"))
        with database.begin() as connection:
            pgqueuer_jobs.send(connection, [execution, execution._replace(id=999_999)])
        await until(lambda: not jobs(database) and not jobs(database, "picked"))
    assert len(executor.calls) == 1


async def test_a_full_concurrency_key_holds_an_execution_back_without_a_job(
    pgqueuer_url: str, database: Engine
) -> None:
    gate = asyncio.Event()
    executor = Recorder("work", held(gate), lane="loop")
    async with running(pgqueuer_url, executor) as (service, runtime):
        found = [await service.enqueue("work", concurrency_key="k", concurrency_limit=1) for _ in range(3)]
        await until(lambda: runtime.history.counts()[ExecutionState.RUNNING] == 1)
        await until(lambda: not jobs(database))
        assert runtime.history.counts()[ExecutionState.PENDING] == 2
        gate.set()
        for execution in found:
            assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS


async def test_of_many_that_wait_for_one_key_only_those_with_a_place_get_a_job(
    pgqueuer_url: str, database: Engine
) -> None:
    """Jobs for all of them would keep the workers busy with what cannot start, and nothing else would."""
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, runtime):
        keyed = [await service.enqueue("work", concurrency_key="k", concurrency_limit=2) for _ in range(40)]
        plain = await service.enqueue("work")
        urgent = await service.enqueue("work", concurrency_key="k", concurrency_limit=2, priority=9)
        with database.begin() as connection:
            connection.execute(text("DELETE FROM pgqueuer"))
            assert pgqueuer_jobs.send_missing(connection, runtime.clock.now()) == 3
        assert sorted(jobs(database)) == sorted([keyed[0].id, plain.id, urgent.id])
        with database.begin() as connection:
            assert pgqueuer_jobs.send_missing(connection, runtime.clock.now()) == 0


async def test_what_waits_for_one_key_follows_at_once(pgqueuer_url: str) -> None:
    order: list[int] = []
    executor = Recorder("work", lambda task_id, params, _db: order.append(params["n"]))
    async with running(pgqueuer_url, executor) as (service, _):
        last = [await service.enqueue("work", {"n": n}, concurrency_key="k") for n in range(60)][-1]
        # Were each of them found by a sweep, once a second, this would take a minute.
        await service.wait(last.id, timeout=40)
        await until(lambda: len(order) == 60)


async def test_a_reopened_execution_has_a_job_at_once(pgqueuer_url: str, database: Engine) -> None:
    async with running(pgqueuer_url, Recorder("work", fail_with(ValueError("no")))) as (service, runtime):
        execution = await service.enqueue("work")
        await ended(runtime, execution.id)
        await until(lambda: not jobs(database, "picked"))
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, _):
        await service.retry(execution.id)
    assert jobs(database) == [execution.id]


# ---------------------------------------------------------------- cancel, crash, outage


async def test_cancel_reaches_an_attempt_on_another_node_by_pgqueuers_event(pgqueuer_url: str) -> None:
    work = Recorder("work", lambda *_: asyncio.sleep(60))
    async with (
        running(pgqueuer_url, work, role="worker") as (_, worker),
        running(pgqueuer_url, work, role="api") as (service, api),
    ):
        execution = await service.enqueue("work")
        await until(lambda: api.history.get(execution.id).state is ExecutionState.RUNNING)
        await service.cancel(execution.id)
        assert (await ended(worker, execution.id, 2)).state is ExecutionState.CANCELLED


PROGRAM = """
import asyncio, os, signal, sys
sys.path[:0] = {path!r}
os.environ["SCHEDULER_ENGINE"] = "pgqueuer"
from tests.support import Recorder, running
async def main():
    async def work(*_):
        {body}
    async with running({url!r}, Recorder("work", work), role="worker", scheduler_job_heartbeat_seconds=2,
                       scheduler_lease_seconds=2, scheduler_max_rescues={max_rescues}):
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        print("ready", flush=True)
        await asyncio.wait_for(stopping.wait(), 60)
asyncio.run(main())
"""


def start_worker(url: str, body: str, max_rescues: int = 3) -> subprocess.Popen[str]:
    program = textwrap.dedent(PROGRAM).format(path=sys.path, url=url, body=body, max_rescues=max_rescues)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


async def test_what_a_killed_worker_ran_runs_again_and_is_recorded_once(pgqueuer_url: str) -> None:
    victim = await asyncio.to_thread(start_worker, pgqueuer_url, "await asyncio.sleep(60)")
    try:
        async with running(pgqueuer_url, Recorder("work"), start=False) as (service, runtime):
            found = [await service.enqueue("work") for _ in range(4)]
            await until(lambda: runtime.history.counts()[ExecutionState.RUNNING] == 4)
            victim.kill()
            service_settings: dict[str, Any] = {"scheduler_job_heartbeat_seconds": 2}
            async with running(pgqueuer_url, Recorder("work"), role="worker", **service_settings) as (_, survivor):
                for execution in found:
                    over = await ended(survivor, execution.id, 30)
                    assert (over.state, over.attempt, over.rescues) == (ExecutionState.SUCCESS, 2, 1)
    finally:
        end(victim)


async def test_an_execution_that_kills_its_workers_ends_failed(pgqueuer_url: str) -> None:
    async with running(pgqueuer_url, Recorder("work"), role="api", scheduler_max_rescues=1) as (service, runtime):
        execution = await service.enqueue("work")
        for _ in range(2):
            victim = await asyncio.to_thread(start_worker, pgqueuer_url, "os._exit(1)", 1)
            assert await asyncio.to_thread(victim.wait, 30) == 1
            end(victim)
        over = await ended(runtime, execution.id, 30)
        assert (over.state, over.reason, over.attempt) == (ExecutionState.FAILED, "node_lost", 2)


async def test_a_worker_told_to_stop_hands_its_work_on_at_once(pgqueuer_url: str, database: Engine) -> None:
    victim = await asyncio.to_thread(start_worker, pgqueuer_url, "await asyncio.sleep(60)")
    try:
        async with running(pgqueuer_url, Recorder("work"), start=False) as (service, runtime):
            execution = await service.enqueue("work")
            await until(lambda: runtime.history.get(execution.id).state is ExecutionState.RUNNING)
            victim.send_signal(signal.SIGTERM)
            await asyncio.to_thread(victim.wait, 30)
            handed_back = runtime.history.get(execution.id)
            assert (handed_back.state, handed_back.reason) == (ExecutionState.PENDING, "handed_back")
            assert jobs(database) == [execution.id]
    finally:
        end(victim)


async def test_work_goes_on_after_every_connection_was_cut(pgqueuer_url: str, database: Engine) -> None:
    gate = asyncio.Event()
    slow = Recorder("slow", held(gate), lane="loop")
    async with running(pgqueuer_url, slow, Recorder("work")) as (service, runtime):
        before = await service.enqueue("slow")
        await until(lambda: runtime.history.get(before.id).state is ExecutionState.RUNNING)
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            )
        after = await until_enqueued(service)
        assert (await ended(runtime, after.id)).state is ExecutionState.SUCCESS
        gate.set()
        assert (await ended(runtime, before.id)).state is ExecutionState.SUCCESS
        assert len(slow.calls) == 1


async def until_enqueued(service: Any) -> Any:
    """Enqueue as a client that tries again does."""
    for _ in range(20):
        try:
            return await service.enqueue("work")
        except Exception:
            await asyncio.sleep(0.1)
    return await service.enqueue("work")


# ---------------------------------------------------------------- installation


async def test_pgqueuers_own_tools_see_our_jobs(pgqueuer_url: str) -> None:
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, _):
        await service.enqueue("work", priority=3)
    connection = await asyncpg.connect(pgqueuer_jobs.asyncpg_dsn(pgqueuer_url))
    try:
        (seen,) = await Queries.from_asyncpg_connection(connection).queue_size()
    finally:
        await connection.close()
    assert (seen.entrypoint, seen.priority, seen.count, seen.status) == ("contenthub", 3, 1, "queued")


async def test_moving_between_engines_loses_nothing_and_may_be_repeated(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=postgres_url)
    engine = make_engine(settings)

    async def move(to: str) -> int:
        return await asyncio.to_thread(choice.move_engine, settings, engine, to=to)

    try:
        assert await move("embedded") == 0
        async with running(postgres_url, Recorder("work"), start=False) as (service, _):
            found = [await service.enqueue("work") for _ in range(3)]
            later = await service.enqueue("work", run_at=datetime.now(UTC) + timedelta(hours=1))
        assert await move("pgqueuer") == 4
        assert await move("pgqueuer") == 0
        assert await move("embedded") == 4
        assert await move("pgqueuer") == 4
        monkeypatch.setenv("SCHEDULER_ENGINE", "pgqueuer")
        async with running(postgres_url, Recorder("work")) as (_, runtime):
            for execution in found:
                assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS
            assert runtime.history.get(later.id).state is ExecutionState.PENDING
    finally:
        engine.dispose()


def test_it_says_what_it_needs(sqlite_url: str) -> None:
    with pytest.raises(InvalidRequest, match="needs PostgreSQL"):
        build_service(Settings(database_url=sqlite_url, scheduler_engine="pgqueuer"))


async def test_nodes_of_both_engines_may_run_while_one_replaces_the_other(pgqueuer_url: str) -> None:
    executor = Recorder("work", lambda *_: asyncio.sleep(0.01))
    async with (
        running(pgqueuer_url, executor) as (new, runtime),
        running(pgqueuer_url, executor, scheduler_engine="embedded") as (old, _),
    ):
        found = [await service.enqueue("work") for _ in range(20) for service in (new, old)]
        for execution in found:
            assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS
    assert len(executor.calls) == len(found)


async def test_jobs_that_have_waited_long_are_raised_to_what_their_wait_is_worth(
    pgqueuer_url: str, database: Engine
) -> None:
    async with running(pgqueuer_url, Recorder("work"), start=False) as (service, _):
        old = await service.enqueue("work", priority=1)
        new = await service.enqueue("work", priority=3)
    later = new.run_at + timedelta(minutes=5, seconds=1)
    with database.begin() as connection:
        assert pgqueuer_jobs.age(connection, old.run_at + timedelta(seconds=59), 60) == 0
        assert pgqueuer_jobs.age(connection, later, 60) == 2
        found = connection.execute(text("SELECT payload, priority FROM pgqueuer")).all()
        assert {int(bytes(row.payload)): row.priority for row in found} == {old.id: 6, new.id: 8}
        # What a dead worker had picked, and what has slept, wait as all others do.
        connection.execute(text("UPDATE pgqueuer SET status = 'picked', priority = 1"))
        connection.execute(text("UPDATE task_executions SET state = 'suspended' WHERE id = :id"), {"id": new.id})
        assert pgqueuer_jobs.age(connection, later, 60) == 2
        connection.execute(text("UPDATE task_executions SET priority = 5 WHERE id = :id"), {"id": new.id})
        assert pgqueuer_jobs.age(connection, later, 60) == 1
