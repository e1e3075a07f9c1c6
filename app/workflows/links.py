"""Signed links: whoever has one may decide one question, once, until it expires, without an account.

The link is the right: signed with a key of this installation (and APPROVAL_SECRET, if set), it names the
approval, who may use it, and how many decisions there had been when it was made. So it is of no use for another
approval, nor again after a decision, nor for a later asking of the same question.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from itsdangerous import BadSignature, URLSafeSerializer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.config import Settings
from app.core.errors import Conflict, NotPermitted, SchedulerError
from app.core.language import Said
from app.models.execution_step import ExecutionSignal
from app.models.signing_key import signing_key
from app.models.task_execution import Execution
from app.scheduler.runtime import Runtime
from app.workflows.approvals import DECISION, Approvals, Question, Via

LIFETIME = timedelta(days=7)
_LONGEST_TOKEN = 2000


class LinkInvalid(SchedulerError):
    """The link is not one of ours, or was changed on the way."""

    code = "link_invalid"


class LinkExpired(SchedulerError):
    """The link is too old."""

    code = "link_expired"


class LinkUsed(Conflict):
    """What the link was for has been decided."""

    code = "link_used"


@dataclass(frozen=True, slots=True)
class Link:
    """What a link says. `by`: who it was made for; `made_by`: who made it."""

    execution_id: int
    by: str
    made_by: str
    until: datetime
    decisions: int

    def as_payload(self) -> dict[str, Any]:
        until = int(self.until.timestamp())
        return {"e": self.execution_id, "b": self.by, "m": self.made_by, "u": until, "d": self.decisions}

    @classmethod
    def of(cls, payload: Any) -> Link:
        """From a payload whose signature holds."""
        until = datetime.fromtimestamp(payload["u"], UTC)
        return cls(payload["e"], payload["b"], payload["m"], until, payload["d"])


class ApprovalLinks:
    """Makes links and acts on them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._approvals = Approvals(runtime)

    def make(
        self,
        execution_id: int,
        *,
        by: str,
        made_by: str,
        is_admin: bool = False,
        lifetime: timedelta = LIFETIME,
    ) -> tuple[str, Link]:
        """The address of a page on which `by` can decide, and what it says.

        Raises:
            NotFound: no such approval. Conflict: it is over.
            NotPermitted: `by` is no approver, or another than `made_by`, who is no admin.
        """
        execution, question = self._approvals.question(execution_id)
        if execution.is_final:
            raise Conflict(
                Said(
                    f"approval {execution_id} is over; there is nothing left to decide",
                    f"审批 {execution_id} 已结束；没有需要决定的内容",
                )
            )
        if question.approvers and by not in question.approvers:
            raise NotPermitted(
                Said(
                    f"{by!r} may not decide this; {', '.join(question.approvers)} may",
                    f"{by!r} 不能决定此审批；可以决定的是 {'、'.join(question.approvers)}",
                )
            )
        if question.approvers and by != made_by and not is_admin:
            raise NotPermitted(
                Said(
                    "a link for somebody else's decision can be made with the role admin only",
                    "只有 admin 角色可以为他人的决定生成链接",
                )
            )
        with self._runtime.sessions() as session:
            until = (self._runtime.clock.now() + lifetime).replace(microsecond=0)
            link = Link(execution_id, by, made_by, until, _decisions(session, execution_id))
            token = self._serializer(session).dumps(link.as_payload())
        return f"{_base_url(self._runtime.settings)}/approvals/{token}", link

    def read(self, token: str) -> tuple[Link, Execution, Question]:
        """What the link is for.

        Raises:
            LinkInvalid, LinkExpired, LinkUsed; NotFound: the approval is no longer remembered.
        """
        with self._runtime.sessions() as session:
            link = self._verified(session, token)
            execution, question = self._approvals.question(link.execution_id)
            if execution.is_final or _decisions(session, link.execution_id) != link.decisions:
                raise LinkUsed(
                    Said(
                        "this has been decided or called off; the link cannot be used again",
                        "此审批已有决定或已取消；链接不能再次使用",
                    )
                )
        return link, execution, question

    async def decide(self, token: str, *, approved: bool, comment: str) -> Execution:
        """Decide as the one the link was made for.

        Raises:
            As `read()` and `Approvals.decide()`.
        """
        link, _, _ = await asyncio.to_thread(self.read, token)
        return await self._approvals.decide(
            link.execution_id,
            approved=approved,
            comment=comment,
            by=link.by,
            via=Via.LINK,
            made_by=link.made_by,
            decisions=link.decisions,
        )

    def _verified(self, session: Session, token: str) -> Link:
        try:
            link = Link.of(self._serializer(session).loads(token[:_LONGEST_TOKEN]))
        except BadSignature:
            raise LinkInvalid(
                Said("the link is not valid; ask for a new one", "链接无效；请索取新的链接")
            ) from None
        if link.until <= self._runtime.clock.now():
            raise LinkExpired(Said("the link has expired; ask for a new one", "链接已过期；请索取新的链接"))
        return link

    def _serializer(self, session: Session) -> URLSafeSerializer:
        secret = self._runtime.settings.approval_secret
        given = secret.get_secret_value() if secret is not None else ""
        key = f"{given}/{signing_key(session, 'approval links')}"
        return URLSafeSerializer(key, salt="contenthub approval", signer_kwargs={"digest_method": hashlib.sha256})


def _base_url(settings: Settings) -> str:
    return (settings.public_base_url or f"http://127.0.0.1:{settings.port}").rstrip("/")


def _decisions(session: Session, execution_id: int) -> int:
    query = select(func.count()).where(
        ExecutionSignal.execution_id == execution_id, ExecutionSignal.name == DECISION
    )
    return session.scalar(query) or 0
