"""What a step writes through `db` is committed with it or gone with it, whatever runs beside it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text

from app.core.errors import InvalidRequest
from app.models.content import Account
from app.models.task_execution import ExecutionState
from app.scheduler.context import CurrentExecution, current_execution
from app.services.scheduler_service import TaskExecutionResult
from tests.support import Recorder, ended, running

Outcome = tuple[list[str], list[str], Any]
"""Rows, names of stored steps, and what the executor returned of each step."""
IN_COMPANY = "wrote through db while another step ran"


@pytest.fixture(params=["thread", "loop"])
def lane(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


async def carried_out(database_url: str, lane: str, work: Callable[[CurrentExecution, Any], Any]) -> Outcome:
    async def run(_: int, __: Any, db: Any) -> TaskExecutionResult:
        outcomes = await work(current_execution(), db)
        return TaskExecutionResult.success_result("完成", data={"of": [str(outcome) for outcome in outcomes]})

    async with running(database_url, Recorder("work", run, lane=lane)) as (service, runtime):
        execution = await service.enqueue("work")
        stored = await ended(runtime, execution.id)
        assert stored.state is ExecutionState.SUCCESS, stored.error
        with runtime.sessions() as session:
            rows = list(session.scalars(select(Account.name).order_by(Account.id)))
        steps = [step.name for step in runtime.history.steps(execution.id)]
        return rows, steps, stored.result["data"]["of"]


def insert(db: Any, name: str) -> None:
    db.execute(text("INSERT INTO accounts (name) VALUES (:name)"), {"name": name})


def insert_beside_the_session(db: Any, name: str) -> None:
    db.connection().execute(text("INSERT INTO accounts (name) VALUES (:name)"), {"name": name})


def add(db: Any, name: str) -> None:
    db.add(Account(name=name))


def add_and_flush(db: Any, name: str) -> None:
    add(db, name)
    db.flush()


WRITES = pytest.mark.parametrize("write", [insert, insert_beside_the_session, add, add_and_flush])


@WRITES
async def test_a_step_that_writes_beside_another_is_refused_and_the_other_is_stored(
    database_url: str, lane: str, write: Callable[[Any, str], None]
) -> None:
    told: list[BaseException] = []

    async def work(me: CurrentExecution, db: Any) -> Any:
        async def writes() -> str:
            await asyncio.sleep(0.05)
            try:
                write(db, "one")
            except InvalidRequest as error:
                told.append(error)
            await asyncio.sleep(0.2)
            return "wrote"

        async def reads() -> Any:
            db.execute(text("SELECT 1"))
            await asyncio.sleep(0.1)
            return db.scalar(text("SELECT count(*) FROM accounts"))

        return await asyncio.gather(me.step("writes", writes), me.step("reads", reads), return_exceptions=True)

    rows, steps, (wrote, read) = await carried_out(database_url, lane, work)
    assert (rows, steps, read) == ([], ["reads"], "0")
    assert IN_COMPANY in wrote
    assert IN_COMPANY in str(told[0])


@pytest.mark.parametrize("reads", [True, False])
async def test_a_statement_that_fails_harms_no_step_beside_it(
    database_url: str, lane: str, *, reads: bool
) -> None:
    """PostgreSQL answers nothing more in its transaction."""

    async def work(me: CurrentExecution, db: Any) -> Any:
        tries: list[str] = []

        async def fails_once() -> Any:
            await asyncio.sleep(0.05)
            tries.append("one")
            return db.scalar(text("SELECT nothing" if len(tries) == 1 else "SELECT 7"))

        async def other() -> str:
            if reads:
                db.scalar(text("SELECT 1"))
            await asyncio.sleep(0.2)
            return str(db.scalar(text("SELECT 1"))) if reads else "slept"

        return await asyncio.gather(me.step("fails once", fails_once, retries=1), me.step("other", other))

    _, steps, outcomes = await carried_out(database_url, lane, work)
    assert sorted(steps) == ["fails once", "other"]
    assert outcomes == ["7", "1" if reads else "slept"]


@WRITES
@pytest.mark.parametrize("fails", [True, False])
async def test_a_step_that_has_written_is_refused_when_another_begins_and_nothing_of_it_stays(
    database_url: str, lane: str, write: Callable[[Any, str], None], *, fails: bool
) -> None:
    async def work(me: CurrentExecution, db: Any) -> Any:
        async def writes() -> str:
            write(db, "one")
            await asyncio.sleep(0.3)
            write(db, "two")
            return "wrote"

        async def other() -> Any:
            if fails:
                raise ConnectionError("not now")
            return "done"

        async def later() -> Any:
            await asyncio.sleep(0.1)
            return await me.step("other", other)

        return await asyncio.gather(me.step("writes", writes), later(), return_exceptions=True)

    rows, steps, (wrote, other) = await carried_out(database_url, lane, work)
    assert (rows, steps) == ([], [] if fails else ["other"])
    assert other == ("not now" if fails else "done")
    assert IN_COMPANY in wrote


async def test_a_failing_step_takes_nothing_of_another_with_it(database_url: str, lane: str) -> None:
    """The other writes as soon as it is alone."""

    async def work(me: CurrentExecution, db: Any) -> Any:
        async def fails() -> None:
            await asyncio.sleep(0.1)
            raise ConnectionError("not now")

        async def writes() -> str:
            await asyncio.sleep(0.2)
            insert(db, "one")
            await asyncio.sleep(0.1)
            add(db, "two")
            return "wrote"

        return await asyncio.gather(me.step("fails", fails), me.step("writes", writes), return_exceptions=True)

    rows, steps, outcomes = await carried_out(database_url, lane, work)
    assert (rows, steps, outcomes) == (["one", "two"], ["writes"], ["not now", "wrote"])


async def test_a_changed_object_nobody_owns_is_stored_with_no_step(database_url: str, lane: str) -> None:
    async def work(me: CurrentExecution, db: Any) -> Any:
        await me.step("made", add, db, "before")

        async def changes() -> str:
            await asyncio.sleep(0.05)
            db.scalars(select(Account)).one().name = "after"
            await asyncio.sleep(0.2)
            return "changed"

        async def other() -> str:
            await asyncio.sleep(0.1)
            return "done"

        return await asyncio.gather(me.step("a", changes), me.step("b", other), return_exceptions=True)

    rows, steps, outcomes = await carried_out(database_url, lane, work)
    assert (rows, steps) == (["before"], ["made"])
    assert all("one of the steps 'a', 'b' wrote through db" in outcome for outcome in outcomes)


async def test_a_step_whose_writes_others_roll_back_is_not_stored(database_url: str, lane: str) -> None:
    async def work(me: CurrentExecution, db: Any) -> Any:
        async def writes() -> str:
            insert(db, "one")
            await asyncio.sleep(0.2)
            insert(db, "two")
            return "wrote"

        async def code() -> None:
            await asyncio.sleep(0.1)
            db.rollback()

        return await asyncio.gather(me.step("writes", writes), code(), return_exceptions=True)

    rows, steps, (wrote, _) = await carried_out(database_url, lane, work)
    assert (rows, steps) == ([], [])
    assert "was rolled back by other code" in wrote


async def test_a_step_may_roll_back_what_it_wrote_itself(database_url: str, lane: str) -> None:
    async def work(me: CurrentExecution, db: Any) -> Any:
        def writes() -> str:
            insert(db, "one")
            db.rollback()
            with db.begin_nested():
                insert(db, "two")
            return "wrote"

        return [await me.step("writes", writes)]

    assert await carried_out(database_url, lane, work) == (["two"], ["writes"], ["wrote"])


async def test_a_commit_in_a_step_that_has_written_is_refused(database_url: str, lane: str) -> None:
    tries = 0

    async def work(me: CurrentExecution, db: Any) -> Any:
        def writes() -> str:
            nonlocal tries
            tries += 1
            db.scalar(text("SELECT 1"))
            db.commit()
            insert(db, "one")
            if tries == 1:
                db.commit()
            return "wrote"

        return [await me.step("writes", writes, retries=1)]

    assert await carried_out(database_url, lane, work) == (["one"], ["writes"], ["wrote"])
    assert tries == 2


async def test_what_a_cancelled_step_wrote_is_gone_and_the_next_one_is_not_blamed(
    database_url: str, lane: str
) -> None:
    async def work(me: CurrentExecution, db: Any) -> Any:
        async def slow() -> None:
            insert(db, "one")
            await asyncio.sleep(60)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await me.step("slow", slow)
        return [await me.step("next", lambda: insert(db, "two"))]

    assert await carried_out(database_url, lane, work) == (["two"], ["next"], ["None"])


async def test_steps_that_write_and_do_not_wait_may_be_gathered(database_url: str, lane: str) -> None:
    async def work(me: CurrentExecution, db: Any) -> Any:
        return await asyncio.gather(*(me.step(name, insert, db, name) for name in "abc"))

    rows, steps, _ = await carried_out(database_url, lane, work)
    assert (rows, sorted(steps)) == (["a", "b", "c"], ["a", "b", "c"])


async def test_nothing_of_an_attempt_stays_in_memory(database_url: str, lane: str) -> None:
    seen: list[weakref.ref[Any]] = []

    async def work(me: CurrentExecution, db: Any) -> Any:
        seen.append(weakref.ref(db))
        return await asyncio.gather(*(me.step(name, insert, db, name) for name in "abc"))

    await carried_out(database_url, lane, work)
    gc.collect()
    assert seen[0]() is None
