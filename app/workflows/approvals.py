"""Decisions: what waits for one, who may decide, and that each is decided once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from app.core.errors import Conflict, NotFound, NotPermitted
from app.core.language import Said
from app.models.execution_step import ExecutionSignal, ExecutionStep, StepKind
from app.models.task_execution import Execution, ExecutionState, TaskExecution, is_not_success
from app.scheduler.executions import read_execution
from app.scheduler.runtime import Runtime
from app.scheduler.states import IN_CHINESE
from app.workflows.definition import Call

APPROVAL_TYPE = "approval"
NOTICE_TYPE = "approval_notice"
DECISION = "decision"
"""The signal that carries a decision."""
_A_YEAR = 366 * 86_400
_executions = TaskExecution.__table__

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", strict=True)]


class ApprovalParams(BaseModel):
    """Params of `approval`."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(
        description="What is to be decided, in a line."
    )
    details: str = Field(default="", max_length=20_000, description="What there is to know about it.")
    approvers: list[Name] = Field(
        default=[],
        max_length=100,
        description="Names of tokens that may decide, beside admins; none: every operator.",
    )
    timeout_seconds: float | None = Field(default=None, gt=0, le=_A_YEAR, allow_inf_nan=False)
    on_timeout: Literal["fail", "reject", "approve"] = Field(
        default="fail", description="What it means that nobody has decided in time."
    )
    on_reject: Literal["fail", "continue"] = Field(
        default="fail",
        description="`fail`: a rejection is a failure, so what depends on it is not run. `continue`: it is a "
        "result, for a `when` to read.",
    )
    escalate_after_seconds: float | None = Field(default=None, gt=0, le=_A_YEAR, allow_inf_nan=False)
    escalation: Call | None = Field(default=None, description="What is run when nobody has decided by then.")
    notify: Call | None = Field(default=None, description="What is run when the question is asked.")

    @model_validator(mode="after")
    def _consistent(self) -> ApprovalParams:
        if (self.escalation is None) != (self.escalate_after_seconds is None):
            raise ValueError(
                Said(
                    "escalation needs escalate_after_seconds, and the other way round",
                    "escalation 与 escalate_after_seconds 须同时填写",
                )
            )
        if (self.escalate_after_seconds or 0) >= (self.timeout_seconds or inf):
            raise ValueError(
                Said(
                    "escalate_after_seconds must be less than timeout_seconds",
                    "escalate_after_seconds 须小于 timeout_seconds",
                )
            )
        return self


class Via(StrEnum):
    """How a decision was made."""

    API = "api"
    CLI = "cli"
    LINK = "link"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Question:
    """An approval that waits for a decision."""

    execution_id: int
    title: str
    details: str
    approvers: tuple[str, ...]
    asked_at: datetime
    expires_at: datetime | None
    timeout_seconds: float | None
    on_timeout: str
    workflow_id: int | None
    step: str | None

    @classmethod
    def of(cls, execution: Execution, waits: Sequence[ExecutionStep] = ()) -> Question | None:
        """`waits`: its stored waits for a decision, in their order. None: its params (plain SQL may have changed
        them) ask nothing."""
        try:
            params = ApprovalParams.model_validate(execution.params)
        except ValidationError:
            return None
        asked_at, expires_at = _span(params, waits, execution.started_at or execution.created_at)
        return cls(
            execution_id=execution.id,
            title=params.title,
            details=params.details,
            approvers=tuple(params.approvers),
            asked_at=asked_at,
            expires_at=expires_at,
            timeout_seconds=params.timeout_seconds,
            on_timeout=params.on_timeout,
            workflow_id=execution.parent_id,
            step=execution.child_key,
        )


def _span(
    params: ApprovalParams, waits: Sequence[ExecutionStep], begun: datetime
) -> tuple[datetime, datetime | None]:
    """When it was asked the last time, and until when it can be decided. The stored wait knows better than a clock
    that starts with the attempt: attempts come and go while it waits."""
    before_escalation = params.escalate_after_seconds or 0
    is_new, is_escalated = True, False
    for wait in waits:
        begun = wait.started_at if is_new else begun
        if wait.finished_at is None:
            if params.timeout_seconds is None or wait.due_at is None:
                return begun, None
            rest = 0 if is_escalated else params.timeout_seconds - before_escalation
            return begun, wait.due_at + timedelta(seconds=rest if params.escalation is not None else 0)
        timed_out = "timed_out" in (wait.result or {})
        is_escalated = timed_out and not is_escalated and params.escalation is not None
        is_new = not is_escalated
    limit = params.timeout_seconds
    return begun, begun + timedelta(seconds=limit) if limit is not None else None


def _waits_of(session: Session, execution_ids: Sequence[int]) -> dict[int, list[ExecutionStep]]:
    """The waits of each of these executions for a decision, in their order."""
    query = (
        select(ExecutionStep)
        .where(
            ExecutionStep.execution_id.in_(execution_ids),
            ExecutionStep.kind == StepKind.SIGNAL.value,
        )
        .order_by(ExecutionStep.execution_id, ExecutionStep.position)
    )
    found: dict[int, list[ExecutionStep]] = {execution_id: [] for execution_id in execution_ids}
    for wait in session.scalars(query):
        found[wait.execution_id].append(wait)
    return found


class Approvals:
    """Reads and decides, on the database of `runtime`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def waiting(self, *, after_id: int = 0, limit: int = 50) -> list[Question]:
        """Up to `limit` questions with ids above `after_id`, oldest first."""
        query = (
            select(_executions)
            .where(
                is_not_success(_executions.c.state),
                _executions.c.state == ExecutionState.SUSPENDED.value,
                _executions.c.task_type == APPROVAL_TYPE,
                ~_decisions(_executions.c.id).exists(),
            )
            .order_by(_executions.c.id)
        )
        found: list[Question] = []
        with self._runtime.sessions() as session:
            while len(found) < limit:
                rows = session.execute(query.where(_executions.c.id > after_id).limit(limit)).all()
                waits = _waits_of(session, [row.id for row in rows])
                questions = [Question.of(Execution.from_row(row), waits[row.id]) for row in rows]
                found += [question for question in questions if question is not None]
                if len(rows) < limit:
                    break
                after_id = rows[-1].id
        return found[:limit]

    def question(self, execution_id: int) -> tuple[Execution, Question]:
        """An approval, waiting or not.

        Raises:
            NotFound: there is no such approval.
        """
        execution = self._runtime.history.get(execution_id)
        question = None
        if execution.task_type == APPROVAL_TYPE:
            with self._runtime.sessions() as session:
                question = Question.of(execution, _waits_of(session, [execution_id])[execution_id])
        if question is None:
            raise NotFound("approval", execution_id)
        return execution, question

    async def decide(
        self,
        execution_id: int,
        *,
        approved: bool,
        comment: str = "",
        by: str,
        via: Via,
        is_admin: bool = False,
        made_by: str | None = None,
        decisions: int | None = None,
    ) -> Execution:
        """Decide, once; the execution goes on and its result says who decided what, and when.

        `made_by`: who made the link it was decided with. `decisions`: how many of it there must have been before.

        Raises:
            NotFound: no such approval. NotPermitted: `by` is none of its approvers.
            Conflict: it is decided, over, or not waiting yet.
        """

        def guard(connection: Connection) -> None:
            execution = read_execution(execution_id, connection, lock=True)
            question = Question.of(execution) if execution.task_type == APPROVAL_TYPE else None
            if question is None:
                raise NotFound("approval", execution_id)
            _require_approver(question, by, is_admin=is_admin)
            _require_open(connection, execution, decisions)

        payload: dict[str, Any] = {
            "approved": approved,
            "comment": comment,
            "by": by,
            "via": via.value,
            "at": self._runtime.clock.now().isoformat(),
        }
        if made_by is not None:
            payload["link_made_by"] = made_by
        await self._runtime.commands.signal(execution_id, DECISION, payload, db=None, signalled_by=by, guard=guard)
        return await asyncio.to_thread(self._runtime.history.get, execution_id)


def refuse_bare_decision(execution: Execution, signal: str) -> None:
    """A decision passes `decide()`, which knows who may; a bare signal does not.

    Raises:
        Conflict
    """
    if execution.task_type == APPROVAL_TYPE and signal == DECISION:
        raise Conflict(
            Said(
                f"execution {execution.id} is an approval; decide it, instead of sending it a signal",
                f"执行 {execution.id} 是审批；请作出决定，而不是发送信号",
            )
        )


def _decisions(execution_id: Any) -> Any:
    """Decisions that have been sent and not yet been taken."""
    return select(ExecutionSignal.id).where(
        ExecutionSignal.execution_id == execution_id,
        ExecutionSignal.name == DECISION,
        ExecutionSignal.consumed_at.is_(None),
    )


def _require_approver(question: Question, by: str, *, is_admin: bool) -> None:
    if question.approvers and by not in question.approvers and not is_admin:
        raise NotPermitted(
            Said(
                f"{by!r} may not decide this; {', '.join(question.approvers)} may, or a token with the role admin",
                f"{by!r} 不能决定此审批；可以决定的是 {'、'.join(question.approvers)}，或角色为 admin 的令牌",
            )
        )


def _require_open(connection: Connection, execution: Execution, decisions: int | None) -> None:
    before = select(func.count()).where(
        ExecutionSignal.execution_id == execution.id, ExecutionSignal.name == DECISION
    )
    is_another = decisions is not None and connection.scalar(before) != decisions
    if execution.is_final or is_another or connection.scalar(_decisions(execution.id)) is not None:
        raise Conflict(
            Said(
                f"approval {execution.id} is decided already, or over; read it again",
                f"审批 {execution.id} 已有决定或已结束；请重新读取",
            )
        )
    if execution.state is not ExecutionState.SUSPENDED:
        raise Conflict(
            Said(
                f"approval {execution.id} is {execution.state.value} and not waiting yet; try again in a moment",
                f"审批 {execution.id} 的状态是{IN_CHINESE[execution.state]}，还没有开始等待；请稍后再试",
            )
        )
