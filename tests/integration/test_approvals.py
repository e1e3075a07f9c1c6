"""Approvals: who decides what, once; what happens when nobody does; and a year of waiting in virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app.core.errors import Conflict, InvalidParameters, NotFound, NotPermitted
from app.executors.approval import ApprovalExecutor
from app.executors.content_generation import ContentGenerationExecutor
from app.executors.content_pool import AddToPoolExecutor, PublishDueExecutor
from app.executors.publishing import PublishingExecutor
from app.executors.quality_check import QualityCheckExecutor
from app.executors.workflow import WorkflowExecutor
from app.models.content import Content, Publication, ensure_default_account
from app.models.content_pool import PoolEntry
from app.models.task_execution import Execution, ExecutionState, TaskExecution
from app.scheduler.runtime import Runtime
from app.workflows import approval, chain, start, step
from app.workflows.approvals import Approvals, Via
from app.workflows.content_flow import content_flow, content_input
from tests.integration.workflow_support import child, echo, workflows
from tests.support import Recorder, ended, until


async def waiting(runtime: Runtime, execution: Execution) -> Execution:
    def found() -> Execution | None:
        stored = runtime.history.get(execution.id)
        return stored if stored.state is ExecutionState.SUSPENDED else None

    return await until(found)


async def test_the_result_says_who_decided_what_and_when(database_url: str) -> None:
    async with workflows(database_url) as (service, runtime):
        execution = await service.enqueue("approval", {"title": "Publish?", "details": "500 words"})
        await waiting(runtime, execution)
        (question,) = Approvals(runtime).waiting()
        assert (question.execution_id, question.title, question.details) == (execution.id, "Publish?", "500 words")
        await Approvals(runtime).decide(execution.id, approved=True, comment="good", by="ann", via=Via.API)
        stored = await ended(runtime, execution.id)
        assert Approvals(runtime).waiting() == []
    assert stored.state is ExecutionState.SUCCESS
    data = stored.result["data"]
    assert data.pop("decided_at")
    assert data == {"approved": True, "decided_by": "ann", "via": "api", "comment": "good"}


async def test_a_rejection_stops_what_comes_after_unless_it_is_a_result(database_url: str) -> None:
    async with workflows(database_url) as (service, runtime):
        for on_reject, state in (("fail", ExecutionState.FAILED), ("continue", ExecutionState.SUCCESS)):
            flow = chain(approval("Go?", on_reject=on_reject), step("work", when="steps.approval.data.approved"))
            execution = await start(flow, service=service)
            asked = await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
            await Approvals(runtime).decide(asked.id, approved=False, comment="no", by="ann", via=Via.CLI)
            stored = await ended(runtime, execution.id)
            assert stored.state is state
            assert [one.child_key for one in runtime.history.children(execution.id)] == ["approval"]
        assert runtime.history.get(asked.id).result["data"]["approved"] is False


async def test_of_many_decisions_at_once_one_counts(database_url: str) -> None:
    async with workflows(database_url) as (service, runtime):
        execution = await service.enqueue("approval", {"title": "Go?", "on_reject": "continue"})
        await waiting(runtime, execution)
        answers = await asyncio.gather(
            *(
                Approvals(runtime).decide(execution.id, approved=number % 2 == 0, by=f"p{number}", via=Via.API)
                for number in range(8)
            ),
            return_exceptions=True,
        )
        accepted = [number for number, answer in enumerate(answers) if isinstance(answer, Execution)]
        refused = [answer for answer in answers if isinstance(answer, Conflict)]
        assert (len(accepted), len(refused)) == (1, 7), answers
        stored = await ended(runtime, execution.id)
    assert stored.result["data"]["decided_by"] == f"p{accepted[0]}"
    assert stored.result["data"]["approved"] is (accepted[0] % 2 == 0)


async def test_only_approvers_and_admins_decide(database_url: str) -> None:
    async with workflows(database_url) as (service, runtime):
        execution = await service.enqueue("approval", {"title": "Go?", "approvers": ["ann"]})
        await waiting(runtime, execution)
        approvals = Approvals(runtime)
        with pytest.raises(NotPermitted, match="ann may"):
            await approvals.decide(execution.id, approved=True, by="bob", via=Via.API)
        await approvals.decide(execution.id, approved=True, by="root", via=Via.API, is_admin=True)
        assert (await ended(runtime, execution.id)).result["data"]["decided_by"] == "root"
        with pytest.raises(Conflict):
            await approvals.decide(execution.id, approved=False, by="ann", via=Via.API)
        other = await service.enqueue("work", {})
        with pytest.raises(NotFound):
            await approvals.decide(other.id, approved=True, by="ann", via=Via.API)


async def test_a_retried_rejection_is_asked_again(database_url: str) -> None:
    async with workflows(database_url) as (service, runtime):
        execution = await start(chain(approval("Go?"), step("work")), service=service)
        for approved in (False, True):
            asked = await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
            await Approvals(runtime).decide(asked.id, approved=approved, by="ann", via=Via.API)
            stored = await ended(runtime, execution.id)
            if not approved:
                assert stored.state is ExecutionState.FAILED
                assert "Rejected: by ann" in str(stored.error)
                await service.retry(execution.id)
    assert stored.state is ExecutionState.SUCCESS


async def test_a_workflow_recorded_before_its_step_would_be_refused_goes_on(database_url: str) -> None:
    flow = chain(approval("Go?"), step("work"))
    async with workflows(database_url) as (service, runtime):
        execution = await start(flow, service=service)
        asked = await child(runtime, execution.id, "approval", ExecutionState.SUSPENDED)
        stored = execution.params | {
            "steps": [execution.params["steps"][0] | {"retries": 2}, *execution.params["steps"][1:]]
        }
        with pytest.raises(InvalidParameters, match="retries"):
            await service.enqueue("workflow", stored)
        with runtime.sessions() as session:
            session.execute(update(TaskExecution).where(TaskExecution.id == execution.id).values(params=stored))
            session.commit()
        await Approvals(runtime).decide(asked.id, approved=True, by="ann", via=Via.API)
        assert (await ended(runtime, execution.id)).state is ExecutionState.SUCCESS


async def test_what_it_would_start_is_checked_when_it_is_made(database_url: str) -> None:
    async with workflows(database_url) as (service, _):
        with pytest.raises(InvalidParameters) as refused:
            await service.enqueue(
                "approval",
                {"title": "Go?", "escalate_after_seconds": 5, "escalation": {"type": "nobody", "params": {}}},
            )
    assert [error.field for error in refused.value.errors] == ["params.escalation.type"]


# ---------------------------------------------------------------- in virtual time


def registered(box: Any) -> Any:
    box.register(WorkflowExecutor(box.service), ApprovalExecutor(box.service), Recorder("work", echo))
    return box


@pytest.mark.parametrize(
    ("on_timeout", "state", "approved"),
    [
        ("fail", ExecutionState.FAILED, None),
        ("reject", ExecutionState.FAILED, False),
        ("approve", ExecutionState.SUCCESS, True),
    ],
)
def test_nobody_decides_in_time(
    scheduler_sandbox: Any, on_timeout: str, state: ExecutionState, approved: bool | None
) -> None:
    box = registered(scheduler_sandbox)
    execution = box.enqueue("approval", {"title": "Go?", "timeout_seconds": 86_400, "on_timeout": on_timeout})
    box.advance(hours=23)
    assert box.read(execution).state is ExecutionState.SUSPENDED
    box.advance(hours=2)
    stored = box.read(execution)
    assert stored.state is state
    data = stored.result["data"]
    assert (data["approved"] if data else None) is approved


def test_an_escalation_runs_once_and_the_question_stays_open(scheduler_sandbox: Any) -> None:
    box = registered(scheduler_sandbox)
    execution = box.enqueue(
        "approval",
        {
            "title": "Go?",
            "timeout_seconds": 3 * 86_400,
            "on_timeout": "reject",
            "on_reject": "continue",
            "escalate_after_seconds": 86_400,
            "escalation": {"type": "work", "params": {"to": "the boss"}},
            "notify": {"type": "work", "params": {"to": "ann"}},
        },
    )
    box.advance(hours=23)
    assert [run.params["to"] for run in box.runs() if run.task_type == "work"] == ["ann"]
    box.advance(days=1)
    assert [run.params["to"] for run in box.runs() if run.task_type == "work"] == ["ann", "the boss"]
    box.crash()
    box.start()
    box.advance(hours=1)
    box.signal(execution, "decision", {"approved": True, "by": "ann"})
    box.advance(seconds=1)
    assert box.read(execution).result["data"]["decided_by"] == "ann"
    assert len([run for run in box.runs() if run.task_type == "work"]) == 2


def test_what_is_told_of_a_deadline_holds_through_escalations_and_retries(scheduler_sandbox: Any) -> None:
    box = registered(scheduler_sandbox)
    execution = box.enqueue(
        "approval",
        {
            "title": "Go?",
            "timeout_seconds": 3 * 86_400,
            "escalate_after_seconds": 86_400,
            "escalation": {"type": "work", "params": {}},
        },
    )
    asked = box.now
    for hours in (1, 24, 24):
        box.advance(hours=hours)
        (question,) = Approvals(box._runtime).waiting()
        assert question.asked_at - asked < timedelta(seconds=1)
        assert abs(question.expires_at - asked - timedelta(days=3)) < timedelta(seconds=1)
    box.advance(days=2)
    assert box.read(execution).state is ExecutionState.FAILED
    box.retry(execution)
    again = box.now
    for hours in (1, 24):
        box.advance(hours=hours)
        (question,) = Approvals(box._runtime).waiting()
        assert question.asked_at - again < timedelta(seconds=1)
        assert abs(question.expires_at - again - timedelta(days=3)) < timedelta(seconds=1)


def test_a_deadline_rests_while_the_question_is_cancelled(scheduler_sandbox: Any) -> None:
    box = registered(scheduler_sandbox)
    execution = box.enqueue("approval", {"title": "Go?", "timeout_seconds": 3600, "on_timeout": "approve"})
    box.advance(minutes=20)
    box.cancel(execution)
    box.advance(days=2)
    box.retry(execution)
    box.advance(minutes=39)
    (question,) = Approvals(box._runtime).waiting()
    assert question.execution_id == execution.id
    assert question.expires_at - box.now < timedelta(minutes=2)
    box.advance(minutes=2)
    assert box.read(execution).result["data"]["via"] == "timeout"


def test_a_signal_that_decides_nothing_can_be_made_good(scheduler_sandbox: Any) -> None:
    box = registered(scheduler_sandbox)
    execution = box.enqueue("approval", {"title": "Go?"})
    box.advance(minutes=1)
    box.signal(execution, "decision", {"yes": 1})
    box.advance(minutes=1)
    assert "must have the payload" in str(box.read(execution).error)
    box.retry(execution)
    box.advance(minutes=1)
    assert box.read(execution).state is ExecutionState.SUSPENDED
    box.signal(execution, "decision", {"approved": True})
    box.advance(minutes=1)
    assert box.read(execution).state is ExecutionState.SUCCESS


def test_contenthubs_own_flow_with_an_approval_four_days_later(scheduler_sandbox: Any, tmp_path: Any) -> None:
    box = registered(scheduler_sandbox)
    settings = box.service.runtime.settings.model_copy(update={"publish_directory": tmp_path / "site"})
    box.register(
        ContentGenerationExecutor(settings),
        QualityCheckExecutor(),
        AddToPoolExecutor(box.clock),
        PublishDueExecutor(box.clock),
        PublishingExecutor(settings, box.clock),
    )
    with box.sessions() as session:
        ensure_default_account(session)
        session.commit()
    task = box.define_task(
        "flow", "workflow", cron="0 9 * * *", params=content_flow().definition(content_input("AI", min_score=0))
    )
    box.advance(days=4)
    (execution,) = box.runs(task)
    assert execution.state is ExecutionState.SUSPENDED
    assert [skipped.reason for skipped in box.executions(task)[1:]] == ["overlap"] * 3
    with box.sessions() as session:
        assert session.query(Publication).count() == 0
    (asked,) = [run for run in box.runs() if run.task_type == "approval"]
    assert asked.params["title"] == "发布「AI：2 篇精选」？"
    box.signal(asked, "decision", {"approved": True, "by": "ann"})
    box.advance(minutes=1)
    assert box.read(execution).state is ExecutionState.SUCCESS, box.read(execution).error
    with box.sessions() as session:
        entry = session.query(PoolEntry).one()
        assert (entry.state, session.query(Publication).one().content_id) == ("published", entry.content_id)
        assert session.get_one(Content, entry.content_id).is_held


def test_a_rejected_draft_never_goes_out(scheduler_sandbox: Any, tmp_path: Any) -> None:
    box = registered(scheduler_sandbox)
    settings = box.service.runtime.settings.model_copy(update={"publish_directory": tmp_path / "site"})
    box.register(
        ContentGenerationExecutor(settings),
        QualityCheckExecutor(),
        AddToPoolExecutor(box.clock),
        PublishDueExecutor(box.clock),
        PublishingExecutor(settings, box.clock),
    )
    with box.sessions() as session:
        ensure_default_account(session)
        session.commit()
    execution = box.enqueue("workflow", content_flow().definition(content_input("AI", min_score=0)))
    box.advance(minutes=1)
    (asked,) = [run for run in box.runs() if run.task_type == "approval"]
    box.signal(asked, "decision", {"approved": False, "by": "ann"})
    box.enqueue("publishing", {})
    box.advance(days=1)
    assert box.read(execution).message == "工作流完成: 5 步，跳过 2 步"
    with box.sessions() as session:
        assert session.query(Publication).count() == 0
