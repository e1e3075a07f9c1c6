"""`http_request`: calls an endpoint and checks its answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from sqlalchemy.orm import Session

from app.core.config import Settings, get_settings
from app.core.language import Said
from app.core.redaction import MASK, is_secret_key
from app.executors.outbound import (
    OUTBOUND_ERRORS,
    Fetched,
    WebUrl,
    fetch,
    outbound_client,
    presentable,
    retry_after_seconds,
)
from app.scheduler.policies import RETRY_AFTER
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error

BODY_LIMIT_BYTES = 64 * 1024
_SHOWN_HEADERS = (
    *("content-type", "content-length", "date", "etag", "last-modified", "location", "retry-after"),
    *("x-request-id", "x-correlation-id"),
)
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})

HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\t\x20-\x7e]{0,4000}$")]
Status = Annotated[int, Field(ge=100, le=599)]


class HttpRequestParams(BaseModel):
    """Params of `http_request`."""

    model_config = ConfigDict(extra="forbid")

    url: WebUrl = Field(max_length=2000, description="Absolute http(s) URL.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=50)
    body: str | None = Field(default=None, max_length=1_000_000, description="Sent as UTF-8 text.")
    json_body: Any = Field(default=None, alias="json", description="Sent as JSON; instead of body.")
    expected_status: list[Status] | None = Field(
        default=None, min_length=1, description="The statuses that mean success; by default 200 to 299."
    )
    timeout_seconds: float = Field(default=30.0, gt=0, le=600, allow_inf_nan=False)
    follow_redirects: bool = True

    @field_validator("headers")
    @classmethod
    def _headers_are_free(cls, headers: dict[str, str]) -> dict[str, str]:
        taken = sorted(name for name in headers if name.lower() in _OURS)
        if taken:
            raise ValueError(
                Said(
                    f"{', '.join(taken)}: set from the URL and the body, leave it out",
                    f"{'、'.join(taken)}：由 URL 和请求体决定，请去掉",
                )
            )
        return headers

    @model_validator(mode="after")
    def _one_body(self) -> HttpRequestParams:
        if self.body is not None and self.json_body is not None:
            raise ValueError(Said("give body or json, not both", "body 与 json 只能填写其一"))
        return self

    def expects(self, status: int) -> bool:
        return 200 <= status < 300 if self.expected_status is None else status in self.expected_status


class HttpRequestExecutor(TaskExecutor):
    """Sends one request. Nothing is tried again unless the task's retry policy says so: a request need not be
    repeatable. Private addresses are refused unless HTTP_ALLOW_PRIVATE is set."""

    params_model = HttpRequestParams

    def __init__(self, settings: Settings | None = None) -> None:
        self._allow_private = (settings or get_settings()).http_allow_private

    @property
    def executor_type(self) -> str:
        return "http_request"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = HttpRequestParams.model_validate(task_params)
        called = f"{params.method} {presentable(params.url)}"
        try:
            answer = await send_request(params, allow_private=self._allow_private)
        except OUTBOUND_ERRORS as error:
            return TaskExecutionResult.failure_result(message=f"请求失败: {called}", error=describe_error(error))
        shown = _shown(answer, params.headers)
        if params.expects(answer.status):
            return TaskExecutionResult.success_result(message=f"请求成功: {called} → {answer.status}", data=shown)
        wanted = "2xx" if params.expected_status is None else ", ".join(map(str, params.expected_status))
        return TaskExecutionResult.failure_result(
            message=f"请求失败: {called} → {answer.status}",
            error=f"UnexpectedStatus: {answer.status}, expected {wanted}",
            data=shown,
            metadata={RETRY_AFTER: wait} if (wait := retry_after_seconds(answer, datetime.now(UTC))) else {},
        )


async def send_request(params: HttpRequestParams, *, allow_private: bool) -> Fetched:
    """What the endpoint answers, whatever its status; at most BODY_LIMIT_BYTES of its body.

    Raises:
        OUTBOUND_ERRORS: it cannot be reached, may not be, or does not answer in time.
    """
    async with outbound_client(allow_private=allow_private) as client:
        return await fetch(
            client,
            _request(client, params),
            limit_bytes=BODY_LIMIT_BYTES,
            timeout_seconds=params.timeout_seconds,
            follow_redirects=params.follow_redirects,
        )


def _request(client: httpx.AsyncClient, params: HttpRequestParams) -> httpx.Request:
    if params.json_body is not None:
        return client.build_request(params.method, params.url, headers=params.headers, json=params.json_body)
    content = params.body.encode("utf-8", "replace") if params.body is not None else None
    return client.build_request(params.method, params.url, headers=params.headers, content=content)


def _shown(answer: Fetched, sent: dict[str, str]) -> dict[str, Any]:
    """The answer as the history keeps it: a few headers, a bounded body, and no secret that was sent."""
    return {
        "status": answer.status,
        "url": answer.url,
        "headers": {name: answer.headers[name] for name in _SHOWN_HEADERS if name in answer.headers},
        "body": _without(answer.text, sent),
        "body_truncated": answer.truncated,
    }


def _without(text: str, sent: dict[str, str]) -> str:
    # An endpoint that echoes its request would otherwise write the credentials into the history.
    for name, value in sent.items():
        if is_secret_key(name):
            for secret in {value, value.rpartition(" ")[2]} - {""}:
                text = text.replace(secret, MASK)
    return text
