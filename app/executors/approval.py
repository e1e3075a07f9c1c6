"""`approval`: waits until a person has decided, for days if need be, and holds nothing meanwhile."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.core.errors import ExecutorNotFound, FieldError, InvalidParameters, SignalTimeout, sentence_of
from app.core.language import Said
from app.db.outage import DATABASE_AWAY, OUTLIVED_ATTEMPTS
from app.models.task_attempt import TaskAttempt
from app.scheduler.context import CurrentExecution, current_execution
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor, TaskStatus
from app.workflows.approvals import APPROVAL_TYPE, DECISION, NOTICE_TYPE, ApprovalParams, Via
from app.workflows.definition import Call

REJECTED = "Rejected"
EXPIRED = "ApprovalTimeout"
UNREADABLE = "UnreadableDecision"


class ApprovalExecutor(TaskExecutor):
    """Its result tells who decided what, when, and by which way. Retried after a rejection, it asks again."""

    params_model = ApprovalParams
    max_attempts = OUTLIVED_ATTEMPTS
    retry_on = DATABASE_AWAY
    waits_for_others = True

    def __init__(self, service: SchedulerService) -> None:
        self._service = service

    @property
    def executor_type(self) -> str:
        return APPROVAL_TYPE

    def validate_params(self, task_params: dict[str, Any]) -> bool:
        """Raises InvalidParameters: what is wrong with the executions it would start, by field."""
        params = ApprovalParams.model_validate(task_params)
        found: list[FieldError] = []
        for name in ("notify", "escalation"):
            call: Call | None = getattr(params, name)
            if call is not None:
                found += _faults(f"params.{name}", call, self._service)
                found += _unwanted_recipient(f"params.{name}.params.to", call, params.approvers)
        if found:
            raise InvalidParameters(found)
        return True

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = ApprovalParams.model_validate(task_params)
        execution = current_execution()
        decision: dict[str, Any] | None = None
        for number in range(_decisions_before(db, execution.id) + 1):
            decision = await _asked(execution, params, number)
        return _result(params, decision)


async def _asked(execution: CurrentExecution, params: ApprovalParams, number: int) -> dict[str, Any] | None:
    """The decision of one time of asking; None: nobody has decided in time."""
    suffix = f"~{number}" if number else ""
    if params.notify is not None:
        await execution.spawn(f"notify{suffix}", params.notify.type, dict(params.notify.params))
    limit = params.timeout_seconds
    if params.escalation is not None and params.escalate_after_seconds is not None:
        try:
            return _decision(await execution.wait_for_signal(DECISION, timeout=params.escalate_after_seconds))
        except SignalTimeout:
            await execution.spawn(f"escalation{suffix}", params.escalation.type, dict(params.escalation.params))
        limit = limit - params.escalate_after_seconds if limit is not None else None
    try:
        return _decision(await execution.wait_for_signal(DECISION, timeout=limit))
    except SignalTimeout:
        return None


def _decision(payload: Any) -> dict[str, Any]:
    """A decision as `Approvals.decide()` sends it, or as code of the application did: `{"approved": true}`. What
    decides nothing is `{}`."""
    if not isinstance(payload, dict) or not isinstance(payload.get("approved"), bool):
        return {}
    return payload


def _result(params: ApprovalParams, decision: dict[str, Any] | None) -> TaskExecutionResult:
    if decision == {}:
        return TaskExecutionResult.failure_result(
            f"审批的决定无法读取: {params.title}",
            error=f'{UNREADABLE}: the signal {DECISION!r} must have the payload {{"approved": true|false}}; '
            "retry, and decide again",
        )
    if decision is None and params.on_timeout == "fail":
        return TaskExecutionResult.failure_result(
            f"审批超时: {params.title}",
            error=f"{EXPIRED}: nobody decided within {params.timeout_seconds:g} seconds",
        )
    if decision is None:
        approved = params.on_timeout == "approve"
        decision = {"approved": approved, "by": None, "via": Via.TIMEOUT.value, "at": None, "comment": ""}
    data = {
        "approved": decision["approved"],
        "decided_by": decision.get("by"),
        "decided_at": decision.get("at"),
        "via": decision.get("via"),
        "comment": decision.get("comment") or "",
    }
    if decision.get("link_made_by") is not None:
        data["link_made_by"] = decision["link_made_by"]
    if data["approved"] or params.on_reject == "continue":
        word = "已批准" if data["approved"] else "已拒绝"
        return TaskExecutionResult.success_result(f"{word}: {params.title}", data=data)
    who = data["decided_by"] or "the time limit"
    reason = f": {data['comment']}" if data["comment"] else ""
    return TaskExecutionResult.failure_result(
        f"已拒绝: {params.title}", error=f"{REJECTED}: by {who}{reason}", data=data
    )


def _decisions_before(db: Session, execution_id: int) -> int:
    """How often it has been asked and not approved already: a retry replays those decisions and asks once more."""
    decided = db.scalar(
        select(func.count())
        .select_from(TaskAttempt)
        .where(
            TaskAttempt.execution_id == execution_id,
            TaskAttempt.status == TaskStatus.FAILED.value,
            or_(*(TaskAttempt.error.startswith(f"{word}:") for word in (REJECTED, EXPIRED, UNREADABLE))),
        )
    )
    db.rollback()  # nothing may be open in it when the execution is suspended
    return decided or 0


def _unwanted_recipient(field: str, call: Call, approvers: list[str]) -> list[FieldError]:
    to = call.params.get("to")
    if call.type != NOTICE_TYPE or not approvers or to in approvers:
        return []
    return [
        FieldError(
            field,
            Said(
                f"{to!r} may not decide this; name one of {', '.join(approvers)}",
                f"{to!r} 不能决定此审批；请填写 {'、'.join(approvers)} 之一",
            ),
            "not_an_approver",
        )
    ]


def _faults(field: str, call: Call, service: SchedulerService) -> list[FieldError]:
    try:
        service.check(call.type, dict(call.params))
    except ExecutorNotFound as error:
        return [FieldError(f"{field}.type", sentence_of(error), error.code)]
    except InvalidParameters as error:
        return [FieldError(f"{field}.{item.field}", item.message, item.kind) for item in error.errors]
    return []
