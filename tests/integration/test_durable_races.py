"""Waiting and waking at the same moment: whichever commits first, nothing that came is missed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from app.models.execution_step import StepKind
from app.models.task_execution import ExecutionState
from app.scheduler.attempts import FinishAttempt, finish_attempt
from app.scheduler.context import current_execution
from app.scheduler.executions import read_execution, request_cancel
from app.scheduler.steps import NEVER, Fence, RecordStep, SendSignal, StepRow, Suspension, stored_steps
from app.services.scheduler_service import TaskExecutionResult, TaskStatus
from tests.integration.test_concurrent_writes import LATER, NOW, engine, finish, overlap, store
from tests.support import Recorder, running, until

__all__ = ["engine"]


def suspend(execution_id: int, suspension: Suspension) -> FinishAttempt:
    return FinishAttempt(
        execution_id=execution_id,
        task_id=None,
        attempt=1,
        owner="sleeper",
        started_at=NOW,
        finished_at=LATER,
        duration_seconds=0.0,
        status=TaskStatus.SUCCESS,
        state=ExecutionState.SUSPENDED,
        reason="suspended",
        message=suspension.sentence,
        error=None,
        result=None,
        failures=0,
        run_at=suspension.due_at,
        suspension=suspension,
    )


def step(name: str, kind: StepKind = StepKind.STEP) -> StepRow:
    finished = None if kind is StepKind.SIGNAL else NOW
    return StepRow(kind, name, 0, 1, NOW, finished)


WORD = Suspension((step("word", StepKind.SIGNAL),))
Act = Callable[[Connection], Any]


def in_each_order(engine: Engine, first: Act, second: Act, *, is_reversed: bool) -> None:
    overlap(engine, *((second, first) if is_reversed else (first, second)))


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_signal_beside_a_suspension_wakes_it(engine: Engine, is_reversed: bool) -> None:
    runs = store(engine, state="running", owner="sleeper", attempt=1)
    in_each_order(
        engine,
        lambda c: finish_attempt(c, suspend(runs, WORD)),
        SendSignal(runs, "word", 1, None, LATER).apply,
        is_reversed=is_reversed,
    )
    with engine.begin() as connection:
        execution = read_execution(runs, connection)
    assert (execution.state, execution.run_at) == (ExecutionState.SUSPENDED, LATER)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_end_of_a_child_beside_a_suspension_wakes_its_parent(engine: Engine, is_reversed: bool) -> None:
    parent = store(engine, state="running", owner="sleeper", attempt=1)
    child = store(engine, state="running", owner="sleeper", attempt=1, parent_id=parent, child_key="it")
    ending = FinishAttempt(**{name: getattr(finish(child), name) for name in FinishAttempt.__slots__})
    ending = FinishAttempt(
        **{**{name: getattr(ending, name) for name in FinishAttempt.__slots__}, "parent_id": parent}
    )
    in_each_order(
        engine,
        lambda c: finish_attempt(c, suspend(parent, Suspension(children=1))),
        lambda c: finish_attempt(c, ending),
        is_reversed=is_reversed,
    )
    with engine.begin() as connection:
        execution = read_execution(parent, connection)
    assert execution.state is ExecutionState.SUSPENDED
    assert execution.run_at < NEVER


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_suspension_beside_a_cancellation_is_cancelled(engine: Engine, is_reversed: bool) -> None:
    runs = store(engine, state="running", owner="sleeper", attempt=1)
    in_each_order(
        engine,
        lambda c: finish_attempt(c, suspend(runs, WORD)),
        lambda c: request_cancel(c, runs, LATER),
        is_reversed=is_reversed,
    )
    with engine.begin() as connection:
        assert read_execution(runs, connection).state is ExecutionState.CANCELLED


def test_a_step_of_an_attempt_that_is_being_taken_over_is_not_stored(engine: Engine) -> None:
    from app.scheduler.nodes import rescue

    runs = store(engine, state="running", owner="sleeper", attempt=1)
    write = RecordStep(Fence(runs, "sleeper", 1), (step("draft"),))
    stored = overlap(
        engine,
        lambda c: rescue(c, "sleeper", 7, now=LATER, max_rescues=3),
        lambda c: RecordStep.apply_all(c, [write]),
    )
    assert stored == [False]
    with engine.begin() as connection:
        assert stored_steps(connection, runs) == []


def test_a_step_that_is_being_stored_is_there_for_who_takes_over(engine: Engine) -> None:
    from app.scheduler.nodes import rescue

    runs = store(engine, state="running", owner="sleeper", attempt=1)
    write = RecordStep(Fence(runs, "sleeper", 1), (step("draft"),))
    rescued = overlap(
        engine,
        lambda c: RecordStep.apply_all(c, [write]),
        lambda c: (rescue(c, "sleeper", 7, now=LATER, max_rescues=3), stored_steps(c, runs)),
    )
    assert [row.name for row in rescued[1]] == ["draft"]


@pytest.mark.timeout(180)
async def test_many_signals_and_children_at_random_moments_wake_everybody(database_url: str) -> None:
    """Two nodes: what one suspends the other wakes."""
    chance = random.Random(1)

    async def wait(_: int, params: Any, __: Any) -> TaskExecutionResult:
        me = current_execution()
        got = [await me.wait_for_signal("word") for _ in range(3)]
        await me.spawn("child", "child")
        await me.spawn("other", "child")
        await me.wait_for_children()
        return TaskExecutionResult.success_result("", data={"got": got})

    def child(*_: Any) -> None:
        current_execution()

    executors = (Recorder("wait", wait), Recorder("child", child))
    async with (
        running(database_url, *executors, scheduler_lease_seconds=30) as (service, runtime),
        running(database_url, *executors, scheduler_lease_seconds=30) as (other, _),
    ):

        async def drive(number: int) -> int:
            execution = await chance.choice((service, other)).enqueue("wait")
            for word in range(3):
                await asyncio.sleep(chance.choice((0, 0.001, 0.01, 0.05)))
                await chance.choice((service, other)).signal(execution.id, "word", word)
            return execution.id

        ids = [found for _ in range(6) for found in await asyncio.gather(*(drive(number) for number in range(20)))]
        await until(lambda: runtime.history.counts()[ExecutionState.SUCCESS] == 3 * len(ids), 90)
        for execution_id in ids:
            assert (runtime.history.get(execution_id).result or {})["data"] == {"got": [0, 1, 2]}
        with runtime.sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM execution_signals WHERE consumed_at IS NULL")) == 0
