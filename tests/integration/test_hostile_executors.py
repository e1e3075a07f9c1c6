"""Executors that break what they were asked to keep: their attempt ends, and nobody else suffers."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from typing import Any

import pytest
from loguru import logger
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from app.core.errors import InvalidRequest
from app.core.jsonable import LARGEST_RESULT
from app.models.task_execution import ExecutionState
from app.scheduler.context import current_execution
from app.services.scheduler_service import SchedulerService, TaskExecutionResult
from tests.support import Recorder, ended, running, until

LANES = pytest.mark.parametrize("lane", ["thread", "loop"])
ACCOUNT = "INSERT INTO accounts (name) VALUES ('mine')"


def accounts(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT name FROM accounts ORDER BY id")))


@pytest.mark.parametrize("duration", ["long", True, float("nan"), float("inf"), -1.0, [1]])
async def test_a_duration_that_is_no_duration_is_the_executors_failure(database_url: str, duration: Any) -> None:
    executor = Recorder("work", lambda *_: TaskExecutionResult.success_result("好", duration=duration))
    async with running(database_url, executor) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work")).id)
        assert found.state is ExecutionState.FAILED
        assert "duration" in (found.error or "") or "seconds" in (found.error or "")
        assert isinstance(found.duration_seconds, float)


@pytest.mark.parametrize(("field", "value"), [("message", 7), ("error", 7), ("metadata", None), ("success", 1)])
async def test_a_result_with_a_field_of_another_type_names_it(field: str, value: Any) -> None:
    result = TaskExecutionResult.success_result("好")
    setattr(result, field, value)
    service = SchedulerService()
    service.register_executor(Recorder("work", lambda *_: result))
    outcome = await service.execute_task(1, "work", {}, None)  # type: ignore[arg-type]
    assert not outcome.success
    assert field in (outcome.error or "")


@pytest.mark.parametrize("code", ["invalid_params", "unknown_executor"])
async def test_an_executors_own_metadata_does_not_park_its_execution(database_url: str, code: str) -> None:
    executor = Recorder(
        "work", lambda *_: TaskExecutionResult.failure_result("no", "Refused: upstream", metadata={"code": code})
    )
    async with running(database_url, executor) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work")).id)
        assert found.state is ExecutionState.FAILED
        assert found.result is not None
        assert found.result["metadata"] == {"code": code}
        assert len(executor.calls) == 1


@LANES
async def test_a_task_left_behind_cannot_use_the_session_and_the_database_stays_free(
    database_url: str, lane: str
) -> None:
    caught: list[BaseException] = []
    go = threading.Event()

    def leave_a_thread(_: int, __: Any, db: Session) -> None:
        db.execute(text("SELECT 1"))

        def later() -> None:
            go.wait(10)
            try:
                db.execute(text(ACCOUNT))
            except InvalidRequestError as error:
                caught.append(error)

        threading.Thread(target=later).start()

    async with running(database_url, Recorder("work", leave_a_thread, lane=lane)) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work")).id)
        assert found.state is ExecutionState.SUCCESS
        go.set()
        await until(lambda: caught)
        with runtime.engine.begin() as connection:
            connection.execute(text("INSERT INTO accounts (name) VALUES ('another')"))
        assert accounts(runtime.engine) == ["another"]


async def test_a_session_that_the_executor_never_used_is_closed_for_good_too(database_url: str) -> None:
    kept: list[Session] = []
    async with running(database_url, Recorder("work", lambda _, __, db: kept.append(db))) as (service, runtime):
        await ended(runtime, (await service.enqueue("work")).id)
        with pytest.raises(Exception, match=r"bind|closed"):
            kept[0].execute(text(ACCOUNT))


async def test_a_task_left_behind_on_a_thread_lane_is_cancelled_and_named(
    database_url: str, log_records: list[Any]
) -> None:
    ends: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def leave_one(*_: Any) -> None:
        task = asyncio.create_task(forever(), name="my-stray")
        await asyncio.sleep(0)
        assert not task.done()

    async with running(database_url, Recorder("work", leave_one)) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work")).id)
        assert found.state is ExecutionState.SUCCESS
        await until(lambda: ends)
    assert any("my-stray" in record["message"] and record["level"].name == "WARNING" for record in log_records)


HIDDEN_WRITES = [
    "WITH one(n) AS (SELECT 'hidden') INSERT INTO accounts (name) SELECT n FROM one",
    "/* a note */ INSERT INTO accounts (name) VALUES ('hidden')",
    "-- a note\nINSERT INTO accounts (name) VALUES ('hidden')",
    "\n  with x as (select 1)\n  update accounts set name = 'hidden'",
]


@pytest.mark.parametrize("statement", HIDDEN_WRITES)
async def test_what_a_failed_attempt_wrote_in_any_words_is_rolled_back(database_url: str, statement: str) -> None:
    def write_and_fail(_: int, __: Any, db: Session) -> TaskExecutionResult:
        db.execute(text(statement))
        return TaskExecutionResult.failure_result("no", "Refused: changed my mind")

    def write(_: int, __: Any, db: Session) -> None:
        db.execute(text(statement))

    executors = [Recorder("fails", write_and_fail), Recorder("writes", write)]
    async with running(database_url, *executors) as (service, runtime):
        with runtime.engine.begin() as connection:
            connection.execute(text(ACCOUNT))
        assert (await ended(runtime, (await service.enqueue("fails")).id)).state is ExecutionState.FAILED
        assert accounts(runtime.engine) == ["mine"]
        assert (await ended(runtime, (await service.enqueue("writes")).id)).state is ExecutionState.SUCCESS
        assert "hidden" in accounts(runtime.engine)


def test_a_read_with_a_common_table_expression_takes_no_write_lock(sqlite_url: str, engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(
            text("WITH deleted(update_count) AS (SELECT replace('insert', 'a', 'b')) SELECT * FROM deleted")
        )
        driver = connection.connection.driver_connection
        assert driver is not None
        assert engine.dialect.name != "sqlite" or not driver.in_transaction


async def test_what_waits_runs_on_although_every_lane_was_given_up(sqlite_url: str) -> None:
    release = threading.Event()
    block = Recorder("block", lambda *_: release.wait(30) and None, timeout_seconds=0.2)
    async with running(sqlite_url, block, Recorder("work"), scheduler_concurrency=2) as (service, runtime):
        stuck = [(await service.enqueue("block")).id for _ in range(2)]
        await until(lambda: len(block.calls) == 2)
        waiting = [(await service.enqueue("work")).id for _ in range(3)]
        for execution_id in waiting:
            assert (await ended(runtime, execution_id)).state is ExecutionState.SUCCESS
        for execution_id in stuck:
            assert (await ended(runtime, execution_id)).reason == "timeout"
        release.set()


async def test_a_commit_on_the_loop_lane_is_not_torn_by_a_cancellation(database_url: str) -> None:
    """The application's loop may be cancelled from outside while the commit is under way in a thread."""
    committing, proceed = threading.Event(), threading.Event()

    def write(_: int, __: Any, db: Session) -> None:
        db.execute(text(ACCOUNT))

        @event.listens_for(db, "before_commit")
        def hold(_: Session) -> None:
            committing.set()
            proceed.wait(10)

    async with running(database_url, Recorder("work", write, lane="loop")) as (service, runtime):
        execution = await service.enqueue("work")
        await until(committing.is_set)
        (attempt,) = runtime.live.runner.running.values()  # type: ignore[union-attr]
        attempt.task.cancel()
        await asyncio.sleep(0.05)
        attempt.task.cancel()
        proceed.set()
        found = await ended(runtime, execution.id)
        assert found.state is ExecutionState.SUCCESS
        assert accounts(runtime.engine) == ["mine"]


def test_an_attempt_whose_loop_is_gone_is_handed_back(sqlite_url: str) -> None:
    """An application's loop that is closed without a shutdown: what ran on it starts again elsewhere."""
    started = threading.Event()

    async def wait(*_: Any) -> None:
        started.set()
        await asyncio.sleep(3600)

    async def begin() -> tuple[Any, int]:
        context = running(sqlite_url, Recorder("work", wait, lane="loop"))
        _, runtime = await context.__aenter__()
        execution = await runtime.service.enqueue("work")
        await until(started.is_set)
        return (context, runtime), execution.id

    loop = asyncio.new_event_loop()
    (context, runtime), execution_id = loop.run_until_complete(begin())
    (attempt,) = runtime.live.runner.running.values()
    attempt.task.get_coro().close()
    runtime.journal.flush()
    found = runtime.history.get(execution_id)
    assert (found.state, found.owner) == (ExecutionState.PENDING, None)
    attempt.task._log_destroy_pending = False
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()
    del attempt
    gc.collect()


class _Slow(Recorder):
    """Looks at params until the loop says so, which it can only while nobody holds it."""

    def __init__(self, task_type: str) -> None:
        super().__init__(task_type)
        self.looks, self.seen = threading.Event(), threading.Event()

    def validate_params(self, task_params: dict[str, Any]) -> bool:
        self.looks.set()
        return self.seen.wait(10)


async def test_an_executor_that_takes_its_time_to_look_at_params_does_not_hold_the_loop(database_url: str) -> None:
    slow = _Slow("slow")
    slow.seen.set()
    async with running(database_url, slow) as (service, runtime):
        task = runtime.tasks.create(runtime.definition({"name": "slow", "task_type": "slow"}))
        for request in (service.enqueue("slow"), service.run_now(task.id)):
            slow.looks.clear()
            slow.seen.clear()
            asked = asyncio.ensure_future(request)
            await until(slow.looks.is_set)
            assert not asked.done()
            slow.seen.set()
            await asked
            assert (await ended(runtime, asked.result().id)).state is ExecutionState.SUCCESS


def _nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


async def test_whatever_depth_is_stored_can_be_read_again(sqlite_url: str) -> None:
    async def waits(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        payload = await current_execution().wait_for_signal("word")
        return TaskExecutionResult.success_result("好", data={"payload": payload})

    def deep(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        return TaskExecutionResult.success_result(
            "好", data={"x": _nested(params["levels"])}, metadata={"levels": 1}
        )

    async with running(sqlite_url, Recorder("deep", deep), Recorder("waits", waits)) as (service, runtime):
        ids = []
        for levels in range(180, 204):
            ids.append((await service.enqueue("deep", {"levels": levels})).id)
            waiting = await service.enqueue("waits")
            ids.append(waiting.id)
            with suppress(InvalidRequest):
                await service.signal(waiting.id, "word", _nested(levels))
                continue
            await service.cancel(waiting.id)
        for execution_id in ids:
            await ended(runtime, execution_id)
            runtime.history.steps(execution_id)
        assert len(runtime.history.page(limit=100)) == len(ids)


async def test_what_an_executor_says_is_kept_to_a_bearable_length(sqlite_url: str) -> None:
    def shout(*_: Any) -> TaskExecutionResult:
        current_execution().progress(0.5, "p" * 1_000_000)
        current_execution().log("l" * 1_000_000)
        raise ValueError("e" * 1_000_000)

    async with running(sqlite_url, Recorder("work", shout)) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work", max_attempts=1)).id)
        (attempt,), lines = runtime.history.attempts(found.id), runtime.history.logs(found.id)
    longest = {
        16_100: [line.message for line in lines],
        1_100: [found.progress_message],
        64_100: [found.message, found.error, attempt.message, attempt.error, attempt.traceback],
        130_000: [str(found.result)],
    }
    for most, said in longest.items():
        assert all(text is not None and len(text) <= most for text in said)
    assert str(found.error).endswith("characters left out)")


async def test_a_result_that_is_too_large_is_left_out_and_the_work_is_not_done_again(
    database_url: str,
) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="ERROR")
    large = Recorder(
        "work", lambda *_: TaskExecutionResult.success_result("好", data={"text": "x" * LARGEST_RESULT})
    )
    async with running(database_url, large) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work", max_attempts=3)).id)
    assert (found.state, found.message, len(large.calls)) == (ExecutionState.SUCCESS, "好", 1)
    logger.remove(sink)
    told = found.result["data"]
    assert (told["too_large"], told["at_most"], told["bytes"] > LARGEST_RESULT) == (True, LARGEST_RESULT, True)
    assert any("超过上限" in line and str(told["bytes"]) in line for line in lines)


@pytest.mark.parametrize("fraction", ["half", None, float("nan"), -0.1, 2])
async def test_a_progress_that_is_none_is_refused_in_a_sentence(sqlite_url: str, fraction: Any) -> None:
    executor = Recorder("work", lambda *_: current_execution().progress(fraction))
    async with running(sqlite_url, executor) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work", max_attempts=1)).id)
    assert "ValueError: progress must be a number between 0 and 1" in (found.error or "")
