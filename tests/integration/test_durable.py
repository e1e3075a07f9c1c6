"""Durable executions: what is stored is not done again, what waits holds nothing, nothing that comes is missed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from app.core.errors import Conflict, InvalidRequest, NotFound, SignalTimeout
from app.models.content import Account
from app.models.task_execution import ExecutionState
from app.scheduler.context import current_execution
from app.scheduler.rates import RateLimit
from app.scheduler.retention import prune
from app.scheduler.steps import StepKind, StepRow, Suspension
from app.services.scheduler_service import TaskExecutionResult
from tests.support import Recorder, ended, fail_with, running, until


@pytest.fixture(params=["sqlite", "postgresql", "pgqueuer"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each engine on each database it can use."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "pgqueuer": "pgqueuer_url"}[request.param]
    found: str = request.getfixturevalue(fixture)
    return found


def success(**data: Any) -> TaskExecutionResult:
    return TaskExecutionResult.success_result("完成", data=data)


async def suspended(runtime: Any, execution_id: int) -> Any:
    return await until(
        lambda: (
            execution
            if (execution := runtime.history.get(execution_id)).state is ExecutionState.SUSPENDED
            else None
        )
    )


async def test_a_retry_returns_the_stored_results_of_finished_steps(database_url: str) -> None:
    calls: list[str] = []

    def part(name: str) -> dict[str, str]:
        calls.append(name)
        if name == "b" and calls.count("b") == 1:
            raise ConnectionError("not now")
        return {"made": name}

    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        return success(parts=[await me.step(name, part, name) for name in "abc"])

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work", max_attempts=2)
        stored = await ended(runtime, execution.id)
    assert stored.state is ExecutionState.SUCCESS
    assert stored.result["data"] == {"parts": [{"made": "a"}, {"made": "b"}, {"made": "c"}]}
    assert calls == ["a", "b", "b", "c"]


async def test_what_a_step_writes_is_committed_with_it_once(database_url: str) -> None:
    def write(db: Any, name: str) -> str:
        db.add(Account(name=name))
        return name

    attempts = 0

    async def work(_: int, __: Any, db: Any) -> TaskExecutionResult:
        nonlocal attempts
        attempts += 1
        me = current_execution()
        await me.step("first", write, db, "first")
        if attempts == 1:
            raise ConnectionError("after the first")
        await me.step("second", write, db, "second")
        db.add(Account(name="behind the last step"))
        return success()

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work", max_attempts=2)
        stored = await ended(runtime, execution.id)
        with runtime.sessions() as session:
            names = session.scalars(select(Account.name).order_by(Account.id)).all()
    assert stored.state is ExecutionState.SUCCESS
    assert names == ["first", "second", "behind the last step"]


async def test_a_sleep_holds_nothing_and_the_execution_goes_on_when_it_is_over(database_url: str) -> None:
    async def work(*_: Any) -> TaskExecutionResult:
        await current_execution().sleep(1)
        return success()

    recorder = Recorder("work", work)
    async with running(database_url, recorder) as (service, runtime):
        execution = await service.enqueue("work")
        waiting = await suspended(runtime, execution.id)
        assert waiting.owner is None
        assert not runtime.live.runner.running
        stored = await ended(runtime, execution.id)
        attempts = runtime.history.attempts(execution.id)
    assert stored.state is ExecutionState.SUCCESS
    assert [(attempt.status, attempt.reason) for attempt in attempts] == [
        ("success", "suspended"),
        ("success", None),
    ]
    assert len(recorder.calls) == 2


async def test_going_on_after_a_wait_takes_no_token_of_a_rate_limit(database_url: str) -> None:
    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        await me.sleep(0.1)
        await me.call("child", "child")
        return success(word=await me.wait_for_signal("word"))

    recorder = Recorder("work", work, rate_limit=RateLimit(1, per_seconds=3600))
    async with running(database_url, recorder, Recorder("child")) as (service, runtime):
        execution = await service.enqueue("work")
        await service.signal(execution.id, "word", "go")
        stored = await ended(runtime, execution.id)
        other = await service.enqueue("work")
        await until(lambda: runtime.history.get(other.id).reason == "rate_limited")
    assert stored.result["data"] == {"word": "go"}


async def test_a_signal_wakes_who_waits_for_it_and_waits_for_who_does_not(database_url: str) -> None:
    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        return success(got=[await me.wait_for_signal("word") for _ in range(3)])

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await suspended(runtime, execution.id)
        await service.signal(execution.id, "other", "nobody waits for it")
        await service.signal(execution.id, "word", 1)
        await service.signal(execution.id, "word", {"two": 2})
        await service.signal(execution.id, "word")
        stored = await ended(runtime, execution.id)
        assert stored.result["data"] == {"got": [1, {"two": 2}, None]}
        with pytest.raises(Conflict):
            await service.signal(execution.id, "word")
        with pytest.raises(NotFound):
            await service.signal(4711, "word")
        with pytest.raises(InvalidRequest):
            await service.signal(execution.id, "")


async def test_what_is_no_id_of_an_execution_is_refused_with_a_sentence(database_url: str) -> None:
    async with running(database_url) as (service, _):
        asks = (lambda one: service.signal(one, "word"), service.cancel, service.retry, service.wait)
        for ask in asks:
            for wrong in ("1", True, 1.5, None):
                with pytest.raises(InvalidRequest, match="execution_id must be a whole number"):
                    await ask(wrong)
            for unknown in (2**70, 2**31, 0, -1):
                with pytest.raises(NotFound):
                    await ask(unknown)


async def test_a_wait_for_a_signal_ends_after_its_timeout_for_good(database_url: str) -> None:
    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        try:
            await me.wait_for_signal("word", timeout=0.5)
        except SignalTimeout as error:
            await me.sleep(0.2)
            return success(said=str(error))
        return success()

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        stored = await ended(runtime, execution.id)
    assert stored.result["data"] == {"said": "no signal 'word' within 0.5 seconds"}


async def test_children_run_on_their_own_and_their_parent_waits_for_their_ends(database_url: str) -> None:
    async def parent(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        for number in range(5):
            await me.spawn(f"child {number}", "child", {"number": number})
        await me.wait_for_children(ended=3)
        assert sum(child.is_final for child in me.children().values()) >= 3
        await me.wait_for_children()
        called = await me.call("called", "child", {"number": 100})
        failed = await me.call("failed", "child", {"number": -1})
        return success(
            numbers=[child.result["data"]["number"] for child in me.children().values() if child.result["data"]],
            called=called.data,
            failed=failed.error,
        )

    async def child(_: int, params: Any, __: Any) -> TaskExecutionResult:
        if params["number"] < 0:
            raise ValueError("negative")
        return success(number=params["number"])

    children = Recorder("child", child)
    async with running(database_url, Recorder("parent", parent), children) as (service, runtime):
        execution = await service.enqueue("parent")
        stored = await ended(runtime, execution.id)
        spawned = [one for one in runtime.history.page() if one.id != execution.id]
    assert stored.state is ExecutionState.SUCCESS, stored.error
    assert stored.result["data"] == {
        "numbers": [0, 1, 2, 3, 4, 100],
        "called": {"number": 100},
        "failed": "ValueError: negative",
    }
    assert len(children.calls) == 7
    assert {(one.parent_id, one.trigger) for one in spawned} == {(execution.id, "parent")}


async def test_who_cancels_a_parent_cancels_its_children_and_theirs(database_url: str) -> None:
    async def parent(_: int, params: Any, __: Any) -> TaskExecutionResult:
        me = current_execution()
        if params["depth"]:
            for key in "ab":
                await me.spawn(key, "parent", {"depth": params["depth"] - 1})
            await me.wait_for_children()
        await me.wait_for_signal("never")
        return success()

    async with running(database_url, Recorder("parent", parent)) as (service, runtime):
        execution = await service.enqueue("parent", {"depth": 2})
        await until(lambda: runtime.history.counts()[ExecutionState.SUSPENDED] == 7)
        assert (await service.cancel(execution.id)).state is ExecutionState.CANCELLED
        assert runtime.history.counts()[ExecutionState.CANCELLED] == 7


async def test_waits_in_tasks_of_their_own_end_the_attempt_together(database_url: str) -> None:
    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        async with asyncio.TaskGroup() as group:
            word = group.create_task(me.wait_for_signal("word"))
            group.create_task(me.sleep(0.3, name="a while"))
            made = group.create_task(me.step("made", slowly))
        return success(word=word.result(), made=made.result())

    calls = 0

    async def slowly() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        return calls

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await suspended(runtime, execution.id)
        await service.signal(execution.id, "word", "hello")
        stored = await ended(runtime, execution.id)
    assert stored.result["data"] == {"word": "hello", "made": 1}


async def test_code_that_left_the_stored_way_fails_the_execution_and_says_where(database_url: str) -> None:
    names = ["a", "b"]

    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        try:
            for name in names:
                await me.step(name, lambda: None)
            await me.sleep(0.3)
        except Exception as error:
            return TaskExecutionResult.failure_result("swallowed", str(error))
        return success()

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work", max_attempts=5)
        await suspended(runtime, execution.id)
        names[1] = "c"
        stored = await ended(runtime, execution.id)
        assert (stored.state, stored.reason) == (ExecutionState.FAILED, "replay_mismatch")
        assert "call 1 of this execution is stored as step 'b'" in stored.error
        assert "step 'c'" in stored.error
        names[1] = "b"
        await service.retry(execution.id)
        assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS


async def test_a_retry_leaves_alone_what_a_finished_child_has_got_over(database_url: str) -> None:
    is_broken = True

    async def tolerant(*_: Any) -> TaskExecutionResult:
        return success(failed=not (await current_execution().call("grandchild", "fails")).success)

    async def parent(*_: Any) -> TaskExecutionResult:
        await current_execution().call("child", "tolerant")
        if is_broken:
            raise ConnectionError("not now")
        return success()

    fails = Recorder("fails", fail_with(ValueError("no")))
    async with running(database_url, fails, Recorder("tolerant", tolerant), Recorder("parent", parent)) as (
        service,
        runtime,
    ):
        execution = await service.enqueue("parent")
        assert (await ended(runtime, execution.id)).state is ExecutionState.FAILED
        (child,) = runtime.history.children(execution.id)
        (grandchild,) = runtime.history.children(child.id)
        is_broken = False
        await service.retry(execution.id)
        assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS
        assert runtime.history.get(grandchild.id) == grandchild
    assert len(fails.calls) == 1


async def test_a_retry_leaves_alone_a_called_child_that_the_code_has_gone_on_from(database_url: str) -> None:
    is_broken = True

    async def child(*_: Any) -> TaskExecutionResult:
        if is_broken:
            raise ValueError("no")
        return success()

    async def parent(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        answers = [(await me.call(key, "child")).error for key in "ab"]
        if is_broken:
            raise ConnectionError("not now")
        return success(answers=answers)

    async with running(database_url, Recorder("child", child), Recorder("parent", parent)) as (service, runtime):
        execution = await service.enqueue("parent")
        assert (await ended(runtime, execution.id)).state is ExecutionState.FAILED
        is_broken = False
        await service.retry(execution.id)
        stored = await ended(runtime, execution.id)
        states = [child.state.value for child in runtime.history.children(execution.id)]
    assert stored.result["data"] == {"answers": ["ValueError: no", None]}
    assert states == ["failed", "success"]


@pytest.mark.parametrize("lane", ["thread", "loop"])
async def test_either_lane_may_step_wait_and_spawn(database_url: str, lane: str) -> None:
    async def work(_: int, params: Any, db: Any) -> TaskExecutionResult:
        me = current_execution()
        if params.get("child"):
            return success()
        await me.step("write", lambda: db.add(Account(name="written")))
        word = await me.wait_for_signal("word")
        called = await me.call("child", "work", {"child": True})
        return success(word=word, called=called.success)

    async with running(database_url, Recorder("work", work, lane=lane)) as (service, runtime):
        execution = await service.enqueue("work")
        await suspended(runtime, execution.id)
        await service.signal(execution.id, "word", "go")
        stored = await ended(runtime, execution.id)
        with runtime.sessions() as session:
            assert session.scalars(select(Account.name)).all() == ["written"]
    assert stored.result["data"] == {"word": "go", "called": True}


async def test_a_signal_in_the_callers_transaction_is_sent_with_it_or_not_at_all(database_url: str) -> None:
    async def work(*_: Any) -> TaskExecutionResult:
        return success(word=await current_execution().wait_for_signal("word"))

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await suspended(runtime, execution.id)
        with runtime.sessions() as session:
            await service.signal(execution.id, "word", "taken back", db=session)
            session.rollback()
            await service.signal(execution.id, "word", "meant", db=session)
            session.add(Account(name="approved"))
            session.commit()
        stored = await ended(runtime, execution.id)
    assert stored.result["data"] == {"word": "meant"}


async def test_what_another_node_suspended_goes_on_here(database_url: str) -> None:
    async def work(*_: Any) -> TaskExecutionResult:
        me = current_execution()
        await me.step("once", lambda: me.node)
        await me.wait_for_signal("word")
        return success(nodes=[await me.step("once more", lambda: me.node)])

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await suspended(runtime, execution.id)
        first = runtime.node_id
    async with running(database_url, Recorder("work", work)) as (service, runtime):
        await service.signal(execution.id, "word")
        stored = await ended(runtime, execution.id)
        assert runtime.node_id != first
        assert stored.result["data"] == {"nodes": [runtime.node_id]}


async def test_children_and_steps_stay_as_long_as_their_parent(database_url: str) -> None:
    async def work(_: int, params: Any, __: Any) -> TaskExecutionResult:
        me = current_execution()
        if not params:
            await me.call("child", "work", {"is": "child"})
            await me.wait_for_signal("end")
        return success(done=await me.step("done", lambda: True))

    def tomorrow(connection: Any) -> int:
        return prune(connection, now=runtime.clock.now() + timedelta(days=2), keep_days=1)

    async with running(database_url, Recorder("work", work)) as (service, runtime):
        execution = await service.enqueue("work")
        await until(lambda: runtime.history.steps(execution.id))
        await suspended(runtime, execution.id)
        assert await runtime.journal.step(tomorrow) == 0
        await service.signal(execution.id, "end")
        await ended(runtime, execution.id)
        assert await runtime.journal.step(tomorrow) == 1
        assert await runtime.journal.step(tomorrow) == 1
        with runtime.sessions() as session:
            for table in ("task_executions", "execution_steps", "execution_signals"):
                assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_what_an_execution_waits_for_is_said_in_words() -> None:
    at = datetime(2030, 1, 2, tzinfo=UTC)

    def wait(name: str, due_at: datetime | None) -> StepRow:
        return StepRow(StepKind.SIGNAL, name, 1, 1, at, due_at=due_at)

    assert (
        Suspension((wait("go", None), wait("stop", at))).sentence
        == "等待 信号 go, stop 或 2030-01-02T00:00:00+00:00"
    )
    assert Suspension(children=2).sentence == "等待 子执行累计 2 个结束"
