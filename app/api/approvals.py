"""`/approvals`: what waits for somebody's decision, and the decision."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api import cursor as cursors
from app.api.auth import Operator, RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import ExecutionAnswer
from app.core.security import Role
from app.workflows.approvals import Approvals, Name, Via
from app.workflows.links import LIFETIME, ApprovalLinks

router = APIRouter(tags=["approvals"])

ExecutionId = Annotated[int, Path(ge=1, lt=2**63, description="Id of the approval's execution.")]
LONGEST_COMMENT = 2000
Comment = Annotated[str, StringConstraints(max_length=LONGEST_COMMENT)]


class QuestionAnswer(BaseModel):
    """An approval that waits for a decision."""

    model_config = ConfigDict(from_attributes=True)

    execution_id: int
    title: str
    details: str
    approvers: list[str] = Field(description="Who may decide, beside admins; empty: every operator.")
    asked_at: datetime
    expires_at: datetime | None
    on_timeout: str = Field(examples=["fail"], description="What it means that nobody decides in time.")
    workflow_id: int | None = Field(description="The execution it is a step of.")
    step: str | None


class QuestionPage(BaseModel):
    items: list[QuestionAnswer]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null: this was the last."
    )


class DecisionBody(BaseModel):
    """A decision."""

    model_config = ConfigDict(extra="forbid")

    approved: bool = Field(strict=True)
    comment: Comment = ""


class LinkBody(BaseModel):
    """A link to make."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(default=None, description="Who is to use it; by default the caller.")
    lifetime_seconds: float = Field(
        default=LIFETIME.total_seconds(), ge=60, le=90 * 86_400, strict=True, allow_inf_nan=False
    )


class LinkAnswer(BaseModel):
    """A link, the only time it can be read."""

    url: str
    name: str
    expires_at: datetime


@router.get("/approvals", summary="What waits for a decision?", responses=documented())
def list_approvals(
    runtime: RuntimeOf,
    _caller: Viewer,
    cursor: cursors.Cursor = None,
    limit: cursors.Limit = 50,
) -> QuestionPage:
    """Approvals that nobody has decided yet, oldest first."""
    found = Approvals(runtime).waiting(after_id=cursors.decode(cursor) or 0, limit=limit + 1)
    return QuestionPage(
        items=[QuestionAnswer.model_validate(question) for question in found[:limit]],
        next_cursor=cursors.encode(found[limit - 1].execution_id) if len(found) > limit else None,
    )


@router.post("/executions/{execution_id}/decision", summary="Decide an approval", responses=documented(404, 409))
async def decide_approval(
    execution_id: ExecutionId,
    decision: Annotated[DecisionBody, Body(examples=[{"approved": True, "comment": "looks good"}])],
    runtime: RuntimeOf,
    caller: Operator,
) -> ExecutionAnswer:
    """Once; the execution goes on, and its result says who decided, when and what."""
    execution = await Approvals(runtime).decide(
        execution_id,
        approved=decision.approved,
        comment=decision.comment,
        by=caller.name,
        via=Via.API,
        is_admin=caller.role is Role.ADMIN,
    )
    return ExecutionAnswer.model_validate(execution)


@router.post(
    "/approvals/{execution_id}/links",
    status_code=201,
    summary="Make a link to decide with",
    responses=documented(404, 409),
)
async def make_approval_link(
    execution_id: ExecutionId,
    wanted: Annotated[LinkBody, Body(examples=[{"name": "ann@example.com", "lifetime_seconds": 86_400}])],
    runtime: RuntimeOf,
    caller: Operator,
) -> LinkAnswer:
    """Whoever has the link can decide this approval, once, without a token. Send it to nobody else."""
    url, link = await asyncio.to_thread(
        ApprovalLinks(runtime).make,
        execution_id,
        by=wanted.name or caller.name,
        made_by=caller.name,
        is_admin=caller.role is Role.ADMIN,
        lifetime=timedelta(seconds=wanted.lifetime_seconds),
    )
    return LinkAnswer(url=url, name=link.by, expires_at=link.until)
