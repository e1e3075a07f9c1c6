"""`approval_notice`: brings the question of an `approval` to one person, with a link to decide it.

The link is a right, so it is stored nowhere: params hold a name and a placeholder, and each attempt makes a link
of its own, in memory, at the moment it is sent.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import Conflict, FieldError, InvalidParameters, InvalidRequest, NotFound, SchedulerError
from app.core.language import Said
from app.core.redaction import MASK
from app.executors.http_request import HttpRequestParams, send_request
from app.executors.outbound import OUTBOUND_ERRORS, presentable
from app.models.alerting import AlertChannel
from app.models.task_execution import Execution
from app.scheduler.alerting.apprise_channel import send
from app.scheduler.context import current_execution
from app.scheduler.runtime import Runtime, runtime_of
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor, describe_error
from app.workflows.approvals import APPROVAL_TYPE, NOTICE_TYPE, Approvals, Name, Question
from app.workflows.links import LIFETIME, ApprovalLinks

PLACEHOLDER = "{approval_link}"
LONGEST_LIFETIME = timedelta(days=90)


class ApprovalNoticeParams(BaseModel):
    """Params of `approval_notice`: no secrets; the link and the channel's URL are read when they are needed."""

    model_config = ConfigDict(extra="forbid")

    to: Name = Field(
        description="Who the link is for: whoever opens it decides under this name. One of `approvers`, if there "
        "are any."
    )
    channel: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="The alert channel that takes the message."
    )
    request: HttpRequestParams | None = Field(
        default=None,
        description="Instead of a channel, as the params of `http_request`; in its `body` or `json`, "
        f"`{PLACEHOLDER}` becomes the link.",
    )

    @model_validator(mode="after")
    def _one_way_with_a_link(self) -> ApprovalNoticeParams:
        if (self.channel is None) == (self.request is None):
            raise ValueError(
                Said("give channel or request, and not both", "channel 与 request 须填写其一，不能都填")
            )
        if self.request is not None and PLACEHOLDER not in f"{self.request.body}{self.request.json_body}":
            raise ValueError(
                Said(
                    f"write {PLACEHOLDER} into the body or the json of request, where the link is to be",
                    f"请在 request 的 body 或 json 中需要链接的位置写上 {PLACEHOLDER}",
                )
            )
        return self


class ApprovalNoticeExecutor(TaskExecutor):
    """Run by `notify` or `escalation` of an approval, itself or as a step of a workflow. Tried again as the
    execution's retry policy says: a notice may come twice, not never."""

    params_model = ApprovalNoticeParams
    timeout_seconds = 120
    max_attempts = 3

    def __init__(self, service: SchedulerService) -> None:
        self._service = service

    @property
    def executor_type(self) -> str:
        return NOTICE_TYPE

    def validate_params(self, task_params: dict[str, Any]) -> bool:
        """Raises InvalidParameters: nobody could follow the link."""
        if runtime_of(self._service).settings.public_base_url is None:
            message = Said(
                "a link for somebody needs an address; set PUBLIC_BASE_URL to where people reach this server",
                "给他人的链接需要地址；请把 PUBLIC_BASE_URL 设为人们访问此服务器的地址",
            )
            raise InvalidParameters([FieldError("params.to", message, "no_public_address")])
        return True

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = ApprovalNoticeParams.model_validate(task_params)
        runtime = runtime_of(self._service)
        notice = current_execution().id
        question = _question(runtime, notice)
        try:
            url, link = ApprovalLinks(runtime).make(
                question.execution_id,
                by=params.to,
                made_by=f"{NOTICE_TYPE} {notice}",
                is_admin=True,  # the approval itself names who is told
                lifetime=_lifetime(question),
            )
        except Conflict:
            return TaskExecutionResult.success_result(f"审批 {question.execution_id} 已结束，未通知 {params.to}")
        try:
            if params.request is not None:
                way = await _request(params.request, url, allow_private=runtime.settings.http_allow_private)
            else:
                way = _tell(db, str(params.channel), question, url, link.by, link.until)
        except (SchedulerError, *OUTBOUND_ERRORS) as error:
            return TaskExecutionResult.failure_result(
                f"通知 {params.to} 失败",
                # A receiver's answer may quote what it was sent.
                error=describe_error(error).replace(url.rpartition("/")[2], MASK),
            )
        return TaskExecutionResult.success_result(f"已通知 {params.to}: {way}")


class _Refused(SchedulerError):
    """The endpoint does not take the notice."""

    code = "notice_refused"


def _question(runtime: Runtime, execution_id: int) -> Question:
    """What the nearest approval above asks.

    Raises:
        InvalidRequest: there is none.
    """
    execution: Execution = runtime.history.get(execution_id)
    while execution.parent_id is not None:
        try:
            execution = runtime.history.get(execution.parent_id)
        except NotFound:
            break
        if execution.task_type == APPROVAL_TYPE:
            return Approvals(runtime).question(execution.id)[1]
    raise InvalidRequest.of(
        "task_type",
        Said(
            f"{NOTICE_TYPE} belongs to an approval; name it in its `notify` or `escalation`",
            f"{NOTICE_TYPE} 属于审批；请写在审批的 `notify` 或 `escalation` 中",
        ),
    )


def _lifetime(question: Question) -> timedelta:
    """As long as the question may wait; it ends with the approval at the latest."""
    seconds = question.timeout_seconds
    return LIFETIME if seconds is None else min(timedelta(seconds=seconds), LONGEST_LIFETIME)


async def _request(params: HttpRequestParams, url: str, *, allow_private: bool) -> str:
    """Send it; returns what was called.

    Raises:
        _Refused, OUTBOUND_ERRORS
    """
    filled = params.model_copy(
        update={"body": _filled(params.body, url), "json_body": _filled(params.json_body, url)}
    )
    called = f"{params.method} {presentable(params.url)}"
    answer = await send_request(filled, allow_private=allow_private)
    if not params.expects(answer.status):
        raise _Refused(f"{called} → {answer.status}")
    return f"{called} → {answer.status}"


def _filled(value: Any, url: str) -> Any:
    if isinstance(value, str):
        return value.replace(PLACEHOLDER, url)
    if isinstance(value, dict):
        return {key: _filled(item, url) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, url) for item in value]
    return value


def _tell(db: Session, name: str, question: Question, url: str, to: str, until: datetime) -> str:
    """Send the question by an alert channel; returns the channel's name.

    Raises:
        InvalidRequest: there is no such channel, or it is switched off. ChannelRefused: it did not take it.
    """
    channel = db.scalar(select(AlertChannel).where(AlertChannel.name == name))
    if channel is None or not channel.is_active:
        raise InvalidRequest.of(
            "channel",
            Said(
                f"there is no active alert channel {name!r}; make it, or name another",
                f"没有启用的告警渠道 {name!r}；请创建它，或填写另一个",
            ),
        )
    receiver, is_english = channel.url, channel.language == "en"
    db.rollback()  # nothing is held open while the receiver takes its time
    end = f"{until:%Y-%m-%d %H:%M} UTC"
    # The link first: receivers cut off what is long.
    if is_english:
        title = f"Your decision: {question.title}"
        said = f"{url}\nFor {to}, until {end}. Whoever has this link can decide: do not pass it on."
    else:
        title = f"待审批: {question.title}"
        said = f"{url}\n供 {to} 使用，至 {end} 有效。有此链接者即可决定，请勿转发。"
    send(receiver, title, f"{said}\n\n{question.details}".rstrip(), "info")
    return name
