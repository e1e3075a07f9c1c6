"""From request to recorded outcome: one suite for every engine and database."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import uuid
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from loguru import logger
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from app.core.config import Settings
from app.core.errors import (
    Conflict,
    ExecutorNotFound,
    InvalidParameters,
    InvalidRequest,
    NotFound,
    SchedulerUnavailable,
)
from app.db.database import configure
from app.executors.http_request import HttpRequestExecutor
from app.models.task_execution import ExecutionState
from app.scheduler import journal, loop_guard
from app.scheduler.context import current_execution, find_current_execution
from app.scheduler.engines import embedded, pool
from app.scheduler.runtime import build_service, runtime_of
from app.services.scheduler_service import SchedulerService, TaskExecutionResult
from tests.support import Recorder, ended, fail_with, running, until


@pytest.fixture(params=["sqlite", "postgresql", "pgqueuer"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each engine on each database it can use: what is true must be true everywhere."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "pgqueuer": "pgqueuer_url"}[request.param]
    found: str = request.getfixturevalue(fixture)
    return found


def ok(data: dict[str, Any] | None = None) -> TaskExecutionResult:
    return TaskExecutionResult.success_result("好", data=data)


async def test_a_node_claims_no_more_than_its_lanes_can_start(database_url: str) -> None:
    """Room on one lane is none on another: what is claimed and cannot start could run on another node."""
    gate = threading.Event()
    held = Recorder("held", lambda *_: ok({"opened": gate.wait(20)}))
    idle = Recorder("idle", lane="loop")
    async with running(database_url, held, idle, scheduler_concurrency=2) as (service, runtime):
        with Session(runtime.engine) as session:
            for _ in range(30):
                await service.enqueue("held", db=session)
            session.commit()
        await until(lambda: runtime.history.counts()[ExecutionState.RUNNING] == 2)
        for _ in range(15):
            await asyncio.sleep(0.1)
            assert runtime.history.counts()[ExecutionState.RUNNING] == 2
        gate.set()
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 30)
        with Session(runtime.engine) as session:
            assert session.scalar(text("SELECT count(*) FROM task_attempts")) == 30


@pytest.mark.parametrize("lane", ["thread", "loop"])
async def test_a_node_keeps_so_many_waiting_in_memory_and_the_others_in_the_table(
    sqlite_url: str, lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_MEMORY_LIMIT", 3)
    gate = asyncio.Event()

    async def held(*_: Any) -> None:
        while not gate.is_set():
            await asyncio.sleep(0.01)

    one_at_a_time = {"scheduler_concurrency": 1, "scheduler_loop_concurrency": 1}
    async with running(sqlite_url, Recorder("held", held, lane=lane), **one_at_a_time) as (service, runtime):
        for _ in range(10):
            await service.enqueue("held")
        assert runtime.engine_status()["waiting_in_memory"] <= 3
        gate.set()
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 10)


# ---------------------------------------------------------------- the way of one run


@pytest.mark.parametrize("lane", ["thread", "loop"])
async def test_an_enqueued_execution_runs_once_and_its_outcome_is_recorded(database_url: str, lane: str) -> None:
    executor = Recorder("work", lambda *_: ok({"answer": 42}), lane=lane)
    async with running(database_url, executor) as (service, runtime):
        execution = await service.enqueue("work", {"topic": "天气"})
        result = await service.wait(execution.id, 10)
        assert (result.success, result.message, result.data) == (True, "好", {"answer": 42})
        stored = runtime.history.get(execution.id)
        assert stored.state is ExecutionState.SUCCESS
        assert stored.params == {"topic": "天气"}
        assert stored.started_at is not None
        assert stored.finished_at is not None
        assert stored.created_at.tzinfo is UTC
        assert stored.owner is None
        (attempt,) = runtime.history.attempts(execution.id)
        assert (attempt.number, attempt.status, attempt.error) == (1, "success", None)
        assert executor.calls == [{"topic": "天气"}]


async def test_thread_lane_runs_beside_the_loop_and_loop_lane_on_it(database_url: str) -> None:
    threads: dict[str, int] = {}
    here = threading.get_ident()
    beside = Recorder("beside", lambda *_: threads.update(beside=threading.get_ident()))
    on_it = Recorder("on_it", lambda *_: threads.update(on_it=threading.get_ident()), lane="loop")
    async with running(database_url, beside, on_it) as (service, _):
        for name in ("beside", "on_it"):
            await service.wait((await service.enqueue(name)).id, 10)
    assert threads["beside"] != here
    assert threads["on_it"] == here


async def test_a_blocking_executor_does_not_stop_the_application_loop(database_url: str) -> None:
    release = threading.Event()
    async with running(database_url, Recorder("block", lambda *_: release.wait(20) and None)) as (service, _):
        execution = await service.enqueue("block")
        turns = 0
        while turns < 50:
            await asyncio.sleep(0)
            turns += 1
        release.set()
        assert (await service.wait(execution.id, 10)).success


async def test_a_failure_is_retried_with_backoff_and_then_final(database_url: str) -> None:
    executor = Recorder("shaky", fail_with(ConnectionError("down")), max_attempts=2)
    async with running(database_url, executor) as (service, runtime):
        execution = await service.enqueue("shaky")
        retrying = await until(
            lambda: (e := runtime.history.get(execution.id)).state is ExecutionState.RETRYING and e
        )
        assert timedelta(seconds=1) < retrying.run_at - retrying.started_at < timedelta(seconds=3)
        result = await service.wait(execution.id, 15)
        assert result.error == "ConnectionError: down"
        first, second = runtime.history.attempts(execution.id)
        assert [first.status, second.status] == ["failed", "failed"]
        assert "ConnectionError" in (first.traceback or "")
        assert runtime.history.get(execution.id).failures == 2


async def test_an_executor_says_which_errors_are_worth_a_retry(database_url: str) -> None:
    executor = Recorder("shaky", fail_with(ConnectionError("down")), max_attempts=5, retry_on=("OSError",))
    async with running(database_url, executor) as (service, runtime):
        execution = await service.enqueue("shaky")
        await service.wait(execution.id, 10)
        assert runtime.history.get(execution.id).state is ExecutionState.FAILED
        executor.retry_on = ("OSError", "ConnectionError")  # type: ignore[misc]
        again = await service.enqueue("shaky")
        await until(lambda: runtime.history.get(again.id).state is ExecutionState.RETRYING)


async def test_a_request_for_more_attempts_leaves_it_to_the_executor_which_errors_are_worth_one(
    database_url: str,
) -> None:
    executor = Recorder("shaky", fail_with(ConnectionError("down")), retry_on=("OSError",))
    async with running(database_url, executor) as (service, runtime):
        one = await service.enqueue("shaky", max_attempts=5)
        (two,) = await service.enqueue_many([{"task_type": "shaky", "max_attempts": 5}])
        for execution in (one, two):
            assert (await ended(runtime, execution.id)).attempt == 1
        executor.retry_on = ("ConnectionError",)  # type: ignore[misc]
        again = await service.enqueue("shaky", max_attempts=5)
        await until(lambda: runtime.history.get(again.id).state is ExecutionState.RETRYING)


GROUP = "unhandled errors in a TaskGroup"


@pytest.mark.parametrize(
    ("error", "said", "is_retried"),
    [
        (ExceptionGroup(GROUP, [ConnectionError("down")]), "ConnectionError: down", True),
        (ExceptionGroup(GROUP, [ExceptionGroup(GROUP, [ConnectionError("down")])]), "ConnectionError: down", True),
        (
            ExceptionGroup(GROUP, [ConnectionError("down"), ExceptionGroup(GROUP, [KeyError("name")])]),
            f"ExceptionGroup: {GROUP} (2 sub-exceptions): ConnectionError: down; KeyError: 'name'",
            False,
        ),
    ],
)
async def test_a_group_of_one_error_is_that_error_and_a_larger_one_names_each(
    database_url: str, error: ExceptionGroup[Exception], said: str, *, is_retried: bool
) -> None:
    executor = Recorder("shaky", fail_with(error), max_attempts=5, retry_on=("ConnectionError",))
    async with running(database_url, executor) as (service, runtime):
        execution = await service.enqueue("shaky")
        wanted = ExecutionState.RETRYING if is_retried else ExecutionState.FAILED
        await until(lambda: runtime.history.get(execution.id).state is wanted)
        (attempt,) = runtime.history.attempts(execution.id)
    assert attempt.error == said
    assert "TaskGroup" in (attempt.traceback or "")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("lane", "fast"),
        ("max_attempts", 0),
        ("max_attempts", "3"),
        ("max_attempts", True),
        ("timeout_seconds", 0),
        ("timeout_seconds", float("nan")),
        ("retry_on", "OSError"),
        ("retry_on", ("no name",)),
        ("circuit_breaker", 0.5),
    ],
)
def test_an_executor_with_a_wrong_attribute_is_not_registered(name: str, wrong: object) -> None:
    service = SchedulerService()
    with pytest.raises(InvalidRequest) as refusal:
        service.register_executor(Recorder("work", **{name: wrong}))
    (error,) = refusal.value.errors
    assert error.field == name
    assert repr(wrong) in error.message
    assert service.get_executor("work") is None


async def test_max_attempts_of_the_request_win_over_the_executors(database_url: str) -> None:
    executor = Recorder("shaky", fail_with(ConnectionError("down")), max_attempts=5)
    async with running(database_url, executor) as (service, runtime):
        execution = await service.enqueue("shaky", max_attempts=1)
        await service.wait(execution.id, 10)
        assert len(runtime.history.attempts(execution.id)) == 1


@pytest.mark.parametrize("lane", ["thread", "loop"])
async def test_a_time_limit_ends_an_awaiting_executor(database_url: str, lane: str) -> None:
    executor = Recorder("slow", lambda *_: asyncio.sleep(30), lane=lane)
    async with running(database_url, executor) as (service, runtime):
        execution = await service.enqueue("slow", timeout_seconds=0.2)
        result = await service.wait(execution.id, 10)
        assert result.error == "TimeoutError: no result within 0.2 seconds"
        assert runtime.history.get(execution.id).reason == "timeout"


@pytest.fixture
def spoken(sqlite_url: str) -> Iterator[list[tuple[str, str]]]:
    """Level and text of what is logged."""
    lines: list[tuple[str, str]] = []
    sink = logger.add(
        lambda message: lines.append((message.record["level"].name, message.record["message"])), level="INFO"
    )
    yield lines
    logger.remove(sink)


async def test_an_attempt_that_is_stopped_logs_its_outcome_as_the_seed_says(
    sqlite_url: str, spoken: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_BLOCKING_GRACE_SECONDS", 0.1)
    gate = threading.Event()
    slow = Recorder("slow", lambda *_: asyncio.sleep(30))
    stuck = Recorder("stuck", lambda *_: ok({"opened": gate.wait(20)}))
    quits = Recorder("quits", fail_with(asyncio.CancelledError()))

    def outcome() -> list[tuple[str, str]]:
        found = [(level, re.sub(r"\d+\.\d\d秒", "…", text)) for level, text in spoken if "失败" in text]
        spoken.clear()
        return found

    failed = ("INFO", "任务 0 执行失败，耗时 …")
    async with running(sqlite_url, slow, stuck, quits) as (service, runtime):
        for task_type in ("slow", "stuck"):
            await service.wait((await service.enqueue(task_type, timeout_seconds=0.2)).id, 10)
            assert outcome() == [failed, ("ERROR", "任务 0 失败原因: TimeoutError: no result within 0.2 seconds")]
        gate.set()
        execution = await service.enqueue("slow")
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.RUNNING)
        await service.cancel(execution.id)
        await ended(runtime, execution.id)
        assert outcome() == [failed, ("ERROR", "任务 0 失败原因: Cancelled")]
        await service.wait((await service.enqueue("quits")).id, 10)
        assert outcome() == [failed, ("ERROR", "任务 0 失败原因: CancelledError")]
        lost = await service.enqueue("slow")
        await until(lambda: runtime.history.get(lost.id).state is ExecutionState.RUNNING)
        assert runtime.live is not None
        runtime.live.engine.lease_lapsed()
        await until(lambda: len(spoken) and any("Interrupted: node lost" in text for _, text in spoken))
        assert outcome() == [failed, ("ERROR", "任务 0 失败原因: Interrupted: node lost")]


async def test_a_blocking_executor_past_its_limit_is_given_up_and_what_it_brings_later_is_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_BLOCKING_GRACE_SECONDS", 0.1)
    release = threading.Event()
    returned = threading.Event()

    def block(*_: Any) -> TaskExecutionResult:
        release.wait(20)
        returned.set()
        return ok()

    executor = Recorder("stuck", block, max_attempts=3)
    async with running(database_url, executor, scheduler_concurrency=1) as (service, runtime):
        execution = await service.enqueue("stuck", timeout_seconds=0.2)
        result = await service.wait(execution.id, 10)
        assert "no result within" in (result.error or "")
        service.register_executor(Recorder("next"))
        assert (await service.wait((await service.enqueue("next")).id, 10)).success, "the lane was lost"
        release.set()
        await until(returned.is_set)
        await asyncio.sleep(0.1)
        stored = runtime.history.get(execution.id)
        assert (stored.state, stored.reason) == (ExecutionState.FAILED, "timeout")
        assert len(executor.calls) == 1, "a retry overlapped the attempt that still ran"


async def test_run_at_priority_and_order(database_url: str) -> None:
    order: list[str] = []
    gate = threading.Event()
    blocker = Recorder("blocker", lambda *_: gate.wait(20) and None)
    work = Recorder("work", lambda _id, params, _db: order.append(params["name"]))
    async with running(database_url, blocker, work, scheduler_concurrency=1) as (service, runtime):
        await service.enqueue("blocker")
        await until(lambda: runtime.history.counts()[ExecutionState.RUNNING])
        for name in ("first", "last"):
            low = await service.enqueue("work", {"name": name}, priority=-1)
        await service.enqueue("work", {"name": "high"}, priority=5)
        later = await service.enqueue("work", {"name": "later"}, run_at=datetime.now(UTC) + timedelta(seconds=1))
        gate.set()
        await service.wait(low.id, 10)
        await service.wait(later.id, 10)
        if runtime.settings.scheduler_engine == "pgqueuer":
            order.remove("first")  # PgQueuer fetches one job ahead of a single lane
        assert [name for name in order if name != "first"] == ["high", "last", "later"]
        assert order.index("high") == 0
        stored = runtime.history.get(later.id)
        assert stored.started_at is not None
        assert stored.started_at >= stored.run_at


async def test_an_idempotency_key_makes_a_repeated_request_the_first_one(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor) as (service, _):
        found = await asyncio.gather(*(service.enqueue("work", {}, idempotency_key="order-7") for _ in range(20)))
        assert len({execution.id for execution in found}) == 1
        await service.wait(found[0].id, 10)
        again = await service.enqueue("work", {}, idempotency_key="order-7")
        assert again.id == found[0].id
        assert again.state is ExecutionState.SUCCESS
    assert len(executor.calls) == 1


async def test_a_concurrency_key_holds_its_limit(database_url: str) -> None:
    lock, now_running, most = threading.Lock(), 0, 0

    def work(*_: Any) -> None:
        nonlocal now_running, most
        with lock:
            now_running += 1
            most = max(most, now_running)
        time.sleep(0.02)
        with lock:
            now_running -= 1

    async with running(database_url, Recorder("work", work), scheduler_concurrency=8) as (service, _):
        requests = [
            await service.enqueue("work", concurrency_key="customer", concurrency_limit=2) for _ in range(12)
        ]
        for execution in requests:
            assert (await service.wait(execution.id, 20)).success
    assert most <= 2


# ---------------------------------------------------------------- cancel, retry, park


async def test_cancel_of_a_running_execution(database_url: str) -> None:
    async with running(database_url, Recorder("slow", lambda *_: asyncio.sleep(30))) as (service, runtime):
        execution = await service.enqueue("slow")
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.RUNNING)
        await service.cancel(execution.id)
        result = await service.wait(execution.id, 10)
        assert result.error == "Cancelled"
        with pytest.raises(Conflict, match="is cancelled; it cannot be cancelled"):
            await service.cancel(execution.id)


async def test_cancel_of_a_waiting_execution_means_it_never_runs(database_url: str) -> None:
    gate = threading.Event()
    work = Recorder("work")
    blocker = Recorder("blocker", lambda *_: gate.wait(20) and None)
    async with running(database_url, blocker, work, scheduler_concurrency=1) as (service, runtime):
        await service.enqueue("blocker")
        in_memory = await service.enqueue("work")
        in_table = await service.enqueue("work", run_at=datetime.now(UTC) + timedelta(hours=1))
        for execution in (in_memory, in_table):
            assert (await service.cancel(execution.id)).state is ExecutionState.CANCELLED
        gate.set()
        await until(lambda: not runtime.history.counts()[ExecutionState.RUNNING])
    assert work.calls == []


async def test_a_failed_execution_can_be_retried_and_a_successful_one_not(database_url: str) -> None:
    outcomes = iter([TaskExecutionResult.failure_result("坏", "Bad: luck"), ok()])
    async with running(database_url, Recorder("work", lambda *_: next(outcomes))) as (service, runtime):
        execution = await service.enqueue("work")
        assert not (await service.wait(execution.id, 10)).success
        await service.retry(execution.id)
        assert (await service.wait(execution.id, 10)).success
        assert [attempt.status for attempt in runtime.history.attempts(execution.id)] == ["failed", "success"]
        with pytest.raises(Conflict):
            await service.retry(execution.id)


async def test_unknown_things_are_refused_and_nothing_is_stored(database_url: str) -> None:
    strict = Recorder("strict")
    strict.validate_params = lambda params: "topic" in params  # type: ignore[method-assign]
    async with running(database_url, strict) as (service, runtime):
        with pytest.raises(ExecutorNotFound):
            await service.enqueue("nobody")
        with pytest.raises(InvalidParameters):
            await service.enqueue("strict", {})
        with pytest.raises(InvalidRequest) as refusal:
            await service.enqueue("strict", {"topic": object()})
        assert refusal.value.errors[0].field == "params"
        with pytest.raises(InvalidRequest) as refusal:
            await service.enqueue("strict", {"topic": 1}, priority=10**9, run_at=datetime(2030, 1, 1))  # noqa: DTZ001
        assert {error.field for error in refusal.value.errors} == {"priority", "run_at"}
        for ask in (service.cancel, service.retry, service.run_now):
            with pytest.raises(NotFound):
                await ask(999)
        assert runtime.history.page() == []


async def test_an_execution_whose_executor_is_gone_is_parked_and_runs_when_it_is_back(database_url: str) -> None:
    async with running(database_url, Recorder("other"), Recorder("gone"), start=False) as (service, _):
        execution = await service.enqueue("gone")
    async with running(database_url, Recorder("other")) as (_, runtime):
        parked = await ended(runtime, execution.id)
        assert (parked.state, parked.reason) == (ExecutionState.PARKED, "unknown_executor")
    async with running(database_url, Recorder("gone")) as (service, runtime):
        assert (await service.wait(execution.id, 15)).success


async def test_an_execution_whose_params_are_no_longer_accepted_is_parked(database_url: str) -> None:
    class Params(BaseModel):
        topic: str

    async with running(database_url, Recorder("work"), start=False) as (service, _):
        execution = await service.enqueue("work", {})
    async with running(database_url, Recorder("work", params_model=Params)) as (service, runtime):
        parked = await ended(runtime, execution.id)
        assert (parked.state, parked.reason) == (ExecutionState.PARKED, "invalid_params")


# ---------------------------------------------------------------- sessions


def _table(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (id INTEGER PRIMARY KEY, note TEXT)"))
    engine.dispose()


def _notes(database_url: str) -> list[str]:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        notes = [row.note for row in connection.execute(text("SELECT note FROM effects ORDER BY id"))]
    engine.dispose()
    return notes


@pytest.mark.parametrize("lane", ["thread", "loop"])
async def test_what_an_executor_writes_is_committed_with_its_success_and_only_then(
    database_url: str, lane: str
) -> None:
    _table(database_url)

    def write(task_id: int, params: dict[str, Any], db: Session) -> TaskExecutionResult:
        db.execute(text("INSERT INTO effects VALUES (:id, :note)"), params)
        if params["note"] == "raises":
            raise ValueError("after the write")
        return ok() if params["note"] == "kept" else TaskExecutionResult.failure_result("坏", "Bad: x")

    async with running(database_url, Recorder("write", write, lane=lane)) as (service, _):
        for number, note in enumerate(["kept", "failed", "raises"]):
            execution = await service.enqueue("write", {"id": number, "note": note})
            await service.wait(execution.id, 10)
    assert _notes(database_url) == ["kept"]


async def test_a_session_left_broken_still_gets_its_outcome_recorded(database_url: str) -> None:
    _table(database_url)

    def swallow(task_id: int, params: dict[str, Any], db: Session) -> TaskExecutionResult:
        from sqlalchemy.exc import IntegrityError

        db.execute(text("INSERT INTO effects VALUES (1, 'one')"))
        try:
            db.execute(text("INSERT INTO effects VALUES (1, 'two')"))
        except IntegrityError:
            logger.info("swallowed")
        return ok()

    async with running(database_url, Recorder("swallow", swallow)) as (service, runtime):
        execution = await service.enqueue("swallow")
        await service.wait(execution.id, 10)
        assert runtime.history.get(execution.id).is_final


async def test_a_flush_that_failed_is_recorded_as_a_failure_that_names_the_session(database_url: str) -> None:
    from sqlalchemy.exc import IntegrityError

    from app.models.scheduled_task import ScheduledTask

    def swallow(task_id: int, params: dict[str, Any], db: Session) -> TaskExecutionResult:
        for _ in range(2):
            db.add(ScheduledTask(name="same", task_type="x", timezone="UTC"))
        try:
            db.flush()
        except IntegrityError:
            logger.info("swallowed")
        db.add(ScheduledTask(name="another", task_type="x", timezone="UTC"))
        return ok()

    async with running(database_url, Recorder("swallow", swallow)) as (service, runtime):
        execution = await service.enqueue("swallow")
        result = await service.wait(execution.id, 10)
        stored = runtime.history.get(execution.id)
        assert stored.is_final
        written = runtime.tasks.page()
        assert result.success == bool(written), "recorded success and committed writes must agree"


async def test_a_result_that_is_no_json_fails_clearly_and_never_stays_running(database_url: str) -> None:
    data = {"at": datetime(2030, 1, 1, tzinfo=UTC), "sum": Decimal("1.5"), "id": uuid.UUID(int=1)}
    good = Recorder("good", lambda *_: ok(data))
    bad = Recorder("bad", lambda *_: ok({"lock": threading.Lock()}))
    hostile = Recorder(
        "hostile", lambda *_: TaskExecutionResult.success_result("\x00\ud800", data={"a\x00": "\x00"})
    )
    async with running(database_url, good, bad, hostile) as (service, runtime):
        result = await service.wait((await service.enqueue("good")).id, 10)
        assert result.data == {"at": "2030-01-01T00:00:00Z", "sum": "1.5", "id": str(uuid.UUID(int=1))}
        result = await service.wait((await service.enqueue("bad")).id, 10)
        assert "no JSON" in (result.error or "")
        execution = await service.enqueue("hostile")
        assert (await ended(runtime, execution.id)).is_final


# ---------------------------------------------------------------- in the caller's transaction


async def test_enqueue_with_a_session_happens_only_if_that_commits(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor) as (service, runtime):
        with runtime.sessions() as db:
            dropped = await service.enqueue("work", {"n": 1}, db=db)
            db.rollback()
        with runtime.sessions() as db:
            with db.begin_nested() as savepoint:
                await service.enqueue("work", {"n": 2}, db=db)
                savepoint.rollback()
            kept = await service.enqueue("work", {"n": 3}, db=db, idempotency_key="k")
            again = await service.enqueue("work", {"n": 4}, db=db, idempotency_key="k")
            await asyncio.sleep(0.2)
            assert executor.calls == []
            db.commit()
        assert again.id == kept.id
        assert (await service.wait(kept.id, 10)).success
        if dropped.id != kept.id:
            with pytest.raises(NotFound):
                runtime.history.get(dropped.id)
    assert executor.calls == [{"n": 3}]


async def test_enqueue_with_an_async_session(database_url: str) -> None:
    url = database_url.replace("sqlite://", "sqlite+aiosqlite://").replace(
        "postgresql://", "postgresql+psycopg://"
    )
    engine = create_async_engine(url)
    executor = Recorder("work")
    async with running(database_url, executor) as (service, _):
        async with AsyncSession(engine) as db:
            execution = await service.enqueue("work", {"n": 1}, db=db)
            await db.commit()
        assert (await service.wait(execution.id, 10)).success
        async with AsyncSession(engine) as db:
            await service.enqueue("work", {"n": 2}, db=db)
        await engine.dispose()
    assert executor.calls == [{"n": 1}]


# ---------------------------------------------------------------- what a running executor can say


async def test_current_execution_speaks(database_url: str) -> None:
    seen: dict[str, Any] = {}

    async def work(task_id: int, params: dict[str, Any], db: Session) -> TaskExecutionResult:
        execution = current_execution()
        seen.update(id=execution.id, attempt=execution.attempt, cancelled=execution.cancelled)
        execution.progress(0.25, "四分之一")
        logger.info("a line of loguru")
        await asyncio.to_thread(logger.warning, "from another thread")
        execution.log("by hand")
        with pytest.raises(ValueError, match="between 0 and 1"):
            execution.progress(2)
        return ok()

    assert find_current_execution() is None
    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await service.wait(execution.id, 10)
        assert seen == {"id": execution.id, "attempt": 1, "cancelled": False}
        stored = runtime.history.get(execution.id)
        assert (stored.progress, stored.progress_message) == (0.25, "四分之一")
        lines = [(line.level, line.message) for line in runtime.history.logs(execution.id)]
        assert lines == [("INFO", "a line of loguru"), ("WARNING", "from another thread"), ("INFO", "by hand")]


async def test_log_lines_are_bounded(database_url: str) -> None:
    def work(*_: Any) -> None:
        for number in range(20):
            logger.info("line {}", number)

    async with running(database_url, Recorder("work", work), scheduler_log_lines=5) as (service, runtime):
        execution = await service.enqueue("work")
        await service.wait(execution.id, 10)
        lines = [line.message for line in runtime.history.logs(execution.id)]
        assert lines[:5] == [f"line {number}" for number in range(5)]
        assert len(lines) == 6
        assert "only the first 5" in lines[5]


async def test_log_lines_and_progress_are_visible_while_it_runs(database_url: str) -> None:
    release = threading.Event()

    def work(*_: Any) -> None:
        current_execution().progress(0.5)
        logger.info("under way")
        release.wait(20)

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await until(lambda: runtime.history.logs(execution.id))
        assert runtime.history.get(execution.id).progress == 0.5
        release.set()
        await service.wait(execution.id, 10)
        assert len(runtime.history.logs(execution.id)) == 1


async def test_a_blocking_executor_can_see_that_it_is_cancelled(database_url: str) -> None:
    def work(*_: Any) -> TaskExecutionResult:
        execution = current_execution()
        while not execution.cancelled:
            time.sleep(0.01)
        return TaskExecutionResult.failure_result("提前结束", "Stopped: early")

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.RUNNING)
        await service.cancel(execution.id)
        await service.wait(execution.id, 10)
        assert runtime.history.get(execution.id).state is ExecutionState.CANCELLED


# ---------------------------------------------------------------- many at once


async def test_200_direct_calls_and_2000_executions_that_write_lose_nothing(database_url: str) -> None:
    _table(database_url)

    def write(task_id: int, params: dict[str, Any], db: Session) -> TaskExecutionResult:
        db.execute(text("SELECT count(*) FROM effects WHERE id < 0")).scalar()
        db.execute(text("INSERT INTO effects (id, note) VALUES (:id, 'x')"), {"id": params["id"]})
        return ok()

    async with running(
        database_url, Recorder("write", write), scheduler_concurrency=8, sqlite_synchronous="NORMAL"
    ) as (service, runtime):

        async def direct(number: int) -> None:
            with runtime.sessions() as db:
                result = await service.execute_task(1, "write", {"id": 100_000 + number}, db)
                assert result.success, result.error
                await asyncio.to_thread(db.commit)

        async def durable(number: int) -> int:
            return (await service.enqueue("write", {"id": number})).id

        answers = await asyncio.gather(
            *(durable(number) for number in range(2000)), *(direct(number) for number in range(200))
        )
        ids = [answer for answer in answers if answer is not None]
        assert len(set(ids)) == 2000
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 2000, 90)
    assert len(_notes(database_url)) == 2200


async def test_on_sqlite_who_keeps_the_database_from_a_request_is_named(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_OPEN_WRITES_SECONDS", 0.3)

    async def held_open(until_then: Awaitable[Any]) -> None:
        with Session(runtime.engine) as session:
            await service.enqueue("work", db=session)
            held.set()
            await until_then
            session.commit()

    async with running(sqlite_url, Recorder("work")) as (service, runtime):
        with Session(runtime.engine) as session:
            mine = await service.enqueue("work", db=session)
            for ask in (service.enqueue("work"), service.enqueue_many([{"task_type": "work"}])):
                with pytest.raises(Conflict, match=r"your own Session.*is uncommitted.*commit it or roll it back"):
                    async with asyncio.timeout(10):  # the database itself gives up after 30 seconds
                        await ask
            await service.enqueue("work", db=session)
            session.commit()
            assert (await service.wait((await service.enqueue("work")).id, 10)).success
            assert (await service.wait(mine.id, 10)).success
        held, refused = asyncio.Event(), asyncio.Event()
        other = asyncio.create_task(held_open(refused.wait()))
        await held.wait()
        with pytest.raises(SchedulerUnavailable, match=r"a Session of this process.*is uncommitted"):
            await service.enqueue("work")
        refused.set()
        await other
        assert runtime.is_running
        assert not runtime.journal.open_writes
    monkeypatch.undo()
    async with running(sqlite_url, Recorder("work")) as (service, runtime):
        held = asyncio.Event()
        other = asyncio.create_task(held_open(asyncio.sleep(0.1)))
        await held.wait()
        await service.enqueue("work")  # it waits for a short one
        await other


# ---------------------------------------------------------------- start and stop


async def test_stop_then_start_again_in_the_same_process(database_url: str) -> None:
    executor = Recorder("work")
    async with running(database_url, executor) as (service, _):
        await service.wait((await service.enqueue("work")).id, 10)
        await service.drain()
        assert not service.is_running
        await service.drain()
        service.shutdown()
        service.start()
        service.start()
        assert service.is_running
        assert (await service.wait((await service.enqueue("work")).id, 10)).success


def test_it_is_usable_again_in_a_new_event_loop(database_url: str) -> None:
    async def once() -> None:
        async with running(database_url, Recorder("work")) as (service, _):
            assert (await service.wait((await service.enqueue("work")).id, 10)).success

    asyncio.run(once())
    asyncio.run(once())


async def test_shutdown_on_the_loop_does_not_block_it_or_cancel_work(database_url: str) -> None:
    stopping = threading.Event()

    async def work(*_: Any) -> TaskExecutionResult:
        await until(stopping.is_set)
        await asyncio.sleep(0.1)
        return ok()

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.RUNNING)
        service.shutdown(wait=True)
        stopping.set()
        assert not service.is_running
        await service.drain()
        assert runtime.history.get(execution.id).state is ExecutionState.SUCCESS


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 50])
def test_a_shutdown_at_the_end_of_asyncio_run_leaves_in_order(
    database_url: str, turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    """`asyncio.run()` cancels what is left, the shutdown's own work with it."""
    service = build_service(Settings(database_url=database_url, scheduler_grace_seconds=5))
    runtime = runtime_of(service)
    service.register_executor(Recorder("awaits", lambda *_: asyncio.sleep(60), lane="loop"))
    stopping = threading.Event()
    service.register_executor(Recorder("blocks", lambda *_: stopping.wait(20) and time.sleep(0.3)))

    async def main() -> list[int]:
        service.start()
        ids = [(await service.enqueue(name)).id for name in ("awaits", "blocks") if turns]
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 50:
            await until(lambda: runtime.history.counts()[ExecutionState.RUNNING] == 2)
        stopping.set()
        service.shutdown(wait=True)
        return ids

    ids = asyncio.run(main())
    assert not service.is_running
    assert runtime.node_id is None
    with Session(runtime.engine) as session:
        found = session.execute(text("SELECT stopped_at IS NOT NULL, found_dead FROM nodes")).all()
    assert [tuple(map(bool, node)) for node in found] == [(True, False)]
    states = [(stored.state, stored.reason, stored.owner) for stored in map(runtime.history.get, ids)]
    over = (ExecutionState.SUCCESS, None, None)
    handed_back = [(ExecutionState.PENDING, reason, None) for reason in (None, "handed_back")]
    assert [state for state in states if state not in (over, *handed_back)] == []
    if turns == 50:
        assert states == [handed_back[1], over]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    runtime.close()


async def test_a_drain_hands_back_what_does_not_finish_and_the_next_start_runs_it(database_url: str) -> None:
    slow = Recorder("work", lambda *_: asyncio.sleep(30))
    async with running(database_url, slow, scheduler_grace_seconds=0.1) as (service, runtime):
        execution = await service.enqueue("work")
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.RUNNING)
        await service.drain()
        stored = runtime.history.get(execution.id)
        assert (stored.state, stored.reason, stored.owner) == (ExecutionState.PENDING, "handed_back", None)
        assert stored.failures == 0
        assert runtime.history.nodes() == []
    async with running(database_url, Recorder("work")) as (service, runtime):
        assert (await service.wait(execution.id, 10)).success
        assert len(runtime.history.attempts(execution.id)) == 2


async def test_what_was_recorded_without_a_running_scheduler_runs_at_the_next_start(database_url: str) -> None:
    async with running(database_url, Recorder("work"), start=False) as (service, _):
        execution = await service.enqueue("work")
        assert execution.owner is None
    async with running(database_url, Recorder("work")) as (service, _):
        assert (await service.wait(execution.id, 10)).success


async def test_wait_times_out_and_does_not_know_what_does_not_exist(database_url: str) -> None:
    async with running(database_url, Recorder("slow", lambda *_: asyncio.sleep(30))) as (service, _):
        execution = await service.enqueue("slow")
        with pytest.raises(TimeoutError, match="is not over after"):
            await service.wait(execution.id, 0.2)
        with pytest.raises(NotFound):
            await service.wait(10_000, 1)


async def test_bulk_writes_are_never_taken_apart(database_url: str, log_records: list[Any]) -> None:
    async with running(database_url, Recorder("work")) as (service, runtime):
        found = await asyncio.gather(*(service.enqueue("work") for _ in range(300)))
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == len(found))
    assert [r["message"] for r in log_records if "one by one" in r["message"]] == []


async def test_the_watchdog_names_the_executor_that_holds_the_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch, log_records: list[Any]
) -> None:
    monkeypatch.setattr(loop_guard, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(loop_guard, "HELD_SECONDS", 0.1)

    def hold_the_loop(*_: Any) -> None:
        time.sleep(0.6)

    async with running(database_url, Recorder("greedy", hold_the_loop, lane="loop")) as (service, _):
        await service.wait((await service.enqueue("greedy")).id, 10)
    (warning,) = [r["message"] for r in log_records if "事件循环被" in r["message"] and "greedy" in r["message"]]
    assert "hold_the_loop" in warning


async def test_a_service_without_a_factory_starts_on_an_empty_database(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First boot: the tables are made before anybody looks for tasks."""
    await _boot(Settings(database_url=empty_database_url), monkeypatch)


async def test_a_service_without_a_factory_makes_the_tables_of_pgqueuer_too(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _boot(Settings(database_url=empty_postgres_url, scheduler_engine="pgqueuer"), monkeypatch)


async def _boot(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.scheduler.runtime.get_settings", lambda: settings)
    engine = configure(settings)
    service = SchedulerService()
    service.register_executor(Recorder("work"))
    service.start()
    assert (await service.wait((await service.enqueue("work")).id, 10)).success
    await service.drain()
    engine.dispose()


@pytest.mark.parametrize("error", [KeyboardInterrupt("x"), GeneratorExit("x"), SystemExit(3)])
async def test_nothing_an_executor_raises_ends_its_lane_or_leaves_it_running(
    sqlite_url: str, error: BaseException
) -> None:
    work = Recorder("work", fail_with(error))
    async with running(sqlite_url, work, Recorder("next"), scheduler_concurrency=1) as (service, _):
        failed = await service.wait((await service.enqueue("work")).id, 10)
        assert (failed.error or "").startswith(type(error).__name__)
        assert (await service.wait((await service.enqueue("next")).id, 10)).success


async def test_a_db_that_is_no_session_is_refused_by_name(sqlite_url: str) -> None:
    async with running(sqlite_url, Recorder("work")) as (service, runtime):
        with pytest.raises(InvalidRequest, match="db: db is a Session or an AsyncSession, not int"):
            await service.enqueue("work", db=5)  # type: ignore[arg-type]
        assert runtime.history.page() == []


@pytest.mark.parametrize("value", [float("nan"), object()])
async def test_a_task_is_not_run_with_params_that_are_no_json(sqlite_url: str, value: object) -> None:
    async with running(sqlite_url, Recorder("work")) as (service, runtime):
        task = runtime.tasks.create(runtime.definition({"name": "daily", "task_type": "work"}))
        with pytest.raises(InvalidRequest, match="params must be JSON"):
            await service.run_now(task.id, {"n": value})
        assert runtime.history.page() == []


async def test_params_that_hold_themselves_are_refused(sqlite_url: str) -> None:
    """Whoever looks through them for secrets comes to an end."""
    around: dict[str, Any] = {"password": ["a"]}
    around["again"] = [around]
    async with running(sqlite_url, Recorder("work"), HttpRequestExecutor()) as (service, runtime):
        task = runtime.tasks.create(runtime.definition({"name": "daily", "task_type": "work"}))
        with pytest.raises(InvalidRequest, match="params must be JSON"):
            await service.enqueue("work", around)
        with pytest.raises(InvalidRequest, match="params must be JSON"):
            await service.run_now(task.id, around)
        with pytest.raises(InvalidParameters):
            await service.enqueue("http_request", around)
        assert runtime.history.page() == []
