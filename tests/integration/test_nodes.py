"""Heartbeat, lease, rescue and fencing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text, update
from sqlalchemy.exc import OperationalError

from app.core.clock import SystemClock
from app.core.config import Settings
from app.db import database
from app.db.database import begin_write, make_engine
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.attempts import FinishAttempt, StartAttempt, finish_attempt, record_attempts
from app.scheduler.claims import claim
from app.scheduler.executions import RecordExecution, executions
from app.scheduler.firing import fire_now
from app.scheduler.nodes import Heartbeat, Lease, Undertaker, process_exists, rescue
from app.scheduler.requests import execution_values
from app.scheduler.runtime import Runtime
from app.services.scheduler_service import TaskStatus
from app.testing.clock import VirtualClock
from tests.support import Recorder, ended, running, until


async def leave_running(runtime: Runtime, service: Any, **request: Any) -> Any:
    execution = await service.enqueue("work", **request)
    return await until(lambda: (e := runtime.history.get(execution.id)).state is ExecutionState.RUNNING and e)


def add_node(runtime: Runtime, node: str) -> None:
    """A node of another machine."""
    with runtime.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO nodes (id, host, pid, role, engine, version, started_at, heartbeat_at)"
                " VALUES (:node, 'elsewhere', 1, 'all', 'embedded', '0', '2030-01-01', '2030-01-01')"
            ),
            {"node": node},
        )


def rescue_now(runtime: Runtime, node: str, max_rescues: int = 3) -> int:
    (beats,) = [found.beats for found in runtime.history.nodes(alive=False) if found.id == node]
    with runtime.engine.begin() as connection:
        return len(rescue(connection, node, beats, now=datetime.now(UTC), max_rescues=max_rescues))


async def test_a_killed_process_leaves_nothing_behind(database_url: str) -> None:
    """SIGKILL a process in the middle of its work: another one finds out at once and runs it again."""
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path[:0] = {sys.path!r}
        from tests.support import Recorder, running
        async def main():
            work = Recorder("work", lambda *_: asyncio.sleep(60))
            async with running({database_url!r}, work) as (service, runtime):
                for _ in range(8):
                    execution = await service.enqueue("work")
                while runtime.history.counts()["running"] < 4:
                    await asyncio.sleep(0.05)
                print("ready", flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    victim = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline().strip() == "ready"
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        victim.stdout.close()
    executor = Recorder("work")
    async with running(database_url, executor) as (_, runtime):
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 8)
        assert len(executor.calls) == 8
        lost = [e for e in runtime.history.page() if e.rescues]
        assert len(lost) == 4
        for execution in lost:
            first, second = runtime.history.attempts(execution.id)
            assert (first.status, first.reason, second.status) == ("failed", "node_lost", "success")


async def test_a_node_that_lost_its_lease_cannot_overwrite_what_the_rescuer_recorded(database_url: str) -> None:
    let_go = threading.Event()
    executor = Recorder("work", lambda *_: let_go.wait(20) and None)
    async with running(database_url, executor) as (service, runtime):
        execution = await leave_running(runtime, service)
        node = runtime.node_id
        assert rescue_now(runtime, node) == 1
        with runtime.engine.begin() as connection:
            connection.execute(
                text("UPDATE task_executions SET state = 'success', message = 'by the rescuer', owner = NULL")
            )
        let_go.set()
        await until(lambda: not runtime.live.runner.running)  # type: ignore[union-attr]
        await asyncio.to_thread(runtime.journal.flush)
        assert runtime.history.get(execution.id).message == "by the rescuer"
        (attempt,) = runtime.history.attempts(execution.id)
        assert (attempt.status, attempt.reason) == ("failed", "node_lost")


async def test_a_node_declared_dead_comes_back_as_a_new_one(database_url: str) -> None:
    async with running(database_url, Recorder("work", lambda *_: asyncio.sleep(60))) as (service, runtime):
        execution = await leave_running(runtime, service)
        before = runtime.node_id
        rescue_now(runtime, before)
        service.register_executor(Recorder("work"))
        await until(lambda: runtime.node_id != before)
        assert (await service.wait(execution.id, 10)).success
        assert [node.id for node in runtime.history.nodes()] == [runtime.node_id]


async def test_a_node_that_cannot_come_back_at_once_tries_again_and_leaves_nothing_of_the_old_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, refusals = Heartbeat.register, [OperationalError("", {}, Exception("out of reach"))] * 2

    def register_at_last(heartbeat: Heartbeat) -> None:
        if refusals:
            raise refusals.pop()
        register(heartbeat)

    def watchers() -> tuple[int, int]:
        guards = [thread for thread in threading.enumerate() if thread.name == "contenthub-loop-guard"]
        return len(guards), len(logging.getLogger().handlers)

    async with running(database_url, Recorder("work")) as (service, runtime):
        before, watching = runtime.node_id, watchers()
        monkeypatch.setattr(Heartbeat, "register", register_at_last)
        rescue_now(runtime, before)
        await until(lambda: runtime.node_id != before)
        assert not refusals
        assert (await service.wait((await service.enqueue("work")).id, 10)).success
        await until(lambda: watchers() == watching)


async def test_a_shutdown_without_its_database_leaves_what_it_held_to_the_next_start(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 0.2)
    blocker = sqlite3.connect(tmp_path / "contenthub.db", isolation_level=None)
    work = Recorder("work", lambda *_: asyncio.sleep(60))
    few = {"scheduler_concurrency": 1, "scheduler_grace_seconds": 0, "scheduler_lease_seconds": 1}
    async with running(sqlite_url, work, **few) as (service, runtime):
        await leave_running(runtime, service)
        await service.enqueue("work")
        blocker.execute("BEGIN IMMEDIATE")
        await service.drain()
        blocker.execute("ROLLBACK")
        assert not [one for one in threading.enumerate() if one.name == "contenthub-heartbeat"]
        service.register_executor(Recorder("work"))
        service.start()
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 2)
    blocker.close()


def buried_node(runtime: Runtime) -> str:
    """A node that was declared dead and does not know it yet."""
    clock = SystemClock()
    heartbeat = Heartbeat(
        runtime.engine,
        clock,
        Lease(15, clock),
        node_id="zombie",
        role="all",
        engine_name="embedded",
        version="0",
    )
    heartbeat.register()
    rescue_now(runtime, "zombie")
    assert not heartbeat.beat()
    return "zombie"


async def test_a_node_that_was_buried_owns_nothing_it_records_or_fires(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (_, runtime):
        zombie = buried_node(runtime)
        now = datetime.now(UTC)
        task = runtime.tasks.create(
            runtime.definition({"name": "t", "task_type": "work", "overlap_policy": "allow"})
        )
        values = [execution_values(now, task_type="work", idempotency_key=key) for key in (None, "once")]
        with runtime.engine.connect() as connection:
            begin_write(connection)
            for row in values:
                (recorded,) = RecordExecution.apply_all(connection, [RecordExecution(row | {"owner": zombie})])
                assert recorded.execution.owner is None
            fired = fire_now(
                connection,
                task.id,
                now=now,
                params=None,
                trigger="manual",
                triggered_by=None,
                owner_of=lambda _: zombie,
            )
            assert [execution.owner for execution in fired.executions] == [None]
            connection.commit()
        assert [execution.owner for execution in runtime.history.page()] == [None, None, None]


async def test_a_node_that_was_buried_claims_nothing(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        await service.enqueue("work")
        zombie = buried_node(runtime)
        with runtime.engine.connect() as connection:
            begin_write(connection)
            assert claim(connection, node=zombie, now=datetime.now(UTC), limit=10) == []
            assert len(claim(connection, node="living", now=datetime.now(UTC), limit=10)) == 1
            connection.rollback()


async def test_an_exclusive_execution_is_not_claimed_beside_another_of_its_task(database_url: str) -> None:
    """Of several fires made up at once the first is not exclusive; claimed together, only that one starts."""
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        first, second = [await service.enqueue("work", task_id=7) for _ in range(2)]
        with runtime.engine.connect() as connection:
            begin_write(connection)
            connection.execute(update(executions).where(executions.c.id == second.id).values(exclusive=True))
            claimed = claim(connection, node="living", now=datetime.now(UTC), limit=10)
            assert [execution.id for execution in claimed] == [first.id]
            assert claim(connection, node="living", now=datetime.now(UTC), limit=10) == []
            connection.rollback()


async def test_what_was_asked_to_end_is_ended_instead_of_claimed(database_url: str) -> None:
    """Asked while a node held it; then the attempt failed, or the node died, and it waits again."""
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        wanted, unwanted = await service.enqueue("work"), await service.enqueue("work")
        now = datetime.now(UTC)
        with runtime.engine.connect() as connection:
            begin_write(connection)
            connection.execute(
                update(executions).where(executions.c.id == unwanted.id).values(cancel_requested_at=now)
            )
            claimed = claim(connection, node="living", now=now, limit=10)
            connection.commit()
        assert [execution.id for execution in claimed] == [wanted.id]
        ended = runtime.history.get(unwanted.id)
        assert (ended.state, ended.finished_at, ended.attempt) == (ExecutionState.CANCELLED, now, 0)


@pytest.mark.parametrize(
    ("rescues", "retry", "expected"),
    [
        (0, None, ExecutionState.RETRYING),
        (3, None, ExecutionState.FAILED),
        (0, '{"on_node_lost": "fail"}', ExecutionState.FAILED),
    ],
)
async def test_rescue_follows_the_policy_and_stops_a_poison_execution(
    database_url: str, rescues: int, retry: str | None, expected: ExecutionState
) -> None:
    async with running(database_url, Recorder("work", lambda *_: asyncio.sleep(60))) as (service, runtime):
        execution = await leave_running(runtime, service)
        with runtime.engine.begin() as connection:
            connection.execute(
                text("UPDATE task_executions SET rescues = :rescues, retry = :retry"),
                {"rescues": rescues, "retry": retry},
            )
        rescue_now(runtime, runtime.node_id)
        stored = runtime.history.get(execution.id)
        assert (stored.state, stored.reason) == (expected, "node_lost")


async def test_what_a_dead_node_ran_is_before_what_waited_behind_it(database_url: str) -> None:
    """With a backlog of an hour, rescued work must not wait another hour."""
    async with running(database_url, Recorder("work"), start=False) as (service, runtime):
        first, *_ = [await service.enqueue("work") for _ in range(3)]
        add_node(runtime, "far")

        def next_one(node: str) -> Execution:
            with runtime.engine.connect() as connection:
                begin_write(connection)
                (claimed,) = claim(connection, node=node, now=datetime.now(UTC), limit=1)
                connection.commit()
            return claimed

        assert next_one("far").id == first.id
        rescue_now(runtime, "far")
        again = next_one("living")
        assert (again.id, again.reason, again.attempt) == (first.id, "node_lost", 2)


async def test_a_node_that_beat_again_is_not_buried(database_url: str) -> None:
    async with running(database_url, Recorder("work", lambda *_: asyncio.sleep(60))) as (service, runtime):
        execution = await leave_running(runtime, service)
        with runtime.engine.begin() as connection:
            assert rescue(connection, runtime.node_id, beats=10**6, now=datetime.now(UTC), max_rescues=3) == []
        assert runtime.history.get(execution.id).state is ExecutionState.RUNNING


async def test_a_silent_node_is_rescued_after_its_lease_and_not_before(database_url: str) -> None:
    """A node of another machine: only the lease can tell."""
    async with running(database_url, Recorder("work"), scheduler_lease_seconds=1) as (_, runtime):
        add_node(runtime, "far")
        with runtime.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO task_executions (task_type, state, owner, attempt)"
                    " VALUES ('work', 'running', 'far', 1)"
                )
            )
        started = time.monotonic()
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 1)
        assert time.monotonic() - started >= 1


async def test_what_a_node_holds_without_knowing_of_it_is_handed_back(database_url: str) -> None:
    """The answer to a claim, or to an insert, was lost with the connection after the commit."""
    async with running(database_url, Recorder("work")) as (_, runtime):
        with runtime.engine.begin() as connection:
            mine = {"me": runtime.node_id}
            connection.execute(
                text(
                    "INSERT INTO task_executions (id, task_type, state, owner, attempt)"
                    " VALUES (1, 'work', 'running', :me, 1), (2, 'work', 'pending', :me, 0)"
                ),
                mine,
            )
            connection.execute(
                text(
                    "INSERT INTO task_attempts (execution_id, number, node, status, started_at)"
                    " VALUES (1, 1, :me, 'running', '2030-01-01')"
                ),
                mine,
            )
        started, inserted = await ended(runtime, 1, 60), await ended(runtime, 2, 60)
        assert (started.state, started.attempt) == (ExecutionState.SUCCESS, 2)
        assert (inserted.state, inserted.attempt) == (ExecutionState.SUCCESS, 1)
        lost, _ = runtime.history.attempts(1)
        assert (lost.status, lost.reason) == ("failed", "handed_back")


def test_process_exists_knows_the_living_and_the_dead() -> None:
    assert process_exists(os.getpid())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not process_exists(gone.pid)


def test_a_start_committed_in_the_middle_of_a_finish_does_not_fence_it(postgres_url: str) -> None:
    """The executor's transaction and the journal race for the row; PostgreSQL lets the start in between."""
    engine = make_engine(Settings(database_url=postgres_url))
    now = datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO task_executions (id, task_type, owner) VALUES (1, 'work', 'me')"))
    finish = FinishAttempt(
        execution_id=1,
        task_id=None,
        attempt=1,
        owner="me",
        started_at=now,
        finished_at=now,
        duration_seconds=0.1,
        status=TaskStatus.SUCCESS,
        state=ExecutionState.SUCCESS,
        reason=None,
        message="好",
        error=None,
        result=None,
        failures=0,
        run_at=now,
    )
    with engine.connect() as finisher:

        @event.listens_for(finisher, "after_cursor_execute", once=True)
        def start_now(*_: Any) -> None:
            with engine.begin() as journal:
                assert record_attempts(journal, [StartAttempt(1, 1, "me", now)]) == [True]

        assert finish_attempt(finisher, finish)
        finisher.commit()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT state, status FROM task_executions, task_attempts")).all() == [
            ("success", "success")
        ]
    engine.dispose()


# ---------------------------------------------------------------- who may say that somebody is dead


def far_node(connection: Connection, beats: int = 0) -> None:
    connection.execute(
        text(
            "INSERT INTO nodes (id, host, pid, role, engine, version, beats, started_at, heartbeat_at)"
            " VALUES ('far', 'elsewhere', 1, 'all', 'embedded', '0', :beats, '2030-01-01', '2030-01-01')"
        ),
        {"beats": beats},
    )


def test_who_cannot_renew_its_own_lease_gives_everybody_one_to_be_heard_again(sqlite_url: str) -> None:
    engine, clock = make_engine(Settings(database_url=sqlite_url)), VirtualClock()
    lease = Lease(15, clock)
    undertaker = Undertaker(lease, node_id="me")

    def dead_after(seconds: float, *, beats: bool = True) -> list[str]:
        clock.advance(seconds)
        if beats:
            lease.renew()
        return [node_id for node_id, _ in undertaker.dead(connection)]

    with engine.connect() as connection:
        far_node(connection)
        assert [dead_after(1) for _ in range(3)] == [[], [], []]
        assert dead_after(60, beats=False) == []  # an outage: nobody could beat
        assert dead_after(1) == []
        assert [dead_after(1) for _ in range(14)] == [[]] * 14
        assert dead_after(1) == ["far"]
    engine.dispose()


def test_a_lease_lapses_for_its_holder_before_anybody_else_may_think_so() -> None:
    clock = VirtualClock()
    lease = Lease(10, clock)
    clock.advance(7.9)
    assert lease.is_valid
    clock.advance(0.2)
    assert not lease.is_valid
    asked_at = clock.monotonic()
    clock.advance(5)
    lease.renew(asked_at)
    assert lease.remaining_seconds == pytest.approx(3)


async def test_a_node_that_cannot_renew_its_lease_ends_what_it_runs_and_takes_nothing_on(sqlite_url: str) -> None:
    work = Recorder("work", lambda *_: asyncio.sleep(60))
    async with running(sqlite_url, work, scheduler_lease_seconds=1) as (service, runtime):
        execution = await leave_running(runtime, service)
        blocker = make_engine(Settings(database_url=sqlite_url))
        with blocker.connect() as connection:
            begin_write(connection)  # nobody can write: not a heartbeat, not an outcome
            live = runtime.live
            assert live is not None
            await until(lambda: not live.lease.is_valid and not live.runner.running)
            connection.rollback()
        blocker.dispose()
        await until(lambda: len(work.calls) == 2)
        assert runtime.node_id == live.node_id
        first = runtime.history.attempts(execution.id)[0]
        assert (first.status, first.reason) == ("failed", "node_lost")


async def test_what_a_buried_node_still_records_is_found(database_url: str) -> None:
    async with running(database_url, Recorder("work")) as (_, runtime):
        with runtime.engine.begin() as connection:
            far_node(connection)
            connection.execute(text("UPDATE nodes SET stopped_at = '2030-01-01' WHERE id = 'far'"))
            connection.execute(
                text(
                    "INSERT INTO task_executions (task_type, state, owner, attempt)"
                    " VALUES ('work', 'pending', 'far', 0), ('work', 'running', 'far', 1),"
                    " ('work', 'pending', 'nobody', 0)"
                )
            )
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 3)
