"""Workflows on real databases: what runs after what, what is kept, what is undone, and how all of it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from app.core.config import Settings
from app.core.errors import Conflict, InvalidParameters
from app.core.jsonable import size_of
from app.db.database import make_engine
from app.models.task_execution import ExecutionState
from app.scheduler.context import find_current_execution
from app.services.scheduler_service import TaskExecutionResult
from app.workflows import chain, group, start, step
from app.workflows.approvals import Approvals, Via
from tests.integration.workflow_support import child, workflows
from tests.support import Recorder, ended, fail_with, until


@contextmanager
def another(database_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=database_url))
    yield engine
    engine.dispose()


async def test_steps_run_in_order_with_the_results_of_those_before(database_url: str) -> None:
    first = step("work", {"n": "{{ input.n + 1 }}"}, id="first")
    second = step("work", {"n": first.output("n"), "text": "n is {{ steps.first.data.n }}"}, id="second")
    async with workflows(database_url) as (service, runtime):
        execution = await start(chain(first, second), {"n": 1}, service=service)
        stored = await ended(runtime, execution.id)
        children = runtime.history.children(execution.id)
    assert stored.state is ExecutionState.SUCCESS, stored.error
    assert stored.message == "工作流完成: 2 步"
    assert [(one.child_key, one.params) for one in children] == [
        ("first", {"n": 2}),
        ("second", {"n": 2, "text": "n is 2"}),
    ]
    assert stored.result["data"]["steps"]["second"]["data"] == {"n": 2, "text": "n is 2"}


async def test_a_group_runs_side_by_side_and_what_follows_waits_for_all(database_url: str) -> None:
    flow = chain(
        group(step("work", {"n": 1}, id="a"), step("work", {"n": 2}, id="b")),
        step("work", {"all": "{{ [steps.a.data.n, steps.b.data.n] }}"}, id="c"),
    )
    async with workflows(database_url) as (service, runtime):
        execution = await start(flow, service=service)
        stored = await ended(runtime, execution.id)
    assert stored.result["data"]["steps"]["c"]["data"] == {"all": [1, 2]}


async def test_a_fan_out_runs_every_item_once_and_never_more_than_its_limit(database_url: str) -> None:
    running: set[int] = set()
    most = 0

    async def work(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        nonlocal most
        import asyncio

        running.add(params["n"])
        most = max(most, len(running))
        await asyncio.sleep(0.02)
        running.discard(params["n"])
        return TaskExecutionResult.success_result("好", data={"n": params["n"] * 2})

    flow = chain(
        step("double", {"n": "{{ item }}"}, id="each", for_each="input.numbers", limit=2),
        step("work", {"sum": "{{ steps.each.data|map('n')|sum }}"}, id="sum"),
    )
    async with workflows(database_url, Recorder("double", work)) as (service, runtime):
        execution = await start(flow, {"numbers": list(range(7))}, service=service)
        stored = await ended(runtime, execution.id, seconds=30)
        keys = [one.child_key for one in runtime.history.children(execution.id)]
    assert stored.result["data"]["steps"]["sum"]["data"] == {"sum": 42}
    assert keys == [*(f"each[{number}]" for number in range(7)), "sum"]
    assert most == 2


async def test_a_failed_workflow_is_retried_from_the_step_that_failed(database_url: str) -> None:
    is_broken = True

    def flaky(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        if is_broken:
            return TaskExecutionResult.failure_result("坏", "ConnectionError: down")
        return TaskExecutionResult.success_result("好", data={"n": 2})

    before = Recorder("before")
    flow = chain(step("before"), step("flaky"), step("work", {"n": "{{ steps.flaky.data.n }}"}))
    async with workflows(database_url, before, Recorder("flaky", flaky)) as (service, runtime):
        execution = await start(flow, service=service)
        stored = await ended(runtime, execution.id)
        assert stored.state is ExecutionState.FAILED
        assert stored.error == "StepFailed: flaky: ConnectionError: down"
        assert stored.result["data"]["steps"]["work"]["state"] == "waiting"
        is_broken = False
        await service.retry(execution.id)
        result = await service.wait(execution.id, timeout=15)
        assert runtime.history.get(execution.id).state is ExecutionState.SUCCESS, result.error
    assert len(before.calls) == 1


async def test_a_result_that_looks_like_a_hidden_secret_is_handed_on(database_url: str) -> None:
    def draft(*_: Any) -> TaskExecutionResult:
        return TaskExecutionResult.success_result(
            "好", data={"body": "above\n\n******\n\nbelow", "rule": "******"}
        )

    flow = chain(
        step("draft"), step("work", {"body": "{{ steps.draft.data.body }}", "n": "{{ steps.draft.data.rule }}"})
    )
    async with workflows(database_url, Recorder("draft", draft)) as (service, runtime):
        execution = await start(flow, service=service)
        result = await service.wait(execution.id, timeout=15)
        assert result.success, result.error
        assert runtime.history.children(execution.id)[1].params["n"] == "******"


async def test_what_was_done_is_undone_once_and_the_workflow_is_not_retried(database_url: str) -> None:
    undone: list[str] = []

    def undo(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        undone.append(params["of"])
        return TaskExecutionResult.success_result("好")

    flow = chain(
        step("work", {"n": 1}, id="a", compensate=("undo", {"of": "a{{ steps.a.data.n }}"})),
        step("work", {"n": 2}, id="b", compensate=("undo", {"of": "b{{ steps.b.data.n }}"})),
        step("work", {"fail": True}, id="c", on_failure="compensate"),
    )
    async with workflows(database_url, Recorder("undo", undo)) as (service, runtime):
        execution = await start(flow, service=service)
        stored = await ended(runtime, execution.id)
        assert stored.message == "工作流失败: 步骤 c 失败，已撤销 2 步"
        with pytest.raises(Conflict, match="undone"):
            await service.retry(execution.id)
    assert undone == ["b2", "a1"]
    assert [run["step"] for run in stored.result["data"]["undone"]] == ["b", "a"]


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_what_could_not_be_undone_is_told_and_a_retry_undoes_it_and_nothing_else(
    database_url: str, how: str
) -> None:
    undone: list[str] = []
    is_stuck = True

    async def undo(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        if params["of"] == "a" and is_stuck:
            if how == "cancelled":
                await asyncio.sleep(30)
            return TaskExecutionResult.failure_result("坏", "Bad: luck")
        undone.append(params["of"])
        return TaskExecutionResult.success_result("好")

    flow = chain(
        step("work", {}, id="a", compensate=("undo", {"of": "a"})),
        step("work", {}, id="b", compensate=("undo", {"of": "b"})),
        step("fails", {}, id="c", on_failure="compensate"),
    )
    fails = Recorder("fails", fail_with(ConnectionError("down")))
    async with workflows(database_url, Recorder("undo", undo, lane="loop"), fails) as (service, runtime):
        execution = await start(flow, service=service)
        if how == "cancelled":
            await child(runtime, execution.id, "compensate:a", ExecutionState.RUNNING)
            await service.cancel(execution.id)
            await child(runtime, execution.id, "compensate:a", ExecutionState.CANCELLED)
        stored = await ended(runtime, execution.id)
        assert undone == ["b"]
        if how == "failed":
            assert stored.message == "工作流失败: 步骤 c 失败，已撤销 1 步，撤销失败 1 步"
        is_stuck = False
        await service.retry(execution.id)
        stored = await ended(runtime, execution.id)
        assert stored.message == "工作流失败: 步骤 c 失败，已撤销 2 步"
        with pytest.raises(Conflict, match="undone"):
            await service.retry(execution.id)
    assert undone == ["b", "a"]
    assert len(fails.calls) == 1


async def test_a_workflow_around_one_that_was_undone_is_not_retried_either(database_url: str) -> None:
    inner = chain(
        step("work", {}, id="a", compensate=("work", {"undo": 1})), step("fails", on_failure="compensate")
    )
    fails = Recorder("fails", fail_with(ConnectionError("down")))
    async with workflows(database_url, fails) as (service, runtime):
        execution = await start(chain(step("workflow", inner.definition(), id="inner")), service=service)
        assert (await ended(runtime, execution.id)).state is ExecutionState.FAILED
        (child,) = runtime.history.children(execution.id)
        with pytest.raises(Conflict, match=f"execution {child.id} cannot be retried: its finished steps"):
            await service.retry(execution.id)
        assert runtime.history.get(child.id) == child
    assert len(fails.calls) == 1


async def test_a_retry_takes_no_other_branch_than_the_one_that_was_taken(database_url: str) -> None:
    broken = {"x", "w"}

    def sometimes(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        if params["name"] in broken:
            return TaskExecutionResult.failure_result("坏", "ConnectionError: down")
        return TaskExecutionResult.success_result("好")

    def one(name: str, **fields: Any) -> Any:
        return step("sometimes", {"name": name}, id=name, **fields)

    branches = group(one("y", when="steps.x.state == 'failed'"), one("z", when="steps.x.state == 'success'"))
    flow = chain(one("x", on_failure="continue"), branches, one("w", when="true"))
    async with workflows(database_url, Recorder("sometimes", sometimes)) as (service, runtime):
        execution = await start(flow, service=service)
        assert (await ended(runtime, execution.id)).state is ExecutionState.FAILED
        broken.clear()
        await service.retry(execution.id)
        stored = await ended(runtime, execution.id)
        states = {name: found["state"] for name, found in stored.result["data"]["steps"].items()}
        assert states == {"x": "failed", "y": "success", "z": "skipped", "w": "success"}


async def test_cancelling_a_workflow_cancels_its_steps_and_a_retry_goes_on(database_url: str) -> None:
    flow = chain(step("work"), step("approval", {"title": "Go on?"}), step("work", id="last"))
    async with workflows(database_url) as (service, runtime):
        execution = await start(flow, service=service)
        waiting = await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
        await service.cancel(execution.id)
        assert (await ended(runtime, execution.id)).state is ExecutionState.CANCELLED
        assert (await ended(runtime, waiting.id)).state is ExecutionState.CANCELLED
        await service.retry(execution.id)
        await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
        await Approvals(runtime).decide(waiting.id, approved=True, by="ann", via=Via.API)
        result = await service.wait(execution.id, timeout=15)
    assert result.success, result.error


async def test_a_wrong_definition_is_refused_with_its_fields_and_nothing_is_stored(database_url: str) -> None:
    flow = chain(step("nobody", id="a"), step("work", {"n": "{{ steps.c.data.n }}"}, id="b"))
    async with workflows(database_url) as (service, runtime):
        with pytest.raises(InvalidParameters) as refused:
            await start(flow, service=service)
        assert runtime.history.page() == []
    assert [error.field for error in refused.value.errors] == [
        "params.steps.1.params.n",
        "params.steps.0.type",
    ]


async def test_workflows_and_approvals_run_on_pgqueuer_too(pgqueuer_url: str) -> None:
    flow = chain(
        step("work", {"n": "{{ item }}"}, id="each", for_each="input.numbers", limit=2),
        step("approval", {"title": "{{ steps.each.data|map('n')|sum }}?"}),
        step("work", {"by": "{{ steps.approval.data.decided_by }}"}, id="last"),
    )
    async with workflows(pgqueuer_url, scheduler_engine="pgqueuer") as (service, runtime):
        execution = await start(flow, {"numbers": [1, 2, 3, 4]}, service=service)
        asked = await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
        assert asked.params["title"] == "10?"
        await Approvals(runtime).decide(asked.id, approved=True, by="ann", via=Via.API)
        stored = await ended(runtime, execution.id, seconds=60)
    assert stored.state is ExecutionState.SUCCESS, stored.error
    assert stored.result["data"]["steps"]["last"]["data"] == {"by": "ann"}


async def test_a_workflow_outlives_a_lost_connection(postgres_url: str) -> None:
    """One attempt is all that its steps get; its own decisions are repeated until the database is there again."""
    cut: list[int] = []
    async with workflows(postgres_url) as (service, runtime):
        with another(postgres_url) as bystander:

            @event.listens_for(runtime.engine, "before_cursor_execute")
            def end_the_connection(_: Any, cursor: Any, statement: str, *__: Any) -> None:
                if not cut and statement.startswith("SELECT") and "WHERE task_executions.parent_id" in statement:
                    cut.append(cursor.connection.info.backend_pid)
                    with bystander.connect() as connection:
                        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": cut[0]})

            flow = chain(step("work", id="a"), step("work", id="b"))
            execution = await start(flow, service=service)
            stored = await ended(runtime, execution.id, 60)
        failed = [one.error for one in runtime.history.attempts(execution.id) if one.status == "failed"]
    assert stored.state is ExecutionState.SUCCESS, stored.error
    assert [str(error).partition(":")[0] for error in failed] == ["OperationalError"]


async def test_workflows_in_workflows_do_not_multiply_what_they_return(sqlite_url: str) -> None:
    nested: dict[str, Any] = {"id": "f", "type": "work", "for_each": "[1]", "params": {"text": "x" * 500}}
    for _ in range(9):
        nested = {"id": "f", "type": "workflow", "for_each": "[1]", "params": {"steps": [nested]}}
    async with workflows(sqlite_url) as (service, runtime):
        stored = await ended(runtime, (await service.enqueue("workflow", {"steps": [nested]})).id, seconds=60)
    assert stored.state is ExecutionState.SUCCESS, stored.error
    assert size_of(stored.result) < 6000


async def test_a_workflow_whose_steps_return_too_much_together_fails_and_says_so(database_url: str) -> None:
    large = Recorder("large", lambda *_: TaskExecutionResult.success_result("好", data={"text": "x" * 6_000_000}))
    flow = chain(step("large", for_each="[1, 2, 3]"), step("work", id="after"))
    async with workflows(database_url, large) as (service, runtime):
        stored = await ended(runtime, (await start(flow, service=service)).id, seconds=60)
        shown = runtime.history.bearable_children(stored.id)
    assert stored.state is ExecutionState.FAILED
    assert "ResultsTooLarge: the params and results of its steps have 18,00" in str(stored.error)
    assert [(one.state, one.result) for one in shown] == [(ExecutionState.SUCCESS, None)] * 3


class _Slow(Recorder):
    """Looks at params for as long as nobody has cancelled the workflow that asks."""

    looks = 0

    def validate_params(self, task_params: dict[str, Any]) -> bool:
        asking = find_current_execution()
        if asking is not None:
            self.looks += 1
            end = time.monotonic() + 20
            while not asking.cancelled and time.monotonic() < end:
                time.sleep(0.01)
        return True


async def test_a_cancelled_workflow_stops_planning(sqlite_url: str) -> None:
    slow = _Slow("slow")
    flow = chain(step("slow", {"n": "{{ index }}"}, id="each", for_each="input.items"))
    async with workflows(sqlite_url, slow) as (service, runtime):
        execution = await start(flow, {"items": list(range(1000))}, service=service)
        await until(lambda: slow.looks)
        await service.cancel(execution.id)
        assert (await ended(runtime, execution.id)).state is ExecutionState.CANCELLED
        assert runtime.history.children(execution.id) == []
    assert slow.looks == 1


@pytest.mark.parametrize("by", ["request", "task"])
async def test_a_workflow_that_failed_is_not_tried_again_by_itself_in_vain(sqlite_url: str, by: str) -> None:
    """Another attempt would find its steps as they are; only a retry by hand reopens them."""
    fails = Recorder("fails", fail_with(ConnectionError("down")))
    flow = step("fails").definition()
    async with workflows(sqlite_url, fails) as (service, runtime):
        if by == "request":
            execution = await service.enqueue("workflow", flow, max_attempts=3)
        else:
            definition = {"name": "flow", "task_type": "workflow", "params": flow, "retry": {"max_attempts": 3}}
            task = await asyncio.to_thread(lambda: runtime.tasks.create(runtime.definition(definition)))
            execution = await service.run_now(task.id)
        stored = await ended(runtime, execution.id)
    assert (stored.state, stored.attempt, len(fails.calls)) == (ExecutionState.FAILED, 2, 1)


async def test_more_attempts_do_not_ask_again_what_somebody_has_decided(sqlite_url: str) -> None:
    async with workflows(sqlite_url) as (service, runtime):
        execution = await service.enqueue("approval", {"title": "Go?"}, max_attempts=3)
        await until(lambda: runtime.history.get(execution.id).state is ExecutionState.SUSPENDED)
        await Approvals(runtime).decide(execution.id, approved=False, by="ann", via=Via.API)
        assert (await ended(runtime, execution.id)).state is ExecutionState.FAILED


async def test_retries_of_a_step_leave_it_to_the_executor_which_errors_are_worth_one(sqlite_url: str) -> None:
    strict = Recorder("strict", fail_with(ValueError("wrong")), retry_on=("ConnectionError",))
    async with workflows(sqlite_url, strict) as (service, runtime):
        execution = await start(chain(step("strict", retries=5)), service=service)
        assert (await ended(runtime, execution.id)).state is ExecutionState.FAILED
    assert len(strict.calls) == 1


BRANCHES = group(
    step("b", id="good", when="steps.a.state == 'success'"), step("b", id="bad", when="steps.a.state == 'failed'")
)


async def test_a_step_that_the_workflow_went_on_without_is_not_retried_by_itself(database_url: str) -> None:
    flow = chain(step("a", on_failure="continue"), BRANCHES, step("c", when="true"))
    fails = [Recorder(name, fail_with(ConnectionError("down"))) for name in "ac"]
    taken = Recorder("b")
    async with workflows(database_url, *fails, taken) as (service, runtime):
        execution = await start(flow, service=service)
        assert (await ended(runtime, execution.id)).state is ExecutionState.FAILED
        first, *_ = runtime.history.children(execution.id)
        with pytest.raises(Conflict, match="its workflow went on without it") as refusal:
            await service.retry(first.id)
        assert "不能重试：它的工作流已越过它继续" in refusal.value.said("zh")
        assert runtime.history.get(first.id) == first
        await service.retry(execution.id)
        await ended(runtime, execution.id)
        assert [one.child_key for one in runtime.history.children(execution.id)] == ["a", "bad", "c"]
    assert [len(one.calls) for one in (*fails, taken)] == [1, 2, 1]


async def test_a_step_that_was_cancelled_and_gone_on_from_stays_so(database_url: str) -> None:
    async def wait(*_: Any) -> None:
        await asyncio.sleep(60)

    flow = chain(step("a", on_failure="continue"), BRANCHES, step("approval", {"title": "?"}, when="true"))
    async with workflows(database_url, Recorder("a", wait, lane="loop"), Recorder("b")) as (service, runtime):
        execution = await start(flow, service=service)
        first = await child(runtime, execution.id, "a", ExecutionState.RUNNING)
        await service.cancel(first.id)
        await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
        with pytest.raises(Conflict, match="its workflow went on without it"):
            await service.retry(first.id)
        await service.cancel(execution.id)
        await ended(runtime, execution.id)
        await service.retry(execution.id)
        await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
        states = {one.child_key: one.state.value for one in runtime.history.children(execution.id)}
    assert states == {"a": "cancelled", "bad": "success", "approval": "suspended"}


async def test_a_step_that_was_cancelled_with_its_workflow_goes_on_with_it(database_url: str) -> None:
    is_slow = True

    async def work(*_: Any) -> None:
        if is_slow:
            await asyncio.sleep(60)

    flow = chain(step("a", on_failure="continue"), BRANCHES)
    async with workflows(database_url, Recorder("a", work, lane="loop"), Recorder("b")) as (service, runtime):
        execution = await start(flow, service=service)
        await child(runtime, execution.id, "a", ExecutionState.RUNNING)
        await service.cancel(execution.id)
        await child(runtime, execution.id, "a", ExecutionState.CANCELLED)
        await ended(runtime, execution.id)
        is_slow = False
        await service.retry(execution.id)
        assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS
        assert [one.child_key for one in runtime.history.children(execution.id)] == ["a", "good"]


async def test_a_step_that_nothing_comes_after_may_be_retried_by_itself(sqlite_url: str) -> None:
    tells = Recorder("tells", fail_with(ConnectionError("down")))
    async with workflows(sqlite_url, tells) as (service, runtime):
        execution = await start(chain(step("tells", on_failure="continue")), service=service)
        assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS
        (leaf,) = runtime.history.children(execution.id)
        await service.retry(leaf.id)
        await until(lambda: len(tells.calls) == 2)
