"""The sandbox we give to users: virtual time around the production scheduler."""

from __future__ import annotations

import asyncio
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from sqlalchemy import text

from app.core.errors import InvalidRequest, SchedulerUnavailable
from app.db.database import SessionLocal
from app.models.task_execution import ExecutionState
from app.scheduler.context import current_execution
from app.services.scheduler_service import TaskExecutionResult, scheduler_service
from app.testing.clock import START, VirtualClock
from app.testing.sandbox import Sandbox
from app.testing.virtual_loop import VirtualLoop
from tests.support import Recorder, fail_with

HOUR = timedelta(hours=1)


def sleeping(seconds: float) -> Any:
    """A run that takes that long."""

    async def run(*_: Any) -> None:
        await asyncio.sleep(seconds)

    return run


# ---------------------------------------------------------------- time passes


async def test_a_nightly_task_runs_at_its_wall_time_in_its_zone(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    nightly = Recorder("nightly_job")
    box.register(nightly)
    task = box.define_task("nightly", task_type="nightly_job", cron="0 3 * * *", timezone="Asia/Shanghai")
    await box.advance(days=2)
    assert [run.scheduled_for for run in box.runs(task)] == [
        datetime(2030, 1, 7, 19, tzinfo=UTC),
        datetime(2030, 1, 8, 19, tzinfo=UTC),
    ]
    assert len(nightly.calls) == 2
    assert box.now == START + timedelta(days=2)


def test_it_works_without_an_event_loop_and_without_threads(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    threads = threading.active_count()
    seen: list[int] = []
    box.register(Recorder("work", lambda *_: seen.append(threading.get_ident())))
    box.define_task("hourly", "work", schedule={"type": "interval", "seconds": 3600})
    box.advance(days=1)
    assert set(seen) == {threading.get_ident()}
    assert len(seen) == 24
    assert threading.active_count() == threads


@pytest.mark.scheduler_sandbox(start=datetime(2030, 3, 29, tzinfo=UTC))
def test_a_daily_task_follows_the_change_of_clocks(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    task = box.define_task("daily", "work", cron="30 2 * * *", timezone="Europe/Berlin")
    box.advance(days=4)
    fires = [f"{run.scheduled_for:%d %H:%M}" for run in box.runs(task)]
    assert fires == ["29 01:30", "30 01:30", "31 01:00", "01 00:30"], "02:30 did not exist: right after the gap"


def test_years_pass_without_losing_a_microsecond(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    task = box.define_task("rare", "work", cron="0 0 1 * *")
    box.advance(days=3 * 365)
    assert len(box.runs(task)) == 36
    assert all(run.started_at == run.scheduled_for for run in box.runs(task))


def test_what_takes_time_takes_virtual_time(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work", sleeping(90 * 60)))
    execution = box.enqueue("work")
    box.advance(hours=1)
    assert box.read(execution).state is ExecutionState.RUNNING
    box.advance(hours=1)
    ended = box.read(execution)
    assert ended.state is ExecutionState.SUCCESS
    assert ended.finished_at == START + 1.5 * HOUR
    assert ended.duration_seconds is not None


def test_time_only_moves_on(scheduler_sandbox: Sandbox) -> None:
    with pytest.raises(InvalidRequest, match="only moves on"):
        scheduler_sandbox.advance(days=-1)


@pytest.mark.scheduler_sandbox(start=datetime(2031, 5, 1, tzinfo=UTC), scheduler_timezone="Asia/Tokyo")
def test_the_marker_sets_the_first_moment_and_settings(scheduler_sandbox: Sandbox) -> None:
    assert scheduler_sandbox.now == datetime(2031, 5, 1, tzinfo=UTC)
    scheduler_sandbox.register(Recorder("work"))
    assert scheduler_sandbox.define_task("t", "work", cron="0 3 * * *").timezone == "Asia/Tokyo"


# ---------------------------------------------------------------- policies


def test_a_failure_is_retried_with_backoff_and_every_attempt_is_told(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work", fail_with(ValueError("no"))))
    retry = {"max_attempts": 3, "backoff_seconds": 600, "jitter": 0}
    box.define_task("t", "work", cron="0 10 * * *", retry=retry)
    box.advance(hours=1, minutes=5)
    (run,) = box.runs()
    assert run.state is ExecutionState.RETRYING
    box.advance(hours=1)
    (run,) = box.runs("t")
    assert (run.state, run.error) == (ExecutionState.FAILED, "ValueError: no")
    assert [attempt.started_at - START for attempt in box.attempts(run)] == [HOUR, HOUR * 7 / 6, HOUR * 1.5]


def test_the_jitter_of_retries_is_that_of_the_seed(tmp_path: Path) -> None:
    def second_attempt(folder: str, seed: int) -> datetime:
        (tmp_path / folder).mkdir()
        with Sandbox.opened(tmp_path / folder, seed=seed) as box:
            box.register(Recorder("work", fail_with(ValueError("no")), max_attempts=2))
            execution = box.enqueue("work")
            box.advance(minutes=1)
            return box.attempts(execution)[1].started_at

    first = second_attempt("a", 1)
    assert second_attempt("b", 1) == first
    assert second_attempt("c", 2) != first


def test_an_attempt_past_its_time_limit_is_stopped(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work", sleeping(7200)))
    execution = box.enqueue("work", timeout_seconds=600.0)
    box.advance(minutes=11)
    ended = box.read(execution)
    assert (ended.state, ended.reason) == (ExecutionState.FAILED, "timeout")
    assert ended.finished_at == START + HOUR / 6


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [("success", None), ("skipped", "overlap"), ("running", None)]),
        ("queue", [("success", None), ("running", None), ("pending", None)]),
        ("allow", [("success", None), ("running", None), ("running", None)]),
        ("cancel_running", [("cancelled", None), ("cancelled", None), ("running", None)]),
    ],
)
def test_overlap_policies_hold(
    scheduler_sandbox: Sandbox, policy: str, expected: list[tuple[str, str | None]]
) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work", sleeping(90 * 60)))
    box.define_task("t", "work", cron="0 10-12 * * *", overlap_policy=policy)
    box.advance(hours=3, minutes=10)
    assert [(run.state.value, run.reason) for run in box.executions("t")] == expected


def test_what_came_due_while_it_was_down_follows_the_misfire_policy(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    for policy in ("latest", "all", "skip"):
        box.define_task(policy, "work", cron="0 * * * *", misfire_policy=policy)
    box.advance(minutes=1)
    box.stop()
    box.advance(hours=3, minutes=30)
    assert box.executions() == []
    box.start()
    box.advance()
    assert [len(box.runs(policy)) for policy in ("latest", "all", "skip")] == [1, 3, 0]
    assert [run.reason for run in box.executions("skip")] == ["misfire"]
    assert "misfire" in box.explain("skip", START + HOUR)


def test_a_pause_and_a_cancel_work_as_for_an_operator(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work", sleeping(7200)))
    task = box.define_task("t", "work", cron="0 * * * *")
    box.advance(hours=1)
    box.pause(task)
    (run,) = box.runs(task)
    assert box.cancel(run).state is ExecutionState.CANCELLED
    box.advance(hours=5)
    assert len(box.executions(task)) == 1
    box.resume(task)
    box.advance(hours=1)
    assert len(box.executions(task)) == 2


def test_concurrency_keys_hold(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work", sleeping(60)))
    for _ in range(3):
        box.enqueue("work", concurrency_key="account-7")
    box.advance(minutes=10)
    starts = [run.started_at - START for run in box.runs() if run.started_at is not None]
    assert starts == [timedelta(0), timedelta(minutes=1), timedelta(minutes=2)]


def test_what_no_executor_could_run_is_parked_until_one_can(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("late"))
    execution = box.enqueue("late")
    box.service._executors.clear()
    box.advance(minutes=1)
    assert box.read(execution).state is ExecutionState.PARKED
    box.register(Recorder("late"))
    box.enqueue("late")
    box.advance(minutes=1)
    assert box.read(execution).state is ExecutionState.SUCCESS


def test_a_crash_loses_what_was_written_and_the_execution_runs_again(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    with box.sessions() as session:
        session.execute(text("CREATE TABLE notes (attempt INTEGER)"))
        session.commit()

    async def write(_id: int, _params: dict[str, Any], db: Any) -> None:
        await asyncio.sleep(60)
        db.execute(text("INSERT INTO notes VALUES (:n)"), {"n": current_execution().attempt})

    box.register(Recorder("work", write))
    execution = box.enqueue("work")
    box.advance(seconds=30)
    assert box.crash() == 1
    box.advance(hours=1)
    box.start()
    box.advance(minutes=2)
    assert box.read(execution).state is ExecutionState.SUCCESS
    assert [attempt.reason for attempt in box.attempts(execution)] == ["node_lost", None]
    with box.sessions() as session:
        assert session.scalars(text("SELECT attempt FROM notes")).all() == [2]


# ---------------------------------------------------------------- what the code under test sees


async def test_the_service_is_used_from_the_tests_own_loop(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox

    async def answer(*_: Any) -> TaskExecutionResult:
        await asyncio.sleep(3600)
        return TaskExecutionResult.success_result("好", data={"answer": 42})

    box.register(Recorder("work", answer))
    here = asyncio.current_task()
    execution = await box.service.enqueue("work")
    await box.advance()
    result = await box.service.wait(execution.id)
    assert result.data == {"answer": 42}
    assert box.now == START + HOUR
    assert asyncio.current_task() is here
    task = box.define_task("t", "work", cron="0 0 1 1 *")
    run = await box.service.run_now(task.id)
    with pytest.raises(TimeoutError):
        await box.service.wait(run.id, timeout=60)
    await asyncio.sleep(0)


async def test_an_executor_may_use_the_service(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox

    async def first(*_: Any) -> TaskExecutionResult:
        execution = await box.service.enqueue("second")
        return await box.service.wait(execution.id)

    box.register(Recorder("first", first), Recorder("second", sleeping(5)))
    execution = box.enqueue("first")
    await box.advance(minutes=1)
    assert box.read(execution).state is ExecutionState.SUCCESS


def test_tasks_declared_in_code_are_there_from_the_first_step(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    box.register(Recorder("work"))
    box.service.define_task("declared", "work", schedule="0 10 * * *")
    box.advance(hours=2)
    assert len(box.runs("declared")) == 1


@pytest.mark.parametrize("lane", ["thread", "loop"])
def test_log_lines_and_writes_are_kept_on_both_lanes(scheduler_sandbox: Sandbox, lane: str) -> None:
    box = scheduler_sandbox
    with box.sessions() as session:
        session.execute(text("CREATE TABLE notes (word TEXT)"))
        session.commit()

    async def run(_id: int, _params: dict[str, Any], db: Any) -> None:
        logger.info("before")
        await asyncio.sleep(60)
        logger.info("after")
        db.execute(text("INSERT INTO notes VALUES ('kept')"))

    box.register(Recorder("work", run, lane=lane))
    execution = box.enqueue("work")
    box.advance(seconds=1)
    assert [line.message for line in box.logs(execution)] == ["before"]
    box.advance(minutes=2)
    assert [line.message for line in box.logs(execution)] == ["before", "after"]
    with box.sessions() as session:
        assert session.scalars(text("SELECT word FROM notes")).all() == ["kept"]


def test_a_write_held_across_an_await_delays_the_journal_and_is_named_to_others(
    scheduler_sandbox: Sandbox,
) -> None:
    box = scheduler_sandbox
    with box.sessions() as session:
        session.execute(text("CREATE TABLE notes (word TEXT)"))
        session.commit()

    async def hold(_id: int, _params: dict[str, Any], db: Any) -> None:
        db.execute(text("INSERT INTO notes VALUES ('early')"))
        await asyncio.sleep(10)

    box.register(Recorder("hold", hold), Recorder("quick"))
    held = box.enqueue("hold")
    box.advance(seconds=1)
    with pytest.raises(SchedulerUnavailable, match="write last"):
        asyncio.run(box.service.enqueue("quick"))
    quick = box.enqueue("quick")
    box.advance(seconds=10)
    assert box.read(held).state is ExecutionState.SUCCESS
    assert box.read(quick).state is ExecutionState.SUCCESS


def test_fires_and_claims_are_made_up_after_a_lock_held_for_long(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    with box.sessions() as session:
        session.execute(text("CREATE TABLE notes (word TEXT)"))
        session.commit()

    async def hold(_id: int, _params: dict[str, Any], db: Any) -> None:
        db.execute(text("INSERT INTO notes VALUES ('early')"))
        await asyncio.sleep(300)

    box.register(Recorder("hold", hold), Recorder("work"))
    box.enqueue("hold")
    later = box.enqueue("work", run_at=START + timedelta(seconds=30))
    task = box.define_task("minutely", "work", cron="* * * * *")
    box.advance(minutes=10)
    assert box.read(later).state is ExecutionState.SUCCESS
    fires = [run.scheduled_for - START for run in box.runs(task) if run.scheduled_for is not None]
    assert fires[-5:] == [timedelta(minutes=minute) for minute in range(6, 11)]
    assert sum(run.fire_count for run in box.executions(task)) == 10


# ---------------------------------------------------------------- alone in its process


def test_two_sandboxes_and_the_singleton_do_not_disturb_each_other(tmp_path: Path) -> None:
    before = (scheduler_service.get_registered_executors(), SessionLocal.kw["bind"])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Sandbox.opened(tmp_path / "a") as one, Sandbox.opened(tmp_path / "b") as other:
        for box in (one, other):
            box.register(Recorder("work", lambda *_: logger.info("a line")))
            box.define_task("t", "work", cron="0 * * * *")
        one.advance(hours=5)
        other.advance(hours=2)
        assert (len(one.runs()), len(other.runs())) == (5, 2)
        assert [len(box.logs(box.runs()[0])) for box in (one, other)] == [1, 1]
        assert one.now - other.now == 3 * HOUR
    assert (scheduler_service.get_registered_executors(), SessionLocal.kw["bind"]) == before
    assert not scheduler_service.is_running


def test_what_nothing_can_bring_about_is_said_instead_of_waited_for(scheduler_sandbox: Sandbox) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nobody sets"):
        scheduler_sandbox._loop.complete(forever())


async def test_real_sockets_are_waited_for(scheduler_sandbox: Sandbox) -> None:
    box = scheduler_sandbox
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello\n")

    async def speak(*_: Any) -> TaskExecutionResult:
        reader, writer = await asyncio.open_connection(*server.getsockname())
        threading.Timer(0.05, answer).start()
        line = await reader.readline()
        writer.close()
        return TaskExecutionResult.success_result(line.decode().strip())

    box.register(Recorder("work", speak))
    execution = box.enqueue("work", timeout_seconds=60.0)
    await box.advance(minutes=5)
    server.close()
    assert box.read(execution).message == "hello"


def test_a_virtual_hour_takes_no_time() -> None:
    clock = VirtualClock()
    loop = VirtualLoop(clock)
    loop.complete(asyncio.sleep(3600))
    loop.close()
    assert clock.now() == START + HOUR


async def test_a_failed_result_that_asks_for_patience_is_tried_again_when_it_is_over(
    scheduler_sandbox: Sandbox,
) -> None:
    box = scheduler_sandbox
    busy = {"retry_after_seconds": 600}
    box.register(Recorder("busy", lambda *_: TaskExecutionResult.failure_result("busy", metadata=busy)))
    run = box.enqueue("busy", max_attempts=3)
    await box.advance(hours=1)
    first, second, third = (attempt.started_at for attempt in box.attempts(run))
    assert [second - first, third - second] == [timedelta(seconds=600)] * 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strat": START}, "strat: give start, seed and fields of Settings"),
        ({"start": "2030-01-01"}, "start is a datetime with a time zone, not '2030-01-01'"),
        ({"start": datetime(2030, 1, 1)}, "start is a datetime with a time zone"),  # noqa: DTZ001 - what is refused
    ],
)
def test_an_option_of_the_marker_that_is_wrong_is_refused(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence), Sandbox.opened(tmp_path, **options):
        pytest.fail("it was opened")
